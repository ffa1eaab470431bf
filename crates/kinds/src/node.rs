//! `node.k8s.io/v1`: RuntimeClass.

use crate::{declare::Declarer, resource::Plain};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("node.k8s.io/v1", "runtimeclasses")
        .created_by_update()
        .needs_resource_version()
        .strategy(Plain);
}

//! `flowcontrol.apiserver.k8s.io/v1`: FlowSchema, PriorityLevelConfiguration.

use crate::{declare::Declarer, resource::Plain};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("flowcontrol.apiserver.k8s.io/v1", "flowschemas").tracks_spec().strategy(Plain);
    to.resource("flowcontrol.apiserver.k8s.io/v1", "prioritylevelconfigurations")
        .tracks_spec()
        .strategy(Plain);
}

//! `apiregistration.k8s.io/v1`: APIService.

use crate::{declare::Declarer, resource::Plain};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("apiregistration.k8s.io/v1", "apiservices").needs_resource_version().strategy(Plain);
}

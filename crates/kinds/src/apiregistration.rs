//! `apiregistration.k8s.io/v1`: APIService.

use crate::{
    declare::Declarer,
    resource::{NameRule, Plain},
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("apiregistration.k8s.io/v1", "apiservices")
        .needs_resource_version()
        // The core group's is named `v1.`.
        .named(NameRule::PathSegment)
        .strategy(Plain);
}

//! `storage.k8s.io/v1`: what a CSI driver and its node say and are asked.

use crate::{declare::Declarer, resource::Plain};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("storage.k8s.io/v1", "csidrivers")
        .tracks_spec()
        .returns_deleted()
        .needs_resource_version()
        .strategy(Plain);
    to.resource("storage.k8s.io/v1", "csinodes").returns_deleted().needs_resource_version().strategy(Plain);
    to.resource("storage.k8s.io/v1", "csistoragecapacities").needs_resource_version().strategy(Plain);
    to.resource("storage.k8s.io/v1", "volumeattachments")
        .returns_deleted()
        .needs_resource_version()
        .strategy(Plain);
    to.resource("storage.k8s.io/v1", "volumeattributesclasses").returns_deleted().strategy(Plain);
}

//! `storage.k8s.io/v1`: what a CSI driver and its node say and are asked.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/storage/validation`, `pkg/registry/storage/*/strategy.go`.

mod attachment;
mod attributes;
mod capacity;
mod driver;
mod node;

use crate::declare::Declarer;

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("storage.k8s.io/v1", "csidrivers")
        .counts_spec_changes()
        .returns_deleted()
        .needs_resource_version()
        .strategy(driver::CsiDriver);
    to.resource("storage.k8s.io/v1", "csinodes")
        .returns_deleted()
        .needs_resource_version()
        .behaves(|b| b.status_keeps_metadata = true)
        .strategy(node::CsiNode);
    to.resource("storage.k8s.io/v1", "csistoragecapacities")
        .needs_resource_version()
        .strategy(capacity::CsiStorageCapacity);
    to.resource("storage.k8s.io/v1", "volumeattachments")
        .returns_deleted()
        .needs_resource_version()
        .behaves(|b| b.status_keeps_metadata = true)
        .strategy(attachment::VolumeAttachment);
    to.resource("storage.k8s.io/v1", "volumeattributesclasses")
        .returns_deleted()
        .strategy(attributes::VolumeAttributesClass);
}

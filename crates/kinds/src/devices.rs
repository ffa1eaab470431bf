//! `resource.k8s.io/v1`: DeviceClass, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate, ResourceSlice.

use crate::{declare::Declarer, resource::Plain};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("resource.k8s.io/v1", "deviceclasses").tracks_spec().returns_deleted().strategy(Plain);
    to.resource("resource.k8s.io/v1", "devicetaintrules").tracks_spec().returns_deleted().strategy(Plain);
    to.resource("resource.k8s.io/v1", "resourceclaims").returns_deleted().strategy(Plain);
    to.resource("resource.k8s.io/v1", "resourceclaimtemplates").returns_deleted().strategy(Plain);
    to.resource("resource.k8s.io/v1", "resourceslices").tracks_spec().returns_deleted().strategy(Plain);
}

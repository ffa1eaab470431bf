//! `resource.k8s.io/v1`: DeviceClass, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate, ResourceSlice.
//!
//! Reading order: [`slice`] (what devices a driver has) → [`class`] (names for sorts of them) → [`claim`] (what
//! somebody wants) with [`request`] and [`status`] (what they got) → [`template`] → [`taint_rule`].
//!
//! Fields of features that v1.37 has off by default are dropped, as upstream drops them: `derivedAttributes`, lists as
//! attributes, `compatibilityGroups`, `nodeAllocatableResources`, `partitionTypeAttribute`, `skipNodeOperations`.
//! CEL expressions are parsed here, not checked for types: a wrong name shows when a device is looked for.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/resource/validation`, `pkg/registry/resource`, the `+k8s:` tags of
//! `k8s.io/api/resource/v1`.

mod capacity;
mod claim;
mod class;
mod parts;
mod request;
mod slice;
mod status;
mod taint_rule;
mod template;

use crate::declare::Declarer;

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("resource.k8s.io/v1", "deviceclasses")
        .tracks_spec()
        .returns_deleted()
        .strategy(class::DeviceClass);
    to.resource("resource.k8s.io/v1", "devicetaintrules")
        .tracks_spec()
        .needs_resource_version()
        .behaves(|b| b.status_keeps_metadata = true)
        .strategy(taint_rule::DeviceTaintRule);
    to.resource("resource.k8s.io/v1", "resourceclaims")
        .returns_deleted()
        .behaves(|b| b.status_keeps_metadata = true)
        .strategy(claim::ResourceClaim);
    to.resource("resource.k8s.io/v1", "resourceclaimtemplates")
        .returns_deleted()
        .strategy(template::ResourceClaimTemplate);
    to.resource("resource.k8s.io/v1", "resourceslices")
        .tracks_spec()
        .returns_deleted()
        .select("spec.nodeName", "")
        .select("spec.driver", "")
        .select("spec.pool.name", "")
        .strategy(slice::ResourceSlice);
}

//! resourceclaim-controller: claims of devices for pods, and who they are reserved for.
//!
//! Two loops: [`PodClaims`] makes the claims that pods have templates for, and reserves what is allocated for pods that got
//! their node without the scheduler; [`Consumers`] takes those off a claim that are done with it, gives free what nobody uses
//! any more, and deletes what was made for a pod that has ended.
//!
//! Source: `pkg/controller/resourceclaim`.

mod consumers;
mod pods;
#[cfg(test)]
mod tests;

pub use consumers::Consumers;
pub use pods::PodClaims;

use k8s_openapi::api::{
    core::v1::{Pod, PodResourceClaim},
    resource::v1::ResourceClaim,
};

use crate::{ownership, pod_state};

const NAME: &str = "resourceclaim-controller";
/// On a claim that was made for a pod: which of the pod's.
const ANNOTATION: &str = "resource.kubernetes.io/pod-claim-name";
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// Which claim a pod's is.
#[derive(Debug, PartialEq, Eq)]
enum Named<'a> {
    /// One that somebody else makes.
    Given(&'a str),
    /// The one that was made for it.
    Made(&'a str),
    /// It turned out that none is needed.
    Needless,
    /// None has been made yet.
    Unmade,
}

fn named<'a>(pod: &'a Pod, claim: &'a PodResourceClaim) -> Named<'a> {
    if let Some(name) = claim.resource_claim_name.as_deref() {
        return Named::Given(name);
    }
    let mut statuses = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
    match statuses.find(|status| status.name == claim.name) {
        Some(status) => status.resource_claim_name.as_deref().map_or(Named::Needless, Named::Made),
        None => Named::Unmade,
    }
}

fn claims(pod: &Pod) -> &[PodResourceClaim] {
    pod.spec.as_ref().and_then(|s| s.resource_claims.as_deref()).unwrap_or_default()
}

/// The names of the claims that a pod uses, and whether they have to have been made for it.
pub(crate) fn used_by(pod: &Pod) -> impl Iterator<Item = (&str, bool)> {
    claims(pod).iter().filter_map(|claim| match named(pod, claim) {
        Named::Given(name) => Some((name, false)),
        Named::Made(name) => Some((name, true)),
        Named::Needless | Named::Unmade => None,
    })
}

/// Whether a claim was made for this pod.
fn is_for(claim: &ResourceClaim, pod: &Pod) -> bool {
    let owner = ownership::controller_of(&claim.metadata).map(|owner| &owner.uid);
    owner.is_some() && owner == pod.metadata.uid.as_ref()
}

/// None of its containers runs or ever will.
fn is_done(pod: &Pod) -> bool {
    let unscheduled = pod.metadata.deletion_timestamp.is_some() && pod_state::node(pod).is_none();
    pod_state::is_terminal(pod) || unscheduled
}

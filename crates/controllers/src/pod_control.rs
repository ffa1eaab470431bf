//! Making and deleting pods, with the events that tell of it on the owner.

use k8s_openapi::api::core::v1::Pod;
use kube::Resource;

use crate::plan::{Note, Write};

/// Makes a pod of `owner`.
pub fn create<O: Resource<DynamicType = ()>>(owner: &O, pod: &Pod) -> Write {
    Write::create(pod).noted(
        Some(Note::normal(owner, "SuccessfulCreate", "Created pod: {}")),
        Some(Note::warning(owner, "FailedCreate", "Error creating: {}")),
    )
}

/// Deletes a pod of `owner`.
pub fn delete<O: Resource<DynamicType = ()>>(owner: &O, pod: &Pod) -> Write {
    Write::delete(pod).noted(
        Some(Note::normal(owner, "SuccessfulDelete", "Deleted pod: {}")),
        Some(Note::warning(owner, "FailedDelete", "Error deleting: {}")),
    )
}

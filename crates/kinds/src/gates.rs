//! Fields of features that upstream's release has switched off: what a write says of them is dropped, unless the object
//! already has them.
//!
//! Source: the `dropDisabledFields` of the strategies in `k8s.io/kubernetes/pkg/registry`.

use apimachinery::Object;

use crate::{
    object::{has, remove},
    resource::Resource,
};

/// Group, plural, place.
const OFF: [(&str, &str, &str); 4] = [
    ("", "nodes", "status.config"),
    ("", "persistentvolumeclaims", "status.healthStatus"),
    ("", "pods", "status.volumeHealth"),
    ("batch", "jobs", "spec.scheduling"),
];

/// Drops such fields from a new object, or from one that was `old`.
pub fn drop_disabled(resource: &Resource, new: &mut Object, old: Option<&Object>) {
    for (group, plural, place) in OFF {
        if (&*resource.group, &*resource.plural) == (group, plural) && !old.is_some_and(|old| has(old, place))
        {
            remove(new, place);
        }
    }
}

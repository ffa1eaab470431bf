//! All policies that have a binding, read again when a policy or a binding changes.

use std::sync::Arc;

use access::Reader as _;
use arc_swap::ArcSwapOption;
use store::Revision;

use super::{mutating::Mutating, policy::Policy, validating::Validating};
use crate::{catalogue, server::Inner};

pub(super) const GROUP: &str = "admissionregistration.k8s.io";

/// What is known of the policies. A write that follows a change of one sees it.
pub(crate) struct Policies {
    validating: Kept<Validating>,
    mutating: Kept<Mutating>,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            validating: Kept::of(["validatingadmissionpolicies", "validatingadmissionpolicybindings"]),
            mutating: Kept::of(["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"]),
        }
    }
}

impl Policies {
    /// Those that may refuse a write, in the order of their names.
    pub(super) fn validating(&self, inner: &Inner) -> Arc<[Policy<Validating>]> {
        self.validating.get(inner, Validating::of)
    }

    /// Those that may change an object, in the order of their names.
    pub(super) fn mutating(&self, inner: &Inner) -> Arc<[Policy<Mutating>]> {
        self.mutating.get(inner, Mutating::of)
    }
}

/// The policies of one kind, as of the last changes of policies and bindings.
struct Kept<T> {
    /// Policies and bindings.
    resources: [&'static str; 2],
    prefixes: [String; 2],
    seen: ArcSwapOption<Seen<T>>,
}

/// The last changes of both kinds, and the policies as of them.
type Seen<T> = ([Revision; 2], Arc<[Policy<T>]>);

impl<T> Kept<T> {
    fn of(resources: [&'static str; 2]) -> Self {
        let prefixes = resources.map(|resource| catalogue::prefix(GROUP, resource));
        Self { resources, prefixes, seen: ArcSwapOption::empty() }
    }

    fn get(&self, inner: &Inner, what: fn(&serde_json::Value) -> T) -> Arc<[Policy<T>]> {
        let changed = self.prefixes.each_ref().map(|prefix| inner.config.store.last_change(prefix));
        if let Some(seen) = &*self.seen.load()
            && seen.0 == changed
        {
            return seen.1.clone();
        }
        // The lists may be newer than `changed`; then they are read once more, for nothing.
        let [policies, bindings] = self.resources.map(|resource| inner.reader.list(GROUP, resource, ""));
        let all = policies.iter().map(|policy| Policy::of(policy, &bindings, what));
        let policies: Arc<[Policy<T>]> = all.filter(|policy| !policy.bindings.is_empty()).collect();
        self.seen.store(Some(Arc::new((changed, policies.clone()))));
        policies
    }
}

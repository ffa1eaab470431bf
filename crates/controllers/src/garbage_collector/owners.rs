//! How an owner that an object names is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

use super::waits;
use crate::{Kind, Outcome, Target, World, Write};

/// How an owner is.
#[derive(Debug, PartialEq)]
pub(super) enum Owner {
    /// It is there, or it cannot be known that it is not.
    Solid,
    /// It waits for its dependents to go.
    Waiting,
    /// It is not where the reference says, as far as is seen; ask live. `elsewhere`: its UID is in another place.
    Absent { target: Target, elsewhere: bool },
    /// A cluster-scoped object cannot name an owner in a namespace: upstream never deletes it.
    Unreachable,
}

/// The group of an `apiVersion`.
fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether a reference of `dependent` means this object. Versions of one kind are the same kind; the UID alone is not
/// trusted.
pub(super) fn means(
    reference: &OwnerReference,
    dependent: &ObjectMeta,
    kind: &Kind,
    owner: &ObjectMeta,
) -> bool {
    let place = owner.namespace.is_none() || owner.namespace == dependent.namespace;
    Some(&reference.uid) == owner.uid.as_ref()
        && Some(&reference.name) == owner.name.as_ref()
        && reference.kind == kind.kind
        && group(&reference.api_version) == kind.group
        && place
}

/// How the owner is that `dependent` names.
pub(super) fn classify(
    reference: &OwnerReference,
    dependent: &ObjectMeta,
    world: &World,
    last: &Outcome,
) -> Owner {
    let of_kind = |kind: &Kind| kind.kind == reference.kind && kind.group == group(&reference.api_version);
    // an unknown kind may be served again: keep what belongs to it
    let Some(served) = world.served().iter().find(|s| of_kind(&s.kind)) else { return Owner::Solid };
    if served.namespaced && dependent.namespace.is_none() {
        return Owner::Unreachable;
    }
    let namespace = if served.namespaced { dependent.namespace.as_deref() } else { None }.unwrap_or_default();
    let found = world.find(&served.kind, namespace, &reference.name).map(|o| o.meta());
    if let Some(meta) = found.filter(|meta| meta.uid.as_ref() == Some(&reference.uid)) {
        return if waits(meta) { Owner::Waiting } else { Owner::Solid };
    }
    let target = Target {
        kind: served.kind.clone(),
        namespace: namespace.to_owned(),
        name: reference.name.clone(),
        uid: reference.uid.clone(),
    };
    // a kind that is not watched: the server knows better than the world
    let live = |write: &Write| matches!(write, Write::RequireAbsent { target: t } if *t == target);
    if last.failures.iter().any(|f| live(&f.write)) && !served.can("watch") {
        return Owner::Solid;
    }
    Owner::Absent { target, elsewhere: world.by_uid(&reference.uid).is_some() }
}

//! The order of groups and versions in discovery, where an APIService does not say otherwise.
//!
//! Source: `cmd/kube-apiserver/app/aggregator.go`, `pkg/controlplane/apiserver/aggregator.go`.

/// Higher comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority {
    /// `groupPriorityMinimum`
    pub group: i32,
    /// `versionPriority`
    pub version: i32,
}

/// What a CustomResourceDefinition's groups and versions have.
pub const CUSTOM: Priority = Priority { group: 1000, version: 100 };
/// What metrics-server asks for its group, which this server answers itself.
pub const MEASURED: Priority = Priority { group: 100, version: 100 };
/// The group of APIServices has none and is always the first.
pub const FIRST: i32 = 20_000;

/// Group, its priority, and its versions with theirs.
type Row = (&'static str, i32, &'static [(&'static str, i32)]);
static TABLE: &[Row] = &[
    ("", 18_000, &[("v1", 1)]),
    ("apps", 17_800, &[("v1", 15)]),
    ("events.k8s.io", 17_750, &[("v1", 15), ("v1beta1", 5)]),
    ("authentication.k8s.io", 17_700, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("authorization.k8s.io", 17_600, &[("v1", 15)]),
    ("autoscaling", 17_500, &[("v2", 30), ("v1", 15), ("v2beta1", 9), ("v2beta2", 1)]),
    ("batch", 17_400, &[("v1", 15), ("v1beta1", 9), ("v2alpha1", 9)]),
    ("certificates.k8s.io", 17_300, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("networking.k8s.io", 17_200, &[("v1", 15), ("v1beta1", 9)]),
    ("policy", 17_100, &[("v1", 15), ("v1beta1", 9)]),
    ("rbac.authorization.k8s.io", 17_000, &[("v1", 15)]),
    ("storage.k8s.io", 16_800, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("apiextensions.k8s.io", 16_700, &[("v1", 15)]),
    ("admissionregistration.k8s.io", 16_700, &[("v1", 15), ("v1beta1", 12), ("v1alpha1", 9)]),
    ("scheduling.k8s.io", 16_600, &[("v1", 15), ("v1beta1", 9), ("v1alpha3", 3)]),
    ("coordination.k8s.io", 16_500, &[("v1", 15), ("v1beta1", 13), ("v1alpha2", 12)]),
    ("node.k8s.io", 16_300, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("discovery.k8s.io", 16_200, &[("v1", 15), ("v1beta1", 12)]),
    ("resource.k8s.io", 16_200, &[("v1", 21), ("v1beta2", 15), ("v1beta1", 9), ("v1alpha3", 1)]),
    (
        "flowcontrol.apiserver.k8s.io",
        16_100,
        &[("v1", 21), ("v1beta3", 18), ("v1beta2", 15), ("v1beta1", 12), ("v1alpha1", 9)],
    ),
    ("internal.apiserver.k8s.io", 16_000, &[("v1alpha1", 9)]),
    ("storagemigration.k8s.io", 15_800, &[("v1", 15), ("v1beta1", 9)]),
    ("lifecycle.k8s.io", 15_700, &[("v1alpha1", 1)]),
];

/// What upstream gives a built-in group and version; groups that it does not know have none.
#[must_use]
pub fn of(group: &str, version: &str) -> Option<Priority> {
    let (_, first, versions) = TABLE.iter().find(|(name, ..)| *name == group)?;
    let (_, second) = versions.iter().find(|(name, _)| *name == version)?;
    Some(Priority { group: *first, version: *second })
}

/// The place of a group among the others, by name alone.
#[must_use]
pub fn of_group(group: &str) -> i32 {
    if group == super::GROUP {
        return FIRST;
    }
    TABLE.iter().find(|(name, ..)| *name == group).map_or(CUSTOM.group, |(_, priority, _)| *priority)
}

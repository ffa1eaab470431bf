//! Versions of built-in kinds that are stored as another version of the same kind: the one place that says how they
//! convert.
//!
//! An engine that reads an object of such a kind converts what is stored with [`Conversion::shown`], one that writes it
//! stores what [`Conversion::stored`] makes of it. Everything else (defaults, rules, columns) is the business of the
//! [`Resource`] of each version.

use std::sync::Arc;

use apimachinery::Object;

use crate::{Resource, autoscaling_v1, events};

/// How one served version of a kind relates to the form that is stored.
#[derive(Debug)]
pub struct Conversion {
    /// Group of the served form.
    pub group: &'static str,
    /// Version of the served form.
    pub version: &'static str,
    /// `events`
    pub plural: &'static str,
    /// Group of the stored form.
    pub stored_group: &'static str,
    /// Version of the stored form.
    pub stored_version: &'static str,
    /// Makes the served form of what is stored.
    pub shown: fn(&mut Object),
    /// Makes what is stored of the served form.
    pub stored: fn(&mut Object),
}

static ALL: [Conversion; 2] = [
    Conversion {
        group: "events.k8s.io",
        version: "v1",
        plural: "events",
        stored_group: "",
        stored_version: "v1",
        shown: events::shown,
        stored: events::stored,
    },
    Conversion {
        group: "autoscaling",
        version: "v1",
        plural: "horizontalpodautoscalers",
        stored_group: "autoscaling",
        stored_version: "v2",
        shown: autoscaling_v1::shown,
        stored: autoscaling_v1::stored,
    },
];

/// How a resource converts; `None` for one that is stored as it is served.
#[must_use]
pub fn conversion(resource: &Resource) -> Option<&'static Conversion> {
    let found = |c: &&Conversion| {
        c.group == &*resource.group && c.version == &*resource.version && c.plural == &*resource.plural
    };
    ALL.iter().filter(|_| resource.builtin).find(found)
}

impl Conversion {
    /// The version that is stored.
    #[must_use]
    pub fn target(&self) -> Option<&'static Arc<Resource>> {
        crate::find(self.stored_group, self.stored_version, self.plural)
    }
}

/// The other versions of a kind in its group.
pub fn siblings(resource: &Resource) -> impl Iterator<Item = &'static Arc<Resource>> {
    let (group, plural, version) =
        (resource.group.clone(), resource.plural.clone(), resource.version.clone());
    let several = resource.builtin && ALL.iter().any(|c| c.group == &*group && c.plural == &*plural);
    crate::all()
        .iter()
        .filter(move |r| several && r.group == group && r.plural == plural && r.version != version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_versions_of_an_autoscaler_know_each_other() {
        let v2 = crate::find("autoscaling", "v2", "horizontalpodautoscalers").unwrap();
        let versions: Vec<_> = siblings(v2).map(|r| r.version.to_string()).collect();
        assert_eq!(versions, ["v1"]);
    }

    #[test]
    fn both_forms_of_a_conversion_are_served_and_only_one_is_stored() {
        for conversion in &ALL {
            let served = crate::find(conversion.group, conversion.version, conversion.plural).unwrap();
            assert!(super::conversion(served).is_some(), "{served:?}");
            let stored = crate::find(conversion.stored_group, conversion.stored_version, conversion.plural);
            assert!(super::conversion(stored.unwrap()).is_none(), "{stored:?}");
        }
    }
}

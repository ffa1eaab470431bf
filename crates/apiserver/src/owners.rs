//! Owner references that are given twice: the server keeps the first of each and says so.

use std::collections::HashSet;

use apimachinery::Object;
use serde_json::Value;

/// When references are looked at, as warnings tell it: what a patch makes of them is seen last.
#[derive(Clone, Copy)]
pub enum When {
    Sent,
    Patched,
}

/// Takes references away that are there already, as they are. The warning, if there were any.
pub fn without_duplicates(object: &mut Object, when: When) -> Option<String> {
    let references = object.get_mut("metadata")?.get_mut("ownerReferences")?.as_array_mut()?;
    let mut kept: Vec<Value> = Vec::with_capacity(references.len());
    let (mut seen, mut told) = (HashSet::new(), HashSet::new());
    let mut uids: Vec<String> = Vec::new();
    for reference in references.drain(..) {
        if seen.insert(reference.to_string()) {
            kept.push(reference);
            continue;
        }
        let uid = reference["uid"].as_str().unwrap_or_default();
        if told.insert(uid.to_owned()) {
            uids.push(uid.to_owned());
        }
    }
    *references = kept;
    (!uids.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{}; API server dedups owner references in 1.20+, and may \
             reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            match when {
                When::Sent => "",
                When::Patched => " after mutating admission happens",
            },
            uids.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_the_same_owner_given_twice_one_is_kept() {
        let (a, b) = (json!({"uid": "a", "name": "x"}), json!({"uid": "a", "name": "y"}));
        let mut object = json!({"metadata": {"ownerReferences": [a, b, a]}});
        assert!(without_duplicates(&mut object, When::Sent).unwrap().ends_with("observed: a"));
        assert_eq!(object["metadata"]["ownerReferences"], json!([a, b]));
        assert_eq!(without_duplicates(&mut object, When::Patched), None);
    }
}

//! Which names a definition gets, and the conditions that say so. In a group every name belongs to one definition.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/controller/status`, `…/establish`.

use std::collections::{BTreeSet, HashSet};

use apimachinery::{Object, time};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::object::{list, set, text};

/// The definition as it should be, given all definitions there are; `None`: it is so.
#[must_use]
pub fn accept(definition: &Object, all: &[&Object], now: DateTime<Utc>) -> Option<Object> {
    let mut new = definition.clone();
    let wanted = &definition["spec"]["names"];
    let accepted = &definition["status"]["acceptedNames"];
    if !same_names(wanted, accepted) {
        let (names, conflict) = resolve(definition, all);
        let agreed = conflict.is_none();
        let (reason, message) = conflict.unwrap_or(("NoConflicts", "no conflicts found".to_owned()));
        set(&mut new, "status.acceptedNames", names);
        set_condition(&mut new, "NamesAccepted", agreed, reason, &message, now);
        if !is_true(definition, "Established") {
            let (reason, message) = if agreed {
                ("Installing", "the initial names have been accepted")
            } else {
                ("NotAccepted", "not all names are accepted")
            };
            set_condition(&mut new, "Established", false, reason, message, now);
        }
    }
    if is_true(&new, "NamesAccepted") && !is_true(&new, "Established") {
        let (status, reason, message) = if has_bad_bundle(definition) {
            (false, "InvalidCABundle", "The conversion webhook CABundle is invalid")
        } else {
            (true, "InitialNamesAccepted", "the initial names have been accepted")
        };
        set_condition(&mut new, "Established", status, reason, message, now);
    }
    approve(&mut new, now);
    (new != *definition).then_some(new)
}

fn same_names(a: &Value, b: &Value) -> bool {
    ["plural", "singular", "kind", "listKind"].iter().all(|name| text(a, name) == text(b, name))
        && list(a, "shortNames") == list(b, "shortNames")
        && list(a, "categories") == list(b, "categories")
}

/// The names that are free or its own already, and the last conflict among the others.
fn resolve(definition: &Object, all: &[&Object]) -> (Value, Option<(&'static str, String)>) {
    let group = text(definition, "spec.group");
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for other in all.iter().filter(|other| text(other, "spec.group") == group) {
        let names = &other["status"]["acceptedNames"];
        resources.extend([text(names, "plural"), text(names, "singular")]);
        resources.extend(list(names, "shortNames").iter().filter_map(Value::as_str));
        kinds.extend([text(names, "kind"), text(names, "listKind")]);
    }
    let wanted = &definition["spec"]["names"];
    let accepted = &definition["status"]["acceptedNames"];
    let mut names = accepted.clone();
    if !names.is_object() {
        names = json!({});
    }
    let mut conflict = None;
    let taken = |name: &str| format!("{name:?} is already in use");
    for (name, used, reason) in [
        ("plural", &resources, "PluralConflict"),
        ("singular", &resources, "SingularConflict"),
        ("shortNames", &resources, "ShortNamesConflict"),
        ("kind", &kinds, "KindConflict"),
        ("listKind", &kinds, "ListKindConflict"),
    ] {
        if name == "shortNames" {
            let own: HashSet<&str> = list(accepted, name).iter().filter_map(Value::as_str).collect();
            let lost: Vec<String> = list(wanted, name)
                .iter()
                .filter_map(Value::as_str)
                .filter(|short| !own.contains(short) && used.contains(short))
                .map(taken)
                .collect();
            match lost.as_slice() {
                [] => put(&mut names, name, &wanted[name]),
                [one] => conflict = Some((reason, one.clone())),
                many => conflict = Some((reason, format!("[{}]", many.join(", ")))),
            }
            continue;
        }
        let word = text(wanted, name);
        if word != text(accepted, name) && used.contains(word) {
            conflict = Some((reason, taken(word)));
        } else {
            put(&mut names, name, &wanted[name]);
        }
    }
    put(&mut names, "categories", &wanted["categories"]);
    (names, conflict)
}

fn put(names: &mut Value, name: &str, value: &Value) {
    let Some(map) = names.as_object_mut() else { return };
    if value.is_null() {
        map.remove(name);
    } else {
        map.insert(name.to_owned(), value.clone());
    }
}

/// Groups of Kubernetes itself: who publishes an API in them has to say who approved it.
#[must_use]
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|known| group == *known || group.strip_suffix(known).is_some_and(|before| before.ends_with('.')))
}

/// The annotation that says who approved an API.
pub const APPROVED: &str = "api-approved.kubernetes.io";

/// What the annotation says: the reason of the condition, whether it is approved, and words.
#[must_use]
pub fn approval(definition: &Object) -> (&'static str, bool, String) {
    let annotation = apimachinery::meta::annotation(definition, APPROVED).unwrap_or_default();
    let url = annotation.split_once("://").is_some_and(|(scheme, rest)| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric()) && !host.is_empty()
    });
    if annotation.is_empty() {
        let words = format!(
            "protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        ("MissingAnnotation", false, words)
    } else if annotation.starts_with("unapproved") {
        ("UnapprovedAnnotation", false, format!("not approved: {annotation:?}"))
    } else if url {
        ("ApprovedAnnotation", true, format!("approved in {annotation}"))
    } else {
        let words = format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
        );
        ("InvalidAnnotation", false, words)
    }
}

fn approve(definition: &mut Object, now: DateTime<Utc>) {
    if is_protected(text(definition, "spec.group")) {
        let (reason, approved, message) = approval(definition);
        set_condition(definition, "KubernetesAPIApprovalPolicyConformant", approved, reason, &message, now);
    }
}

/// Whether the conversion webhook is to be known by authorities that nobody can read.
#[must_use]
pub fn has_bad_bundle(definition: &Object) -> bool {
    let bundle = text(definition, "spec.conversion.webhook.clientConfig.caBundle");
    !bundle.is_empty() && !is_bundle(bundle)
}

/// Whether it is the base64 of PEM with at least one certificate, or of nothing but blanks.
fn is_bundle(text: &str) -> bool {
    let Ok(pem) = STANDARD.decode(text) else { return false };
    let Ok(pem) = String::from_utf8(pem) else { return false };
    if pem.trim().is_empty() {
        return true;
    }
    let mut blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1).peekable();
    blocks.peek().is_some()
        && blocks.all(|block| {
            let Some((body, _)) = block.split_once("-----END CERTIFICATE-----") else { return false };
            let body: String = body.split_whitespace().collect();
            // A certificate is a DER sequence.
            STANDARD.decode(body).is_ok_and(|der| der.len() > 16 && der.first() == Some(&0x30))
        })
}

/// Whether a condition is there and true.
#[must_use]
pub fn is_true(definition: &Object, kind: &str) -> bool {
    list(definition, "status.conditions").iter().any(|c| c["type"] == *kind && c["status"] == "True")
}

/// Sets a condition; its time changes with its status only.
pub fn set_condition(
    definition: &mut Object,
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    now: DateTime<Utc>,
) {
    let mut conditions = list(definition, "status.conditions").to_vec();
    let status = if status { "True" } else { "False" };
    let fresh = json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": time::format_time(now),
    });
    match conditions.iter_mut().find(|c| c["type"] == *kind) {
        None => conditions.push(fresh),
        Some(old) => {
            if old["status"] != *status || old["lastTransitionTime"].is_null() {
                old["lastTransitionTime"] = fresh["lastTransitionTime"].clone();
            }
            for name in ["status", "reason", "message"] {
                old[name] = fresh[name].clone();
            }
        }
    }
    set(definition, "status.conditions", conditions);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str) -> Object {
        json!({"spec": {"group": "example.com", "names": {
            "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
        }}})
    }

    fn condition<'v>(object: &'v Value, kind: &str) -> (&'v str, &'v str) {
        let found = list(object, "status.conditions").iter().find(|c| c["type"] == *kind);
        found.map_or(("", ""), |c| (text(c, "status"), text(c, "reason")))
    }

    #[test]
    fn a_definition_with_free_names_is_established() {
        let one = definition("widgets", "Widget");
        let made = accept(&one, &[&one], DateTime::default()).unwrap();
        assert_eq!(condition(&made, "NamesAccepted"), ("True", "NoConflicts"));
        assert_eq!(condition(&made, "Established"), ("True", "InitialNamesAccepted"));
        assert_eq!(made["status"]["acceptedNames"], made["spec"]["names"]);
        assert!(accept(&made, &[&made], DateTime::default()).is_none(), "nothing more to do");
    }

    #[test]
    fn a_name_that_is_taken_keeps_a_definition_from_being_served_until_it_is_free() {
        let one = definition("widgets", "Widget");
        let one = accept(&one, &[&one], DateTime::default()).unwrap();
        let two = definition("gadgets", "Widget");
        let made = accept(&two, &[&one, &two], DateTime::default()).unwrap();
        assert_eq!(condition(&made, "NamesAccepted"), ("False", "ListKindConflict"));
        assert_eq!(condition(&made, "Established"), ("False", "NotAccepted"));
        assert_eq!(made["status"]["acceptedNames"]["plural"], "gadgets");
        let free = accept(&made, &[&made], DateTime::default()).unwrap();
        assert_eq!(condition(&free, "Established"), ("True", "InitialNamesAccepted"));
    }

    #[test]
    fn a_definition_whose_webhook_has_no_readable_authority_is_not_established() {
        let mut one = definition("widgets", "Widget");
        let with = |bundle: &str| json!({"strategy": "Webhook", "webhook": {"clientConfig": {"caBundle": STANDARD.encode(bundle)}}});
        one["spec"]["conversion"] = with("no certificate");
        let made = accept(&one, &[&one], DateTime::default()).unwrap();
        assert_eq!(condition(&made, "Established"), ("False", "InvalidCABundle"));
        let mut mended = made.clone();
        mended["spec"]["conversion"] = with(" \n");
        let made = accept(&mended, &[&mended], DateTime::default()).unwrap();
        assert_eq!(condition(&made, "Established"), ("True", "InitialNamesAccepted"));
        let certificate = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode([0x30; 40])
        );
        assert!(is_bundle(&STANDARD.encode(&certificate)));
        assert!(!is_bundle(&STANDARD.encode(certificate.replace("-----END", "END"))));
    }

    #[test]
    fn groups_of_kubernetes_itself_need_an_approval() {
        assert!(is_protected("x.k8s.io") && is_protected("k8s.io") && !is_protected("myk8s.io"));
        let said = |text: &str| {
            approval(&json!({"metadata": {"annotations": {"api-approved.kubernetes.io": text}}})).0
        };
        assert_eq!(said("https://example.com/pull/1"), "ApprovedAnnotation");
        assert_eq!(said("unapproved, a test"), "UnapprovedAnnotation");
        assert_eq!(said("yes"), "InvalidAnnotation");
        assert_eq!(said(""), "MissingAnnotation");
    }
}

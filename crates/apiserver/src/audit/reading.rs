//! A policy from its file, and what is wrong with it.
//!
//! Source: `k8s.io/apiserver/pkg/audit/policy/reader.go`, `…/apis/audit/validation`.

use std::collections::BTreeMap;

use apimachinery::{FieldError, FieldPath, decode, names};
use serde::Deserialize;
use serde_json::Value;

use super::policy::{Level, Policy, Resources, Rule, Stage, Stages};

/// What nobody has asked for, by name.
type Unknown = BTreeMap<String, Value>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PolicyFile {
    api_version: String,
    kind: String,
    #[serde(rename = "metadata")]
    _metadata: Value,
    rules: Vec<RuleFile>,
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
    #[serde(flatten)]
    unknown: Unknown,
}

impl Default for PolicyFile {
    fn default() -> Self {
        Self {
            api_version: String::new(),
            kind: String::new(),
            _metadata: Value::Null,
            rules: Vec::new(),
            omit_stages: Vec::new(),
            omit_managed_fields: false,
            unknown: Unknown::new(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuleFile {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<ResourcesFile>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourcesFile {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
    #[serde(flatten)]
    unknown: Unknown,
}

impl Policy {
    /// Reads a policy of `audit.k8s.io/v1`, YAML or JSON. Unknown fields and fields given twice are told in the log and
    /// otherwise ignored, as upstream does.
    ///
    /// # Errors
    /// What is wrong with it, for whoever wrote it: all that validation finds, else why it cannot be read at all.
    pub fn parse(text: &str) -> Result<Self, String> {
        let decode::Decoded { mut value, duplicates } =
            decode::yaml(text.as_bytes()).map_err(|error| format!("failed decoding: {}", error.message))?;
        drop_nulls(&mut value);
        let file: PolicyFile =
            serde_json::from_value(value).map_err(|error| format!("failed decoding: {error}"))?;
        if (file.api_version.as_str(), file.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!(
                "unknown group version field {}, Kind={} in policy: audit.k8s.io/v1, Kind=Policy is known",
                file.api_version, file.kind
            ));
        }
        for what in duplicates.into_iter().chain(unknown(&file)) {
            tracing::warn!(what, "the audit policy contains errors, which are ignored");
        }
        let mut errors = Vec::new();
        let root = FieldPath::root();
        let omitted = stages(&file.omit_stages, &root.child("omitStages"), &mut errors);
        let list = file.rules.into_iter().enumerate();
        let rules: Vec<Rule> =
            list.map(|(index, rule)| read(rule, &root.child("rules").index(index), &mut errors)).collect();
        match errors.as_slice() {
            [] if rules.is_empty() => Err("loaded illegal policy with 0 rules".to_owned()),
            [] => Ok(Self { rules, omitted, without_managed_fields: file.omit_managed_fields }),
            [one] => Err(one.to_string()),
            many => Err(format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))),
        }
    }
}

/// Null is absent.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn unknown(file: &PolicyFile) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |path: &str, unknown: &Unknown| {
        found.extend(unknown.keys().map(|name| format!("unknown field \"{path}{name}\"")));
    };
    note("", &file.unknown);
    for (index, rule) in file.rules.iter().enumerate() {
        note(&format!("rules[{index}]."), &rule.unknown);
        for (at, resources) in rule.resources.iter().enumerate() {
            note(&format!("rules[{index}].resources[{at}]."), &resources.unknown);
        }
    }
    found
}

fn read(file: RuleFile, path: &FieldPath, errors: &mut Vec<FieldError>) -> Rule {
    let at = path.child("level");
    let level = Level::ALL.into_iter().find(|level| level.name() == file.level);
    if file.level.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else if level.is_none() {
        errors.push(FieldError::not_supported(&at, &*file.level, &Level::ALL.map(Level::name)));
    }
    let at = path.child("nonResourceURLs");
    check_urls(&file.urls, &at, errors);
    check_resources(&file.resources, &path.child("resources"), errors);
    let omitted = stages(&file.omit_stages, &path.child("omitStages"), errors);
    let of_resources = !file.resources.is_empty() || !file.namespaces.is_empty();
    if !file.urls.is_empty() && of_resources {
        let why = "rules cannot apply to both regular resources and non-resource URLs";
        errors.push(FieldError::invalid(&at, file.urls.clone(), why));
    }
    let resources = file.resources.into_iter().map(|one| Resources {
        group: one.group,
        resources: one.resources,
        names: one.resource_names,
    });
    Rule {
        level: level.unwrap_or_default(),
        users: file.users,
        groups: file.user_groups,
        verbs: file.verbs,
        resources: resources.collect(),
        namespaces: file.namespaces,
        urls: file.urls,
        omitted,
        without_managed_fields: file.omit_managed_fields,
    }
}

fn check_urls(urls: &[String], path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, url) in urls.iter().enumerate().filter(|(_, url)| *url != "*") {
        let mut refuse = |why: &str| errors.push(FieldError::invalid(&path.index(index), url.as_str(), why));
        if !url.starts_with('/') {
            refuse("non-resource URL rules must begin with a '/' character");
        }
        if url.find('*').is_some_and(|at| at + 1 < url.len()) {
            refuse("non-resource URL wildcards '*' must be the final character of the rule");
        }
    }
}

fn check_resources(list: &[ResourcesFile], path: &FieldPath, errors: &mut Vec<FieldError>) {
    for one in list {
        if !matches!(one.group.as_str(), "" | "*") {
            let wrong = names::is_dns1123_subdomain(&one.group);
            if !wrong.is_empty() {
                errors.push(FieldError::invalid(&path.child("group"), one.group.as_str(), wrong.join(",")));
            }
        }
        if !one.resource_names.is_empty() && one.resources.is_empty() {
            let why = "using resourceNames requires at least one resource";
            errors.push(FieldError::invalid(&path.child("resourceNames"), one.resource_names.clone(), why));
        }
    }
}

fn stages(names: &[String], path: &FieldPath, errors: &mut Vec<FieldError>) -> Stages {
    let mut stages = Stages::default();
    for (index, name) in names.iter().enumerate() {
        match Stage::ALL.into_iter().find(|stage| stage.name() == name) {
            Some(stage) => stages.insert(stage),
            None => {
                let why = format!("allowed stages are {}", Stage::ALL.map(Stage::name).join(","));
                errors.push(FieldError::invalid(&path.index(index), name.as_str(), why));
            }
        }
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Policy::parse(text).unwrap_err()
    }

    fn with(rules: &str) -> String {
        refused(&format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: {rules}}}"))
    }

    #[test]
    fn all_that_is_wrong_with_a_policy_is_told() {
        assert_eq!(with("[{}]"), "rules[0].level: Required value");
        assert_eq!(
            with("[{level: Some}]"),
            "rules[0].level: Unsupported value: \"Some\": supported values: \"None\", \"Metadata\", \"Request\", \
             \"RequestResponse\""
        );
        assert_eq!(
            with("[{level: None, nonResourceURLs: [x, '/a*b']}]"),
            "[rules[0].nonResourceURLs[0]: Invalid value: \"x\": non-resource URL rules must begin with a '/' \
             character, rules[0].nonResourceURLs[1]: Invalid value: \"/a*b\": non-resource URL wildcards '*' must be \
             the final character of the rule]"
        );
        assert!(
            with("[{level: None, nonResourceURLs: [/x], namespaces: [a]}]")
                .ends_with("rules cannot apply to both regular resources and non-resource URLs")
        );
        assert!(with("[{level: None, resources: [{group: apps/v1}]}]").starts_with(
            "rules[0].resources.group: Invalid value: \"apps/v1\": a lowercase RFC 1123 subdomain"
        ));
        assert!(
            with("[{level: None, resources: [{resourceNames: [a]}]}]")
                .ends_with("using resourceNames requires at least one resource")
        );
        assert_eq!(
            with("[{level: None, omitStages: [Done]}]"),
            "rules[0].omitStages[0]: Invalid value: \"Done\": allowed stages are \
             RequestReceived,ResponseStarted,ResponseComplete,Panic"
        );
    }

    #[test]
    fn a_file_that_is_no_policy_is_refused() {
        assert_eq!(with("[]"), "loaded illegal policy with 0 rules");
        assert!(with("{}").starts_with("failed decoding: "), "a rule list that is none");
        assert!(refused("a: [").starts_with("failed decoding: yaml: "));
        assert!(
            refused("{apiVersion: audit.k8s.io/v1beta1, kind: Policy, rules: [{level: None}]}")
                .starts_with("unknown group version field audit.k8s.io/v1beta1, Kind=Policy in policy")
        );
        assert!(refused("").starts_with("failed decoding: "), "an empty file");
    }

    #[test]
    fn what_is_unknown_or_null_does_no_harm() {
        let text = "{apiVersion: audit.k8s.io/v1, kind: Policy, metadata: {name: x}, extra: 1, omitStages: null, rules: \
                    [{level: Metadata, users: null, color: red}]}";
        assert_eq!(Policy::parse(text).unwrap().rules.len(), 1);
    }
}

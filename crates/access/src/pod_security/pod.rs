//! A pod as the checks see it, and the words they share.

use std::collections::BTreeSet;

use serde_json::Value;

/// A pod, or a template of pods.
#[derive(Clone, Copy)]
pub struct Pod<'p> {
    /// `metadata.annotations`
    pub annotations: &'p Value,
    /// `spec`
    pub spec: &'p Value,
}

impl<'p> Pod<'p> {
    /// Of an object or a template with `metadata` and `spec`.
    pub fn of(object: &'p Value) -> Self {
        Self { annotations: &object["metadata"]["annotations"], spec: &object["spec"] }
    }

    /// All containers: first those that begin, then those that run, then those that came later.
    pub fn containers(self) -> impl Iterator<Item = &'p Value> {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |field| self.spec[field].as_array().into_iter().flatten())
    }

    /// The names of the containers that are as `is` says.
    pub fn named(self, is: impl Fn(&Value) -> bool) -> Vec<&'p str> {
        self.containers().filter(|container| is(container)).map(name).collect()
    }

    /// The pod has users of its own, who are nobody on the host.
    pub fn has_own_users(self) -> bool {
        self.spec["hostUsers"] == false
    }

    /// A pod of Windows, which has none of Linux' means of protection.
    pub fn is_windows(self) -> bool {
        self.spec["os"]["name"] == "windows"
    }
}

/// The name of a container or a volume.
pub fn name(item: &Value) -> &str {
    item["name"].as_str().unwrap_or_default()
}

/// `"a", "b"`
pub fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect();
    all.join(", ")
}

/// `container "a"`, `containers "a", "b"`
pub fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// One of the two words.
pub fn plural<'w>(one: &'w str, many: &'w str, count: usize) -> &'w str {
    if count == 1 { one } else { many }
}

/// Who has set something wrong, the pod or its containers: `pod and containers "a", "b"`; empty if nobody has.
pub fn setters(pod: bool, names: &[&str]) -> String {
    let mut all: Vec<String> = pod.then(|| "pod".to_owned()).into_iter().collect();
    if !names.is_empty() {
        all.push(containers(names));
    }
    all.join(" and ")
}

/// The texts at a field of a list of values, each once, in order.
pub fn distinct<'v>(values: impl Iterator<Item = &'v Value>) -> BTreeSet<&'v str> {
    values.filter_map(Value::as_str).collect()
}

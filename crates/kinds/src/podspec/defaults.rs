//! Defaults of a PodSpec that depend on other fields.

use serde_json::{Value, json};

use crate::object::{at, at_mut, fill, flag, has, items_mut, list, map_mut, number, set, text};

/// `Always` for `:latest` (also where no tag and no digest is named), else `IfNotPresent`; the latter also for a
/// reference that cannot be read.
fn image_pull_policy(image: &str) -> &'static str {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    let (repository, tag) = match rest.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (rest, None),
    };
    // The first part may be a registry's host, which may have capitals and a port.
    let path = match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => repository,
    };
    let readable = !path.is_empty()
        && path.split('/').all(|part| !part.is_empty())
        && path.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/".contains(&b));
    match (readable, tag, digest) {
        (true, Some("latest"), _) | (true, None, None) => "Always",
        _ => "IfNotPresent",
    }
}

/// The spec of any PodTemplateSpec at `spec_path` of the object.
pub fn default_template(object: &mut Value, spec_path: &str) {
    if let Some(spec) = at_mut(object, spec_path) {
        default_spec(spec);
    }
}

fn default_spec(spec: &mut Value) {
    // `serviceAccount` is the old name of `serviceAccountName`; the new one wins.
    let account = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount").to_owned(),
        name => name.to_owned(),
    };
    if !account.is_empty() {
        set(spec, "serviceAccountName", account.as_str());
        set(spec, "serviceAccount", account);
    }
    for volume in items_mut(spec, "volumes") {
        if let Some(fields) = volume.as_object_mut()
            && fields.iter().all(|(name, value)| name == "name" || value.is_null())
        {
            fields.insert("emptyDir".to_owned(), json!({}));
        }
        if let Some(image) = at_mut(volume, "image") {
            let policy = image_pull_policy(text(image, "reference"));
            fill(image, "pullPolicy", policy);
        }
    }
    for group in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items_mut(spec, group) {
            let policy = image_pull_policy(text(container, "image"));
            fill(container, "imagePullPolicy", policy);
        }
    }
}

/// A pod: its spec, and what upstream defaults in pods but not in templates.
pub fn default_pod(pod: &mut Value) {
    default_pod_ips(pod);
    let Some(spec) = at_mut(pod, "spec") else { return };
    default_spec(spec);
    if number(spec, "terminationGracePeriodSeconds") < 0 {
        set(spec, "terminationGracePeriodSeconds", 1);
    }
    if !has(spec, "enableServiceLinks") {
        set(spec, "enableServiceLinks", true);
    }
    let host_network = flag(spec, "hostNetwork");
    for group in ["initContainers", "containers"] {
        for container in items_mut(spec, group) {
            requests_from_limits(container);
            if host_network {
                for port in items_mut(container, "ports") {
                    if number(port, "hostPort") == 0 {
                        let same = number(port, "containerPort");
                        set(port, "hostPort", same);
                    }
                }
            }
        }
    }
}

fn requests_from_limits(container: &mut Value) {
    let limits = at(container, "resources.limits").clone();
    let Value::Object(limits) = limits else { return };
    if let Some(requests) = map_mut(container, "resources.requests") {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

/// `podIP` is the first of `podIPs`; where they differ `podIP` is right.
fn default_pod_ips(pod: &mut Value) {
    let ip = text(pod, "status.podIP").to_owned();
    let first = list(pod, "status.podIPs").first().map(|first| text(first, "ip").to_owned());
    match (ip.is_empty(), first) {
        (true, Some(first)) => set(pod, "status.podIP", first),
        (false, first) if first.as_ref() != Some(&ip) => set(pod, "status.podIPs", json!([{"ip": ip}])),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_latest_is_always_pulled() {
        for (image, policy) in [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1.36", "IfNotPresent"),
            ("localhost:5000/shop/web", "Always"),
            ("localhost:5000/shop/web:2", "IfNotPresent"),
            (
                "busybox@sha256:0123456789012345678901234567890123456789012345678901234567890123",
                "IfNotPresent",
            ),
            ("Not A Reference", "IfNotPresent"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(image_pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_volume_without_a_source_is_an_empty_dir() {
        let mut pod =
            json!({"spec": {"volumes": [{"name": "a"}, {"name": "b", "secret": {}}], "containers": []}});
        default_pod(&mut pod);
        assert_eq!(
            pod["spec"]["volumes"],
            json!([{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {}}])
        );
    }

    #[test]
    fn requests_come_from_limits_in_pods_but_not_in_templates() {
        let spec =
            json!({"containers": [{"name": "a", "image": "x:1", "resources": {"limits": {"cpu": "1"}}}]});
        let mut pod = json!({ "spec": spec });
        default_pod(&mut pod);
        assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "1"}));
        let mut template = json!({ "spec": spec });
        default_template(&mut template, "spec");
        assert_eq!(template["spec"]["containers"][0]["resources"], json!({"limits": {"cpu": "1"}}));
    }
}

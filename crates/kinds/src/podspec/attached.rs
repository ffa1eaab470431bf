//! Volumes that come from outside the cluster: what each source has to say, in pods and in PersistentVolumes.
//!
//! Source: the functions `validate…VolumeSource` in `k8s.io/kubernetes/pkg/apis/core/validation`.

use std::sync::LazyLock;

use apimachinery::{FieldError, FieldPath};
use regex::Regex;
use serde_json::Value;

use super::volumes;
use crate::{
    checks::Checks,
    object::{at, entries, flag, has, list, number, text},
};

/// Who has the source: a PersistentVolume is named, and names the namespaces of its secrets.
#[derive(Clone, Copy)]
pub enum Owner<'a> {
    /// A volume of a pod.
    Pod,
    /// The PersistentVolume of this name.
    Volume(&'a str),
}

impl Owner<'_> {
    fn is_volume(self) -> bool {
        matches!(self, Self::Volume(_))
    }
}

/// What errors call a source when there is another one before it.
#[must_use]
pub fn spare_name(name: &str) -> &str {
    match name {
        "cephfs" => "cephFS",
        // Upstream's spelling.
        "downwardAPI" => "downwarAPI",
        other => other,
    }
}

/// The source `name` of a volume. `outer` is the volume's path.
pub fn check(checks: &mut Checks, name: &str, source: &Value, outer: &FieldPath, owner: Owner<'_>) {
    let path = &outer.child(name);
    let fields: &[&str] = match name {
        "glusterfs" => &["endpoints", "path"],
        "cinder" => &["volumeID"],
        "azureFile" => &["secretName", "shareName"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "portworxVolume" => &["volumeID"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        "gitRepo" => &["repository"],
        "flexVolume" => &["driver"],
        "azureDisk" => &["diskName", "diskURI"],
        _ => &[],
    };
    needs(checks, source, fields, path);
    match name {
        "gcePersistentDisk" => check_disk(checks, source, "pdName", &outer.child("persistentDisk")),
        "awsElasticBlockStore" => check_disk(checks, source, "volumeID", path),
        "nfs" => check_nfs(checks, source, path),
        "iscsi" => check_iscsi(checks, source, path, owner),
        "glusterfs" if owner.is_volume() => {
            if let Some(namespace) = at(source, "endpointsNamespace").as_str() {
                let path = path.child("endpointsNamespace");
                if namespace.is_empty() {
                    let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                    checks.invalid(&path, namespace, detail);
                } else {
                    checks.dns_label(&path, namespace);
                }
            }
        }
        "flocker" => check_flocker(checks, source, path),
        "rbd" => {
            if list(source, "monitors").is_empty() {
                checks.required(&path.child("monitors"), "");
            }
            needs(checks, source, &["image"], path);
        }
        "cephfs" if list(source, "monitors").is_empty() => checks.required(&path.child("monitors"), ""),
        "cinder" => check_secret(checks, source, path, owner),
        "quobyte" => check_quobyte(checks, source, path),
        "fc" => check_fibre(checks, source, path),
        "flexVolume" => check_options(checks, source, path),
        "azureFile" if owner.is_volume() && at(source, "secretNamespace") == "" => {
            checks.required(&path.child("secretNamespace"), "");
        }
        "azureDisk" => check_azure_disk(checks, source, path),
        "storageos" => {
            match text(source, "volumeName") {
                "" => checks.required(&path.child("volumeName"), ""),
                name => checks.dns_label(&path.child("volumeName"), name),
            }
            let namespace = text(source, "volumeNamespace");
            if !namespace.is_empty() {
                checks.dns_label(&path.child("volumeNamespace"), namespace);
            }
            check_secret(checks, source, path, owner);
        }
        "gitRepo" => volumes::below(checks, text(source, "directory"), &path.child("directory")),
        _ => {}
    }
}

fn needs(checks: &mut Checks, source: &Value, fields: &[&str], path: &FieldPath) {
    for field in fields {
        if text(source, field).is_empty() {
            checks.required(&path.child(field), "");
        }
    }
}

fn check_secret(checks: &mut Checks, source: &Value, path: &FieldPath, owner: Owner<'_>) {
    let secret = at(source, "secretRef");
    if !secret.is_null() {
        let fields: &[&str] = if owner.is_volume() { &["name", "namespace"] } else { &["name"] };
        needs(checks, secret, fields, &path.child("secretRef"));
    }
}

fn check_disk(checks: &mut Checks, source: &Value, name: &str, path: &FieldPath) {
    needs(checks, source, &[name], path);
    within(
        checks,
        number(source, "partition"),
        (0, 255),
        "must be between 1 and 255, inclusive",
        &path.child("partition"),
    );
}

fn within(checks: &mut Checks, value: i64, (least, most): (i64, i64), detail: &str, path: &FieldPath) {
    if !(least..=most).contains(&value) {
        checks.invalid(path, value, detail);
    }
}

fn check_nfs(checks: &mut Checks, source: &Value, path: &FieldPath) {
    needs(checks, source, &["server", "path"], path);
    if !text(source, "path").starts_with('/') {
        checks.invalid(&path.child("path"), text(source, "path"), "must be an absolute path");
    }
}

/// The names of iSCSI nodes, RFC 3720, as upstream reads them.
static NAMES: LazyLock<[(&str, Option<Regex>); 3]> = LazyLock::new(|| {
    [
        ("iqn", Regex::new(r"iqn\.\d{4}-\d{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$").ok()),
        ("eui", Regex::new(r"^eui.[[:alnum:]]{16}$").ok()),
        ("naa", Regex::new(r"^naa.[[:alnum:]]{32}$").ok()),
    ]
});

fn check_node_name(checks: &mut Checks, name: &str, path: &FieldPath, owner: Owner<'_>) {
    match NAMES.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        Some((_, form)) if form.as_ref().is_none_or(|form| form.is_match(name)) => {}
        None if !owner.is_volume() => {
            checks.invalid(path, name, "must be valid format starting with iqn, eui, or naa");
        }
        _ => checks.invalid(path, name, "must be valid format"),
    }
}

fn check_iscsi(checks: &mut Checks, source: &Value, path: &FieldPath, owner: Owner<'_>) {
    let initiator = at(source, "initiatorName").as_str();
    let portal = text(source, "targetPortal");
    needs(checks, source, &["targetPortal"], path);
    if let Owner::Volume(name) = owner
        && initiator.is_some()
        && name.len() + 1 + portal.len() > 64
    {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        checks.invalid(&path.child("targetportal"), portal, detail);
    }
    match text(source, "iqn") {
        "" => checks.required(&path.child("iqn"), ""),
        name => check_node_name(checks, name, &path.child("iqn"), owner),
    }
    within(
        checks,
        number(source, "lun"),
        (0, 255),
        "must be between 0 and 255, inclusive",
        &path.child("lun"),
    );
    let secret = at(source, "secretRef");
    if (flag(source, "chapAuthDiscovery") || flag(source, "chapAuthSession")) && secret.is_null() {
        checks.required(&path.child("secretRef"), "");
    }
    if owner.is_volume() && !secret.is_null() {
        needs(checks, secret, &["name"], &path.child("secretRef"));
    }
    if let Some(name) = initiator {
        check_node_name(checks, name, &path.child("initiatorname"), owner);
    }
}

fn check_flocker(checks: &mut Checks, source: &Value, path: &FieldPath) {
    let (name, uuid) = (text(source, "datasetName"), text(source, "datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        checks.required(path, "one of datasetName and datasetUUID is required");
    }
    if !name.is_empty() && !uuid.is_empty() {
        checks.invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously");
    }
    if name.contains('/') {
        checks.invalid(&path.child("datasetName"), name, "must not contain '/'");
    }
}

fn check_quobyte(checks: &mut Checks, source: &Value, path: &FieldPath) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = text(source, "registry");
    if registry.is_empty() {
        checks.required(&path.child("registry"), PAIRS);
    } else if text(source, "tenant").len() > 64 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        checks.required(&path.child("tenant"), detail);
    } else {
        for _ in registry.split(',').filter(|pair| !is_host_port(pair)) {
            checks.invalid(&path.child("registry"), registry, PAIRS);
        }
    }
    needs(checks, source, &["volume"], path);
}

/// Whether a text has a host and a port, divided as Go's `net.SplitHostPort` does: a host with colons is in brackets.
fn is_host_port(pair: &str) -> bool {
    let Some((host, port)) = pair.rsplit_once(':') else { return false };
    let bare = |text: &str| !text.contains(['[', ']']);
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => bare(inner) && bare(port),
        None => bare(host) && bare(port) && !host.contains(':'),
    }
}

fn check_fibre(checks: &mut Checks, source: &Value, path: &FieldPath) {
    let (names, ids) = (list(source, "targetWWNs"), list(source, "wwids"));
    let at_names = path.child("targetWWNs");
    if names.is_empty() && ids.is_empty() {
        checks.required(&at_names, "must specify either targetWWNs or wwids, but not both");
    }
    if !names.is_empty() && !ids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        checks.invalid(&at_names, names.to_vec(), detail);
    }
    if !names.is_empty() {
        match at(source, "lun").as_i64() {
            None => checks.required(&path.child("lun"), "lun is required if targetWWNs is specified"),
            Some(lun) => {
                within(checks, lun, (0, 255), "must be between 0 and 255, inclusive", &path.child("lun"))
            }
        }
    }
}

fn check_options(checks: &mut Checks, source: &Value, path: &FieldPath) {
    for (key, _) in entries(source, "options") {
        let key = key.as_str();
        let namespace = key.split_once('/').map_or(key, |(namespace, _)| namespace);
        let namespace = format!(".{}", namespace.to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            checks.invalid(&path.child("options").key(key), key, detail);
        }
    }
}

fn check_azure_disk(checks: &mut Checks, source: &Value, path: &FieldPath) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    if let Some(mode) = at(source, "cachingMode").as_str() {
        checks.one_of(&path.child("cachingMode"), mode, &["None", "ReadOnly", "ReadWrite"]);
    }
    let Some(kind) = at(source, "kind").as_str() else { return };
    checks.one_of(&path.child("kind"), kind, &["Dedicated", "Managed", "Shared"]);
    let uri = text(source, "diskURI");
    let (prefix, form) = if kind == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
    if !uri.starts_with(prefix) {
        checks.errors.push(FieldError::not_supported(&path.child("diskURI"), uri, &[form]));
    }
}

/// A secret that a CSI volume names.
pub fn check_csi_secrets(checks: &mut Checks, source: &Value, path: &FieldPath) {
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        if !has(source, field) {
            continue;
        }
        let (secret, path) = (at(source, field), path.child(field));
        match text(secret, "name") {
            "" => checks.required(&path.child("name"), ""),
            name => checks.dns_subdomain(&path.child("name"), name),
        }
        match text(secret, "namespace") {
            "" => checks.required(&path.child("namespace"), ""),
            namespace => checks.dns_label(&path.child("namespace"), namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(name: &str, source: &Value, owner: Owner<'_>) -> Vec<String> {
        let errors = Checks::run(|checks| check(checks, name, source, &FieldPath::from("v"), owner));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_source_says_what_it_needs_in_upstreams_words() {
        assert_eq!(
            found("rbd", &json!({}), Owner::Pod),
            ["v.rbd.monitors: Required value", "v.rbd.image: Required value"]
        );
        assert_eq!(
            found("gcePersistentDisk", &json!({"partition": 300}), Owner::Pod),
            [
                "v.persistentDisk.pdName: Required value",
                "v.persistentDisk.partition: Invalid value: 300: must be between 1 and 255, inclusive"
            ]
        );
        let words = "v.quobyte.registry: Invalid value: \"a,b:1\": must be a host:port pair or multiple pairs separated by commas";
        assert_eq!(found("quobyte", &json!({"registry": "a,b:1", "volume": "v"}), Owner::Pod), [words]);
    }

    #[test]
    fn names_of_iscsi_nodes_are_told_apart_by_their_owner() {
        let source = json!({"targetPortal": "p", "iqn": "web", "lun": 1});
        assert_eq!(
            found("iscsi", &source, Owner::Pod),
            ["v.iscsi.iqn: Invalid value: \"web\": must be valid format starting with iqn, eui, or naa"]
        );
        assert_eq!(
            found("iscsi", &source, Owner::Volume("pv")),
            ["v.iscsi.iqn: Invalid value: \"web\": must be valid format"]
        );
        let source = json!({"targetPortal": "p", "iqn": "iqn.2003-01.com.example:disk"});
        assert!(found("iscsi", &source, Owner::Pod).is_empty());
    }

    #[test]
    fn hosts_and_ports_are_divided_as_go_divides_them() {
        for right in ["a:1", ":", "[::1]:2", "a:"] {
            assert!(is_host_port(right), "{right}");
        }
        for wrong in ["a", "::1:2", "[::1]", "[a:1", "a]:1"] {
            assert!(!is_host_port(wrong), "{wrong}");
        }
    }
}

//! The environment of a container: sources, references, service variables, `$(NAME)` expansion, the downward API.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, ResourceFieldSelector, Secret, Service};

use crate::{
    quantity, resources,
    spec::{self, identity},
};

/// What values are read from.
pub struct Sources<'a> {
    /// ConfigMaps by name, `None` for those that do not exist.
    pub config_maps: &'a BTreeMap<String, Option<ConfigMap>>,
    /// Secrets by name, `None` for those that do not exist.
    pub secrets: &'a BTreeMap<String, Option<Secret>>,
    /// Services of the cluster.
    pub services: &'a [Service],
    /// Facts of the node and the pod.
    pub facts: Facts<'a>,
}

/// What the downward API tells beside the pod itself.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The node's name.
    pub node_name: &'a str,
    /// The node's address.
    pub host_ip: &'a str,
    /// The pod's addresses.
    pub pod_ips: &'a [String],
    /// What a container may use where it has no limit: milli-CPU, bytes.
    pub allocatable: &'a BTreeMap<String, i64>,
}

/// Why an environment cannot be made: a `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum EnvError {
    /// A ConfigMap or Secret is not there.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A key is not there.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field or resource that the downward API does not have.
    #[error("unsupported field or resource: {0}")]
    Unsupported(String),
}

/// Names of ConfigMaps and Secrets that the environment of a container needs.
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (vec![], vec![]);
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    (maps, secrets)
}

/// The environment of `container`, in order; later entries win over earlier ones of the same name.
pub fn environment(
    pod: &Pod,
    container: &Container,
    from: &Sources<'_>,
) -> Result<Vec<(String, String)>, EnvError> {
    let namespace = identity(pod).0;
    let links = spec::spec(pod).enable_service_links.unwrap_or(true);
    let services = service_variables(from.services, namespace, links);
    let mut result: Vec<(String, String)> = vec![];
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut pairs: BTreeMap<String, String> = BTreeMap::new();
        if let Some(r) = &source.config_map_ref {
            match from.config_maps.get(&r.name).and_then(Option::as_ref) {
                Some(map) => pairs.extend(map.data.clone().unwrap_or_default()),
                None if r.optional == Some(true) => {}
                None => return Err(EnvError::NotFound { kind: "configmap", name: r.name.clone() }),
            }
        }
        if let Some(r) = &source.secret_ref {
            match from.secrets.get(&r.name).and_then(Option::as_ref) {
                Some(secret) => pairs.extend(
                    secret
                        .data
                        .iter()
                        .flatten()
                        .map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned())),
                ),
                None if r.optional == Some(true) => {}
                None => return Err(EnvError::NotFound { kind: "secret", name: r.name.clone() }),
            }
        }
        for (key, value) in pairs {
            let name = format!("{prefix}{key}");
            known.insert(name.clone(), value.clone());
            result.push((name, value));
        }
    }
    for env in container.env.iter().flatten() {
        let value = match (&env.value, &env.value_from) {
            (_, None) => Some(expand(env.value.as_deref().unwrap_or_default(), |n| {
                known.get(n).or_else(|| services.get(n)).cloned()
            })),
            (_, Some(source)) => {
                if let Some(f) = &source.field_ref {
                    Some(field(pod, &f.field_path, &from.facts)?)
                } else if let Some(r) = &source.resource_field_ref {
                    Some(resource(pod, &container.name, r, &from.facts)?)
                } else if let Some(r) = &source.config_map_key_ref {
                    let map = from.config_maps.get(&r.name).and_then(Option::as_ref);
                    let value = map.and_then(|m| m.data.as_ref()?.get(&r.key).cloned());
                    keyed(
                        value,
                        map.is_some(),
                        r.optional,
                        ("configmap", "ConfigMap"),
                        namespace,
                        &r.name,
                        &r.key,
                    )?
                } else if let Some(r) = &source.secret_key_ref {
                    let secret = from.secrets.get(&r.name).and_then(Option::as_ref);
                    let value = secret.and_then(|s| s.data.as_ref()?.get(&r.key));
                    let value = value.map(|v| String::from_utf8_lossy(&v.0).into_owned());
                    keyed(
                        value,
                        secret.is_some(),
                        r.optional,
                        ("secret", "Secret"),
                        namespace,
                        &r.name,
                        &r.key,
                    )?
                } else {
                    return Err(EnvError::Unsupported("fileKeyRef".into()));
                }
            }
        };
        if let Some(value) = value {
            known.insert(env.name.clone(), value.clone());
            result.push((env.name.clone(), value));
        }
    }
    for (name, value) in services {
        if !known.contains_key(&name) {
            result.push((name, value));
        }
    }
    Ok(result)
}

fn keyed(
    value: Option<String>,
    exists: bool,
    optional: Option<bool>,
    kinds: (&'static str, &'static str),
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Option<String>, EnvError> {
    match value {
        None if optional == Some(true) => Ok(None),
        None if !exists => Err(EnvError::NotFound { kind: kinds.0, name: name.to_owned() }),
        None => Err(EnvError::NoKey {
            kind: kinds.1,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
        }),
        some => Ok(some),
    }
}

/// Replaces `$(NAME)` where the name is known; `$$` is an escaped dollar.
pub fn expand(text: &str, known: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match known(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Docker-link style variables of the services in the pod's namespace; the API server's is always there.
pub fn service_variables(services: &[Service], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for service in services {
        let meta = &service.metadata;
        let (Some(name), Some(spec)) = (meta.name.as_deref(), service.spec.as_ref()) else { continue };
        let ns = meta.namespace.as_deref().unwrap_or_default();
        let master = ns == "default" && name == "kubernetes";
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        if !(master || (links && ns == namespace))
            || (master && ns != namespace && out.contains_key("KUBERNETES_SERVICE_HOST"))
        {
            continue;
        }
        let up = name.to_uppercase().replace(['-', '.'], "_");
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        out.insert(format!("{up}_SERVICE_HOST"), ip.to_owned());
        out.insert(format!("{up}_SERVICE_PORT"), first.port.to_string());
        let protocol = |p: Option<&str>| p.unwrap_or("TCP").to_lowercase();
        out.insert(
            format!("{up}_PORT"),
            format!("{}://{host}:{}", protocol(first.protocol.as_deref()), first.port),
        );
        for p in ports {
            if let Some(port_name) = p.name.as_deref().filter(|n| !n.is_empty()) {
                let key = format!("{up}_SERVICE_PORT_{}", port_name.to_uppercase().replace('-', "_"));
                out.insert(key, p.port.to_string());
            }
            let proto = protocol(p.protocol.as_deref());
            let prefix = format!("{up}_PORT_{}_{}", p.port, proto.to_uppercase());
            out.insert(prefix.clone(), format!("{proto}://{host}:{}", p.port));
            out.insert(format!("{prefix}_PROTO"), proto);
            out.insert(format!("{prefix}_PORT"), p.port.to_string());
            out.insert(format!("{prefix}_ADDR"), ip.to_owned());
        }
    }
    out
}

/// A field of the pod, as the downward API gives it.
pub fn field(pod: &Pod, path: &str, facts: &Facts<'_>) -> Result<String, EnvError> {
    let meta = &pod.metadata;
    let listed = |map: &Option<BTreeMap<String, String>>| {
        let lines: Vec<String> = map.iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
        lines.join("\n")
    };
    let keyed = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default()
    };
    if let Some((base, key)) = path.strip_suffix(']').and_then(|p| p.split_once('[')) {
        let key = key.trim_matches(['\'', '"']);
        match base {
            "metadata.labels" => return Ok(keyed(&meta.labels, key)),
            "metadata.annotations" => return Ok(keyed(&meta.annotations, key)),
            _ => {}
        }
    }
    let spec = spec::spec(pod);
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => listed(&meta.labels),
        "metadata.annotations" => listed(&meta.annotations),
        "spec.nodeName" => facts.node_name.to_owned(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_owned(),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        other => return Err(EnvError::Unsupported(other.to_owned())),
    })
}

/// A container's resource in units of its divisor, rounded up; the node's where it has no limit.
pub fn resource(
    pod: &Pod,
    own: &str,
    selector: &ResourceFieldSelector,
    facts: &Facts<'_>,
) -> Result<String, EnvError> {
    let spec = spec::spec(pod);
    let name = selector.container_name.as_deref().filter(|n| !n.is_empty()).unwrap_or(own);
    let unsupported = || EnvError::Unsupported(selector.resource.clone());
    let part = spec::part(&spec, name).ok_or_else(unsupported)?;
    let (list, what) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let amount = match list {
        "limits" => resources::limit(&part.container, what)
            .unwrap_or_else(|| facts.allocatable.get(what).copied().unwrap_or(0)),
        "requests" => resources::request(&part.container, what).unwrap_or(0),
        _ => return Err(unsupported()),
    };
    // the API's zero value of a divisor, "0", means 1
    let divisor = selector.divisor.as_ref().and_then(|d| quantity::amount(what, d)).filter(|d| *d > 0);
    let divisor = divisor.unwrap_or(if what == "cpu" { 1000 } else { 1 });
    Ok(amount.saturating_add(divisor - 1).div_euclid(divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_expand_where_known_and_double_dollars_escape() {
        let known = |n: &str| (n == "A").then(|| "1".to_owned());
        for (text, want) in [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A$", "$A$"),
            ("x$(A", "x$(A"),
            ("$$$(A)", "$1"),
        ] {
            assert_eq!(expand(text, known), want, "{text}");
        }
    }

    #[test]
    fn the_environment_keeps_upstreams_order_and_precedence() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}},
                "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}],
                "env": [
                    {"name": "X", "value": "$(P_k)-$(DB_SERVICE_HOST)"},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                    {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                    {"name": "O", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}}]}]}
        }))
        .unwrap();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "ns"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 5432, "name": "pg"}]}
        }))
        .unwrap();
        let maps = BTreeMap::from([(
            "m".to_owned(),
            Some(serde_json::from_value(json!({"data": {"k": "v"}})).unwrap()),
        )]);
        let allocatable = BTreeMap::from([("memory".to_owned(), 64 << 20)]);
        let from = Sources {
            config_maps: &maps,
            secrets: &BTreeMap::new(),
            services: &[service],
            facts: Facts {
                node_name: "n",
                host_ip: "1.1.1.1",
                pod_ips: &["10.0.0.2".into()],
                allocatable: &allocatable,
            },
        };
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let env = environment(&pod, container, &from).unwrap();
        let text: Vec<String> = env.iter().take(6).map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text, ["P_k=v", "X=v-10.96.0.7", "IP=10.0.0.2", "L=b", "CPU=2", "MEM=64"]);
        let all: BTreeMap<_, _> = env.into_iter().collect();
        assert_eq!(all["DB_PORT_5432_TCP"], "tcp://10.96.0.7:5432");
        assert_eq!(all["DB_SERVICE_PORT_PG"], "5432");
    }

    #[test]
    fn a_missing_source_is_an_error_unless_it_is_optional() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "m"}}]}))
                .unwrap();
        let (none, nothing, allocatable) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let facts = Facts { node_name: "", host_ip: "", pod_ips: &[], allocatable: &allocatable };
        let from = Sources { config_maps: &none, secrets: &nothing, services: &[], facts };
        let error = environment(&Pod::default(), &container, &from).unwrap_err();
        assert_eq!(error.to_string(), "configmap \"m\" not found");
    }
}

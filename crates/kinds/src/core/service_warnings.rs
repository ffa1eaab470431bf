//! What a Service is warned for: fields that are ignored or deprecated.
//!
//! Source: `k8s.io/kubernetes/pkg/api/service/warnings.go`.

use serde_json::Value;

use crate::{
    checks::path,
    object::{at, list, text},
    warnings,
};

/// What a Service is warned for.
pub fn all(service: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if at(service, "metadata.annotations").get("service.kubernetes.io/topology-aware-hints").is_some() {
        found.push(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead"
                .to_owned(),
        );
    }
    let (spec, path) = (at(service, "spec"), path("spec"));
    let addresses = |found: &mut Vec<String>, field: &str| {
        for (index, ip) in list(spec, field).iter().enumerate() {
            warnings::ip(found, &path.child(field).index(index), ip.as_str().unwrap_or_default());
        }
    };
    let (kind, cluster_ip) = (text(spec, "type"), text(spec, "clusterIP"));
    let headless = kind == "ClusterIP" && cluster_ip == "None";
    let external = !list(spec, "externalIPs").is_empty();
    if !cluster_ip.is_empty() && cluster_ip != "None" {
        addresses(&mut found, "clusterIPs");
    }
    let mut say = |is: bool, words: &str| {
        if is {
            found.push(words.to_owned());
        }
    };
    say(
        headless && !text(spec, "loadBalancerIP").is_empty(),
        "spec.loadBalancerIP is ignored for headless services",
    );
    say(headless && external, "spec.externalIPs is ignored for headless services");
    say(
        headless && text(spec, "sessionAffinity") != "None",
        "spec.SessionAffinity is ignored for headless services",
    );
    addresses(&mut found, "externalIPs");
    if external && !headless && kind != "ExternalName" {
        found.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned(),
        );
    }
    warnings::ip(&mut found, &path.child("loadBalancerIP"), text(spec, "loadBalancerIP"));
    for (index, range) in list(spec, "loadBalancerSourceRanges").iter().enumerate() {
        let path = path.child("loadBalancerSourceRanges").index(index);
        warnings::cidr(&mut found, &path, range.as_str().unwrap_or_default());
    }
    if kind == "ExternalName" && external {
        found.push(r#"spec.externalIPs is ignored when spec.type is "ExternalName""#.to_owned());
    }
    if kind != "ExternalName" && !text(spec, "externalName").is_empty() {
        found.push(r#"spec.externalName is ignored when spec.type is not "ExternalName""#.to_owned());
    }
    if text(spec, "trafficDistribution") == "PreferClose" {
        found.push(
            r#"spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone""#.to_owned(),
        );
    }
    found
}

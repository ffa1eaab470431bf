//! NetworkPolicy.

use apimachinery::{FieldError, FieldPath, Object, names};
use chrono::{DateTime, Utc};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::{
    cells::{created, name, selector},
    checks::{Checks, path},
    object::{at, has, list, set, text},
    resource::Strategy,
    warnings,
};

pub struct NetworkPolicy;

/// The two directions and where each has its peers.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

impl Strategy for NetworkPolicy {
    fn default(&self, object: &mut Object) {
        if list(object, "spec.policyTypes").is_empty() && has(object, "spec") {
            let egress = !list(object, "spec.egress").is_empty();
            let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            set(object, "spec.policyTypes", types);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            let (spec, path) = (at(object, "spec"), path("spec"));
            checks.label_selector(&path.child("podSelector"), at(spec, "podSelector"));
            for (direction, peers) in DIRECTIONS {
                for (index, rule) in list(spec, direction).iter().enumerate() {
                    let path = path.child(direction).index(index);
                    for (index, port) in list(rule, "ports").iter().enumerate() {
                        check_port(checks, port, &path.child("ports").index(index));
                    }
                    for (index, peer) in list(rule, peers).iter().enumerate() {
                        check_peer(checks, peer, &path.child(peers).index(index));
                    }
                }
            }
            let (types, path) = (list(spec, "policyTypes"), path.child("policyTypes"));
            if types.len() > 2 {
                checks.invalid(&path, types.to_vec(), "may not specify more than two policyTypes");
                return;
            }
            for (index, kind) in types.iter().enumerate() {
                let supported = ["Ingress", "Egress"];
                checks.one_of(&path.index(index), kind.as_str().unwrap_or_default(), &supported);
            }
        })
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found =
            vec!["Plimsoll itself does not act on NetworkPolicy yet: traffic is not restricted".to_owned()];
        for (direction, peers) in DIRECTIONS {
            for (index, rule) in list(at(new, "spec"), direction).iter().enumerate() {
                let path = path("spec").child(direction).index(index).child(peers);
                for (index, peer) in list(rule, peers).iter().enumerate() {
                    let (block, path) = (at(peer, "ipBlock"), path.index(index).child("ipBlock"));
                    warnings::cidr(&mut found, &path.child("cidr"), text(block, "cidr"));
                    for (index, except) in list(block, "except").iter().enumerate() {
                        let path = path.child("except").index(index);
                        warnings::cidr(&mut found, &path, except.as_str().unwrap_or_default());
                    }
                }
            }
        }
        found
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![name(object), selector(at(object, "spec.podSelector")).into(), created(object, now)])
    }
}

fn check_port(checks: &mut Checks, entry: &Value, path: &FieldPath) {
    if let Some(protocol) = at(entry, "protocol").as_str() {
        checks.one_of(&path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let (port, end) = (at(entry, "port"), at(entry, "endPort").as_i64());
    let end_path = path.child("endPort");
    match (port, port.as_i64(), end) {
        (_, Some(number), _) => {
            checks.port_number(&path.child("port"), number);
            if let Some(end) = end {
                if end < number {
                    checks.invalid(&end_path, end, "must be greater than or equal to `port`");
                }
                checks.port_number(&end_path, end);
            }
        }
        (Value::String(name), ..) => {
            if let Some(end) = end {
                checks.invalid(&end_path, end, "may not be specified when `port` is non-numeric");
            }
            checks.each(&path.child("port"), name, names::is_port_name(name));
        }
        (_, _, Some(end)) => {
            checks.invalid(&end_path, end, "may not be specified when `port` is not specified");
        }
        _ => {}
    }
}

fn check_peer(checks: &mut Checks, peer: &Value, path: &FieldPath) {
    let mut peers = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if has(peer, field) {
            peers += 1;
            checks.label_selector(&path.child(field), at(peer, field));
        }
    }
    let block = at(peer, "ipBlock");
    if !block.is_null() {
        peers += 1;
        check_block(checks, block, &path.child("ipBlock"));
    }
    if peers == 0 {
        checks.required(path, "must specify a peer");
    } else if peers > 1 && !block.is_null() {
        checks.forbidden(path, "may not specify both ipBlock and another peer");
    }
}

fn check_block(checks: &mut Checks, block: &Value, path: &FieldPath) {
    let cidr = text(block, "cidr");
    if cidr.is_empty() {
        return checks.required(&path.child("cidr"), "");
    }
    checks.cidr(&path.child("cidr"), cidr);
    let Ok(outer) = cidr.parse::<IpNet>() else { return };
    for (index, except) in list(block, "except").iter().filter_map(Value::as_str).enumerate() {
        let path = path.child("except").index(index);
        checks.cidr(&path, except);
        let inside = except
            .parse::<IpNet>()
            .map(|inner| outer.contains(&inner.addr()) && outer.prefix_len() < inner.prefix_len());
        if inside == Ok(false) {
            checks.invalid(&path, except, "must be a strict subset of `cidr`");
        }
    }
}

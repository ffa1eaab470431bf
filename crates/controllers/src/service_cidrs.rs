//! service-cidr-controller: a ServiceCIDR is ready, and stays while Services have addresses that are in no other one.
//!
//! Source: `pkg/controller/servicecidrs`, `pkg/api/servicecidr`.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{IPAddress, ServiceCIDR},
    jiff::{SignedDuration, Timestamp},
};
use serde_json::json;

use crate::{
    Change, Controller, Key, Kind, Outcome, Plan, World, Write,
    about::{has_finalizer, labelled},
    conditions,
};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// How long an allocator may not yet know that a range is going.
const GRACE: SignedDuration = SignedDuration::from_secs(10);

/// The loop; its keys are ServiceCIDRs.
pub struct ServiceCidrs;

fn ranges(cidr: &ServiceCIDR) -> Vec<IpNet> {
    let texts = cidr.spec.iter().flat_map(|s| s.cidrs.iter().flatten());
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// Whether an allocator would give this address from this range: not the first one, nor the last of IPv4.
fn gives(range: &IpNet, address: IpAddr) -> bool {
    let last = address.is_ipv4() && range.broadcast() == address;
    range.contains(&address) && range.network() != address && !last
}

/// The address, if the allocator of the API server gave it out.
fn given(address: &IPAddress) -> Option<IpAddr> {
    let managed = labelled(&address.metadata, MANAGED_BY.0, MANAGED_BY.1);
    address.metadata.name.as_deref().filter(|_| managed)?.parse().ok()
}

fn giving(world: &World, address: IpAddr) -> Vec<Key> {
    let all = world.list::<ServiceCIDR>("");
    let giving = all.iter().filter(|cidr| ranges(cidr).iter().any(|range| gives(range, address)));
    giving.map(|cidr| Key::of(&cidr.metadata)).collect()
}

impl Controller for ServiceCidrs {
    fn name(&self) -> &'static str {
        "service-cidr-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<ServiceCIDR>(), Kind::of::<IPAddress>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if let Some(address) = change.object::<IPAddress>() {
            let new_or_gone = change.before.is_none() || change.after.is_none();
            let address = given(&address).filter(|_| new_or_gone);
            return address.map(|address| giving(world, address)).unwrap_or_default();
        }
        let Some(cidr) = change.object::<ServiceCIDR>() else { return Vec::new() };
        let own = ranges(&cidr);
        let touch = |a: &IpNet, b: &IpNet| a.contains(&b.network()) || b.contains(&a.network());
        let all = world.list::<ServiceCIDR>("");
        let touched = all
            .iter()
            .filter(|other| ranges(other).iter().any(|theirs| own.iter().any(|range| touch(range, theirs))));
        let mut keys: Vec<Key> = touched.map(|other| Key::of(&other.metadata)).collect();
        keys.push(Key::of(&cidr.metadata));
        keys
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        let Some(cidr) = world.get::<ServiceCIDR>("", &key.name) else { return plan };
        let has = has_finalizer(&cidr.metadata, FINALIZER);
        let Some(deleted) = &cidr.metadata.deletion_timestamp else {
            if !has {
                let mut finalizers = cidr.metadata.finalizers.clone().unwrap_or_default();
                finalizers.push(FINALIZER.to_owned());
                let patch = json!({"finalizers": finalizers});
                plan.then(Write::patch_read(&Kind::of::<ServiceCIDR>(), &cidr.metadata, patch));
            }
            plan.all(told(&cidr, true, "", "Kubernetes Service CIDR is ready", now).into_iter().collect());
            return plan;
        };
        if !has {
            return plan;
        }
        if is_needed(&cidr, world) {
            let words = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                         ServiceCIDR";
            plan.all(told(&cidr, false, "Terminating", words, now).into_iter().collect());
            return plan;
        }
        let end = deleted.0.saturating_add(GRACE).unwrap_or(Timestamp::MAX);
        if end > now {
            plan.wake(end);
        } else {
            plan.then(Write::without_finalizer(&Kind::of::<ServiceCIDR>(), &cidr.metadata, FINALIZER));
        }
        plan
    }
}

/// Whether an address would belong to no range without this one. Not if other ServiceCIDRs hold all its ranges.
fn is_needed(cidr: &ServiceCIDR, world: &World) -> bool {
    let all = world.list::<ServiceCIDR>("");
    let others: Vec<IpNet> = all
        .iter()
        .filter(|other| other.metadata.uid != cidr.metadata.uid)
        .flat_map(|other| ranges(other))
        .collect();
    let own = ranges(cidr);
    if own.iter().all(|range| others.iter().any(|other| other.contains(range))) {
        return false;
    }
    let addresses = world.list::<IPAddress>("");
    addresses.iter().filter_map(|address| given(address)).any(|address| {
        own.iter().any(|range| gives(range, address)) && !others.iter().any(|other| gives(other, address))
    })
}

/// Its condition Ready, if that is not what it says already.
fn told(cidr: &ServiceCIDR, ready: bool, reason: &str, message: &str, now: Timestamp) -> Option<Write> {
    let wanted = conditions::new("Ready", ready, reason, message, now);
    let mut list = cidr.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let same = list.iter().any(|c| {
        c.type_ == wanted.type_
            && (&c.status, &c.reason, &c.message) == (&wanted.status, &wanted.reason, &wanted.message)
    });
    if same {
        return None;
    }
    conditions::set(&mut list, wanted);
    Some(Write::patch_status(cidr, json!({"status": {"conditions": list}})))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fixtures::{add, at, key, patched, plan, remove, world};

    fn cidr(name: &str, ranges: &[&str], deleted: bool) -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": name, "finalizers": [FINALIZER],
                "deletionTimestamp": deleted.then(|| at(0).to_string())},
            "spec": {"cidrs": ranges},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
                "message": "Kubernetes Service CIDR is ready", "lastTransitionTime": at(0).to_string()}]}})
    }

    fn address(name: &str) -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": name, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
            "spec": {"parentRef": {"resource": "services", "namespace": "d", "name": "s"}}})
    }

    fn look(world: &World, seconds: i64) -> Plan {
        ServiceCidrs.reconcile(&key("", "a"), world, &Outcome::default(), at(seconds))
    }

    #[test]
    fn a_new_one_gets_its_finalizer_and_is_ready() {
        let mut new = cidr("a", &["10.0.0.0/24"], false);
        new["metadata"]["finalizers"] = Value::Null;
        new["status"] = Value::Null;
        let plan = plan(&ServiceCidrs, &world([new]), "", "a");
        let patches = patched(&plan);
        assert_eq!(patches[0].1["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(patches[1].1["status"]["conditions"][0]["status"], "True");
        assert_eq!(look(&world([cidr("a", &["10.0.0.0/24"], false)]), 0), Plan::none());
    }

    #[test]
    fn one_that_goes_waits_for_its_addresses_and_then_ten_seconds() {
        let mut world = world([cidr("a", &["10.0.0.0/24"], true), address("10.0.0.7")]);
        let waits = look(&world, 60);
        assert_eq!(patched(&waits)[0].1["status"]["conditions"][0]["reason"], "Terminating");
        let change = remove::<IPAddress>(&mut world, "", "10.0.0.7");
        assert_eq!(ServiceCidrs.keys(&change, &world), [key("", "a")]);
        assert_eq!(look(&world, 3).again, Some(at(10)));
        assert_eq!(patched(&look(&world, 10))[0].1["metadata"]["finalizers"], json!([]));
    }

    #[test]
    fn addresses_that_another_one_holds_keep_nothing() {
        let goes = |world: &World| !patched(&look(world, 60))[0].1["metadata"]["finalizers"].is_null();
        let mut world = world([cidr("a", &["10.0.0.0/24"], true), address("10.0.0.7")]);
        add(&mut world, cidr("inner", &["10.0.0.0/28"], false));
        assert!(goes(&world), "10.0.0.7 is in the inner one too");
        add(&mut world, address("10.0.0.15"));
        assert!(!goes(&world), "the inner one never gives its last address");
        add(&mut world, cidr("outer", &["10.0.0.0/8"], false));
        assert!(goes(&world));
    }
}

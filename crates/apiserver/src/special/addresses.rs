//! Where the addresses of Services come from, and the objects that say which are taken.
//!
//! The ranges are those of the ServiceCIDRs that are ready. Whoever has made the IPAddress object of an address has the
//! address: a Service's is made, and removed, in the commit that gives the Service the address, or takes it away.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/service/ipallocator`, `pkg/controlplane/controller/defaultservicecidr`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use access::Reader as _;
use apimachinery::{ApiError, Object, meta, time};
use ipnet::IpNet;
use rand::Rng as _;
use serde_json::{Value, json};
use store::{Expect, Key, Op};

use crate::{
    catalogue::Served,
    encoding, fields, options,
    server::{Call, Inner},
    shape,
    verbs::{self, update},
};

const GROUP: &str = "networking.k8s.io";
const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGER_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
/// The ServiceCIDR with the ranges of the configuration.
const DEFAULT: &str = "kubernetes";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

/// Walks at most so far through a range: one this large is never full.
const FURTHEST: u128 = 1 << 20;

/// The name of an address's family.
pub(crate) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The ranges that new addresses may come from, in the order in which they are tried. Before there is any ServiceCIDR
/// these are the configured ones.
pub(crate) fn ranges(inner: &Inner) -> Vec<IpNet> {
    let all = inner.reader.list(GROUP, "servicecidrs", "");
    if all.is_empty() {
        return inner.config.service_cidrs.clone();
    }
    let ready = |object: &Object| {
        meta::deletion_timestamp(object).is_none()
            && object["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    };
    // The default one first, then by name.
    let mut ready: Vec<_> = all.iter().filter(|object| ready(object)).collect();
    ready.sort_by_key(|object| meta::name(object) != DEFAULT);
    let blocks = ready.iter().filter_map(|object| object["spec"]["cidrs"].as_array()).flatten();
    blocks.filter_map(|block| block.as_str()?.parse().ok()).collect()
}

/// The range that an address lies in, or why it may not be given to a Service.
pub(crate) fn check(ranges: &[IpNet], address: IpAddr) -> Result<(), String> {
    let Some(net) = ranges.iter().find(|net| net.contains(&address)) else {
        return Err("the provided network does not match the current range".to_owned());
    };
    let last_is_taken = address.is_ipv4() && address == net.broadcast();
    if address == net.network() || last_is_taken {
        return Err(format!(
            "the provided IP ({address}) is not in the valid range. The range of valid IPs is {net}"
        ));
    }
    Ok(())
}

/// The `offset`th address of a block.
fn nth(net: &IpNet, offset: u128) -> IpAddr {
    match net.network() {
        IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(
            u32::from(base).saturating_add(u32::try_from(offset).unwrap_or(u32::MAX)),
        )),
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).saturating_add(offset))),
    }
}

/// A random free address, above the band that is kept for addresses people choose, else in it.
pub(crate) fn pick(net: &IpNet, free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let size = 1u128 << (net.max_prefix_len() - net.prefix_len()).min(64);
    let usable = size.saturating_sub(if net.addr().is_ipv4() { 2 } else { 1 });
    if usable == 0 {
        return None;
    }
    let band = if size < 32 { 0 } else { (size / 16).clamp(16, 256) };
    let within = |from: u128, to: u128| {
        let count = to.checked_sub(from).filter(|count| *count > 0)?;
        let start = rand::rng().random_range(0..count);
        (0..count.min(FURTHEST)).map(|step| nth(net, 1 + from + (start + step) % count)).find(|a| free(*a))
    };
    within(band, usable).or_else(|| within(0, band.min(usable)))
}

fn served(inner: &Inner) -> Option<std::sync::Arc<Served>> {
    inner.preferred(GROUP, "ipaddresses")
}

/// Whether an object says that the address is taken.
pub(crate) fn is_locked(inner: &Inner, address: IpAddr) -> bool {
    served(inner)
        .is_some_and(|served| inner.config.store.get(&served.key("", &address.to_string())).is_some())
}

fn parent(service: &Object) -> Value {
    json!({"resource": "services", "namespace": meta::namespace(service), "name": meta::name(service)})
}

/// The step of a commit that makes the object of an address, if nobody has made it.
fn lock(inner: &Inner, service: &Object, address: IpAddr) -> Result<Option<Op>, ApiError> {
    let Some(served) = served(inner) else { return Ok(None) };
    let key: Key = served.key("", &address.to_string()).into();
    let now = (inner.config.now)();
    let mut object = json!({
        "apiVersion": served.api_version, "kind": &*served.resource.kind,
        "metadata": {
            "name": address.to_string(),
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": time::format_time(now),
            "labels": {FAMILY_LABEL: family(address), MANAGER_LABEL: MANAGER},
        },
        "spec": {"parentRef": parent(service)},
    });
    fields::Tracker::internal(&served, now).update(None, &mut object);
    let revision_at = Some(encoding::REVISION_AT);
    Ok(Some(Op::Put { key, value: served.stored(&object)?, revision_at, expect: Expect::Absent }))
}

/// The step of a commit that removes the object of an address, if it is this Service's.
fn unlock(inner: &Inner, service: &Object, address: IpAddr) -> Option<Op> {
    let served = served(inner)?;
    let entry = inner.config.store.get(&served.key("", &address.to_string()))?;
    let object = served.object(&entry).ok()?;
    (object["spec"]["parentRef"] == parent(service)).then(|| Op::Delete {
        key: entry.key.clone(),
        last: encoding::without_revision(&entry.value),
        revision_at: Some(encoding::REVISION_AT),
        expect: Expect::At(entry.modified),
    })
}

/// The addresses that a Service has.
pub(crate) fn of(service: &Object) -> BTreeSet<IpAddr> {
    let spec = &service["spec"];
    let list = spec["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    list.chain(spec["clusterIP"].as_str()).filter_map(|address| address.parse().ok()).collect()
}

/// The steps that bring the objects of addresses from what a Service had to what it has now. `None` is no Service.
pub(crate) fn steps(inner: &Inner, old: Option<&Object>, new: Option<&Object>) -> Result<Vec<Op>, ApiError> {
    let (before, after) = (old.map(of).unwrap_or_default(), new.map(of).unwrap_or_default());
    let mut steps = Vec::new();
    if let Some(new) = new {
        // An address that the Service had may only lack its object.
        for address in
            after.iter().filter(|address| !before.contains(*address) || !is_locked(inner, **address))
        {
            steps.extend(lock(inner, new, *address)?);
        }
    }
    if let Some(old) = old {
        steps.extend(before.difference(&after).filter_map(|address| unlock(inner, old, *address)));
    }
    Ok(steps)
}

/// Makes the ServiceCIDR of the configuration, brings it up to date, and says that it is ready.
pub(crate) async fn default_range(inner: &Inner) -> Result<(), ApiError> {
    let cidrs: Vec<String> = inner.config.service_cidrs.iter().map(|net| net.trunc().to_string()).collect();
    let Some(served) = inner.preferred(GROUP, "servicecidrs").filter(|_| !cidrs.is_empty()) else {
        return Ok(());
    };
    super::bootstrap::ensure(
        inner,
        json!({
            "apiVersion": served.api_version, "kind": &*served.resource.kind,
            "metadata": {"name": DEFAULT, "finalizers": [FINALIZER]},
            "spec": {"cidrs": cidrs},
        }),
    )
    .await?;
    let Some(object) = inner.reader.get(GROUP, "servicecidrs", "", DEFAULT) else { return Ok(()) };
    let has: Vec<&str> =
        object["spec"]["cidrs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if has.len() == 1 && cidrs.len() == 2 && has[0] == cidrs[0] {
        change(inner, &served, "", |new| new["spec"]["cidrs"] = json!(cidrs)).await?;
    } else if has != cidrs {
        tracing::warn!(?has, ?cidrs, "the ServiceCIDR {DEFAULT} differs from the configured ranges");
        return Ok(());
    }
    let known = object["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] != "Unknown"));
    if known || meta::deletion_timestamp(&object).is_some() {
        return Ok(());
    }
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "",
        "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": time::format_time((inner.config.now)()),
    });
    change(inner, &served, "status", |new| new["status"] = json!({"conditions": [ready]})).await
}

/// A change of the default ServiceCIDR by the server itself.
async fn change(
    inner: &Inner,
    served: &Served,
    subresource: &str,
    make: impl Fn(&mut Object) + Send + Sync,
) -> Result<(), ApiError> {
    let mut call = Call::internal(inner, served, "");
    call.info.name = DEFAULT.to_owned();
    call.info.subresource = subresource.to_owned();
    update::change(inner, &mut call, served, &options::Write::default(), |old, _| {
        let mut new = old.clone();
        make(&mut new);
        shape::default(&served.resource, &mut new);
        fields::Tracker::internal(served, (inner.config.now)()).of(subresource).update(Some(old), &mut new);
        Ok(new)
    })
    .await
    .map(|_| ())
}

/// Makes the objects that Services written without them lack, and removes those whose Service is gone or has another
/// address: what a start after other programs' writes may find.
pub(crate) async fn repair(inner: &Inner) -> Result<(), ApiError> {
    for service in inner.reader.list("", "services", "") {
        for step in steps(inner, Some(&*service), Some(&*service))? {
            verbs::commit(inner, vec![step]).await?;
        }
    }
    for object in inner.reader.list(GROUP, "ipaddresses", "") {
        let parent = &object["spec"]["parentRef"];
        if object["metadata"]["labels"][MANAGER_LABEL] != MANAGER || parent["resource"] != "services" {
            continue;
        }
        let text = |field: &str| parent[field].as_str().unwrap_or_default();
        let service = inner.reader.get("", "services", text("namespace"), text("name"));
        let Ok(address) = meta::name(&object).parse::<IpAddr>() else { continue };
        if service.is_some_and(|service| of(&service).contains(&address)) {
            continue;
        }
        let gone = json!({"metadata": {"namespace": text("namespace"), "name": text("name")}});
        if let Some(step) = unlock(inner, &gone, address) {
            verbs::commit(inner, vec![step]).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_upper_band_until_it_is_full() {
        let net: IpNet = "10.0.0.0/24".parse().unwrap();
        for _ in 0..200 {
            let Some(IpAddr::V4(address)) = pick(&net, |_| true) else { panic!() };
            assert!(address.octets()[3] > 16 && address.octets()[3] < 255);
        }
        let low = pick(&net, |a| matches!(a, IpAddr::V4(v4) if v4.octets()[3] <= 16));
        assert!(low.is_some());
        assert_eq!(pick(&net, |_| false), None);
    }

    #[test]
    fn the_ends_of_a_range_are_no_addresses_of_services() {
        let ranges = ["10.0.0.0/24".parse().unwrap(), "fd00::/112".parse().unwrap()];
        let says = |address: &str| check(&ranges, address.parse().unwrap());
        assert!(says("10.0.0.1").is_ok() && says("fd00::ffff").is_ok());
        assert!(says("10.0.0.0").is_err() && says("10.0.0.255").is_err() && says("fd00::").is_err());
        assert_eq!(says("10.0.1.1").unwrap_err(), "the provided network does not match the current range");
    }
}

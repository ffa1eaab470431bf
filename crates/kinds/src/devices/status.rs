//! What a claim got: the devices, what drivers say of them, and who uses them.

use std::collections::BTreeSet;

use apimachinery::{FieldPath, names};
use ipnet::IpNet;
use serde_json::Value;

use super::{
    parts::{check_binding, check_config, check_raw, check_tolerations, unique},
    request::{MOST, Requests},
};
use crate::{
    checks::{Checks, path},
    object::{at, at_mut, has, items_mut, list, remove, same, text},
    podspec::check_node_selector,
};

/// How many users one claim may have.
const MOST_USERS: usize = 256;
/// How many conditions a driver may give one device.
const MOST_CONDITIONS: usize = 8;
/// How many addresses a network device may have.
const MOST_ADDRESSES: usize = 16;

/// Driver, pool, device and share: what tells allocated devices apart.
type Id<'v> = [&'v str; 4];

fn id(device: &Value) -> Id<'_> {
    ["driver", "pool", "device", "shareID"].map(|field| text(device, field))
}

/// `driver/pool/device`, with the share where there is one.
fn shown(id: Id<'_>) -> String {
    let base = id[..3].join("/");
    if id[3].is_empty() { base } else { format!("{base}/{}", id[3]) }
}

fn results(object: &Value) -> &[Value] {
    list(object, "status.allocation.devices.results")
}

/// Takes away what belongs to a feature that is off, and what drivers said of devices that the claim has no more.
pub fn settle(new: &mut Value, old: &Value) {
    for result in items_mut(new, "status.allocation.devices.results") {
        remove(result, "skipNodeOperations");
    }
    let still: BTreeSet<Id<'_>> = results(new).iter().map(id).collect();
    let gone: BTreeSet<String> =
        results(old).iter().map(id).filter(|id| !still.contains(id)).map(shown).collect();
    if let Some(devices) = at_mut(new, "status.devices").and_then(Value::as_array_mut) {
        devices.retain(|device| !gone.contains(&shown(id(device))));
        if devices.is_empty() {
            remove(new, "status.devices");
        }
    }
}

/// A change of the status.
pub fn check(checks: &mut Checks, new: &Value, old: &Value) {
    let (status, path) = (at(new, "status"), path("status"));
    check_users(checks, list(status, "reservedFor"), &path.child("reservedFor"));
    let allocated: BTreeSet<Id<'_>> = results(new).iter().map(id).collect();
    let (devices, devices_path) = (list(status, "devices"), path.child("devices"));
    for (index, device) in devices.iter().enumerate() {
        check_device(checks, device, &allocated, &devices_path.index(index));
    }
    unique(checks, devices, &devices_path, id);
    let users = list(status, "reservedFor");
    if !users.is_empty() {
        if !has(status, "allocation") {
            let detail = "may not be specified when `allocated` is not set";
            checks.forbidden(&path.child("reservedFor"), detail);
        } else if has(new, "metadata.deletionTimestamp") {
            let before = list(old, "status.reservedFor");
            if users.iter().any(|user| !before.iter().any(|other| same(user, other))) {
                let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
                checks.forbidden(&path.child("reservedFor"), detail);
            }
        }
    }
    let (allocation, before) = (at(status, "allocation"), at(old, "status.allocation"));
    let allocation_path = path.child("allocation");
    if !allocation.is_null() && !before.is_null() {
        if !same(allocation, before) {
            checks.invalid(&allocation_path, Value::Null, "field cannot be modified once set");
        }
    } else if !allocation.is_null() {
        check_allocation(checks, allocation, &Requests::of(at(new, "spec.devices")), &allocation_path);
    }
}

fn check_users(checks: &mut Checks, users: &[Value], path: &FieldPath) {
    if checks.too_many(path, users.len(), MOST_USERS) {
        return;
    }
    for (index, user) in users.iter().enumerate() {
        for field in ["resource", "name", "uid"] {
            if text(user, field).is_empty() {
                checks.required(&path.index(index).child(field), "");
            }
        }
    }
    unique(checks, users, path, |user| text(user, "uid"));
}

fn check_device(checks: &mut Checks, device: &Value, allocated: &BTreeSet<Id<'_>>, path: &FieldPath) {
    checks.driver_name(&path.child("driver"), text(device, "driver"));
    checks.pool_name(&path.child("pool"), text(device, "pool"));
    checks.dns_label(&path.child("device"), text(device, "device"));
    if let Some(share) = at(device, "shareID").as_str() {
        checks.uuid(&path.child("shareID"), share);
    }
    if !allocated.contains(&id(device)) {
        checks.invalid(path, shown(id(device)), "must be an allocated device in the claim");
    }
    let (conditions, conditions_path) = (list(device, "conditions"), path.child("conditions"));
    checks.too_many(&conditions_path, conditions.len(), MOST_CONDITIONS);
    checks.conditions(&conditions_path, conditions);
    if has(device, "data") {
        check_raw(checks, at(device, "data"), false, &path.child("data"));
    }
    let (network, path) = (at(device, "networkData"), path.child("networkData"));
    checks.longest(&path.child("interfaceName"), text(network, "interfaceName"), 256);
    checks.longest(&path.child("hardwareAddress"), text(network, "hardwareAddress"), 128);
    let (addresses, path) = (list(network, "ips"), path.child("ips"));
    if checks.too_many(&path, addresses.len(), MOST_ADDRESSES) {
        return;
    }
    for (index, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
        check_interface_address(checks, address, &path.index(index));
    }
    unique(checks, addresses, &path, Value::as_str);
}

/// An address of an interface with the length of its network's prefix, in its usual form.
fn check_interface_address(checks: &mut Checks, value: &str, path: &FieldPath) {
    let (address, length) = value.split_once('/').unwrap_or((value, ""));
    let sloppy = format!("{}/{}", names::without_zeros(address), length);
    let Ok(net) = sloppy.parse::<IpNet>() else {
        let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
        return checks.invalid(path, value, detail);
    };
    let usual = match net {
        IpNet::V6(net) => match net.addr().to_ipv4_mapped() {
            Some(inner) if net.prefix_len() >= 96 => format!("{inner}/{}", net.prefix_len() - 96),
            _ => net.to_string(),
        },
        IpNet::V4(net) => net.to_string(),
    };
    if usual != value {
        checks.invalid(path, value, &format!("must be in canonical form ({usual:?})"));
    }
}

fn check_allocation(checks: &mut Checks, allocation: &Value, known: &Requests<'_>, path: &FieldPath) {
    let devices = path.child("devices");
    let (results, results_path) = (list(allocation, "devices.results"), devices.child("results"));
    if !checks.too_many(&results_path, results.len(), MOST) {
        for (index, result) in results.iter().enumerate() {
            let path = results_path.index(index);
            known.check(checks, text(result, "request"), &path.child("request"));
            checks.driver_name_declared(&path.child("driver"), text(result, "driver"));
            checks.pool_name_declared(&path.child("pool"), text(result, "pool"));
            checks.dns_label(&path.child("device"), text(result, "device"));
            check_binding(checks, result, &path);
            check_tolerations(checks, list(result, "tolerations"), &path.child("tolerations"));
            if let Some(share) = at(result, "shareID").as_str() {
                checks.uuid(&path.child("shareID"), share);
            }
        }
    }
    // Those of the classes and those of the claim.
    let (configs, configs_path) = (list(allocation, "devices.config"), devices.child("config"));
    if !checks.too_many(&configs_path, configs.len(), 2 * MOST) {
        for (index, config) in configs.iter().enumerate() {
            let path = configs_path.index(index);
            let sources = ["FromClaim", "FromClass"];
            checks.required_one_of(&path.child("source"), text(config, "source"), &sources);
            known.check_all(checks, list(config, "requests"), &path.child("requests"));
            check_config(checks, config, false, &path);
        }
    }
    if has(allocation, "nodeSelector") {
        check_node_selector(checks, at(allocation, "nodeSelector"), &path.child("nodeSelector"));
    }
}

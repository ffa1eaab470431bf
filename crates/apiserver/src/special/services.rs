//! Service addresses and node ports. The Service objects are the truth: what is taken is read from them whenever they
//! have changed; only what writes on their way have reserved is kept beside. Addresses that something else has taken are
//! known by their objects.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/service/{ipallocator,portallocator,storage}`.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    ops::RangeInclusive,
};

use access::Reader as _;
use apimachinery::{ApiError, FieldError, FieldPath, Object, meta};
use ipnet::IpNet;
use parking_lot::Mutex;
use rand::Rng as _;
use serde_json::{Value, json};
use store::Op;

use super::addresses;
use crate::{config::Config, server::Inner};

/// Gives out addresses and ports.
pub struct Allocator {
    cidrs: Vec<IpNet>,
    ports: RangeInclusive<u16>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The change of the Service collection that `used_*` were read at.
    seen: Option<u64>,
    used_addresses: HashMap<IpAddr, String>,
    used_ports: HashMap<(u16, String), String>,
    reserved_addresses: HashSet<IpAddr>,
    reserved_ports: HashSet<(u16, String)>,
}

/// What one write has reserved; given back when dropped. By then the commit is visible, or did not happen.
pub struct Lease<'a> {
    allocator: &'a Allocator,
    addresses: Vec<IpAddr>,
    ports: Vec<(u16, String)>,
    /// The steps by which the addresses become the Service's, for the commit that writes it.
    pub(crate) steps: Vec<Op>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut state = self.allocator.state.lock();
        for address in &self.addresses {
            state.reserved_addresses.remove(address);
        }
        for port in &self.ports {
            state.reserved_ports.remove(port);
        }
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn ports_of(service: &Object) -> Vec<(u16, String)> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let mut all: Vec<(u16, String)> = ports
        .filter_map(|port| {
            let number = u16::try_from(port["nodePort"].as_u64()?).ok().filter(|n| *n > 0)?;
            Some((number, protocol(port).to_owned()))
        })
        .collect();
    if let Some(check) = service["spec"]["healthCheckNodePort"].as_u64().and_then(|n| u16::try_from(n).ok())
        && check > 0
    {
        all.push((check, "TCP".to_owned()));
    }
    all
}

fn protocol(port: &Value) -> &str {
    match text(port, "protocol") {
        "" => "TCP",
        other => other,
    }
}

fn wants_address(spec: &Value) -> bool {
    text(spec, "type") != "ExternalName" && text(spec, "clusterIP") != "None"
}

fn wants_node_ports(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"].as_bool() != Some(false),
        _ => false,
    }
}

impl Allocator {
    /// Over the ranges of the configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            cidrs: config.service_cidrs.clone(),
            ports: config.node_ports.clone(),
            state: Mutex::default(),
        }
    }

    /// Fills in what the Service asks for and does not have. `old` is its stored state.
    pub(crate) fn allocate(
        &self,
        inner: &Inner,
        object: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
    ) -> Result<Lease<'_>, ApiError> {
        let owner = format!("{}/{}", meta::namespace(object), meta::name(object));
        let name = meta::name(object).to_owned();
        let mut state = self.state.lock();
        self.refresh(inner, &mut state);
        let mut lease =
            Lease { allocator: self, addresses: Vec::new(), ports: Vec::new(), steps: Vec::new() };
        let mut errors = Vec::new();
        if let Some(old) = old {
            keep_addresses(object, old);
            keep_ports(object, old);
        }
        // One address is the list of one.
        let (one, list) = (&object["spec"]["clusterIP"], &object["spec"]["clusterIPs"]);
        if one.as_str().is_some_and(|one| !one.is_empty()) && list.as_array().is_none_or(Vec::is_empty) {
            object["spec"]["clusterIPs"] = json!([one]);
        }
        let odd = self.odd_addresses(object, old);
        if !odd.is_empty() {
            drop(state);
            return Err(ApiError::invalid("", "Service", &name, &odd));
        }
        let mut full = Ok(());
        if wants_address(&object["spec"]) {
            full = self.addresses(inner, object, &owner, &state, &mut lease, &mut errors);
        } else if text(&object["spec"], "clusterIP") == "None" {
            self.families(object);
            object["spec"]["clusterIPs"] = json!(["None"]);
        }
        self.node_ports(object, &owner, &state, &mut lease, &mut errors);
        let failed = full.is_err() || !errors.is_empty();
        if !failed && !dry_run {
            state.reserved_addresses.extend(lease.addresses.iter().copied());
            state.reserved_ports.extend(lease.ports.iter().cloned());
        } else {
            lease.addresses.clear();
            lease.ports.clear();
        }
        // A lease that is dropped locks the state.
        drop(state);
        full?;
        if failed {
            return Err(ApiError::invalid("", "Service", &name, &errors));
        }
        lease.steps = addresses::steps(inner, old, Some(object))?;
        Ok(lease)
    }

    /// What is wrong with the addresses that a Service asks for, before any is given.
    fn odd_addresses(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let errors = kinds::service_addresses(object, old);
        let spec = &object["spec"];
        if !errors.is_empty() || text(spec, "type") == "ExternalName" {
            return errors;
        }
        let selectorless = text(spec, "clusterIP") == "None"
            && spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
        if text(spec, "ipFamilyPolicy") == "RequireDualStack" && self.cidrs.len() < 2 && !selectorless {
            let path = FieldPath::root().child("spec").child("ipFamilyPolicy");
            let why = "this cluster is not configured for dual-stack services";
            return vec![FieldError::invalid(&path, "RequireDualStack", why)];
        }
        Vec::new()
    }

    fn refresh(&self, inner: &Inner, state: &mut State) {
        let changed = inner.reader.changed("", "services");
        if state.seen == Some(changed) {
            return;
        }
        state.used_addresses.clear();
        state.used_ports.clear();
        for service in inner.reader.list("", "services", "") {
            let owner = format!("{}/{}", meta::namespace(&service), meta::name(&service));
            state.used_addresses.extend(addresses::of(&service).into_iter().map(|a| (a, owner.clone())));
            state.used_ports.extend(ports_of(&service).into_iter().map(|p| (p, owner.clone())));
        }
        state.seen = Some(changed);
    }

    fn free_address(inner: &Inner, state: &State, address: IpAddr, owner: &str) -> bool {
        // What a Service has is its own, though the write that gave it may not have let go of it yet.
        match state.used_addresses.get(&address) {
            Some(who) => who == owner,
            None => !state.reserved_addresses.contains(&address) && !addresses::is_locked(inner, address),
        }
    }

    fn families(&self, object: &mut Object) {
        let family = |net: &IpNet| if net.addr().is_ipv4() { "IPv4" } else { "IPv6" };
        let Some(first) = self.cidrs.first() else { return };
        let spec = &mut object["spec"];
        if text(spec, "ipFamilyPolicy").is_empty() {
            let selectorless = text(spec, "clusterIP") == "None"
                && spec["selector"].as_object().is_none_or(|s| s.is_empty());
            spec["ipFamilyPolicy"] = if selectorless { "RequireDualStack" } else { "SingleStack" }.into();
        }
        if spec["ipFamilies"].as_array().is_none_or(Vec::is_empty) {
            let dual =
                text(spec, "ipFamilyPolicy") == "RequireDualStack" && text(spec, "clusterIP") == "None";
            let mut families = vec![json!(family(first))];
            if dual {
                families.push(json!(if family(first) == "IPv4" { "IPv6" } else { "IPv4" }));
            } else if text(spec, "ipFamilyPolicy") != "SingleStack" {
                families.extend(self.cidrs.get(1).map(|net| json!(family(net))));
            }
            spec["ipFamilies"] = families.into();
        }
    }

    fn addresses(
        &self,
        inner: &Inner,
        object: &mut Object,
        owner: &str,
        state: &State,
        lease: &mut Lease<'_>,
        errors: &mut Vec<FieldError>,
    ) -> Result<(), ApiError> {
        let path = FieldPath::root().child("spec").child("clusterIPs");
        let mut given: Vec<String> = object["spec"]["clusterIPs"]
            .as_array()
            .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        if given.is_empty() && !text(&object["spec"], "clusterIP").is_empty() {
            given.push(text(&object["spec"], "clusterIP").to_owned());
        }
        // The family follows the address that was asked for.
        let asked = given.first().and_then(|g| g.parse::<IpAddr>().ok());
        if let Some(asked) = asked
            && object["spec"]["ipFamilies"].as_array().is_none_or(Vec::is_empty)
        {
            object["spec"]["ipFamilies"] = json!([if asked.is_ipv4() { "IPv4" } else { "IPv6" }]);
        }
        self.families(object);
        let families: Vec<String> = object["spec"]["ipFamilies"]
            .as_array()
            .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        let ranges = addresses::ranges(inner);
        let mut chosen: Vec<String> = Vec::new();
        for (index, family) in families.iter().enumerate() {
            let configured = self.cidrs.iter().any(|net| addresses::family(net.addr()) == family);
            if !configured {
                let at = FieldPath::root().child("spec").child("ipFamilies").index(index);
                errors.push(FieldError::invalid(&at, family.as_str(), "not configured on this cluster"));
                continue;
            }
            if let Some(wanted) = given.get(index) {
                let Ok(address) = wanted.parse::<IpAddr>() else { continue };
                // What a Service has it keeps, whatever has become of the range.
                let own = state.used_addresses.get(&address).is_some_and(|who| who == owner);
                let checked = if own { Ok(()) } else { addresses::check(&ranges, address) };
                let found = checked.and_then(|()| {
                    let free = Self::free_address(inner, state, address, owner);
                    if free { Ok(()) } else { Err("provided IP is already allocated".to_owned()) }
                });
                match found {
                    Ok(()) => {
                        lease.addresses.push(address);
                        chosen.push(wanted.clone());
                    }
                    Err(why) => {
                        let why = format!("failed to allocate IP {wanted}: {why}");
                        errors.push(FieldError::invalid(&path, json!([wanted]), why));
                    }
                }
                continue;
            }
            let found = ranges.iter().filter(|net| addresses::family(net.addr()) == family).find_map(|net| {
                addresses::pick(net, |address| {
                    Self::free_address(inner, state, address, "") && !lease.addresses.contains(&address)
                })
            });
            let Some(address) = found else {
                let name = meta::name(object);
                let why = format!("failed to allocate a serviceIP for Service {name:?}: range is full");
                return Err(ApiError::internal(why));
            };
            lease.addresses.push(address);
            chosen.push(address.to_string());
        }
        if let Some(first) = chosen.first() {
            object["spec"]["clusterIP"] = first.as_str().into();
            object["spec"]["clusterIPs"] = chosen.into();
        }
        Ok(())
    }

    fn node_ports(
        &self,
        object: &mut Object,
        owner: &str,
        state: &State,
        lease: &mut Lease<'_>,
        errors: &mut Vec<FieldError>,
    ) {
        let free = |number: u16, protocol: &str, lease: &Lease<'_>, same: bool| {
            let key = (number, protocol.to_owned());
            !lease.ports.contains(&key)
                && match state.used_ports.get(&key) {
                    Some(who) => same && who == owner,
                    None => !state.reserved_ports.contains(&key),
                }
        };
        let ports_path = FieldPath::root().child("spec").child("ports");
        if wants_node_ports(&object["spec"]) || text(&object["spec"], "type") == "LoadBalancer" {
            let wants = wants_node_ports(&object["spec"]);
            let count = object["spec"]["ports"].as_array().map_or(0, Vec::len);
            // One port number for the same port of several protocols.
            let mut by_port: HashMap<u64, u16> = HashMap::new();
            for index in 0..count {
                let port = &object["spec"]["ports"][index];
                let protocol = protocol(port).to_owned();
                let number = port["port"].as_u64().unwrap_or_default();
                let asked = port["nodePort"].as_u64().unwrap_or_default();
                if asked > 0 {
                    let at = ports_path.index(index).child("nodePort");
                    match u16::try_from(asked).ok().filter(|n| self.ports.contains(n)) {
                        Some(n) if free(n, &protocol, lease, true) => {
                            by_port.insert(number, n);
                            lease.ports.push((n, protocol));
                        }
                        Some(_) => {
                            errors.push(FieldError::invalid(&at, asked, "provided port is already allocated"))
                        }
                        None => errors.push(FieldError::invalid(
                            &at,
                            asked,
                            format!(
                                "provided port is not in the valid range. The range of valid ports is {}-{}",
                                self.ports.start(),
                                self.ports.end()
                            ),
                        )),
                    }
                    continue;
                }
                if !wants {
                    continue;
                }
                let same = by_port.get(&number).copied().filter(|n| free(*n, &protocol, lease, true));
                let found = same.or_else(|| {
                    pick_port(&self.ports, |n| {
                        ["TCP", "UDP", "SCTP"].iter().all(|p| free(n, p, lease, false))
                    })
                });
                match found {
                    Some(n) => {
                        by_port.insert(number, n);
                        object["spec"]["ports"][index]["nodePort"] = n.into();
                        lease.ports.push((n, protocol));
                    }
                    None => errors.push(FieldError::invalid(
                        &ports_path.index(index).child("nodePort"),
                        0,
                        "failed to allocate a nodePort: range is full",
                    )),
                }
            }
        }
        let spec = &object["spec"];
        let local = text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local";
        if local {
            let asked = spec["healthCheckNodePort"].as_u64().unwrap_or_default();
            let found = match u16::try_from(asked) {
                Ok(n) if n > 0 => Some(n).filter(|n| free(*n, "TCP", lease, true)),
                _ => pick_port(&self.ports, |n| free(n, "TCP", lease, false)),
            };
            match found {
                Some(n) => {
                    object["spec"]["healthCheckNodePort"] = n.into();
                    lease.ports.push((n, "TCP".to_owned()));
                }
                None => errors.push(FieldError::invalid(
                    &FieldPath::root().child("spec").child("healthCheckNodePort"),
                    asked,
                    "provided port is already allocated",
                )),
            }
        }
    }
}

/// A client that sends no addresses keeps those it has.
fn keep_addresses(object: &mut Object, old: &Object) {
    if !wants_address(&object["spec"]) || !wants_address(&old["spec"]) {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let absent = match &object["spec"][field] {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if absent && let Some(value) = old["spec"].get(field) {
            object["spec"][field] = value.clone();
        }
    }
}

/// … and the node ports of the ports that are still there.
fn keep_ports(object: &mut Object, old: &Object) {
    if !wants_node_ports(&object["spec"]) {
        return;
    }
    let before = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let mut taken: Vec<u64> = Vec::new();
    let Some(ports) = object["spec"]["ports"].as_array_mut() else { return };
    for port in ports.iter_mut().filter(|p| p["nodePort"].as_u64().unwrap_or_default() == 0) {
        let same = before.iter().find(|b| b["port"] == port["port"] && protocol(b) == protocol(port));
        if let Some(number) =
            same.and_then(|b| b["nodePort"].as_u64()).filter(|n| *n > 0 && !taken.contains(n))
        {
            taken.push(number);
            port["nodePort"] = number.into();
        }
    }
    if object["spec"]["healthCheckNodePort"].as_u64().unwrap_or_default() == 0
        && let Some(check) = old["spec"].get("healthCheckNodePort")
        && text(&object["spec"], "externalTrafficPolicy") == "Local"
    {
        object["spec"]["healthCheckNodePort"] = check.clone();
    }
}

fn pick_port(range: &RangeInclusive<u16>, free: impl Fn(u16) -> bool) -> Option<u16> {
    let (start, end) = (u32::from(*range.start()), u32::from(*range.end()));
    let size = (end + 1).checked_sub(start)?;
    let band = if size < 32 { 0 } else { (size / 32).clamp(16, 128) };
    let within = |from: u32, to: u32| {
        let count = to.checked_sub(from).filter(|c| *c > 0)?;
        let begin = rand::rng().random_range(0..count);
        (0..count)
            .filter_map(|step| u16::try_from(start + from + (begin + step) % count).ok())
            .find(|n| free(*n))
    };
    within(band, size).or_else(|| within(0, band))
}

//! LoadBalancer addresses from a pool: asking for one is one line of YAML.
//!
//! [`assign`] is pure and decides; [`run`] watches Services and writes `status.loadBalancer`. The addresses are
//! answered by every node's service table; how packets for the pool get to a node is routing's business.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use futures::StreamExt;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::json;

use crate::cluster::{Key, object_key};
use crate::error::Result;

/// The `loadBalancerClass` that names this controller; a Service without a class is its business too.
pub const CLASS: &str = "plimsoll.io/pool";

/// What a Service should get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Its status is as it should be.
    Keep,
    /// Write this address.
    Set(Ipv4Addr),
    /// Take the address out of the status: it is not, or no longer, a LoadBalancer of ours.
    Clear,
    /// It cannot have what it asks for; why.
    Wait(String),
}

/// The pool with who holds what.
#[derive(Debug)]
pub struct Pool {
    range: Ipv4Net,
    held: BTreeMap<Ipv4Addr, Key>,
}

impl Pool {
    /// All addresses of a range but its first and last.
    pub fn new(range: Ipv4Net) -> Self {
        Self { range, held: BTreeMap::new() }
    }

    /// Decides for one Service, and remembers what it holds then.
    pub fn assign(&mut self, key: &Key, service: &Service) -> Decision {
        let current = current(service);
        if !ours(service) {
            let had = self.release(key);
            // An address of somebody else's (a status written by another controller) is left alone.
            return if current.is_some_and(|a| had == Some(a)) || (current.is_some() && !is_balancer(service))
            {
                Decision::Clear
            } else {
                Decision::Keep
            };
        }
        let asked =
            service.spec.as_ref().and_then(|s| s.load_balancer_ip.as_deref()).filter(|a| !a.is_empty());
        let asked: Option<Ipv4Addr> = match asked.map(str::parse) {
            None => None,
            Some(Ok(address)) if self.usable(address) => Some(address),
            Some(_) => {
                return Decision::Wait(format!(
                    "loadBalancerIP {} is not an address of the pool {}",
                    asked.unwrap_or_default(),
                    self.range
                ));
            }
        };
        let free = |pool: &Self, a: Ipv4Addr| pool.held.get(&a).is_none_or(|holder| holder == key);
        let wanted = match asked {
            Some(address) if !free(self, address) => {
                let holder = self.held.get(&address).map(|k| format!("{}/{}", k.0, k.1)).unwrap_or_default();
                return Decision::Wait(format!("loadBalancerIP {address} is held by Service {holder}"));
            }
            Some(address) => address,
            None => {
                let kept = current.filter(|a| self.usable(*a) && free(self, *a)).or_else(|| self.holds(key));
                match kept.or_else(|| self.range.hosts().find(|a| !self.held.contains_key(a))) {
                    Some(address) => address,
                    None => return Decision::Wait(format!("the pool {} has no free address", self.range)),
                }
            }
        };
        self.release(key);
        self.held.insert(wanted, key.clone());
        if current == Some(wanted) { Decision::Keep } else { Decision::Set(wanted) }
    }

    /// A Service is gone, or gives its address back.
    pub fn release(&mut self, key: &Key) -> Option<Ipv4Addr> {
        let address = self.holds(key)?;
        self.held.remove(&address);
        Some(address)
    }

    fn holds(&self, key: &Key) -> Option<Ipv4Addr> {
        self.held.iter().find(|(_, holder)| *holder == key).map(|(a, _)| *a)
    }

    fn usable(&self, address: Ipv4Addr) -> bool {
        self.range.contains(&address) && address != self.range.network() && address != self.range.broadcast()
    }
}

fn is_balancer(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("LoadBalancer")
}

fn ours(service: &Service) -> bool {
    let class = service.spec.as_ref().and_then(|s| s.load_balancer_class.as_deref());
    is_balancer(service) && class.is_none_or(|c| c == CLASS) && service.metadata.deletion_timestamp.is_none()
}

fn current(service: &Service) -> Option<Ipv4Addr> {
    service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?.ip.as_deref()?.parse().ok()
}

/// Assigns addresses until the returned future is dropped. Run it once a cluster.
pub async fn run(client: Client, range: Ipv4Net) -> Result<()> {
    let mut pool = Pool::new(range);
    let mut services: BTreeMap<Key, Service> = BTreeMap::new();
    let mut listing: Option<BTreeSet<Key>> = Some(BTreeSet::new());
    let mut events =
        watcher(Api::<Service>::all(client.clone()), watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(e) => {
                tracing::warn!(error = %e, "load balancer: watch, trying again");
                continue;
            }
        };
        let mut dirty = Vec::new();
        match event {
            Event::Init => listing = Some(BTreeSet::new()),
            Event::InitApply(service) => {
                if let Some(key) = object_key(&service.metadata) {
                    listing.get_or_insert_default().insert(key.clone());
                    services.insert(key, service);
                }
            }
            Event::InitDone => {
                let listed = listing.take().unwrap_or_default();
                services.retain(|key, _| listed.contains(key));
                pool.held.retain(|_, key| listed.contains(key));
                // Those that have an address first, or a new one might take it.
                dirty.extend(services.iter().filter(|(_, s)| current(s).is_some()).map(|(k, _)| k.clone()));
                dirty.extend(services.iter().filter(|(_, s)| current(s).is_none()).map(|(k, _)| k.clone()));
            }
            Event::Apply(service) => {
                if let Some(key) = object_key(&service.metadata) {
                    services.insert(key.clone(), service);
                    dirty.push(key);
                }
            }
            Event::Delete(service) => {
                if let Some(key) = object_key(&service.metadata) {
                    services.remove(&key);
                    if pool.release(&key).is_some() {
                        // Somebody may have waited for it.
                        let waiting = services.iter().filter(|(_, s)| ours(s) && current(s).is_none());
                        dirty.extend(waiting.map(|(k, _)| k.clone()));
                    }
                }
            }
        }
        for key in dirty {
            let Some(service) = services.get(&key) else { continue };
            let status = match pool.assign(&key, service) {
                Decision::Keep => continue,
                Decision::Set(address) => json!({"ingress": [{"ip": address.to_string(), "ipMode": "VIP"}]}),
                Decision::Clear => json!({"ingress": null}),
                Decision::Wait(why) => {
                    tracing::warn!(service = %format!("{}/{}", key.0, key.1), "load balancer: {why}");
                    continue;
                }
            };
            let api: Api<Service> = Api::namespaced(client.clone(), &key.0);
            let patch = Patch::Merge(json!({"status": {"loadBalancer": status}}));
            if let Err(e) = api.patch_status(&key.1, &PatchParams::default(), &patch).await {
                // A Service deleted meanwhile is none of our business; the rest comes again with its next event.
                tracing::warn!(service = %format!("{}/{}", key.0, key.1), error = %e, "load balancer: status");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::key;

    fn service(spec: serde_json::Value, ip: Option<&str>) -> Service {
        let ingress: Vec<_> = ip.into_iter().map(|ip| json!({"ip": ip})).collect();
        serde_json::from_value(json!({"spec": spec, "status": {"loadBalancer": {"ingress": ingress}}}))
            .unwrap()
    }

    fn balancer(ip: Option<&str>) -> Service {
        service(json!({"type": "LoadBalancer"}), ip)
    }

    fn pool() -> Pool {
        Pool::new("10.7.0.0/29".parse().unwrap())
    }

    fn address(last: u8) -> Ipv4Addr {
        [10, 7, 0, last].into()
    }

    #[test]
    fn each_service_gets_an_address_of_its_own_and_keeps_it() {
        let mut p = pool();
        assert_eq!(p.assign(&key("n", "a"), &balancer(None)), Decision::Set(address(1)));
        assert_eq!(p.assign(&key("n", "b"), &balancer(None)), Decision::Set(address(2)));
        assert_eq!(p.assign(&key("n", "a"), &balancer(Some("10.7.0.1"))), Decision::Keep);
        assert_eq!(
            p.assign(&key("n", "a"), &balancer(None)),
            Decision::Set(address(1)),
            "written again if lost"
        );
    }

    #[test]
    fn a_deleted_or_changed_service_gives_its_address_back() {
        let mut p = pool();
        p.assign(&key("n", "a"), &balancer(None));
        let cluster_ip = service(json!({"type": "ClusterIP"}), Some("10.7.0.1"));
        assert_eq!(p.assign(&key("n", "a"), &cluster_ip), Decision::Clear);
        assert_eq!(p.assign(&key("n", "b"), &balancer(None)), Decision::Set(address(1)));
        p.release(&key("n", "b"));
        assert_eq!(p.assign(&key("n", "c"), &balancer(None)), Decision::Set(address(1)));
    }

    #[test]
    fn an_address_that_is_asked_for_is_given_if_it_is_in_the_pool_and_free() {
        let mut p = pool();
        let asks = |ip: &str| service(json!({"type": "LoadBalancer", "loadBalancerIP": ip}), None);
        assert_eq!(p.assign(&key("n", "a"), &asks("10.7.0.5")), Decision::Set(address(5)));
        assert!(
            matches!(p.assign(&key("n", "b"), &asks("10.7.0.5")), Decision::Wait(w) if w.contains("n/a"))
        );
        assert!(matches!(p.assign(&key("n", "b"), &asks("192.0.2.1")), Decision::Wait(_)));
        assert!(matches!(p.assign(&key("n", "b"), &asks("nonsense")), Decision::Wait(_)));
    }

    #[test]
    fn another_class_is_somebody_elses_business() {
        let mut p = pool();
        let other =
            service(json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/x"}), Some("10.7.0.1"));
        assert_eq!(p.assign(&key("n", "a"), &other), Decision::Keep);
        assert_eq!(p.assign(&key("n", "b"), &balancer(None)), Decision::Set(address(1)));
    }

    #[test]
    fn an_empty_pool_makes_services_wait() {
        let mut p = pool();
        for i in 0..6 {
            assert!(matches!(p.assign(&key("n", &i.to_string()), &balancer(None)), Decision::Set(_)));
        }
        assert!(matches!(p.assign(&key("n", "late"), &balancer(None)), Decision::Wait(_)));
    }
}

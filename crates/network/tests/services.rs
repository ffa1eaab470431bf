//! Services on a node, fed with state directly. Needs root; skips itself otherwise.

mod lab;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use lab::{Namespace, node, root_or_skip};
use network::cluster::{Cluster, Key};
use network::services::Proxy;
use network::services::base::Ranges;
use network::services::desired::Place;
use serde_json::{Value, json};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 9);

/// A node with two pods on it and a client outside.
struct World {
    node: Namespace,
    net: network::PodNet,
    outside: Namespace,
    pods: Vec<(Namespace, Ipv4Addr)>,
    cluster: Cluster,
    proxy: Proxy,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(name: &str) -> Self {
        let (node, net, dir) = node(name);
        let outside = Namespace::new(&format!("{name}-o"));
        outside.ip("link set lo up");
        node.ip(&format!("link set outside netns {}", outside.path.display()));
        outside.ip("addr add 192.168.77.9/24 dev outside");
        outside.ip("link set outside up");
        outside.ip("route add default via 192.168.77.1");
        let pods = (0..2)
            .map(|i| {
                let pod = Namespace::new(&format!("{name}-{i}"));
                let address = match net.attach(&i.to_string(), &pod.path, &[]).unwrap()[0] {
                    IpAddr::V4(a) => a,
                    IpAddr::V6(_) => unreachable!("IPv4 only"),
                };
                (pod, address)
            })
            .collect();
        let services = vec!["10.96.0.0/16".parse().unwrap()];
        let mut routes = network::nodes::Routes::new(Some(&node.path), &services).unwrap();
        routes.answer_here(&services, NODE).unwrap();
        let place = Place { node: "here".into(), ..Place::default() };
        let ranges = Ranges { pods: "10.244.1.0/24".parse().unwrap(), services, node_addresses: vec![NODE] };
        let proxy = Proxy::new(Some(&node.path), place, ranges).unwrap();
        Self { node, net, outside, pods, cluster: Cluster::default(), proxy, _dir: dir }
    }

    fn put(&mut self, spec: Value, slice: Value) {
        let metadata =
            json!({"namespace": "ns", "name": "web", "labels": {"kubernetes.io/service-name": "web"}});
        let status = json!({"loadBalancer": {"ingress": [{"ip": "10.96.200.1"}]}});
        let service: Service =
            serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap();
        let mut slice = slice;
        slice["metadata"] = metadata;
        slice["addressType"] = json!("IPv4");
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        let mut dirty: BTreeSet<Key> = self.cluster.put_service(&service).into_iter().collect();
        dirty.extend(self.cluster.put_slice(&slice));
        self.proxy.update(&self.cluster, &dirty).unwrap();
    }

    /// Endpoints `(pod index, node, conditions)`.
    fn endpoints(&self, list: &[(usize, &str, Value)], protocol: &str, port: u16) -> Value {
        let endpoint = |(i, node, conditions): &(usize, &str, Value)| json!({"addresses": [self.pods[*i].1.to_string()], "nodeName": node, "conditions": conditions});
        json!({
            "ports": [{"name": "p", "protocol": protocol, "port": port}],
            "endpoints": list.iter().map(endpoint).collect::<Vec<_>>(),
        })
    }

    fn spec(extra: Value) -> Value {
        let mut spec = json!({
            "type": "LoadBalancer", "clusterIP": VIP.to_string(),
            "ports": [{"name": "p", "port": 80, "nodePort": 30080, "protocol": "TCP"}],
        });
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        spec
    }

    fn asked(&self, from: &Namespace, address: Ipv4Addr, port: u16, times: usize) -> BTreeSet<String> {
        (0..times).map(|_| from.tcp_ask(address, port).unwrap_or_else(|e| e)).collect()
    }
}

fn ready() -> Value {
    json!({"ready": true, "serving": true, "terminating": false})
}

#[test]
fn every_kind_of_address_leads_to_every_endpoint_until_there_is_none() {
    if !root_or_skip() {
        return;
    }
    let mut w = World::new("sv1");
    let _servers: Vec<_> = w.pods.iter().map(|(p, a)| p.tcp_echo_local(*a, 8080)).collect();
    let both: BTreeSet<String> = w.pods.iter().map(|p| p.1.to_string()).collect();
    let slice = w.endpoints(&[(0, "here", ready()), (1, "here", ready())], "TCP", 8080);
    w.put(World::spec(json!({"externalIPs": ["198.51.100.7"]})), slice);
    let lb: Ipv4Addr = [10, 96, 200, 1].into();
    assert_eq!(w.asked(&w.node, VIP, 80, 40), both, "the node itself");
    assert_eq!(w.asked(&w.pods[0].0, VIP, 80, 40), both, "a pod, also to itself");
    assert_eq!(w.asked(&w.outside, VIP, 80, 40), both);
    assert_eq!(w.asked(&w.outside, NODE, 30080, 40), both);
    assert_eq!(w.asked(&w.node, NODE, 30080, 40), both);
    assert_eq!(w.asked(&w.outside, lb, 80, 40), both);
    assert_eq!(w.asked(&w.outside, [198, 51, 100, 7].into(), 80, 40), both);

    let refused = BTreeSet::from(["ConnectionRefused".to_string()]);
    assert_eq!(w.asked(&w.outside, VIP, 81, 1), refused, "a port the service does not have");
    assert_eq!(w.asked(&w.pods[0].0, [10, 96, 9, 9].into(), 80, 1), BTreeSet::from(["TimedOut".to_string()]));
    let none = w.endpoints(&[], "TCP", 8080);
    w.put(World::spec(json!({})), none);
    assert_eq!(w.asked(&w.outside, VIP, 80, 1), refused);
    assert_eq!(w.asked(&w.node, VIP, 80, 1), refused);
    assert_eq!(w.asked(&w.pods[0].0, VIP, 80, 1), refused);
    assert_eq!(w.asked(&w.outside, NODE, 30080, 1), refused);
    w.proxy.cleanup().unwrap();
    w.net.cleanup().unwrap();
}

#[test]
fn a_client_with_affinity_stays_until_its_endpoint_goes() {
    if !root_or_skip() {
        return;
    }
    let mut w = World::new("sv2");
    let _servers: Vec<_> = w.pods.iter().map(|(p, a)| p.tcp_echo_local(*a, 8080)).collect();
    let sticky = || World::spec(json!({"sessionAffinity": "ClientIP"}));
    let slice = w.endpoints(&[(0, "here", ready()), (1, "here", ready())], "TCP", 8080);
    w.put(sticky(), slice);
    let first = w.asked(&w.outside, VIP, 80, 30);
    assert_eq!(first.len(), 1);
    assert_eq!(w.asked(&w.outside, NODE, 30080, 30), first, "the node port belongs to the same service port");
    let left = usize::from(first.contains(&w.pods[0].1.to_string()));
    let slice = w.endpoints(&[(left, "here", ready())], "TCP", 8080);
    w.put(sticky(), slice);
    let other = BTreeSet::from([w.pods[left].1.to_string()]);
    assert_eq!(w.asked(&w.outside, VIP, 80, 5), other);
    let slice = w.endpoints(&[(0, "here", ready()), (1, "here", ready())], "TCP", 8080);
    w.put(sticky(), slice);
    assert_eq!(w.asked(&w.outside, VIP, 80, 30), other, "a new endpoint takes nobody away");
}

#[test]
fn local_traffic_policies_keep_the_source_and_drop_without_local_endpoints() {
    if !root_or_skip() {
        return;
    }
    let mut w = World::new("sv3");
    let (a, b) = (w.pods[0].1, w.pods[1].1);
    let _server_a = w.pods[0].0.tcp_echo_peer(a, 8080);
    let _server_b = w.pods[1].0.tcp_echo_peer(b, 8080);
    let slice = w.endpoints(&[(0, "here", ready()), (1, "elsewhere", ready())], "TCP", 8080);
    w.put(World::spec(json!({})), slice.clone());
    assert_eq!(
        w.asked(&w.outside, NODE, 30080, 5),
        BTreeSet::from([NODE.to_string()]),
        "policy Cluster masquerades"
    );
    w.put(World::spec(json!({"externalTrafficPolicy": "Local"})), slice);
    assert_eq!(w.asked(&w.outside, NODE, 30080, 5), BTreeSet::from([CLIENT.to_string()]));
    let away = w.endpoints(&[(0, "elsewhere", ready()), (1, "elsewhere", ready())], "TCP", 8080);
    w.put(World::spec(json!({"externalTrafficPolicy": "Local"})), away.clone());
    assert_eq!(w.asked(&w.outside, NODE, 30080, 1), BTreeSet::from(["TimedOut".to_string()]));
    assert!(w.node.tcp_ask(NODE, 30080).is_ok(), "the node itself is short-circuited to all endpoints");
    assert!(w.pods[0].0.tcp_ask([10, 96, 200, 1].into(), 80).is_ok(), "so is a pod");
    assert!(w.outside.tcp_ask(VIP, 80).is_ok(), "the cluster address has its own policy");
    w.put(World::spec(json!({"internalTrafficPolicy": "Local"})), away);
    assert_eq!(w.asked(&w.node, VIP, 80, 1), BTreeSet::from(["TimedOut".to_string()]));
}

#[test]
fn source_ranges_guard_the_load_balancer_address_only() {
    if !root_or_skip() {
        return;
    }
    let mut w = World::new("sv4");
    let _server = w.pods[0].0.tcp_echo_local(w.pods[0].1, 8080);
    let slice = w.endpoints(&[(0, "here", ready())], "TCP", 8080);
    let lb: Ipv4Addr = [10, 96, 200, 1].into();
    w.put(World::spec(json!({"loadBalancerSourceRanges": ["192.168.77.8/32", "10.0.0.0/8"]})), slice.clone());
    assert!(w.outside.tcp_ask(lb, 80).is_err());
    assert!(w.outside.tcp_ask(NODE, 30080).is_ok());
    w.put(World::spec(json!({"loadBalancerSourceRanges": ["192.168.77.8/31", "10.0.0.0/8"]})), slice);
    assert!(w.outside.tcp_ask(lb, 80).is_ok());
}

#[test]
fn a_one_way_udp_sender_follows_its_endpoint() {
    if !root_or_skip() {
        return;
    }
    let mut w = World::new("sv5");
    let sockets: Vec<_> = w.pods.iter().map(|(p, a)| p.udp(*a, 8080)).collect();
    let spec =
        || World::spec(json!({"ports": [{"name": "p", "port": 80, "nodePort": 30080, "protocol": "UDP"}]}));
    let slice = w.endpoints(&[(0, "here", ready())], "UDP", 8080);
    w.put(spec(), slice);
    let sender = w.outside.udp(CLIENT, 4000);
    let to_node = w.outside.udp(CLIENT, 4001);
    let mut buffer = [0; 8];
    for i in [0, 1] {
        let slice = w.endpoints(&[(i, "here", ready())], "UDP", 8080);
        w.put(spec(), slice);
        sender.send_to(b"x", (VIP, 80)).unwrap();
        sockets[i].recv(&mut buffer).unwrap_or_else(|e| panic!("cluster address, endpoint {i}: {e}"));
        to_node.send_to(b"x", (NODE, 30080)).unwrap();
        sockets[i].recv(&mut buffer).unwrap_or_else(|e| panic!("node port, endpoint {i}: {e}"));
    }
}

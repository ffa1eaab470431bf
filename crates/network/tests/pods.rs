//! Pods on a node, in network namespaces of the test's own. Needs root; skips itself otherwise.

mod lab;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use lab::{Namespace, node, root_or_skip};
use network::{PortMapping, Protocol};

fn v4(address: &IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(a) => *a,
        IpAddr::V6(_) => panic!("an IPv6 address"),
    }
}

#[test]
fn pods_reach_each_other_and_the_node_and_keep_their_source_address() {
    if !root_or_skip() {
        return;
    }
    let (ns, net, _dir) = node("pn1");
    let (a, b) = (Namespace::new("pn1-a"), Namespace::new("pn1-b"));
    let address_a = v4(&net.attach("a", &a.path, &[]).unwrap()[0]);
    let address_b = v4(&net.attach("b", &b.path, &[]).unwrap()[0]);
    assert_ne!(address_a, address_b);
    let server = b.tcp_echo_peer(address_b, 80);
    assert_eq!(a.tcp_ask(address_b, 80).as_deref(), Ok(address_a.to_string().as_str()));
    assert_eq!(ns.tcp_ask(address_b, 80).as_deref(), Ok("192.168.77.1"), "the node uses its own address");
    drop(server);
    net.cleanup().unwrap();
}

#[test]
fn attaching_twice_gives_the_same_address_and_detaching_twice_is_fine() {
    if !root_or_skip() {
        return;
    }
    let (_ns, net, _dir) = node("pn2");
    let a = Namespace::new("pn2-a");
    let first = net.attach("a", &a.path, &[]).unwrap();
    assert_eq!(net.attach("a", &a.path, &[]).unwrap(), first);
    net.detach("a").unwrap();
    net.detach("a").unwrap();
    let again = net.attach("a", &a.path, &[]).unwrap();
    assert_ne!(again, first, "an address just released rests");
}

#[test]
fn host_ports_lead_to_the_pod_by_address_and_protocol() {
    if !root_or_skip() {
        return;
    }
    let (ns, net, _dir) = node("pn3");
    let (a, b) = (Namespace::new("pn3-a"), Namespace::new("pn3-b"));
    let port = |host_ip: Option<[u8; 4]>, host_port| PortMapping {
        host_ip: host_ip.map(Ipv4Addr::from),
        host_port,
        container_port: 80,
        protocol: Protocol::Tcp,
    };
    let on_loopback = [port(Some([127, 0, 0, 1]), 5000)];
    let on_node = [port(Some([192, 168, 77, 1]), 5000), port(None, 6000)];
    let address_a = v4(&net.attach("a", &a.path, &on_loopback).unwrap()[0]);
    let address_b = v4(&net.attach("b", &b.path, &on_node).unwrap()[0]);
    let _sa = a.tcp_echo_local(address_a, 80);
    let _sb = b.tcp_echo_local(address_b, 80);
    assert_eq!(ns.tcp_ask([127, 0, 0, 1].into(), 5000).unwrap(), address_a.to_string());
    assert_eq!(ns.tcp_ask([192, 168, 77, 1].into(), 5000).unwrap(), address_b.to_string());
    assert_eq!(ns.tcp_ask([127, 0, 0, 1].into(), 6000).unwrap(), address_b.to_string());
    assert_eq!(b.tcp_ask([192, 168, 77, 1].into(), 6000).unwrap(), address_b.to_string(), "hairpin");
    assert!(a.tcp_ask([127, 0, 0, 1].into(), 6000).is_err(), "a pod's loopback address is its own");
    net.detach("b").unwrap();
    assert!(ns.tcp_ask([192, 168, 77, 1].into(), 5000).is_err());
}

#[test]
fn leases_and_host_ports_outlive_the_program_and_leftovers_are_collected() {
    if !root_or_skip() {
        return;
    }
    let (ns, net, dir) = node("pn4");
    let (a, b) = (Namespace::new("pn4-a"), Namespace::new("pn4-b"));
    let ports = [PortMapping { host_ip: None, host_port: 7000, container_port: 80, protocol: Protocol::Tcp }];
    let address = net.attach("a", &a.path, &ports).unwrap();
    net.attach("b", &b.path, &[]).unwrap();
    drop(net);
    let net = lab::pod_net(&ns, dir.path());
    assert_eq!(net.addresses("a"), address);
    let _server = a.tcp_echo_local(v4(&address[0]), 80);
    assert!(ns.tcp_ask([192, 168, 77, 1].into(), 7000).is_ok());
    assert_eq!(net.reconcile(["a"]).unwrap(), 1);
    assert!(net.addresses("b").is_empty());
    assert_eq!(net.reconcile(["a"]).unwrap(), 0);
}

#[test]
fn attaching_is_quick() {
    if !root_or_skip() {
        return;
    }
    let (_ns, net, _dir) = node("pn5");
    let pods: Vec<_> = (0..20).map(|i| Namespace::new(&format!("pn5-{i}"))).collect();
    let mut times = Vec::new();
    for (i, pod) in pods.iter().enumerate() {
        let start = Instant::now();
        net.attach(&i.to_string(), &pod.path, &[]).unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    // No assertion on time: a slow machine is not a broken one. The figure is what one looks at.
    println!("attach: median {:?}, slowest {:?}", times[times.len() / 2], times[times.len() - 1]);
}

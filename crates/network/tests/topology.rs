//! Several nodes on one machine. Needs root; skips itself otherwise.

mod lab;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use lab::{Namespace, root_or_skip};
use network::PodNet;
use network::nodes::Routes;
use network::pods;
use network::topology::{Config, Lab};

#[test]
fn pods_on_two_nodes_and_the_host_reach_each_other_and_down_removes_all() {
    if !root_or_skip() {
        return;
    }
    let tag = format!("t{}", std::process::id() % 10_000);
    let config = Config { tag: tag.clone(), nodes: 2, network: "10.213.7.0/24".parse().unwrap() };
    let lab = Lab::up(config.clone()).unwrap();
    let ranges: Vec<Ipv4Net> = (0..2u8).map(|i| Ipv4Net::new_assert([10, 214, i, 0].into(), 24)).collect();
    let wanted: BTreeMap<Ipv4Net, Ipv4Addr> =
        ranges.iter().copied().zip(lab.nodes.iter().map(|n| n.address)).collect();
    let cluster: Ipv4Net = "10.214.0.0/16".parse().unwrap();
    let mut host = Routes::new(None, &[cluster]).unwrap();
    host.sync(&wanted).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let mut pods = Vec::new();
    for (i, node) in lab.nodes.iter().enumerate() {
        let mut others = wanted.clone();
        others.remove(&ranges[i]);
        Routes::new(Some(&node.netns), &[cluster]).unwrap().sync(&others).unwrap();
        let net = PodNet::new(pods::Config {
            node: node.name.clone(),
            pod_cidr: ranges[i],
            cluster_cidr: cluster,
            node_address: node.address,
            state_dir: dir.path().join(i.to_string()),
            netns: Some(node.netns.clone()),
            mtu: 1500,
        })
        .unwrap();
        let pod = Namespace::new(&format!("{tag}-p{i}"));
        let IpAddr::V4(address) = net.attach("p", &pod.path, &[]).unwrap()[0] else { panic!("IPv4 only") };
        pods.push((pod, address));
    }
    let _server = pods[1].0.tcp_echo_peer(pods[1].1, 80);
    assert_eq!(
        pods[0].0.tcp_ask(pods[1].1, 80).unwrap(),
        pods[0].1.to_string(),
        "pod to pod keeps its address"
    );
    let from_host = std::net::TcpStream::connect((pods[1].1, 80)).unwrap();
    assert_eq!(from_host.local_addr().unwrap().ip(), IpAddr::V4(lab.host));

    let again = Lab::up(config.clone()).unwrap();
    assert!(pods[0].0.tcp_ask(pods[1].1, 80).is_ok(), "a whole lab is taken over as it is");
    drop(from_host);
    host.cleanup().unwrap();
    again.down().unwrap();
    assert!(lab.nodes.iter().all(|n| !n.netns.exists()));
    let links = std::process::Command::new("ip").args(["-o", "link"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&links.stdout).contains(&format!("pln{tag}")));
    again.down().unwrap();
}

#[test]
fn what_a_crash_left_behind_is_rebuilt() {
    if !root_or_skip() {
        return;
    }
    let tag = format!("u{}", std::process::id() % 10_000);
    let config = Config { tag, nodes: 2, network: "10.213.8.0/24".parse().unwrap() };
    let lab = Lab::up(config.clone()).unwrap();
    network::netns::remove(&lab.nodes[1].name).unwrap();
    let lab = Lab::up(config).unwrap();
    assert!(
        network::netns::within(Some(&lab.nodes[1].netns), || std::net::UdpSocket::bind((
            lab.nodes[1].address,
            0
        )))
        .unwrap()
        .is_ok()
    );
    lab.down().unwrap();
}

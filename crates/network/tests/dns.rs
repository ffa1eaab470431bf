//! Cluster DNS as a client sees it, over UDP and TCP on the loopback address. No root needed: hickory decodes
//! the answers, as an independent reader of our hand-written wire format.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
use network::cluster::Cluster;
use network::dns::{Config, Server, Upstream, Zone};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

struct World {
    server: Server,
    zone: Arc<Zone>,
    cluster: Cluster,
}

impl World {
    async fn new(upstream: Vec<SocketAddr>) -> Self {
        let zone = Arc::new(Zone::new("cluster.local").unwrap());
        let config = Config {
            address: Ipv4Addr::LOCALHOST,
            port: 0,
            netns: None,
            assign: false,
            namespace_of: Arc::new(|_| Some("shop".into())),
        };
        let server = Server::start(config, zone.clone(), Arc::new(Upstream::new(upstream))).unwrap();
        let mut world = Self { server, zone, cluster: Cluster::default() };
        world.service(
            "web",
            json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]}),
            None,
        );
        world.service(
            "db",
            json!({"clusterIP": "None", "ports": [{"name": "pg", "port": 5432}]}),
            Some(json!({
                "ports": [{"name": "pg", "port": 5432}],
                "endpoints": [
                    {"addresses": ["10.244.0.7"], "hostname": "db-0", "conditions": {"ready": true}},
                    {"addresses": ["10.244.0.8"], "conditions": {"ready": true}},
                    {"addresses": ["10.244.0.9"], "conditions": {"ready": false}}],
            })),
        );
        world.service("empty", json!({"clusterIP": "None"}), Some(json!({"endpoints": []})));
        world.service("away", json!({"type": "ExternalName", "externalName": "www.example.com"}), None);
        world.service(
            "near",
            json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"}),
            None,
        );
        world
    }

    fn service(&mut self, name: &str, spec: Value, slice: Option<Value>) {
        let metadata =
            json!({"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": name}});
        let service = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        let mut dirty: Vec<_> = self.cluster.put_service(&service).into_iter().collect();
        if let Some(mut slice) = slice {
            slice["metadata"] = metadata;
            slice["addressType"] = json!("IPv4");
            dirty.extend(self.cluster.put_slice(&serde_json::from_value(slice).unwrap()));
        }
        self.zone.update(&self.cluster, &dirty);
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        udp(self.server.address(), &query(name, kind, None)).await
    }

    async fn texts(&self, name: &str, kind: RecordType) -> Vec<String> {
        let mut list: Vec<_> =
            self.ask(name, kind).await.answers.iter().map(|r| r.data.to_string()).collect();
        list.sort();
        list
    }
}

fn query(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
    let mut m = Message::new(4711, MessageType::Query, OpCode::Query);
    m.metadata.recursion_desired = true;
    m.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(size) = edns {
        let mut e = Edns::new();
        e.set_max_payload(size);
        m.set_edns(e);
    }
    m.to_vec().unwrap()
}

async fn udp(server: SocketAddr, packet: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(packet, server).await.unwrap();
    let mut buffer = [0; 4096];
    let n = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.unwrap().unwrap();
    let m = Message::from_vec(&buffer[..n]).unwrap();
    assert_eq!(m.metadata.message_type, MessageType::Response);
    m
}

/// An outside resolver that knows `www.example.com`, and counts what it is asked.
async fn outside() -> (SocketAddr, Arc<std::sync::Mutex<Vec<String>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
            let mut m = Message::from_vec(&buffer[..n]).unwrap();
            let question = m.queries[0].clone();
            log.lock().unwrap().push(question.name.to_ascii());
            m.metadata.message_type = MessageType::Response;
            if question.name.to_ascii() == "www.example.com." {
                if question.query_type == RecordType::A {
                    let a = RData::A(rdata::A([203, 0, 113, 9].into()));
                    m.add_answer(Record::from_rdata(question.name, 60, a));
                }
            } else {
                m.metadata.response_code = ResponseCode::NXDomain;
            }
            let _ = socket.send_to(&m.to_vec().unwrap(), from).await;
        }
    });
    (at, asked)
}

#[tokio::test]
async fn services_have_addresses_ports_and_names_for_their_addresses() {
    let w = World::new(vec![]).await;
    let m = w.ask("WEB.shop.svc.Cluster.Local.", RecordType::A).await;
    assert!(m.metadata.authoritative && m.metadata.recursion_available);
    assert_eq!(
        m.queries[0].name.to_ascii(),
        "WEB.shop.svc.Cluster.Local.",
        "the question comes back as it was"
    );
    assert_eq!(m.answers[0].data.to_string(), "10.96.0.5");
    assert_eq!(m.answers[0].ttl, 5);
    let srv = w.texts("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV).await;
    assert_eq!(srv, ["0 100 80 web.shop.svc.cluster.local."]);
    assert_eq!(w.texts("5.0.96.10.in-addr.arpa.", RecordType::PTR).await, ["web.shop.svc.cluster.local."]);
    assert_eq!(w.texts("dns-version.cluster.local.", RecordType::TXT).await, ["1.1.0"]);
    assert_eq!(w.texts("10-244-3-4.shop.pod.cluster.local.", RecordType::A).await, ["10.244.3.4"]);
}

#[tokio::test]
async fn headless_services_have_an_address_for_each_ready_endpoint() {
    let w = World::new(vec![]).await;
    assert_eq!(w.texts("db.shop.svc.cluster.local.", RecordType::A).await, ["10.244.0.7", "10.244.0.8"]);
    assert_eq!(w.texts("db-0.db.shop.svc.cluster.local.", RecordType::A).await, ["10.244.0.7"]);
    let srv = w.texts("_pg._tcp.db.shop.svc.cluster.local.", RecordType::SRV).await;
    let want =
        ["0 100 5432 10-244-0-8.db.shop.svc.cluster.local.", "0 100 5432 db-0.db.shop.svc.cluster.local."];
    assert_eq!(srv, want);
    assert_eq!(
        w.texts("7.0.244.10.in-addr.arpa.", RecordType::PTR).await,
        ["db-0.db.shop.svc.cluster.local."]
    );
    let first: std::collections::BTreeSet<String> = {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..4 {
            seen.insert(w.ask("db.shop.svc.cluster.local.", RecordType::A).await.answers[0].data.to_string());
        }
        seen
    };
    assert_eq!(first.len(), 2, "each address is the first in turn");
    let none = w.ask("empty.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(none.metadata.response_code, ResponseCode::NXDomain, "no ready endpoint, no name");
}

#[tokio::test]
async fn negative_answers_say_whether_the_name_exists_and_carry_the_soa() {
    let w = World::new(vec![]).await;
    for (name, kind, code) in [
        ("web.shop.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError),
        ("shop.svc.cluster.local.", RecordType::A, ResponseCode::NoError),
        ("_tcp.web.shop.svc.cluster.local.", RecordType::A, ResponseCode::NoError),
        ("nobody.shop.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
        ("other.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
        ("x.pod.cluster.local.", RecordType::AAAA, ResponseCode::NoError),
        ("300-1-1-1.shop.pod.cluster.local.", RecordType::A, ResponseCode::NXDomain),
    ] {
        let m = w.ask(name, kind).await;
        assert_eq!(m.metadata.response_code, code, "{name}");
        assert!(m.answers.is_empty());
        assert_eq!(m.authorities[0].record_type(), RecordType::SOA, "{name}");
    }
}

#[tokio::test]
async fn a_service_that_goes_takes_all_its_names_with_it() {
    let mut w = World::new(vec![]).await;
    let before = w.zone.len();
    w.service("late", json!({"clusterIP": "10.96.0.77", "ports": [{"name": "p", "port": 1}]}), None);
    assert!(w.zone.len() > before);
    let key = network::cluster::key("shop", "late");
    w.cluster.remove_service(&key);
    w.zone.update(&w.cluster, [&key]);
    assert_eq!(w.zone.len(), before);
    let m = w.ask("late.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(m.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn outside_names_are_asked_once_and_remembered() {
    let (at, asked) = outside().await;
    let w = World::new(vec![at]).await;
    for _ in 0..3 {
        assert_eq!(w.texts("www.example.com.", RecordType::A).await, ["203.0.113.9"]);
    }
    assert_eq!(asked.lock().unwrap().len(), 1);
    let away = w.texts("away.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(away, ["203.0.113.9", "www.example.com."], "an ExternalName comes with its address");
    assert_eq!(w.texts("away.shop.svc.cluster.local.", RecordType::CNAME).await, ["www.example.com."]);
    let near = w.texts("near.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(near, ["10.96.0.5", "web.shop.svc.cluster.local."]);
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_first_search_domain_answers_for_all() {
    let (at, asked) = outside().await;
    let w = World::new(vec![at]).await;
    let found = w.texts("www.example.com.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(found, ["203.0.113.9", "www.example.com."]);
    let found = w.texts("web.shop.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(found, ["10.96.0.5", "web.shop.svc.cluster.local."]);
    let m = w.ask("no.such.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(m.metadata.response_code, ResponseCode::NXDomain);
    let m = w.ask("nobody.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(m.metadata.response_code, ResponseCode::NXDomain);
    assert!(!asked.lock().unwrap().iter().any(|n| n == "nobody."), "a name without a dot stays inside");
}

#[tokio::test]
async fn without_resolvers_outside_names_fail_and_inside_names_do_not() {
    let w = World::new(vec![]).await;
    let m = w.ask("www.example.com.", RecordType::A).await;
    assert_eq!(m.metadata.response_code, ResponseCode::ServFail);
    let m = w.ask("www.example.com.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(m.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn answers_too_long_for_udp_are_cut_and_come_whole_over_tcp() {
    let mut w = World::new(vec![]).await;
    let endpoints: Vec<_> = (0..100)
        .map(|i| json!({"addresses": [format!("10.244.1.{i}")], "conditions": {"ready": true}}))
        .collect();
    w.service("many", json!({"clusterIP": "None"}), Some(json!({"ports": [], "endpoints": endpoints})));
    let name = "many.shop.svc.cluster.local.";
    let m = w.ask(name, RecordType::A).await;
    assert!(m.metadata.truncation && m.answers.is_empty());
    let m = udp(w.server.address(), &query(name, RecordType::A, Some(4096))).await;
    assert!(m.metadata.truncation && m.edns.is_some(), "1232 bytes are the most we send");
    let mut stream = TcpStream::connect(w.server.address()).await.unwrap();
    let packet = query(name, RecordType::A, None);
    for _ in 0..2 {
        stream.write_u16(packet.len() as u16).await.unwrap();
        stream.write_all(&packet).await.unwrap();
        let len = stream.read_u16().await.unwrap();
        let mut answer = vec![0; len.into()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 100);
    }
}

#[tokio::test]
async fn hostile_packets_get_an_error_or_nothing_and_the_server_goes_on() {
    let w = World::new(vec![]).await;
    let at = w.server.address();
    let mut bad = query("web.shop.svc.cluster.local.", RecordType::A, None);
    bad[12] = 0xc0;
    assert_eq!(
        udp(at, &bad).await.metadata.response_code,
        ResponseCode::FormErr,
        "a pointer in the question"
    );
    let mut update = query("web.shop.svc.cluster.local.", RecordType::A, None);
    update[2] = 5 << 3;
    assert_eq!(udp(at, &update).await.metadata.response_code, ResponseCode::NotImp);
    assert_eq!(w.ask("cluster.local.", RecordType::AXFR).await.metadata.response_code, ResponseCode::Refused);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for junk in [&[][..], &[1], &[0; 11], &[0xff; 1500]] {
        socket.send_to(junk, at).await.unwrap();
    }
    assert_eq!(w.texts("web.shop.svc.cluster.local.", RecordType::A).await, ["10.96.0.5"]);
}

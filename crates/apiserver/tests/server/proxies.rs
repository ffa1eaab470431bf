//! What is passed on to nodes and pods: who may ask for it, whom the server dials, and what becomes of the connection when
//! the other side does not do as it should (CVE-2018-1002105, CVE-2020-8559, CVE-2020-8562, CVE-2022-3294).

use std::{net::IpAddr, sync::Arc};

use access::UserInfo;
use apimachinery::{ApiError, Object};
use apiserver::{Body, NodeConnector, RequestBody, Tls};
use async_trait::async_trait;
use http_body_util::BodyExt as _;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tower::ServiceExt as _;

use crate::cluster::{Cluster, account, user};

const POD: &str = "/api/v1/namespaces/default/pods/web";
const UPGRADE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
];

/// Nodes and pods that answer with this code, and note what they were asked.
struct Outside {
    code: u16,
    asked: Mutex<Vec<String>>,
}

impl Outside {
    fn answer(&self, to: &str, request: &http::Request<RequestBody>) -> http::Response<Body> {
        self.asked.lock().push(format!("{} {to}{}", request.method(), request.uri()));
        http::Response::builder()
            .status(self.code)
            .header("location", "https://169.254.169.254/")
            .body(Body::from("outside"))
            .unwrap()
    }
}

#[async_trait]
impl NodeConnector for Outside {
    async fn kubelet(
        &self,
        node: &Object,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        assert!(request.headers().get("authorization").is_none(), "credentials stay here");
        Ok(self.answer(node["metadata"]["name"].as_str().unwrap(), &request))
    }

    async fn address(
        &self,
        address: IpAddr,
        port: u16,
        _: Tls,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        Ok(self.answer(&format!("{address}:{port}"), &request))
    }
}

/// A cluster with the node `n1` and on it the pod `web`, both at `address`.
async fn at(address: &str, code: u16) -> (Cluster, Arc<Outside>) {
    let outside = Arc::new(Outside { code, asked: Mutex::default() });
    let connector = outside.clone();
    let cluster = Cluster::with(|config| config.nodes = Some(connector)).await;
    account(&cluster).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    cluster.create("/api/v1/nodes", &node).await.ok();
    let addresses = json!([{"type": "InternalIP", "address": address}]);
    cluster.merge("/api/v1/nodes/n1/status", &json!({"status": {"addresses": addresses}})).await.ok();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    });
    cluster.create("/api/v1/namespaces/default/pods", &pod).await.ok();
    let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
    cluster.merge(&format!("{POD}/status"), &status).await.ok();
    (cluster, outside)
}

#[tokio::test]
async fn leave_to_read_is_no_leave_to_run_commands() {
    let (cluster, outside) = at("10.0.0.9", 200).await;
    let eve = user("eve", "guests");
    cluster.grant(&eve, "", &["get", "list", "watch"], &["*"]).await;
    cluster.grant(&eve, "", &["get"], &["nodes/proxy", "pods/exec", "pods/attach", "pods/portforward"]).await;
    let ask = async |path: &str| cluster.ask_as(&eve, "GET", path, &UPGRADE, "").await;
    for path in [
        "/api/v1/nodes/n1/proxy/exec/default/web/c?command=id&output=1",
        "/api/v1/nodes/n1:10250/proxy/run/default/web/c",
        &format!("{POD}/exec?command=id&stdout=1&container=c"),
        &format!("{POD}/attach?stdout=1&container=c"),
        &format!("{POD}/portforward?ports=80"),
    ] {
        let answer = ask(path).await;
        assert_eq!(answer.code, 403, "{path}: {:#}", answer.json());
    }
    assert!(outside.asked.lock().is_empty(), "nobody was asked");
    let seen = cluster.ask_as(&eve, "GET", "/api/v1/nodes/n1/proxy/stats/summary", &[], "").await;
    assert_eq!(seen.code, 200, "what she may do goes on");
    assert_eq!(*outside.asked.lock(), ["GET n1/stats/summary"]);
}

#[tokio::test]
async fn this_machines_own_addresses_are_not_dialled_for_others() {
    for address in
        ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1"]
    {
        let (cluster, outside) = at(address, 200).await;
        for path in [&format!("{POD}/proxy/"), &format!("{POD}:8080/proxy/"), "/api/v1/nodes/n1:2379/proxy/"]
        {
            let (code, message) = cluster.get(path).await.refused();
            assert_eq!((code, message.as_str()), (400, "address not allowed"), "{address} {path}");
        }
        assert!(outside.asked.lock().is_empty(), "{address}");
    }
}

#[tokio::test]
async fn a_redirect_of_a_node_is_not_followed() {
    let (cluster, outside) = at("10.0.0.9", 302).await;
    let admin: UserInfo = user("admin", "system:masters");
    for (path, headers) in [
        (format!("{POD}/exec?command=id&stdout=1&container=c"), &UPGRADE[..]),
        (format!("{POD}/log?container=c"), &[]),
        ("/api/v1/nodes/n1/proxy/x".to_owned(), &[]),
        (format!("{POD}/proxy/x"), &[]),
    ] {
        outside.asked.lock().clear();
        cluster.ask_as(&admin, "GET", &path, headers, "").await;
        assert_eq!(outside.asked.lock().len(), 1, "{path}: asked once, wherever the answer points");
    }
}

/// One connection of a client, spoken to in HTTP/1.1 byte by byte.
async fn connection(cluster: &Cluster, user: UserInfo) -> DuplexStream {
    let (client, server) = tokio::io::duplex(1 << 16);
    let service =
        cluster.server.service().map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            // As the listener does once it knows who asks.
            request.extensions_mut().insert(user.clone());
            request
        });
    let serving = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(server), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::spawn(serving);
    client
}

/// The next answer on the connection: code, and body by its length.
async fn answer(client: &mut DuplexStream) -> (u16, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or_else(|| panic!("{head}"))];
    client.read_exact(&mut body).await.unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

#[tokio::test]
async fn after_an_upgrade_that_failed_the_connection_is_the_servers_again() {
    for code in [200, 403, 500] {
        let (cluster, outside) = at("10.0.0.9", code).await;
        let mut client = connection(&cluster, user("admin", "system:masters")).await;
        let upgrade: String = UPGRADE.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
        let exec =
            format!("GET {POD}/exec?command=id&stdout=1&container=c HTTP/1.1\r\nhost: a\r\n{upgrade}\r\n");
        // The second request follows at once, as an attacker would send it to a node that listens still.
        let next = "GET /api/v1/namespaces/default/configmaps/none HTTP/1.1\r\nhost: a\r\n\r\n";
        client.write_all(format!("{exec}{next}").as_bytes()).await.unwrap();
        assert_eq!(answer(&mut client).await, (code, b"outside".to_vec()));
        let (refused, body) = answer(&mut client).await;
        let status: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((refused, &status["kind"]), (404, &json!("Status")), "{status}");
        assert_eq!(outside.asked.lock().len(), 1, "the node has seen the first request only");
    }
}

#[tokio::test]
async fn a_node_that_switches_protocols_without_being_asked_takes_no_connection() {
    let (cluster, _) = at("10.0.0.9", 101).await;
    let response = cluster.send("GET", "/api/v1/nodes/n1/proxy/x", &[], "").await;
    assert!(response.status().as_u16() >= 400, "{}", response.status());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(!body.starts_with(b"outside"));
}

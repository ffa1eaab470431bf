//! A control plane in this process and a node agent over the fake runtime.

use std::{sync::Arc, time::Duration};

use access::{
    UserInfo, admission,
    node::NodeAuthorizer,
    rbac::{Masters, Rbac},
    token::Issuer,
};
use agent::{Agent, Config, machine::Policy};
use apiserver::Server;
use k8s_openapi::{
    api::core::v1::{Node, NodeAddress, Pod},
    jiff::SignedDuration,
};
use kube::{Api, Client, api::PostParams, runtime::wait::await_condition};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fake::Fake;

pub const NODE: &str = "node-1";

pub struct Cluster {
    server: Server,
    dir: tempfile::TempDir,
    pub fake: Arc<Fake>,
    pub client: Client,
    agent: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
    pub view: Option<Arc<dyn agent::view::Pods>>,
    capacity: Vec<(&'static str, i64)>,
    /// Where pods' cgroups are made; empty: none are.
    pub cgroup_parent: String,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // volumes may be mounted below
        let _ = agent::volumes::remove(&self.dir.path().join("root"));
        for pod in std::fs::read_dir(self.dir.path().join("root/pods")).into_iter().flatten().flatten() {
            let _ = agent::volumes::remove(&pod.path());
        }
    }
}

impl Cluster {
    /// A control plane whose node is ready.
    pub async fn start() -> Self {
        let mut cluster = Self::without_agent().await;
        cluster.run_agent().await;
        cluster
    }

    pub async fn without_agent() -> Self {
        // RUST_LOG=agent=debug shows what the agent does
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let dir = tempfile::tempdir().unwrap();
        let resources: Vec<_> = kinds::all().to_vec();
        let store = store::Embedded::open(
            &dir.path().join("store"),
            store::Options::default(),
            apiserver::extract(&resources),
        )
        .unwrap();
        let mut config = apiserver::Config::new(store, resources);
        let reader: Arc<dyn access::Reader> = Arc::new(config.reader.clone());
        let rbac = Arc::new(Rbac::new(Arc::clone(&reader)));
        config.authorizers = vec![
            Arc::new(Masters),
            Arc::new(NodeAuthorizer::new(Arc::clone(&reader))),
            Arc::clone(&rbac) as _,
        ];
        let authorizer: Arc<dyn access::Authorizer> = Arc::new(access::Union(config.authorizers.clone()));
        config.admission = admission::chain(Arc::clone(&rbac), &authorizer);
        config.bootstrap = access::bootstrap::rbac_objects().into_iter().map(|(_, o)| o).collect();
        let key = Issuer::generate_key().unwrap();
        config.issuer = Some(Arc::new(Issuer::new("https://kubernetes.default.svc", &key).unwrap()));
        config.rbac = Some(rbac);
        config.advertise = Some(("192.0.2.1".parse().unwrap(), 6443));
        let server = Server::new(config);
        server.start().await.unwrap();
        let client = client(&server, "admin", &["system:masters"]);
        let cluster = Self {
            server,
            dir,
            fake: Fake::new(),
            client,
            agent: None,
            view: None,
            capacity: vec![("cpu", 4000)],
            cgroup_parent: String::new(),
        };
        // what controllers would make
        for (kind, object) in [
            ("serviceaccounts", json!({"metadata": {"name": "default"}})),
            ("configmaps", json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "CA"}})),
        ] {
            cluster.create(&format!("/api/v1/namespaces/default/{kind}"), object).await;
        }
        cluster
    }

    /// Starts an agent and waits until its node is ready.
    pub async fn run_agent(&mut self) {
        let user = format!("system:node:{NODE}");
        let curve = |millis| agent::machine::backoff::Curve {
            initial: SignedDuration::from_millis(millis),
            max: SignedDuration::from_millis(millis * 4),
        };
        let config = Config {
            node_name: NODE.into(),
            client: client(&self.server, &user, &["system:nodes"]),
            runtime: self.fake.clone(),
            images: self.fake.clone(),
            root: self.dir.path().join("root"),
            log_root: self.dir.path().join("logs"),
            cgroup_parent: self.cgroup_parent.clone(),
            addresses: vec![NodeAddress { type_: "InternalIP".into(), address: "192.0.2.7".into() }],
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/dev/null".into(),
            labels: [("disk".to_owned(), "ssd".to_owned())].into(),
            taints: vec![],
            capacity: self.capacity.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
            reserved: Default::default(),
            pod_cidr: None,
            max_pods: 110,
            policy: Policy { crash: curve(300), pull: curve(300), retry: curve(100) },
            server: None,
        };
        let agent = Agent::new(config);
        self.view = Some(agent.pods());
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { agent.run(token).await.unwrap() });
        self.agent = Some((shutdown, task));
        let nodes = Api::<Node>::all(self.client.clone());
        let ready = await_condition(nodes, NODE, |node: Option<&Node>| {
            let conditions = node.and_then(|n| n.status.as_ref()?.conditions.as_ref());
            conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
        });
        soon(ready).await.unwrap();
    }

    /// Ends the agent; what it runs goes on running.
    pub async fn stop_agent(&mut self) {
        let (shutdown, task) = self.agent.take().unwrap();
        shutdown.cancel();
        soon(task).await.unwrap();
    }

    pub fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    pub async fn create(&self, path: &str, object: Value) -> Value {
        self.request("POST", path, "application/json", object).await
    }

    pub async fn patch(&self, path: &str, patch: Value) -> Value {
        self.request("PATCH", path, "application/merge-patch+json", patch).await
    }

    pub async fn request(&self, method: &str, path: &str, kind: &str, body: Value) -> Value {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .body(body.to_string().into_bytes())
            .unwrap();
        self.client.request(request).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    pub async fn get(&self, path: &str) -> Value {
        self.request("GET", path, "application/json", Value::Null).await
    }

    /// Makes a pod bound to the node.
    pub async fn pod(&self, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = json!(NODE);
        let pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap()
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    /// Waits until a pod is as `wanted` says.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let found = await_condition(self.pods(), name, |pod: Option<&Pod>| pod.is_some_and(&wanted));
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => {
                let now = self.pods().get_opt(name).await.unwrap();
                panic!(
                    "pod {name} never became {what}: {:#?}\n{:?}",
                    now.and_then(|p| p.status),
                    self.fake.told()
                );
            }
        }
    }

    pub async fn until_phase(&self, name: &str, phase: &str) -> Pod {
        self.until(name, phase, |p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(phase)).await
    }

    pub async fn until_ready(&self, name: &str) -> Pod {
        self.until(name, "ready", |p| condition(p, "Ready") == "True").await
    }

    pub async fn until_gone(&self, pod: &Pod) {
        let uid = pod.metadata.uid.clone().unwrap();
        let name = pod.metadata.name.as_ref().unwrap();
        let gone = await_condition(self.pods(), name, kube::runtime::conditions::is_deleted(&uid));
        if tokio::time::timeout(PATIENCE, gone).await.is_err() {
            panic!("pod {name} was never gone: {:?}", self.fake.told());
        }
    }

    /// Events about an object of this name, as `type reason note`, oldest first.
    pub async fn events(&self, about: &str) -> Vec<String> {
        let list = self.get("/apis/events.k8s.io/v1/namespaces/default/events").await;
        let mut events: Vec<Value> = list["items"].as_array().unwrap().clone();
        events.retain(|e| e["regarding"]["name"] == about);
        events.sort_by_key(|e| e["eventTime"].as_str().unwrap_or_default().to_owned());
        let text = |e: &Value, k: &str| e[k].as_str().unwrap_or_default().to_owned();
        events
            .iter()
            .map(|e| format!("{} {} {}", text(e, "type"), text(e, "reason"), text(e, "note")))
            .collect()
    }

    /// Waits for an event that holds `part`.
    pub async fn until_event(&self, about: &str, part: &str) {
        self.eventually(&format!("an event with {part:?}"), async || {
            self.events(about).await.iter().any(|e| e.contains(part))
        })
        .await;
    }

    /// Waits for what no watch tells of, looking again and again.
    pub async fn eventually(&self, what: &str, check: impl AsyncFn() -> bool) {
        let looking = async {
            while !check().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, looking).await.is_err() {
            panic!("never: {what}; {:?}", self.fake.told());
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

pub fn condition(pod: &Pod, kind: &str) -> String {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let found = conditions.and_then(|c| c.iter().find(|c| c.type_ == kind));
    found.map(|c| c.status.clone()).unwrap_or_default()
}

fn client(server: &Server, name: &str, groups: &[&str]) -> Client {
    let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
    groups.push(access::AUTHENTICATED.to_owned());
    let user = UserInfo { name: name.to_owned(), groups, ..UserInfo::default() };
    Client::new(server.service_as(user), "default")
}

//! The Node object: registration, and the status that tells what the node is and how it does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, pin_mut};
use k8s_cri::v1 as cri;
use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, Node, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
        NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, ObjectReference,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};
use tonic::Request;

use super::{
    context::Context,
    events::Kind,
    hardware,
    retry::{Waits, persist},
};
use crate::{config::Config, quantity};

/// How often a status without news is written all the same.
const REPORT: Duration = Duration::from_secs(300);
/// Images told of, the largest first.
const IMAGES: usize = 50;
/// Names told of each image.
const NAMES: usize = 5;
/// What an agent with the kubelet's HTTPS API lets the API server ask for.
const WEBSOCKETS: &str = "ExtendWebSocketsToKubelet";

/// What the node is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pids: bool,
}

/// What a node's status is made from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub capacity: BTreeMap<String, i64>,
    pub allocatable: BTreeMap<String, i64>,
    pub pressure: Pressure,
    /// Why the node is not ready; empty: it is.
    pub unready: Vec<String>,
    /// The container runtime as `name://version`.
    pub runtime: String,
    pub handlers: Vec<cri::RuntimeHandler>,
    pub strict_groups: bool,
    pub images: Vec<ContainerImage>,
    /// Port of the kubelet's HTTPS API.
    pub port: Option<u16>,
}

/// What can be given to pods: capacity but for what is reserved.
pub(crate) fn allocatable(
    capacity: &BTreeMap<String, i64>,
    reserved: &BTreeMap<String, i64>,
) -> BTreeMap<String, i64> {
    let left = |(name, amount): (&String, &i64)| {
        (name.clone(), (amount - reserved.get(name).copied().unwrap_or(0)).max(0))
    };
    capacity.iter().map(left).collect()
}

fn quantities(amounts: &BTreeMap<String, i64>) -> BTreeMap<String, Quantity> {
    amounts.iter().map(|(name, amount)| (name.clone(), quantity::to_quantity(name, *amount))).collect()
}

/// The conditions, in upstream's order and words. A transition time changes only with the status.
fn conditions(facts: &Facts, old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let pressure = |kind: &str, on: bool, short: [&str; 2], enough: [&str; 2]| {
        let [reason, message] = if on { short } else { enough };
        (kind.to_owned(), on, reason.to_owned(), message.to_owned())
    };
    let ready = if facts.unready.is_empty() {
        ("Ready".to_owned(), true, "KubeletReady".to_owned(), "kubelet is posting ready status".to_owned())
    } else {
        ("Ready".to_owned(), false, "KubeletNotReady".to_owned(), facts.unready.join(", "))
    };
    let all = [
        pressure(
            "MemoryPressure",
            facts.pressure.memory,
            ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
            ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
        ),
        pressure(
            "DiskPressure",
            facts.pressure.disk,
            ["KubeletHasDiskPressure", "kubelet has disk pressure"],
            ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
        ),
        pressure(
            "PIDPressure",
            facts.pressure.pids,
            ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
            ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
        ),
        ready,
    ];
    all.into_iter()
        .map(|(kind, on, reason, message)| {
            let status = if on { "True" } else { "False" };
            let before = old.iter().find(|c| c.type_ == kind && c.status == status);
            NodeCondition {
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: before.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
                message: Some(message),
                reason: Some(reason),
                status: status.to_owned(),
                type_: kind,
            }
        })
        .collect()
}

/// The whole status.
pub(crate) fn status(config: &Config, facts: &Facts, old: &[NodeCondition], now: Timestamp) -> NodeStatus {
    let handlers = facts.handlers.iter().map(|h| NodeRuntimeHandler {
        name: Some(h.name.clone()),
        features: h.features.as_ref().map(|f| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(f.recursive_read_only_mounts),
            user_namespaces: Some(f.user_namespaces),
        }),
    });
    let handlers: Vec<_> = handlers.collect();
    NodeStatus {
        capacity: Some(quantities(&facts.capacity)),
        allocatable: Some(quantities(&facts.allocatable)),
        addresses: Some(config.addresses.clone()),
        conditions: Some(conditions(facts, old, now)),
        daemon_endpoints: facts.port.map(|port| NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        node_info: Some(hardware::info(facts.runtime.clone())),
        images: Some(facts.images.clone()).filter(|i| !i.is_empty()),
        runtime_handlers: (!handlers.is_empty()).then_some(handlers),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(facts.strict_groups) }),
        declared_features: facts.port.map(|_| vec![WEBSOCKETS.to_owned()]),
        ..NodeStatus::default()
    }
}

/// The strategic merge patch that writes `status`. Maps and conditions are merged, so that what others put there
/// (extended resources, `NetworkUnavailable`) stays; addresses are replaced as a whole, since their types repeat.
fn patch(status: &NodeStatus) -> Value {
    let mut patch = serde_json::to_value(status).unwrap_or_default();
    if let Some(addresses) = patch.get_mut("addresses").and_then(Value::as_array_mut) {
        addresses.insert(0, json!({"$patch": "replace"}));
    }
    json!({"status": patch})
}

/// Labels that every node has.
fn labels(config: &Config) -> BTreeMap<String, String> {
    let (os, arch) = ("linux", hardware::architecture());
    let own = [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", os),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", os),
        ("beta.kubernetes.io/arch", arch),
    ];
    let mut all: BTreeMap<String, String> =
        own.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    all.extend(config.labels.clone());
    all
}

/// Images as a status tells of them: the largest first, names with digests before tags.
pub(crate) fn images(list: Vec<cri::Image>) -> Vec<ContainerImage> {
    let mut images: Vec<ContainerImage> = list
        .into_iter()
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.into_iter().chain(image.repo_tags).take(NAMES).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect();
    images.sort_by_key(|i| std::cmp::Reverse(i.size_bytes));
    images.truncate(IMAGES);
    images
}

/// Registers the node and keeps its status true. `up` tells whether the runtime's event stream is there.
pub(super) struct Keeper {
    pub cx: Arc<Context>,
    pub facts: Facts,
    pub up: watch::Receiver<bool>,
    pub pressure: watch::Receiver<Pressure>,
}

impl Keeper {
    /// Never ends.
    pub(super) async fn run(mut self) {
        self.ask_runtime().await;
        let registered = persist("the node was not registered", || self.register()).await;
        let mut beside = JoinSet::new();
        beside.spawn(super::lease::keep(self.cx.config.client.clone(), registered.clone()));
        let mut old = registered.status.and_then(|s| s.conditions).unwrap_or_default();
        let api = Api::<Node>::all(self.cx.config.client.clone());
        let mut waits = Waits::new();
        loop {
            let status = status(&self.cx.config, &self.facts, &old, Timestamp::now());
            let body = Patch::Strategic(patch(&status));
            if let Err(error) =
                api.patch_status(&self.cx.config.node_name, &PatchParams::default(), &body).await
            {
                tracing::warn!(%error, "the node's status was not written, trying again");
                waits.pause().await;
                continue;
            }
            waits.reset();
            self.tell(&old, &status);
            old = status.conditions.unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(self.patience()) => {}
                changed = self.up.changed() => if changed.is_err() { return },
                changed = self.pressure.changed() => if changed.is_err() { return },
                () = self.cx.news.notified() => {}
            }
            self.facts.pressure = *self.pressure.borrow_and_update();
            self.ask_runtime().await;
        }
    }

    /// A runtime that is there and not ready has no way to say when it is: it is asked again soon.
    fn patience(&self) -> Duration {
        if self.facts.unready.is_empty() || !*self.up.borrow() { REPORT } else { Duration::from_secs(1) }
    }

    /// Says when the node becomes ready or stops being so.
    fn tell(&self, old: &[NodeCondition], status: &NodeStatus) {
        let ready =
            |list: &[NodeCondition]| list.iter().find(|c| c.type_ == "Ready").map(|c| c.status == "True");
        let now = ready(status.conditions.as_deref().unwrap_or_default());
        if ready(old) == now {
            return;
        }
        let (reason, name) =
            (if now == Some(true) { "NodeReady" } else { "NodeNotReady" }, &self.cx.config.node_name);
        let about = ObjectReference {
            kind: Some("Node".into()),
            name: Some(name.clone()),
            uid: Some(name.clone()),
            ..ObjectReference::default()
        };
        self.cx.events.say(
            about,
            Kind::Normal,
            reason,
            "Reporting",
            format!("Node {name} status is now: {reason}"),
        );
    }

    /// What the runtime says of itself.
    async fn ask_runtime(&mut self) {
        let runtime = &self.cx.config.runtime;
        self.facts.unready.clear();
        if !*self.up.borrow_and_update() {
            self.facts.unready.push("container runtime is down".into());
        }
        let version = runtime.version(Request::new(cri::VersionRequest { version: "v1".into() })).await;
        if let Ok(version) = version {
            let version = version.into_inner();
            self.facts.runtime = format!("{}://{}", version.runtime_name, version.runtime_version);
        }
        match runtime.status(Request::new(cri::StatusRequest { verbose: false })).await {
            Ok(status) => {
                let status = status.into_inner();
                self.facts.handlers = status.runtime_handlers;
                self.facts.strict_groups = status.features.is_some_and(|f| f.supplemental_groups_policy);
                let conditions = status.status.map(|s| s.conditions).unwrap_or_default();
                self.facts.unready.extend(shortcomings(&conditions));
            }
            Err(error) => self.facts.unready.push(format!("container runtime status check failed: {error}")),
        }
        let images = self.cx.config.images.list_images(Request::new(cri::ListImagesRequest::default())).await;
        if let Ok(list) = images {
            self.facts.images = images_of(list);
        }
    }

    /// Makes the Node, or takes up the one that is there: labels are brought in line, taints are not touched again.
    async fn register(&self) -> kube::Result<Node> {
        let config = &self.cx.config;
        let api = Api::<Node>::all(config.client.clone());
        let annotation = ("volumes.kubernetes.io/controller-managed-attach-detach", "true");
        let node = Node {
            metadata: ObjectMeta {
                name: Some(config.node_name.clone()),
                labels: Some(labels(config)),
                annotations: Some(BTreeMap::from([(annotation.0.to_owned(), annotation.1.to_owned())])),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                taints: Some(config.taints.clone()).filter(|t| !t.is_empty()),
                pod_cidr: config.pod_cidr.clone(),
                pod_cidrs: config.pod_cidr.clone().map(|cidr| vec![cidr]),
                ..NodeSpec::default()
            }),
            status: Some(status(config, &self.facts, &[], Timestamp::now())),
        };
        match api.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            result => return result,
        }
        let metadata =
            json!({"metadata": {"labels": labels(config), "annotations": {annotation.0: annotation.1}}});
        api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(metadata)).await
    }
}

/// Why a runtime with these conditions cannot run pods, in the kubelet's words. Two are needed; others are no obstacle, such
/// as containerd's notice of what it will give up some day.
fn shortcomings(conditions: &[cri::RuntimeCondition]) -> Vec<String> {
    let needed = [
        ("NetworkReady", "container runtime network not ready"),
        ("RuntimeReady", "container runtime not ready"),
    ];
    let short = |(kind, what)| match conditions.iter().find(|c| c.r#type == kind) {
        Some(condition) if condition.status => None,
        Some(cri::RuntimeCondition { reason, message, .. }) => {
            Some(format!("{what}: {kind}=false reason:{reason} message:{message}"))
        }
        None => Some(format!("{what}: {kind} is not told")),
    };
    needed.into_iter().filter_map(short).collect()
}

fn images_of(response: tonic::Response<cri::ListImagesResponse>) -> Vec<ContainerImage> {
    images(response.into_inner().images)
}

/// Follows the node's own object: labels and taints for admission, extended resources, and the addresses of its pods,
/// which the runtime is told of.
pub(super) async fn follow(cx: Arc<Context>, known: watch::Sender<Option<Arc<Node>>>) {
    let config = &cx.config;
    let one = watcher::Config::default().fields(&format!("metadata.name={}", config.node_name));
    let events = watcher(Api::<Node>::all(config.client.clone()), one).default_backoff();
    pin_mut!(events);
    let mut told = String::new();
    while let Some(event) = events.next().await {
        let mut node = match event {
            Ok(Event::InitApply(node) | Event::Apply(node)) => node,
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!(%error, "the watch of the node broke off");
                continue;
            }
        };
        node.metadata.managed_fields = None;
        let cidr = node.spec.as_ref().and_then(|s| s.pod_cidr.clone()).unwrap_or_default();
        if !cidr.is_empty() && cidr != told {
            let network = cri::NetworkConfig { pod_cidr: cidr.clone() };
            let runtime_config = cri::RuntimeConfig { network_config: Some(network) };
            let request = cri::UpdateRuntimeConfigRequest { runtime_config: Some(runtime_config) };
            match config.runtime.update_runtime_config(Request::new(request)).await {
                Ok(_) => {
                    told = cidr;
                    cx.news.notify_one();
                }
                Err(error) => tracing::warn!(%error, cidr, "the runtime did not take the pods' addresses"),
            }
        }
        known.send_replace(Some(Arc::new(node)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_keep_their_transition_time_until_they_change() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let ready = Facts::default();
        let first = conditions(&ready, &[], at(1));
        let second = conditions(&ready, &first, at(2));
        let time = |list: &[NodeCondition], kind: &str| {
            let c = list.iter().find(|c| c.type_ == kind).unwrap();
            (c.status.clone(), c.last_transition_time.as_ref().unwrap().0.as_second())
        };
        assert_eq!(time(&second, "Ready"), ("True".into(), 1));
        let down = Facts { unready: vec!["container runtime is down".into()], ..Facts::default() };
        let third = conditions(&down, &second, at(3));
        assert_eq!(time(&third, "Ready"), ("False".into(), 3));
        assert_eq!(time(&third, "MemoryPressure"), ("False".into(), 1));
        assert_eq!(third[3].message.as_deref(), Some("container runtime is down"));
    }

    #[test]
    fn a_runtime_needs_two_conditions_and_no_others() {
        let condition = |kind: &str, status, reason: &str| cri::RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: reason.into(),
            message: "m".into(),
        };
        let runtime = condition("RuntimeReady", true, "");
        let notice = condition("ContainerdHasNoDeprecationWarnings", false, "Old");
        let network = condition("NetworkReady", true, "");
        assert_eq!(shortcomings(&[runtime.clone(), network, notice]), Vec::<String>::new());
        let none = condition("NetworkReady", false, "NoConfig");
        assert_eq!(
            shortcomings(&[runtime, none]),
            ["container runtime network not ready: NetworkReady=false reason:NoConfig message:m"]
        );
        assert_eq!(shortcomings(&[]).len(), 2);
    }

    #[test]
    fn what_is_reserved_is_not_given_out() {
        let amounts = |list: &[(&str, i64)]| list.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let left = allocatable(&amounts(&[("cpu", 2000), ("pods", 110)]), &amounts(&[("cpu", 2500)]));
        assert_eq!(left, amounts(&[("cpu", 0), ("pods", 110)]));
    }

    #[test]
    fn addresses_are_replaced_as_a_whole_since_their_types_repeat() {
        let status = NodeStatus {
            addresses: Some(serde_json::from_value(json!([{"type": "InternalIP", "address": "1"}])).unwrap()),
            ..NodeStatus::default()
        };
        let sent = patch(&status);
        assert_eq!(sent["status"]["addresses"][0], json!({"$patch": "replace"}));
    }

    #[test]
    fn the_largest_images_are_told_of_digests_first() {
        let image = |size, tag: &str| cri::Image {
            size,
            repo_tags: vec![tag.into()],
            repo_digests: vec![format!("{tag}@sha256:1")],
            ..cri::Image::default()
        };
        let list = images((0..60).map(|n| image(n, &format!("i{n}"))).collect());
        assert_eq!(list.len(), IMAGES);
        assert_eq!(list[0].names.as_ref().unwrap()[..], ["i59@sha256:1", "i59"]);
    }
}

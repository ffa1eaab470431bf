//! Small worlds for tests.

use std::sync::Arc;

use k8s_openapi::{
    api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core, discovery::v1 as discovery},
    jiff::Timestamp,
};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    Ask, Change, Controller, Key, Outcome, Plan, Refusal, Told, World, Write,
    plan::Target,
    world::{Bare, Kind, Seen},
};

/// A time to start from.
pub fn noon() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().unwrap()
}

/// Noon and some seconds.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(noon().as_second() + seconds).unwrap()
}

fn typed<K: Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static>(
    value: Value,
) -> (Kind, Arc<dyn Seen>) {
    let name = value["metadata"]["name"].clone();
    let object: K = serde_json::from_value(value).unwrap_or_else(|e| panic!("fixture {name}: {e}"));
    (Kind::of::<K>(), Arc::new(object))
}

/// Puts an object of any kind that the loops read into the world; others as metadata. A missing UID is `uid-NAME`.
pub fn add(world: &mut World, mut value: Value) -> Change {
    let meta = &mut value["metadata"];
    let name = meta["name"].as_str().unwrap_or_default().to_owned();
    for (field, default) in [("uid", format!("uid-{name}")), ("resourceVersion", "1".to_owned())] {
        if meta[field].is_null() {
            meta[field] = default.into();
        }
    }
    if meta["creationTimestamp"].is_null() {
        meta["creationTimestamp"] = noon().to_string().into();
    }
    let namespace = meta["namespace"].as_str().unwrap_or_default().to_owned();
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    let (kind, object) = match kind.as_str() {
        "Pod" => typed::<core::Pod>(value),
        "Service" => typed::<core::Service>(value),
        "Node" => typed::<core::Node>(value),
        "Namespace" => typed::<core::Namespace>(value),
        "ConfigMap" => typed::<core::ConfigMap>(value),
        "Secret" => typed::<core::Secret>(value),
        "ServiceAccount" => typed::<core::ServiceAccount>(value),
        "Endpoints" => typed::<core::Endpoints>(value),
        "PersistentVolume" => typed::<core::PersistentVolume>(value),
        "PersistentVolumeClaim" => typed::<core::PersistentVolumeClaim>(value),
        "ResourceQuota" => typed::<core::ResourceQuota>(value),
        "ReplicationController" => typed::<core::ReplicationController>(value),
        "EndpointSlice" => typed::<discovery::EndpointSlice>(value),
        "ReplicaSet" => typed::<apps::ReplicaSet>(value),
        "Deployment" => typed::<apps::Deployment>(value),
        "StatefulSet" => typed::<apps::StatefulSet>(value),
        "Job" => typed::<batch::Job>(value),
        "HorizontalPodAutoscaler" => {
            typed::<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler>(value)
        }
        "CertificateSigningRequest" => {
            typed::<k8s_openapi::api::certificates::v1::CertificateSigningRequest>(value)
        }
        "PodCertificateRequest" => typed::<k8s_openapi::api::certificates::v1::PodCertificateRequest>(value),
        "ClusterTrustBundle" => typed::<k8s_openapi::api::certificates::v1::ClusterTrustBundle>(value),
        "StorageVersionMigration" => {
            typed::<k8s_openapi::api::storagemigration::v1::StorageVersionMigration>(value)
        }
        "ServiceCIDR" => typed::<k8s_openapi::api::networking::v1::ServiceCIDR>(value),
        "IPAddress" => typed::<k8s_openapi::api::networking::v1::IPAddress>(value),
        "ResourceClaim" => typed::<k8s_openapi::api::resource::v1::ResourceClaim>(value),
        "ResourceClaimTemplate" => typed::<k8s_openapi::api::resource::v1::ResourceClaimTemplate>(value),
        "ResourceSlice" => typed::<k8s_openapi::api::resource::v1::ResourceSlice>(value),
        "DeviceTaintRule" => typed::<k8s_openapi::api::resource::v1::DeviceTaintRule>(value),
        "VolumeAttributesClass" => typed::<k8s_openapi::api::storage::v1::VolumeAttributesClass>(value),
        "Lease" => typed::<k8s_openapi::api::coordination::v1::Lease>(value),
        "StorageClass" => typed::<k8s_openapi::api::storage::v1::StorageClass>(value),
        "ClusterRole" => typed::<k8s_openapi::api::rbac::v1::ClusterRole>(value),
        "PodDisruptionBudget" => typed::<k8s_openapi::api::policy::v1::PodDisruptionBudget>(value),
        _ => metadata(&value),
    };
    world.apply(&kind, &namespace, &name, Some(object))
}

fn metadata(value: &Value) -> (Kind, Arc<dyn Seen>) {
    let version = value["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = value["kind"].as_str().unwrap_or_default();
    let kind = Kind {
        group: group.to_owned().into(),
        version: version.to_owned().into(),
        kind: kind.to_owned().into(),
        plural: format!("{}s", kind.to_lowercase()).into(),
    };
    (kind, Arc::new(Bare { meta: serde_json::from_value(value["metadata"].clone()).unwrap() }))
}

/// Takes an object out of the world.
pub fn remove<K: Resource<DynamicType = ()>>(world: &mut World, namespace: &str, name: &str) -> Change {
    world.apply(&Kind::of::<K>(), namespace, name, None)
}

/// A world of these objects.
pub fn world(objects: impl IntoIterator<Item = Value>) -> World {
    let mut world = World::default();
    for object in objects {
        add(&mut world, object);
    }
    world
}

/// A key.
pub fn key(namespace: &str, name: &str) -> Key {
    Key { namespace: namespace.to_owned(), name: name.to_owned() }
}

/// What a loop wants at its first look, at noon.
pub fn plan(controller: &dyn Controller, world: &World, namespace: &str, name: &str) -> Plan {
    controller.reconcile(&key(namespace, name), world, &Outcome::default(), noon())
}

/// What a loop wants in the end, when it is told what it asks; the outcome is the one before the first question.
pub fn converse(
    controller: &dyn Controller,
    world: &World,
    key: &Key,
    mut last: Outcome,
    now: Timestamp,
    answer: impl Fn(&Ask) -> Result<Value, Refusal>,
) -> Plan {
    loop {
        let plan = controller.reconcile(key, world, &last, now);
        if plan.asks.is_empty() {
            return plan;
        }
        last.memory = plan.memory.unwrap_or(last.memory);
        for ask in plan.asks {
            assert!(last.answer(&ask).is_none(), "asked twice: {ask:?}");
            let answer = answer(&ask);
            last.answers.push(Told { ask, answer });
        }
    }
}

/// As the API server refuses.
pub fn refusal(code: u16, reason: &str, message: &str) -> Refusal {
    Refusal { code, reason: reason.to_owned(), message: message.to_owned() }
}

/// The writes of a plan, in order.
pub fn writes(plan: &Plan) -> Vec<&Write> {
    plan.steps.iter().flatten().collect()
}

/// The objects that a plan creates.
pub fn created(plan: &Plan) -> Vec<&Value> {
    let objects = writes(plan).into_iter().filter_map(|w| match w {
        Write::Create { object, .. } => Some(&**object),
        _ => None,
    });
    objects.collect()
}

/// The objects that a plan replaces, or whose status it replaces.
pub fn updated(plan: &Plan) -> Vec<&Value> {
    let objects = writes(plan).into_iter().filter_map(|w| match w {
        Write::Update { object, .. } => Some(&**object),
        _ => None,
    });
    objects.collect()
}

/// The names that a plan deletes.
pub fn deleted(plan: &Plan) -> Vec<&str> {
    let names = writes(plan).into_iter().filter_map(|w| match w {
        Write::Delete { target, .. } => Some(target.name.as_str()),
        _ => None,
    });
    names.collect()
}

/// The patches of a plan.
pub fn patched(plan: &Plan) -> Vec<(&Target, &Value)> {
    let patches = writes(plan).into_iter().filter_map(|w| match w {
        Write::Patch { target, body, .. } => Some((target, body)),
        _ => None,
    });
    patches.collect()
}

/// The reasons of a plan's events.
pub fn reasons(plan: &Plan) -> Vec<&str> {
    plan.notes.iter().map(|n| n.reason.as_str()).collect()
}

/// A ready pod with labels `app: APP`, on a node, with an address.
pub fn pod(namespace: &str, name: &str, app: &str, node: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": noon().to_string()}],
        },
    })
}

/// A node of a zone.
pub fn node(name: &str, zone: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": name,
        }},
        "spec": {},
        "status": {"conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": noon().to_string(), "lastTransitionTime": noon().to_string(),
        }]},
    })
}

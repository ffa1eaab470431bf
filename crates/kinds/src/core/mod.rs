//! `v1`, the core group.

mod component;
mod config;
mod config_rules;
mod endpoints;
mod event;
mod event_rules;
mod limits;
mod limits_rules;
mod namespace;
mod node;
mod node_rules;
mod pod;
mod replication;
mod service;
mod service_rules;
mod service_warnings;
mod volume_rules;
mod volumes;

use crate::{
    declare::Declarer,
    resource::{NameRule, Plain},
};

pub use event::{CoreEvent, GroupEvent};
pub use service_rules::check_addresses as service_addresses;
pub use volume_rules::{check_claim_spec, check_inline_volume};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("v1", "bindings").strategy(Plain);
    to.resource("v1", "componentstatuses")
        .behaves(|b| b.deprecated = Some("v1 ComponentStatus is deprecated in v1.19+"))
        .strategy(component::ComponentStatus);
    to.resource("v1", "configmaps").strategy(config::ConfigMap);
    to.resource("v1", "endpoints")
        .created_by_update()
        .behaves(|b| {
            b.deprecated =
                Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice");
        })
        .strategy(endpoints::Endpoints);
    let events = to
        .resource("v1", "events")
        .created_by_update()
        .behaves(|b| b.ttl_seconds = Some(event::LIFETIME_SECONDS))
        .select_at("source", "source.component|reportingComponent", "")
        .select_at("reportingComponent", "reportingComponent", "");
    ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"]
        .iter()
        .fold(events, |events, field| events.select(&format!("involvedObject.{field}"), ""))
        .select("reason", "")
        .select("type", "")
        .strategy(CoreEvent);
    to.resource("v1", "limitranges").created_by_update().strategy(limits::LimitRange);
    to.resource("v1", "namespaces")
        .named(NameRule::Label)
        .returns_deleted()
        .select("status.phase", "")
        .select_at("name", "metadata.name", "")
        .strategy(namespace::Namespace);
    to.resource("v1", "nodes").select("spec.unschedulable", "false").strategy(node::Node);
    to.resource("v1", "persistentvolumeclaims")
        .returns_deleted()
        .select_at("name", "metadata.name", "")
        .strategy(volumes::PersistentVolumeClaim);
    to.resource("v1", "persistentvolumes")
        .returns_deleted()
        .select_at("name", "metadata.name", "")
        .strategy(volumes::PersistentVolume);
    let pods = to
        .resource("v1", "pods")
        .tracks_spec()
        .returns_deleted()
        .behaves(|b| b.graceful = true)
        .select("spec.hostNetwork", "false")
        // The name that very old clients send.
        .select_at("spec.host", "spec.nodeName", "");
    ["nodeName", "restartPolicy", "schedulerName", "serviceAccountName"]
        .iter()
        .fold(pods, |pods, field| pods.select(&format!("spec.{field}"), ""))
        .select("status.phase", "")
        .select("status.podIP", "")
        .select_at("status.podIPs", "status.podIP", "")
        .select("status.nominatedNodeName", "")
        .strategy(pod::Pod);
    to.resource("v1", "podtemplates").returns_deleted().tracks_content().strategy(replication::PodTemplate);
    to.resource("v1", "replicationcontrollers")
        .tracks_spec()
        .behaves(|b| b.orphans_by_default = true)
        .scales_by("spec.selector")
        .select("status.replicas", "0")
        .strategy(replication::ReplicationController);
    to.resource("v1", "resourcequotas").returns_deleted().strategy(limits::ResourceQuota);
    to.resource("v1", "secrets").select("type", "").strategy(config::Secret);
    to.resource("v1", "serviceaccounts").returns_deleted().strategy(config::ServiceAccount);
    to.resource("v1", "services")
        .created_by_update()
        .named(NameRule::Label)
        .returns_deleted()
        .select("spec.clusterIP", "")
        .select("spec.type", "")
        .strategy(service::Service);
}

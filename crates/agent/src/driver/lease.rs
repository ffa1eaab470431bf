//! The node's heartbeat: a Lease in `kube-node-lease`, renewed every ten seconds.

use std::time::Duration;

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::retry::Waits;

/// The namespace of node leases.
pub(crate) const NAMESPACE: &str = "kube-node-lease";
/// How long a lease holds without renewal.
const SECONDS: i32 = 40;
/// How often it is renewed: four chances before it runs out.
const RENEWAL: Duration = Duration::from_secs(10);

/// Keeps the lease of `node`, which has to exist. Never ends.
pub(crate) async fn keep(client: Client, node: Node) {
    let api = Api::<Lease>::namespaced(client, NAMESPACE);
    let name = node.metadata.name.clone().unwrap_or_default();
    let mut waits = Waits::new();
    loop {
        match renew(&api, &name, &node).await {
            Ok(()) => {
                waits.reset();
                tokio::time::sleep(RENEWAL).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the node's lease was not renewed, trying again");
                waits.pause().await;
            }
        }
    }
}

/// Renews by a patch, which needs no read before it; makes the lease if there is none.
async fn renew(api: &Api<Lease>, name: &str, node: &Node) -> kube::Result<()> {
    let now = MicroTime(Timestamp::now());
    let patch = json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": SECONDS, "renewTime": now}});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        result => return result.map(drop),
    }
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.to_owned(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}

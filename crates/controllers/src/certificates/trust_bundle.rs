//! kube-apiserver-serving-clustertrustbundle-publisher-controller: one ClusterTrustBundle holds the certificate by which the
//! API server is known.
//!
//! Source: `pkg/controller/certificates/clustertrustbundlepublisher`.

use k8s_openapi::{
    api::certificates::v1::{ClusterTrustBundle, ClusterTrustBundleSpec},
    jiff::Timestamp,
};
use kube::api::ObjectMeta;
use sha2::{Digest as _, Sha256};

use crate::{Change, Controller, Key, Kind, Outcome, Plan, World, Write};

const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";

/// The loop; it has one key.
pub struct TrustBundle {
    /// The certificate, PEM.
    pub certificate: String,
}

impl TrustBundle {
    /// The signer and the first twelve bytes of the certificate's hash.
    fn bundle_name(&self) -> String {
        let hash = Sha256::digest(&self.certificate);
        format!("{}:{}", SIGNER.replace('/', ":"), hex::encode(hash.get(..12).unwrap_or_default()))
    }
}

impl Controller for TrustBundle {
    fn name(&self) -> &'static str {
        "kube-apiserver-serving-clustertrustbundle-publisher-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<ClusterTrustBundle>()]
    }

    fn first(&self) -> Vec<Key> {
        vec![Key::default()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        let bundle = change.object::<ClusterTrustBundle>();
        let ours = bundle.filter(|b| b.spec.signer_name.as_deref() == Some(SIGNER));
        ours.map(|_| Key::default()).into_iter().collect()
    }

    fn reconcile(&self, _key: &Key, world: &World, _last: &Outcome, _now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        let name = self.bundle_name();
        match world.get::<ClusterTrustBundle>("", &name) {
            None => {
                plan.then(Write::create(&ClusterTrustBundle {
                    metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
                    spec: ClusterTrustBundleSpec {
                        signer_name: Some(SIGNER.to_owned()),
                        trust_bundle: self.certificate.clone(),
                    },
                }));
            }
            Some(found) if found.spec.trust_bundle != self.certificate => {
                let mut new = ClusterTrustBundle::clone(&found);
                new.spec.trust_bundle.clone_from(&self.certificate);
                plan.then(Write::update(&new));
            }
            Some(_) => {}
        }
        let others = world.list::<ClusterTrustBundle>("");
        let others = others.iter().filter(|b| {
            b.spec.signer_name.as_deref() == Some(SIGNER) && b.metadata.name.as_ref() != Some(&name)
        });
        plan.all(others.map(|bundle| Write::delete(&**bundle)).collect());
        plan
    }
}

//! root-ca-certificate-publisher-controller: every namespace has the CA's certificate in a ConfigMap `kube-root-ca.crt`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace},
    jiff::Timestamp,
};
use kube::api::ObjectMeta;

use crate::{
    Change, Controller, Key, Kind, Outcome, Plan, World, Write,
    service_accounts::{namespace_key, open_namespace},
};

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

/// The loop; its keys are namespaces.
pub struct RootCa {
    /// The certificate, PEM.
    pub certificate: String,
}

impl RootCa {
    fn data(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("ca.crt".to_owned(), self.certificate.clone())])
    }
}

impl Controller for RootCa {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Namespace>(), Kind::of::<ConfigMap>()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        namespace_key(change, NAME).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, _now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        if !open_namespace(key, world) {
            return plan;
        }
        let described = |map: &ConfigMap| {
            let annotations = map.metadata.annotations.as_ref();
            annotations.and_then(|a| a.get(DESCRIPTION.0)).map(String::as_str) == Some(DESCRIPTION.1)
        };
        match world.get::<ConfigMap>(&key.name, NAME) {
            None => {
                plan.then(Write::create(&ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(NAME.to_owned()),
                        namespace: Some(key.name.clone()),
                        annotations: Some(BTreeMap::from([(
                            DESCRIPTION.0.to_owned(),
                            DESCRIPTION.1.to_owned(),
                        )])),
                        ..ObjectMeta::default()
                    },
                    data: Some(self.data()),
                    ..ConfigMap::default()
                }));
            }
            Some(map) if map.data.as_ref() != Some(&self.data()) || !described(&map) => {
                let mut map = (*map).clone();
                map.data = Some(self.data());
                let annotations = map.metadata.annotations.get_or_insert_default();
                annotations.insert(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned());
                plan.then(Write::update(&map));
            }
            Some(_) => {}
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{add, created, plan, updated, world};

    #[test]
    fn the_certificate_is_published_and_put_right_when_it_was_changed() {
        let ca = RootCa { certificate: "PEM".to_owned() };
        let mut world =
            world([json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})]);
        let first = plan(&ca, &world, "", "shop");
        let mut map = created(&first)[0].clone();
        assert_eq!(map["data"], json!({"ca.crt": "PEM"}));
        add(&mut world, map.clone());
        assert_eq!(plan(&ca, &world, "", "shop"), Plan::none());
        map["data"]["more"] = json!("x");
        map["metadata"]["labels"] = json!({"mine": "stays"});
        add(&mut world, map);
        let second = plan(&ca, &world, "", "shop");
        assert_eq!(updated(&second)[0]["data"], json!({"ca.crt": "PEM"}));
        assert_eq!(updated(&second)[0]["metadata"]["labels"], json!({"mine": "stays"}));
    }
}

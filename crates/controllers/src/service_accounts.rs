//! serviceaccount-controller: every namespace has a ServiceAccount `default`.

use k8s_openapi::{
    api::core::v1::{Namespace, ServiceAccount},
    jiff::Timestamp,
};
use kube::api::ObjectMeta;

use crate::{Change, Controller, Key, Kind, Outcome, Plan, World, Write};

/// The loop; its keys are namespaces.
pub struct ServiceAccounts;

/// The namespace of a key, if objects can still be made in it.
pub(crate) fn open_namespace(key: &Key, world: &World) -> bool {
    let Some(namespace) = world.get::<Namespace>("", &key.name) else { return false };
    let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}

/// The key of a changed namespace, or of the namespace in which the object called `name` changed.
pub(crate) fn namespace_key(change: &Change, name: &str) -> Option<Key> {
    let meta = change.meta()?;
    let named = |name: Option<&String>| name.map(|n| Key { namespace: String::new(), name: n.clone() });
    if change.kind == Kind::of::<Namespace>() {
        return named(meta.name.as_ref());
    }
    named(meta.namespace.as_ref()).filter(|_| meta.name.as_deref() == Some(name))
}

impl Controller for ServiceAccounts {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Namespace>(), Kind::of::<ServiceAccount>()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        namespace_key(change, "default").into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, _now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        if open_namespace(key, world) && world.get::<ServiceAccount>(&key.name, "default").is_none() {
            plan.then(Write::create(&ServiceAccount {
                metadata: ObjectMeta {
                    name: Some("default".to_owned()),
                    namespace: Some(key.name.clone()),
                    ..ObjectMeta::default()
                },
                ..ServiceAccount::default()
            }));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{add, created, key, plan, remove, world};

    #[test]
    fn a_namespace_gets_its_account_again_when_it_was_deleted() {
        let mut world =
            world([json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})]);
        let first = plan(&ServiceAccounts, &world, "", "shop");
        let account = created(&first)[0].clone();
        assert_eq!(
            (&account["kind"], &account["metadata"]["name"]),
            (&json!("ServiceAccount"), &json!("default"))
        );
        add(&mut world, account);
        assert_eq!(plan(&ServiceAccounts, &world, "", "shop"), Plan::none());
        let gone = remove::<ServiceAccount>(&mut world, "shop", "default");
        assert_eq!(ServiceAccounts.keys(&gone, &world), [key("", "shop")]);
        assert_eq!(created(&plan(&ServiceAccounts, &world, "", "shop")).len(), 1);
    }

    #[test]
    fn a_namespace_that_is_going_gets_none() {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}, "status": {"phase": "Terminating"},
        });
        assert_eq!(plan(&ServiceAccounts, &world([namespace]), "", "shop"), Plan::none());
    }
}

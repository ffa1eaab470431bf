//! tokens-controller: Secrets of type `kubernetes.io/service-account-token`, for those who still make them by hand.
//!
//! Such a Secret gets a token without end, the CA's certificate and its namespace, and goes with its ServiceAccount.
//! Source: `pkg/controller/serviceaccount/tokens_controller.go`.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, ServiceAccount},
    jiff::Timestamp,
};
use serde_json::{Value, json};

use crate::{Change, Controller, Key, Kind, Outcome, Plan, World, Write, about::annotation};

pub(crate) const TYPE: &str = "kubernetes.io/service-account-token";
pub(crate) const ACCOUNT: &str = "kubernetes.io/service-account.name";
pub(crate) const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Signs claims; nothing when it cannot.
pub type Sign = Arc<dyn Fn(&Value) -> Option<String> + Send + Sync>;

/// The loop; its keys are Secrets.
pub struct TokenSecrets {
    /// The certificate, PEM.
    pub certificate: String,
    /// The signer of the API server's tokens. Without one no tokens are made, but Secrets still go with their account.
    pub sign: Option<Sign>,
}

impl Controller for TokenSecrets {
    fn name(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Secret>(), Kind::of::<ServiceAccount>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if let Some(secret) = change.after::<Secret>() {
            return if is_token(&secret) { vec![Key::of(&secret.metadata)] } else { Vec::new() };
        }
        // made or gone; what an account lists does not matter
        let Some(account) = change.object::<ServiceAccount>() else { return Vec::new() };
        if change.before.is_some() && change.after.is_some() {
            return Vec::new();
        }
        let name = account.metadata.name.as_deref();
        let secrets = world.list::<Secret>(account.metadata.namespace.as_deref().unwrap_or_default());
        let named = |secret: &Secret| is_token(secret) && annotation(&secret.metadata, ACCOUNT) == name;
        secrets.iter().filter(|secret| named(secret)).map(|secret| Key::of(&secret.metadata)).collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, _now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        let secret = world.get::<Secret>(&key.namespace, &key.name).filter(|s| is_token(s));
        let Some(secret) = secret.filter(|s| s.metadata.deletion_timestamp.is_none()) else { return plan };
        let name = annotation(&secret.metadata, ACCOUNT).unwrap_or_default();
        if name.is_empty() {
            return plan;
        }
        let told = annotation(&secret.metadata, ACCOUNT_UID).unwrap_or_default();
        let account = world.get::<ServiceAccount>(&key.namespace, name);
        let account = account.filter(|a| told.is_empty() || a.metadata.uid.as_deref() == Some(told));
        match account {
            None => {
                plan.then(Write::require_absent::<ServiceAccount>(&key.namespace, name, told));
                plan.then(Write::delete(&*secret));
            }
            Some(account) => plan.steps.extend(self.fill(&secret, &account).map(|write| vec![write])),
        }
        plan
    }
}

fn is_token(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE)
}

/// What a token without end says, as upstream words it.
#[must_use]
pub fn claims(secret: &Secret, account: &ServiceAccount) -> Value {
    let namespace = account.metadata.namespace.as_deref().unwrap_or_default();
    let name = account.metadata.name.as_deref().unwrap_or_default();
    json!({
        "iss": "kubernetes/serviceaccount",
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": secret.metadata.name,
        "kubernetes.io/serviceaccount/service-account.name": name,
        "kubernetes.io/serviceaccount/service-account.uid": account.metadata.uid,
    })
}

impl TokenSecrets {
    /// The write of what is missing.
    fn fill(&self, secret: &Secret, account: &ServiceAccount) -> Option<Write> {
        let sign = self.sign.as_ref()?;
        let data = secret.data.clone().unwrap_or_default();
        let mut wanted: BTreeMap<String, ByteString> = data.clone();
        let namespace = account.metadata.namespace.clone().unwrap_or_default();
        wanted.insert("ca.crt".to_owned(), ByteString(self.certificate.clone().into_bytes()));
        wanted.insert("namespace".to_owned(), ByteString(namespace.into_bytes()));
        if data.get("token").is_none_or(|token| token.0.is_empty()) {
            let token = sign(&claims(secret, account))?;
            wanted.insert("token".to_owned(), ByteString(token.into_bytes()));
        }
        let uid = account.metadata.uid.clone().unwrap_or_default();
        if wanted == data && annotation(&secret.metadata, ACCOUNT_UID) == Some(&uid) {
            return None;
        }
        let mut secret = secret.clone();
        secret.data = Some(wanted);
        secret.metadata.annotations.get_or_insert_default().insert(ACCOUNT_UID.to_owned(), uid);
        Some(Write::update(&secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{add, deleted, key, plan, remove, updated, world};

    fn tokens() -> TokenSecrets {
        let sign: Sign = Arc::new(|claims| Some(format!("signed {}", claims["sub"].as_str()?)));
        TokenSecrets { certificate: "PEM".to_owned(), sign: Some(sign) }
    }

    fn secret() -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "type": TYPE,
            "metadata": {"namespace": "shop", "name": "s", "annotations": {ACCOUNT: "robot"}}})
    }

    fn account() -> Value {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "robot"}})
    }

    #[test]
    fn a_secret_gets_its_token_and_goes_with_its_account() {
        let mut world = world([secret(), account()]);
        let first = plan(&tokens(), &world, "shop", "s");
        let filled = updated(&first)[0].clone();
        let data: Secret = serde_json::from_value(filled.clone()).unwrap();
        assert_eq!(data.data.unwrap()["token"].0, b"signed system:serviceaccount:shop:robot");
        assert_eq!(filled["metadata"]["annotations"][ACCOUNT_UID], "uid-robot");
        add(&mut world, filled);
        assert_eq!(plan(&tokens(), &world, "shop", "s"), Plan::none());
        let change = remove::<ServiceAccount>(&mut world, "shop", "robot");
        assert_eq!(tokens().keys(&change, &world), [key("shop", "s")]);
        assert_eq!(deleted(&plan(&tokens(), &world, "shop", "s")), ["s"]);
        let mut again = account();
        again["metadata"]["uid"] = json!("another");
        add(&mut world, again);
        assert_eq!(deleted(&plan(&tokens(), &world, "shop", "s")), ["s"], "another account of that name");
    }
}

//! certificatesigningrequest-signing-controller: signs what has been approved for the signers of `kubernetes.io`.
//!
//! Source: `pkg/controller/certificates/signer/signer.go`.

use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::{
    authority::{Authority, Order},
    holds, issued,
    request::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, Request},
};
use crate::{Change, Controller, Key, Kind, Outcome, Plan, World, Write};

/// The loop; its keys are requests.
pub struct Signing {
    /// Who signs.
    pub authority: Authority,
}

impl Controller for Signing {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-signing-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<CertificateSigningRequest>()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        change.after::<CertificateSigningRequest>().map(|r| Key::of(&r.metadata)).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        let Some(found) = world.get::<CertificateSigningRequest>("", &key.name) else { return plan };
        let signer = found.spec.signer_name.as_str();
        if ![CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY].contains(&signer)
            || issued(&found).is_some()
            || !holds(&found, "Approved")
            || holds(&found, "Denied")
            || holds(&found, "Failed")
        {
            return plan;
        }
        // The API server takes no request that cannot be read: nothing can be told of it, or done about it.
        let Ok(request) = Request::parse(&found.spec.request.0) else { return plan };
        let usages = found.spec.usages.clone().unwrap_or_default();
        let mut new = CertificateSigningRequest::clone(&found);
        let status = new.status.get_or_insert_default();
        if let Err(message) = request.judge(signer, &usages) {
            status.conditions.get_or_insert_default().push(failed(message, now));
        } else {
            let order = Order {
                request: &request,
                usages: &usages,
                seconds: found.spec.expiration_seconds,
                unique: found.metadata.uid.as_deref().unwrap_or_default(),
                now,
            };
            match self.authority.sign(&order) {
                Ok(certificate) => status.certificate = Some(ByteString(certificate.into_bytes())),
                Err(error) => {
                    tracing::warn!(request = key.name, error, "a certificate could not be signed");
                    return plan;
                }
            }
        }
        plan.then(Write::status(&new));
        plan
    }
}

fn failed(message: String, now: Timestamp) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: "Failed".to_owned(),
        status: "True".to_owned(),
        reason: Some("SignerValidationFailure".to_owned()),
        message: Some(message),
        last_update_time: Timestamp::from_second(now.as_second()).ok().map(Time),
        ..CertificateSigningRequestCondition::default()
    }
}

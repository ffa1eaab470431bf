//! certificatesigningrequest-approving-controller: approves the client certificates of kubelets that may have them.
//!
//! Source: `pkg/controller/certificates/approver/sarapprove.go`.

use k8s_openapi::{
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
    jiff::{SignedDuration, Timestamp},
};
use serde_json::json;

use super::{
    holds, issued,
    request::{KUBELET_CLIENT, Request},
};
use crate::{Ask, Change, Controller, Key, Kind, Outcome, Plan, World, Write};

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// When one that was not allowed is asked about again: the rules may have changed, and nothing tells.
const AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// The loop; its keys are requests.
pub struct Approving;

impl Controller for Approving {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-approving-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<CertificateSigningRequest>()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        change.after::<CertificateSigningRequest>().map(|r| Key::of(&r.metadata)).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        let Some(found) = world.get::<CertificateSigningRequest>("", &key.name) else { return plan };
        if issued(&found).is_some() || holds(&found, "Approved") || holds(&found, "Denied") {
            return plan;
        }
        if found.spec.signer_name != KUBELET_CLIENT {
            return plan;
        }
        let Ok(request) = Request::parse(&found.spec.request.0) else { return plan };
        let usages = found.spec.usages.clone().unwrap_or_default();
        if request.judge(KUBELET_CLIENT, &usages).is_err() {
            return plan;
        }
        let own = found.spec.username.as_deref() == Some(&*request.common_name);
        let reviews = [
            (
                own,
                "selfnodeclient",
                "Auto approving self kubelet client certificate after SubjectAccessReview.",
            ),
            (true, "nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
        ];
        for (recognized, subresource, message) in reviews {
            if !recognized {
                continue;
            }
            let ask = review(&found, subresource);
            match last.answer(&ask) {
                None => return Plan::asking(vec![ask]),
                Some(Ok(review)) if review["status"]["allowed"] == true => {
                    plan.then(approved(&found, message));
                    return plan;
                }
                Some(_) => {}
            }
        }
        plan.wake(now.saturating_add(AGAIN).unwrap_or(Timestamp::MAX));
        plan
    }
}

/// May whoever asks make such requests?
fn review(request: &CertificateSigningRequest, subresource: &str) -> Ask {
    let spec = &request.spec;
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
            "resourceAttributes": {
                "group": "certificates.k8s.io", "version": "*", "resource": "certificatesigningrequests",
                "subresource": subresource, "verb": "create",
            },
        },
    });
    Ask { path: REVIEWS.to_owned(), body: Some(body) }
}

fn approved(request: &CertificateSigningRequest, message: &str) -> Write {
    let mut new = request.clone();
    let conditions = new.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("AutoApproved".to_owned()),
        message: Some(message.to_owned()),
        ..CertificateSigningRequestCondition::default()
    });
    match Write::status(&new) {
        Write::Update { kind, object, .. } => Write::Update { kind, object, subresource: Some("approval") },
        other => other,
    }
}

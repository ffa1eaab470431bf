//! Certificates of pods: a key made here, a PodCertificateRequest for it, and what its signer issues.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, pin_mut};
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::{PodCertificateRequest, PodCertificateRequestSpec, PodCertificateRequestStatus},
        core::v1::{PodCertificateProjection, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api,
    api::PostParams,
    runtime::watcher::{self, Event, watcher},
};
use parking_lot::Mutex;

use super::{Job, keys, volumes::RETRY};
use crate::{
    spec,
    volumes::{
        sources::{CertificateNeed, Credentials},
        trust,
    },
};

/// How long one attempt waits for the signer.
const PATIENCE: Duration = Duration::from_secs(60);
/// A request that nobody has answered for so long is made anew: it may have been deleted.
const ABANDONED: SignedDuration = SignedDuration::from_mins(10);
/// Refreshes are spread over this many milliseconds.
const JITTER: i64 = 10_000;

/// Certificates that were issued.
pub(super) type Issued = BTreeMap<CertificateNeed, Credentials>;

/// What is kept of each certificate from one action to the next.
pub(super) type Kept = Mutex<BTreeMap<CertificateNeed, State>>;

/// Where a certificate stands.
#[derive(Clone, Default)]
pub(super) struct State {
    /// What the pod has, and when it is to be replaced.
    current: Option<(Credentials, Timestamp)>,
    /// What has been asked for: the key, the request's name, since when.
    asked: Option<(String, String, Timestamp)>,
    /// Nothing will be issued any more.
    refused: Option<String>,
}

/// All certificates of a pod, those that are due renewed, and when the next one will be.
///
/// # Errors
/// When one has never been issued; what was asked for is kept, so that the next attempt goes on waiting for it.
pub(super) async fn all(
    job: &Job,
    needs: &[(CertificateNeed, PodCertificateProjection)],
) -> Result<(Issued, Option<Timestamp>), String> {
    let mut issued = Issued::new();
    let mut next: Option<Timestamp> = None;
    for (need, wanted) in needs {
        let (credentials, refresh) = match (one(job, need, wanted).await, current(job, need)) {
            (Ok(fresh), _) => fresh,
            // What the pod has serves until it ends; the next attempt comes soon.
            (Err(_), Some((old, _))) => (old, Timestamp::now() + RETRY),
            (Err(why), None) => return Err(why),
        };
        next = Some(next.map_or(refresh, |n| n.min(refresh)));
        issued.insert(need.clone(), credentials);
    }
    Ok((issued, next))
}

fn current(job: &Job, need: &CertificateNeed) -> Option<(Credentials, Timestamp)> {
    job.kept.certificates.lock().get(need)?.current.clone()
}

fn keep(job: &Job, need: &CertificateNeed, change: impl FnOnce(&mut State)) {
    change(job.kept.certificates.lock().entry(need.clone()).or_default());
}

async fn one(
    job: &Job,
    need: &CertificateNeed,
    wanted: &PodCertificateProjection,
) -> Result<(Credentials, Timestamp), String> {
    let state = job.kept.certificates.lock().get(need).cloned().unwrap_or_default();
    let now = Timestamp::now();
    if let Some(current) = state.current.filter(|(_, refresh)| *refresh > now) {
        return Ok(current);
    }
    if let Some(why) = state.refused {
        return Err(why);
    }
    let (key, request) = match state.asked.filter(|(_, _, since)| now.duration_since(*since) < ABANDONED) {
        Some((key, request, _)) => (key, request),
        None => {
            let (key, request) = ask(job, wanted).await?;
            keep(job, need, |state| state.asked = Some((key.clone(), request.clone(), now)));
            (key, request)
        }
    };
    match tokio::time::timeout(PATIENCE, answer(job, &request)).await {
        Err(_) => Err("credential bundle is not issued yet".to_owned()),
        Ok(Answer::Gone) => {
            keep(job, need, |state| state.asked = None);
            Err("the PodCertificateRequest is gone; another one is made".to_owned())
        }
        Ok(Answer::Refused(why)) => {
            keep(job, need, |state| state.refused = Some(why.clone()));
            Err(why)
        }
        Ok(Answer::Issued(status)) => {
            let chain = status.certificate_chain.unwrap_or_default();
            let chain = trust::certificates(&chain).map(|der| trust::pem(&der)).collect();
            let credentials = Credentials { key, chain };
            let refresh = status.begin_refresh_at.map_or(now + ABANDONED, |t| t.0)
                + SignedDuration::from_millis(rand::random_range(0..JITTER));
            keep(job, need, |state| {
                state.asked = None;
                state.current = Some((credentials.clone(), refresh));
            });
            Ok((credentials, refresh))
        }
    }
}

/// What became of a request.
enum Answer {
    Issued(PodCertificateRequestStatus),
    Refused(String),
    Gone,
}

/// Waits until the request is decided.
async fn answer(job: &Job, name: &str) -> Answer {
    let (namespace, _, _) = spec::identity(&job.pod);
    let api = Api::<PodCertificateRequest>::namespaced(job.cx.config.client.clone(), namespace);
    let fields = format!("metadata.name={name},spec.nodeName={}", job.cx.config.node_name);
    let events = watcher(api, watcher::Config::default().fields(&fields));
    pin_mut!(events);
    let mut seen = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => seen = false,
            Ok(Event::InitApply(request) | Event::Apply(request)) => {
                seen = true;
                if let Some(answer) = request.status.and_then(decided) {
                    return answer;
                }
            }
            Ok(Event::InitDone) if !seen => return Answer::Gone,
            Ok(Event::Delete(_)) => return Answer::Gone,
            Ok(Event::InitDone) => {}
            Err(error) => tracing::debug!(name, %error, "the watch of a certificate request broke off"),
        }
    }
    Answer::Gone
}

fn decided(status: PodCertificateRequestStatus) -> Option<Answer> {
    for condition in status.conditions.iter().flatten().filter(|c| c.status == "True") {
        let verb = match condition.type_.as_str() {
            "Issued" => return Some(Answer::Issued(status)),
            "Denied" => "denied",
            "Failed" => "failed",
            _ => continue,
        };
        let (reason, message) = (&condition.reason, &condition.message);
        return Some(Answer::Refused(format!(
            "PodCertificateRequest was permanently {verb}: reason={reason:?} message={message:?}"
        )));
    }
    None
}

/// Makes a key and asks for a certificate for it. Returns the key (PKCS#8, PEM) and the name of the request.
async fn ask(job: &Job, wanted: &PodCertificateProjection) -> Result<(String, String), String> {
    let (namespace, name, uid) = spec::identity(&job.pod);
    let kind = wanted.key_type.clone();
    let proof =
        tokio::task::spawn_blocking(move || keys::prove(&kind)).await.map_err(|e| e.to_string())??;
    let account = spec::spec(&job.pod).service_account_name.clone().filter(|a| !a.is_empty());
    let account = account.unwrap_or_else(|| "default".to_owned());
    let client = &job.cx.config.client;
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let found = accounts.get(&account).await.map_err(|e| format!("while fetching service account: {e}"))?;
    let node_uid = job.cx.node.borrow().as_ref().and_then(|node| node.metadata.uid.clone());
    let request = PodCertificateRequest {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            generate_name: Some("req-".to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: name.to_owned(),
                uid: uid.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: PodCertificateRequestSpec {
            signer_name: wanted.signer_name.clone(),
            pod_name: name.to_owned(),
            pod_uid: uid.to_owned(),
            service_account_name: account,
            service_account_uid: found.metadata.uid.unwrap_or_default(),
            node_name: job.cx.config.node_name.clone(),
            node_uid: node_uid.ok_or("the node's object is not there yet")?,
            max_expiration_seconds: wanted.max_expiration_seconds,
            stub_pkc_s10_request: ByteString(proof.request),
            unverified_user_annotations: wanted.user_annotations.clone(),
        },
        status: None,
    };
    let api = Api::<PodCertificateRequest>::namespaced(client.clone(), namespace);
    let made = api.create(&PostParams::default(), &request).await;
    let made = made.map_err(|e| format!("while creating on API: {e}"))?;
    let name = made.metadata.name.ok_or("the request that was made has no name")?;
    Ok((proof.key, name))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    use super::*;

    fn status(kind: &str) -> PodCertificateRequestStatus {
        let condition = Condition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: "Because".to_owned(),
            message: String::new(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        };
        PodCertificateRequestStatus { conditions: Some(vec![condition]), ..Default::default() }
    }

    #[test]
    fn a_request_is_decided_by_its_condition() {
        assert!(decided(PodCertificateRequestStatus::default()).is_none());
        assert!(decided(status("SuggestedKeyType")).is_none());
        assert!(matches!(decided(status("Issued")), Some(Answer::Issued(_))));
        let Some(Answer::Refused(why)) = decided(status("Denied")) else { panic!("not refused") };
        assert_eq!(why, "PodCertificateRequest was permanently denied: reason=\"Because\" message=\"\"");
    }
}

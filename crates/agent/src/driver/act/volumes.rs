//! Volumes: what they need from the API, mounting, renewing.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::{PersistentVolume, PersistentVolumeClaim, ServiceAccount},
    },
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, api::PostParams};
use parking_lot::Mutex;

use super::{Job, certificates};
use crate::{
    driver::events::Kind,
    spec,
    volumes::{self, Objects, Place, sources::TokenNeed},
};

/// A token is renewed at the latest after this time, whatever its life.
const OLDEST: SignedDuration = SignedDuration::from_hours(24);
/// How long a renewal that failed waits.
pub(super) const RETRY: SignedDuration = SignedDuration::from_secs(10);
/// Renewals are spread over this many milliseconds.
const JITTER: i64 = 10_000;

/// What is kept of a pod's volumes from one action to the next.
#[derive(Default)]
pub(in crate::driver) struct Kept {
    /// Tokens and when each is to be renewed.
    tokens: Mutex<BTreeMap<TokenNeed, (String, Timestamp)>>,
    /// Certificates, issued or asked for.
    pub(super) certificates: certificates::Kept,
    /// Held while files are written or taken away; true once they are not to be written any more.
    gone: tokio::sync::Mutex<bool>,
}

impl Kept {
    /// From now on no renewal writes files; those that write now are waited for.
    pub(in crate::driver) async fn close(&self) {
        *self.gone.lock().await = true;
    }
}

/// Volumes in place, and when to renew them next.
pub(in crate::driver) type Ready = (BTreeMap<String, Place>, Option<Timestamp>);

/// Puts all volumes in place.
pub(in crate::driver) async fn prepare(job: &Job) -> Result<Ready, String> {
    let ready = async {
        let needs = volumes::needs(&job.pod);
        let claims = claims(job, &needs.claims).await?;
        let (tokens, next) = tokens(job, needs.tokens).await?;
        let (certificates, refresh) = certificates::all(job, &needs.certificates).await?;
        let places = set_up(job, claims, tokens, certificates, true).await?;
        Ok((places, earlier(next, refresh)))
    };
    ready.await.inspect_err(|why: &String| {
        job.cx.events.pod(&job.pod, Kind::Warning, "FailedMount", "Mounting", why.clone());
    })
}

/// Renews what changes in volumes in place: ConfigMaps, Secrets, downward API, tokens. When tokens need it next.
pub(in crate::driver) async fn renew(job: &Job) -> Option<Timestamp> {
    let (namespace, name, _) = spec::identity(&job.pod);
    let needs = volumes::needs(&job.pod);
    let renewed = async {
        let (tokens, next) = tokens(job, needs.tokens).await?;
        let (certificates, refresh) = certificates::all(job, &needs.certificates).await?;
        Ok::<_, String>((tokens, certificates, earlier(next, refresh)))
    };
    let (tokens, certificates, next) = match renewed.await {
        Ok(renewed) => renewed,
        Err(error) => {
            tracing::debug!(namespace, name, error, "tokens or certificates were not renewed, trying again");
            return Some(Timestamp::now() + RETRY);
        }
    };
    // what has gone leaves the files as they are, until it comes again
    if let Err(error) = set_up(job, Claims::new(), tokens, certificates, false).await {
        tracing::debug!(namespace, name, error, "volumes were not renewed");
    }
    next
}

/// The first of two times that may come.
fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    [one, other].into_iter().flatten().min()
}

async fn set_up(
    job: &Job,
    claims: Claims,
    tokens: BTreeMap<TokenNeed, String>,
    certificates: certificates::Issued,
    all: bool,
) -> Result<BTreeMap<String, Place>, String> {
    let needs = volumes::needs(&job.pod);
    let maps = job.inputs.maps(&needs.config_maps).await?;
    let secrets = job.inputs.secrets(&needs.secrets).await?;
    let bundles = if needs.trust { job.cx.trust_bundles.all().await? } else { Arc::default() };
    let mut gone = job.kept.gone.lock().await;
    if !all && *gone {
        return Ok(BTreeMap::new());
    }
    *gone = false;
    let job = job.clone();
    let work = move || {
        let (host_ip, allocatable) = (job.cx.config.host_ip(), job.cx.allocatable.read().clone());
        let objects = Objects {
            config_maps: &maps,
            secrets: &secrets,
            claims: &claims,
            tokens: &tokens,
            certificates: &certificates,
            bundles: &bundles,
            facts: job.cx.facts(&host_ip, &job.ips, &allocatable),
        };
        let dir = job.cx.config.pod_dir(spec::identity(&job.pod).2);
        if all {
            volumes::set_up(&dir, &job.pod, &objects)
        } else {
            volumes::renew(&dir, &job.pod, &objects).map(|()| BTreeMap::new())
        }
    };
    let done = tokio::task::spawn_blocking(work).await;
    drop(gone);
    done.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

type Claims = BTreeMap<String, (Option<PersistentVolumeClaim>, Option<PersistentVolume>)>;

async fn claims(job: &Job, names: &[String]) -> Result<Claims, String> {
    let (namespace, _, _) = spec::identity(&job.pod);
    let client = &job.cx.config.client;
    let mut found = Claims::new();
    for name in names {
        let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
        let claim = claims.get_opt(name).await.map_err(|e| e.to_string())?;
        let volume = claim.as_ref().and_then(|c| c.spec.as_ref()?.volume_name.clone());
        let volume = match volume.filter(|v| !v.is_empty()) {
            Some(volume) => {
                let volumes = Api::<PersistentVolume>::all(client.clone());
                volumes.get_opt(&volume).await.map_err(|e| e.to_string())?
            }
            None => None,
        };
        found.insert(name.clone(), (claim, volume));
    }
    Ok(found)
}

/// Tokens for these needs, those that are near their end renewed, and when the next one will be.
async fn tokens(
    job: &Job,
    needs: Vec<TokenNeed>,
) -> Result<(BTreeMap<TokenNeed, String>, Option<Timestamp>), String> {
    let mut out = BTreeMap::new();
    let mut next: Option<Timestamp> = None;
    for need in needs {
        let known = job.kept.tokens.lock().get(&need).cloned().filter(|(_, renew)| *renew > Timestamp::now());
        let (token, renew) = match known {
            Some(known) => known,
            None => match request(job, &need).await {
                Ok(fresh) => {
                    job.kept.tokens.lock().insert(need.clone(), fresh.clone());
                    fresh
                }
                // an old token serves until it ends; the next attempt comes soon
                Err(why) => match job.kept.tokens.lock().get(&need).cloned() {
                    Some((old, _)) => (old, Timestamp::now() + RETRY),
                    None => return Err(why),
                },
            },
        };
        next = Some(next.map_or(renew, |n| n.min(renew)));
        out.insert(need, token);
    }
    Ok((out, next))
}

async fn request(job: &Job, need: &TokenNeed) -> Result<(String, Timestamp), String> {
    let (namespace, name, uid) = spec::identity(&job.pod);
    let account = spec::spec(&job.pod).service_account_name.clone().filter(|a| !a.is_empty());
    let account = account.unwrap_or_else(|| "default".into());
    let api = Api::<ServiceAccount>::namespaced(job.cx.config.client.clone(), namespace);
    let wanted = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(need.audience.clone()).filter(|a| !a.is_empty()).map(|a| vec![a]),
            expiration_seconds: Some(need.seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(name.to_owned()),
                uid: Some(uid.to_owned()),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let asked = Timestamp::now();
    let answer: kube::Result<TokenRequest> =
        api.create_subresource("token", &account, &PostParams::default(), &wanted).await;
    let status = answer.map_err(|e| format!("failed to fetch token: {e}"))?.status;
    let status = status.ok_or("failed to fetch token: no status in the answer")?;
    let token = status.token.ok_or("failed to fetch token: no token in the answer")?;
    let life = status.expiration_timestamp.map(|t| t.0.duration_since(asked));
    Ok((token, renewal(asked, life.unwrap_or(SignedDuration::from_secs(need.seconds)))))
}

/// When a token that lives for `life` is renewed: at 80 % of its life, or after a day, a little earlier at random.
fn renewal(asked: Timestamp, life: SignedDuration) -> Timestamp {
    let wait = SignedDuration::from_millis((life.as_millis() as i64 / 10).saturating_mul(8)).min(OLDEST);
    let jitter = SignedDuration::from_millis(rand::random_range(0..JITTER));
    asked + (wait - jitter).max(SignedDuration::from_secs(1))
}

/// Unmounts, however often that takes.
pub(in crate::driver) async fn tear_down(job: &Job) {
    job.kept.close().await;
    let dir = Arc::new(job.cx.config.pod_dir(spec::identity(&job.pod).2));
    crate::driver::retry::persist("volumes were not unmounted", || {
        let dir = Arc::clone(&dir);
        async move {
            let work = tokio::task::spawn_blocking(move || volumes::unmount_all(&dir));
            work.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_at_four_fifths_of_its_life_or_after_a_day() {
        let start = Timestamp::UNIX_EPOCH;
        for (life, want) in [(3600, 2880), (200_000, 86_400)] {
            let at = renewal(start, SignedDuration::from_secs(life)).as_second();
            assert!((want - 11..=want).contains(&at), "{life}: {at}");
        }
    }
}

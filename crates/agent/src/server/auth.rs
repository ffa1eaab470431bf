//! Who asks, and whether they may: the API server is asked for both, and its answers are kept for a short while.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::Hash,
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, header};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(30);
/// Answers kept.
const CAPACITY: usize = 1024;
/// Longer bearer tokens are not asked about.
const MAX_TOKEN: usize = 16 << 10;

/// Whoever is in it may do anything.
const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct User {
    pub(super) name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// What they want of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) verb: &'static str,
    /// Subresources of `nodes`, each of which is enough, the narrowest first.
    pub(super) subresources: &'static [&'static str],
}

impl Wish {
    /// What a request with this method to this path is, as upstream sees it (kubelet/server/auth.go), with one
    /// difference: commands in containers and connections to them always are `create`. They come as GET over WebSocket,
    /// and leave to look at a node must not be enough for them.
    pub(super) fn of(method: &Method, path: &str) -> Self {
        let root = path.strip_prefix('/').unwrap_or(path).split('/').next().unwrap_or_default();
        let verb = match *method {
            _ if matches!(root, "exec" | "attach" | "portForward" | "run") => "create",
            Method::GET => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        let subresources: &[&str] = match root {
            "pods" | "runningpods" => &["pods", "proxy"],
            "healthz" => &["healthz", "proxy"],
            "configz" => &["configz", "proxy"],
            "stats" => &["stats"],
            "metrics" => &["metrics"],
            "logs" => &["log"],
            "checkpoint" => &["checkpoint"],
            _ => &["proxy"],
        };
        Self { verb, subresources }
    }
}

/// Why they may not.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Unauthorized,
    Forbidden(String),
    /// The API server did not tell.
    Unknown(String),
}

pub(super) struct Auth {
    client: Client,
    node: String,
    users: Kept<String, Option<User>>,
    decisions: Kept<(User, &'static str, &'static str), bool>,
}

impl Auth {
    pub(super) fn new(client: Client, node: String) -> Self {
        Self { client, node, users: Kept::default(), decisions: Kept::default() }
    }

    /// Finds out who asks and lets them pass, or not.
    pub(super) async fn admit(
        &self,
        certificate: Option<&[u8]>,
        headers: &HeaderMap,
        wish: &Wish,
    ) -> Result<User, Refusal> {
        let user = match certificate.and_then(|c| from_certificate(c, chrono::Utc::now().timestamp())) {
            Some(user) => user,
            None => self.by_token(headers).await?.ok_or(Refusal::Unauthorized)?,
        };
        if user.groups.iter().any(|g| g == MASTERS) {
            return Ok(user);
        }
        for subresource in wish.subresources {
            if self.may(&user, wish.verb, subresource).await? {
                return Ok(user);
            }
        }
        let subresources = wish.subresources.join(" ");
        Err(Refusal::Forbidden(format!(
            "Forbidden (user={}, verb={}, resource=nodes, subresource(s)=[{subresources}])\n",
            user.name, wish.verb
        )))
    }

    async fn by_token(&self, headers: &HeaderMap) -> Result<Option<User>, Refusal> {
        let token = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| {
            let (scheme, token) = v.split_once(' ')?;
            let token = token.trim();
            (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN)
                .then_some(token)
        });
        let Some(token) = token else { return Ok(None) };
        if let Some(user) = self.users.get(token) {
            return Ok(user);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..Default::default() },
            ..Default::default()
        };
        let review = match Api::all(self.client.clone()).create(&PostParams::default(), &review).await {
            Ok(review) => review,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a token cannot be reviewed");
                return Err(Refusal::Unauthorized);
            }
        };
        let status = review.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        self.users.insert(token.to_owned(), user.clone());
        Ok(user)
    }

    async fn may(&self, user: &User, verb: &'static str, subresource: &'static str) -> Result<bool, Refusal> {
        let key = (user.clone(), verb, subresource);
        if let Some(decision) = self.decisions.get(&key) {
            return Ok(decision);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: Some(user.uid.clone()).filter(|u| !u.is_empty()),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()).filter(|e| !e.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.node.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let review = match Api::all(self.client.clone()).create(&PostParams::default(), &review).await {
            Ok(review) => review,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "an access cannot be reviewed");
                return Err(Refusal::Unknown(format!(
                    "Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                    user.name
                )));
            }
        };
        let allowed = review.status.is_some_and(|s| s.allowed && s.denied != Some(true));
        self.decisions.insert(key, allowed);
        Ok(allowed)
    }
}

/// The common name is the user, the organisations are its groups. TLS has verified the chain, but a connection may
/// outlive its certificate.
fn from_certificate(der: &[u8], now: i64) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() || now > validity.not_after.timestamp() {
        return None;
    }
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok().filter(|n| !n.is_empty())?.to_owned();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned);
    Some(User { name, groups: groups.chain([AUTHENTICATED.to_owned()]).collect(), ..User::default() })
}

/// Answers, each for [`KEPT`].
struct Kept<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Kept<K, V> {
    fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let kept = self.0.lock();
        kept.get(key).filter(|(since, _)| since.elapsed() < KEPT).map(|(_, value)| value.clone())
    }

    fn insert(&self, key: K, value: V) {
        let mut kept = self.0.lock();
        if kept.len() >= CAPACITY {
            kept.retain(|_, (since, _)| since.elapsed() < KEPT);
        }
        if kept.len() >= CAPACITY {
            kept.clear();
        }
        kept.insert(key, (Instant::now(), value));
    }
}

impl<K, V> fmt::Debug for Kept<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // keys are secrets
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_upstreams_but_for_commands() {
        let wish = |method, path| {
            let wish = Wish::of(&method, path);
            (wish.verb, wish.subresources)
        };
        assert_eq!(wish(Method::GET, "/pods"), ("get", &["pods", "proxy"][..]));
        assert_eq!(wish(Method::GET, "/stats/summary"), ("get", &["stats"][..]));
        assert_eq!(wish(Method::GET, "/metrics/cadvisor"), ("get", &["metrics"][..]));
        assert_eq!(wish(Method::GET, "/metricsx"), ("get", &["proxy"][..]));
        assert_eq!(wish(Method::GET, "/containerLogs/a/b/c"), ("get", &["proxy"][..]));
        assert_eq!(wish(Method::GET, "/healthz/ping"), ("get", &["healthz", "proxy"][..]));
        for path in ["/exec/a/b/c", "/attach/a/b/c", "/portForward/a/b", "/run/a/b/c"] {
            assert_eq!(wish(Method::GET, path), ("create", &["proxy"][..]));
        }
    }

    #[test]
    fn answers_kept_are_bounded() {
        let kept = Kept::default();
        for i in 0..3 * CAPACITY {
            kept.insert(i, i);
        }
        assert!(kept.0.lock().len() <= CAPACITY);
        assert_eq!(kept.get(&(3 * CAPACITY - 1)), Some(3 * CAPACITY - 1));
    }
}

//! Authentication: what a registry asks for in its 401, and what it is given.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Url;
use serde_json::Value;

/// What a registry wants to see.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or access token.
    pub password: String,
    /// A refresh token for the token service, instead of user and password.
    pub identity_token: Option<String>,
    /// A token for the registry itself, used as it is.
    pub registry_token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Finds the credentials for a registry in a Docker `config.json` or the content of an image pull secret.
    pub fn from_docker_config(json: &[u8], registry: &str) -> Option<Credentials> {
        let value: Value = serde_json::from_slice(json).ok()?;
        let auths = value.get("auths").unwrap_or(&value).as_object()?;
        let host = |key: &str| {
            let key = key.trim_start_matches("https://").trim_start_matches("http://");
            let key = key.split('/').next().unwrap_or_default();
            if matches!(key, "index.docker.io" | "registry-1.docker.io") {
                "docker.io".to_owned()
            } else {
                key.to_owned()
            }
        };
        let entry = auths.iter().find(|(key, _)| host(key) == registry)?.1;
        let text =
            |key: &str| entry.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
        let pair = text("auth").and_then(|a| String::from_utf8(STANDARD.decode(a).ok()?).ok());
        let (username, password) = match pair.as_deref().and_then(|p| p.split_once(':')) {
            Some((username, password)) => (username.to_owned(), password.trim_end_matches('\0').to_owned()),
            None => (text("username").unwrap_or_default(), text("password").unwrap_or_default()),
        };
        let credentials = Credentials {
            username,
            password,
            identity_token: text("identitytoken"),
            registry_token: text("registrytoken"),
        };
        (credentials != Credentials::default()).then_some(credentials)
    }

    pub(crate) fn basic(&self) -> Option<String> {
        (!self.username.is_empty())
            .then(|| format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password))))
    }
}

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Parses a header; Bearer is preferred where both are offered.
    pub(crate) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
        let mut basic = None;
        for header in headers {
            let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            } else if scheme.eq_ignore_ascii_case("bearer") {
                let parameters = parameters(rest);
                let get = |key: &str| {
                    parameters.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v.clone())
                };
                if let Some(realm) = get("realm") {
                    return Some(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
                }
            }
        }
        basic
    }
}

/// Splits `a="b,c",d=e`.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => match after.find(',') {
                Some(end) => after.split_at(end),
                None => (after, ""),
            },
        };
        found.push((key.trim_matches([' ', ',']).to_owned(), value.trim().to_owned()));
        rest = after;
    }
    found
}

/// A token and how long it may be used.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) header: String,
    pub(crate) until: Instant,
}

impl Token {
    /// Reads the answer of a token service.
    pub(crate) fn parse(body: &[u8]) -> Option<Token> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let token = ["token", "access_token"]
            .iter()
            .find_map(|k| value.get(k)?.as_str().filter(|t| !t.is_empty()))?;
        // The specification's default is 60 s; a tenth is left for the way.
        let seconds = value.get("expires_in").and_then(Value::as_u64).unwrap_or(60).clamp(10, 24 * 3600);
        Some(Token {
            header: format!("Bearer {token}"),
            until: Instant::now() + Duration::from_secs(seconds * 9 / 10),
        })
    }
}

/// The address of a token service with its query.
pub(crate) fn token_url(realm: &str, service: Option<&str>, scopes: &[String]) -> Option<Url> {
    let mut url = Url::parse(realm).ok()?;
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let Some(Challenge::Bearer { realm, service, scope }) =
            Challenge::parse(["Basic realm=x", header].into_iter())
        else {
            panic!("bearer")
        };
        assert_eq!(realm, "https://auth.docker.io/token");
        assert_eq!(service.as_deref(), Some("registry.docker.io"));
        assert_eq!(scope.as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(Challenge::parse(["basic realm=\"r\""].into_iter()), Some(Challenge::Basic));
        assert_eq!(Challenge::parse(["Negotiate"].into_iter()), None);
    }

    #[test]
    fn credentials_come_from_a_docker_config() {
        let config = br#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "r.example:5000": {"username": "a", "password": "b"}}}"#;
        let hub = Credentials::from_docker_config(config, "docker.io").unwrap();
        assert_eq!((hub.username.as_str(), hub.password.as_str()), ("u", "p"));
        let own = Credentials::from_docker_config(config, "r.example:5000").unwrap();
        assert_eq!(own.basic().as_deref(), Some("Basic YTpi"));
        assert!(Credentials::from_docker_config(config, "other").is_none());
    }

    #[test]
    fn a_password_is_not_printed() {
        let credentials =
            Credentials { username: "u".into(), password: "hunter2".into(), ..Default::default() };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}

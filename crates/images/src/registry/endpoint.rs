//! Where a registry is, and the HTTP clients that go there.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use reqwest::{Url, redirect::Policy};
use rustls::RootCertStore;

use super::{Credentials, Session, auth::Token};
use crate::{Error, Reference, Registries, Result};

/// The HTTP clients and the tokens in use.
pub(crate) struct Client {
    registries: Registries,
    /// One that honours the proxy variables, and one for this machine.
    http: OnceLock<Result<(reqwest::Client, reqwest::Client), String>>,
    /// Address, user and scopes → token.
    pub(crate) tokens: Mutex<HashMap<String, Token>>,
}

impl Client {
    pub(crate) fn new(registries: Registries) -> Client {
        Client { registries, http: OnceLock::new(), tokens: Mutex::default() }
    }

    /// Sessions to try in order: the mirrors, without credentials, then the registry itself.
    pub(crate) fn sessions<'a>(
        &'a self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        push: bool,
    ) -> Result<Vec<Session<'a>>> {
        let own = self.base(reference.domain())?;
        let scope = format!("repository:{}:{}", reference.path(), if push { "pull,push" } else { "pull" });
        let session = |base: Url, credentials: Option<&Credentials>| Session {
            client: self,
            registry: match (base.host_str(), base.port()) {
                (Some(_), _) if base == own => reference.domain().to_owned(),
                (Some(host), Some(port)) => format!("{host}:{port}"),
                (host, _) => host.unwrap_or_default().to_owned(),
            },
            base,
            path: reference.path().to_owned(),
            credentials: credentials.cloned(),
            scopes: vec![scope.clone()],
        };
        let mut sessions = Vec::new();
        if !push {
            for mirror in self.registries.mirrors.get(reference.domain()).into_iter().flatten() {
                let base = Url::parse(mirror)
                    .map_err(|e| Error::registry(mirror, format!("this mirror's address is wrong: {e}")))?;
                sessions.push(session(base, None));
            }
        }
        sessions.push(session(own.clone(), credentials));
        Ok(sessions)
    }

    fn base(&self, domain: &str) -> Result<Url> {
        let host = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
        let scheme = if self.registries.insecure.contains(domain) || is_loopback(host_of(host)) {
            "http"
        } else {
            "https"
        };
        Url::parse(&format!("{scheme}://{host}/"))
            .map_err(|e| Error::registry(domain, format!("the address is wrong: {e}")))
    }

    /// The client for this address.
    pub(crate) fn http(&self, url: &Url) -> Result<&reqwest::Client> {
        match self.http.get_or_init(build) {
            Ok((proxied, direct)) => {
                Ok(if url.host_str().is_some_and(is_loopback) { direct } else { proxied })
            }
            Err(why) => Err(Error::registry(url.host_str().unwrap_or_default(), why.clone())),
        }
    }
}

fn build() -> Result<(reqwest::Client, reqwest::Client), String> {
    let mut roots = RootCertStore::empty();
    // Honours SSL_CERT_FILE and SSL_CERT_DIR, else the distribution's bundle.
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = || {
        reqwest::Client::builder()
            .user_agent(concat!("plimsoll/", env!("CARGO_PKG_VERSION")))
            // Redirects are followed by hand: credentials must stay with their host.
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(Duration::from_secs(60))
            .use_preconfigured_tls(tls.clone())
    };
    let client =
        |b: reqwest::ClientBuilder| b.build().map_err(|e| format!("the HTTP client cannot be made: {e}"));
    Ok((client(builder())?, client(builder().no_proxy())?))
}

fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_for_registries_named_so() {
        let registries = Registries { insecure: ["r.local:5000".to_owned()].into(), ..Default::default() };
        let client = Client::new(registries);
        for (domain, base) in [
            ("docker.io", "https://registry-1.docker.io/"),
            ("quay.io", "https://quay.io/"),
            ("localhost:5000", "http://localhost:5000/"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000/"),
            ("[::1]:5000", "http://[::1]:5000/"),
            ("r.local:5000", "http://r.local:5000/"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/"),
        ] {
            assert_eq!(client.base(domain).unwrap().as_str(), base);
        }
    }

    #[test]
    fn mirrors_come_first_and_get_no_credentials() {
        let registries = Registries {
            mirrors: [("docker.io".to_owned(), vec!["https://m.example".to_owned()])].into(),
            ..Default::default()
        };
        let client = Client::new(registries);
        let credentials = Credentials { username: "u".into(), ..Default::default() };
        let reference = Reference::parse("busybox").unwrap();
        let sessions = client.sessions(&reference, Some(&credentials), false).unwrap();
        assert_eq!(
            sessions.iter().map(|s| s.registry.as_str()).collect::<Vec<_>>(),
            ["m.example", "docker.io"]
        );
        assert!(sessions[0].credentials.is_none() && sessions[1].credentials.is_some());
        assert_eq!(client.sessions(&reference, None, true).unwrap().len(), 1);
    }
}

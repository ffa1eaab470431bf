//! TLS configurations of the servers that extend ours, kept from one call to the next.
//!
//! Making one parses certificates and a key: for the machine's authorities, well over a hundred. What a configuration
//! depends on is whom to believe and what to show; the name that is asked for comes with each connection.

use std::sync::Arc;

use anyhow::Result;
use apiserver::ClientIdentity;
use parking_lot::Mutex;
use rustls::{
    ClientConfig,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use super::trust::{Bundle, Trust};

/// So many configurations are kept; a cluster has a handful of bundles.
const MOST: usize = 32;
/// A larger bundle is parsed at each call: what is kept is bounded in bytes, too.
const LARGEST: usize = 64 << 10;

/// Whom a connection believes, and what it shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Wanted {
    /// PEM; empty for the machine's authorities; `None`: anybody is believed.
    pub bundle: Option<Vec<u8>>,
    /// What the server is shown, if it asks.
    pub identity: Option<ClientIdentity>,
}

/// Configurations that were made, the one used last at the end.
#[derive(Default)]
pub struct Configs(Mutex<Vec<(Wanted, TlsConnector)>>);

impl Configs {
    /// The connector for these wishes, made anew if it is not kept.
    pub fn get(&self, wanted: Wanted) -> Result<TlsConnector> {
        if let Some(connector) = self.kept(&wanted) {
            return Ok(connector);
        }
        let connector = TlsConnector::from(Arc::new(make(&wanted)?));
        if wanted.bundle.as_ref().is_none_or(|bundle| bundle.len() <= LARGEST) {
            self.keep(wanted, connector.clone());
        }
        Ok(connector)
    }

    fn kept(&self, wanted: &Wanted) -> Option<TlsConnector> {
        let mut kept = self.0.lock();
        let at = kept.iter().position(|(key, _)| key == wanted)?;
        let entry = kept.remove(at);
        let connector = entry.1.clone();
        kept.push(entry);
        Some(connector)
    }

    fn keep(&self, wanted: Wanted, connector: TlsConnector) {
        let mut kept = self.0.lock();
        // Two calls may have made the same one.
        kept.retain(|(key, _)| *key != wanted);
        if kept.len() >= MOST {
            kept.remove(0);
        }
        kept.push((wanted, connector));
    }
}

fn make(wanted: &Wanted) -> Result<ClientConfig> {
    let trust = match &wanted.bundle {
        Some(bundle) => Trust::Bundle(Bundle::new(bundle)?),
        None => Trust::Anybody,
    };
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(trust));
    let mut config = match &wanted.identity {
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
            config.with_client_auth_cert(chain.collect::<Result<Vec<_>, _>>()?, key)?
        }
        None => config.with_no_client_auth(),
    };
    // A session that is taken up again shows no certificate: validity would be looked at once only.
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(bundle: &[u8]) -> Wanted {
        Wanted { bundle: Some(bundle.to_vec()), identity: None }
    }

    fn bundle() -> Vec<u8> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap().cert.pem().into_bytes()
    }

    #[test]
    fn a_configuration_is_made_once_for_each_bundle_and_identity() {
        let configs = Configs::default();
        let (one, other) = (bundle(), bundle());
        let first = configs.get(wanted(&one)).unwrap();
        assert!(Arc::ptr_eq(first.config(), configs.get(wanted(&one)).unwrap().config()));
        assert!(!Arc::ptr_eq(first.config(), configs.get(wanted(&other)).unwrap().config()));
        let anybody = Wanted { bundle: None, identity: None };
        assert!(!Arc::ptr_eq(first.config(), configs.get(anybody).unwrap().config()));
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let configs = Configs::default();
        let first = bundle();
        let connector = configs.get(wanted(&first)).unwrap();
        for _ in 0..MOST * 2 {
            configs.get(wanted(&bundle())).unwrap();
            assert!(Arc::ptr_eq(connector.config(), configs.get(wanted(&first)).unwrap().config()));
        }
        assert_eq!(configs.0.lock().len(), MOST);
    }

    #[test]
    fn a_bundle_that_is_too_large_is_not_kept() {
        let configs = Configs::default();
        let mut large = bundle();
        large.resize(LARGEST + 1, b'\n');
        configs.get(wanted(&large)).unwrap();
        assert!(configs.0.lock().is_empty());
    }

    #[test]
    fn a_bundle_without_a_certificate_is_refused() {
        let refused = Configs::default().get(wanted(b"nothing")).err().unwrap();
        assert!(refused.to_string().contains("no certificate"), "{refused}");
    }
}

//! ConfigMap `kube-system/extension-apiserver-authentication`: whom servers behind this one may believe.
//!
//! What is there already stays, as long as it is valid: another server of the cluster may have put it there.
//!
//! Source: `pkg/controlplane/controller/clusterauthenticationtrust`.

use apimachinery::ApiError;
use chrono::{DateTime, TimeDelta, Utc};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Map, Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::front_proxy::NAMES;
use crate::{server::Inner, special::bootstrap};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// Makes the ConfigMap or brings it up to date.
pub(crate) async fn publish(inner: &Inner) -> Result<(), ApiError> {
    let config = &inner.config;
    if config.client_authority.is_none() && config.front_proxy_authority.is_none() {
        return Ok(());
    }
    let old = inner.stored("", "configmaps", NAMESPACE, NAME);
    let there = |key: &str| {
        let text = old.as_ref().and_then(|o| o["data"][key].as_str());
        text.unwrap_or_default().to_owned()
    };
    let now = (config.now)();
    let mut data = Map::new();
    let mut certificates = |key: &str, ours: Option<&String>| {
        let pem = bundle(&[&there(key), ours.map_or("", String::as_str)], now);
        if !pem.is_empty() {
            data.insert(key.to_owned(), pem.into());
        }
    };
    certificates("client-ca-file", config.client_authority.as_ref());
    certificates("requestheader-client-ca-file", config.front_proxy_authority.as_ref());
    if config.front_proxy_authority.is_some() {
        let mut names = |key: &str, ours: &[&str]| {
            let mut list: Vec<String> = serde_json::from_str(&there(key)).unwrap_or_default();
            for name in ours {
                if !list.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                    list.push((*name).to_owned());
                }
            }
            data.insert(key.to_owned(), json!(list).to_string().into());
        };
        names("requestheader-username-headers", &["X-Remote-User"]);
        names("requestheader-uid-headers", &["X-Remote-Uid"]);
        names("requestheader-group-headers", &["X-Remote-Group"]);
        names("requestheader-extra-headers-prefix", &["X-Remote-Extra-"]);
        names("requestheader-allowed-names", &NAMES);
    }
    if old.is_some_and(|o| o["data"] == Value::Object(data.clone())) {
        return Ok(());
    }
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": NAMESPACE}, "data": data,
    });
    bootstrap::replace(inner, object, &["data"]).await
}

/// The certificates of all bundles, each once, without those that are over.
fn bundle(bundles: &[&str], now: DateTime<Utc>) -> String {
    let mut known: Vec<Vec<u8>> = Vec::new();
    let all = bundles.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes()));
    for certificate in all.flatten() {
        let der = certificate.to_vec();
        let valid = X509Certificate::from_der(&der).is_ok_and(|(_, certificate)| {
            certificate.validity().not_after.timestamp() > (now - TimeDelta::minutes(5)).timestamp()
        });
        if valid && !known.contains(&der) {
            known.push(der);
        }
    }
    known.iter().map(|der| pem(der)).collect()
}

fn pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}

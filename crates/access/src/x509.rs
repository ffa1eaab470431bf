//! Client certificates: the common name is the user, the organisations are its groups.

use std::{collections::BTreeMap, fmt::Write as _};

use apimachinery::ApiError;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Authenticator, UserInfo};

/// What of a user tells by which certificate it is known.
///
/// Source: `k8s.io/apiserver/pkg/authentication/request/x509`.
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// Authenticates by the TLS client's certificate. The chain was verified by the TLS listener; validity in time is
/// checked again here, because a connection may outlive its certificate.
pub struct ClientCertificate;

#[async_trait]
impl Authenticator for ClientCertificate {
    async fn authenticate(
        &self,
        _headers: &http::HeaderMap,
        certificates: &[Vec<u8>],
        now: DateTime<Utc>,
    ) -> Result<Option<UserInfo>, ApiError> {
        let Some(leaf) = certificates.first() else { return Ok(None) };
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| ApiError::unauthorized())?;
        let validity = certificate.validity();
        if now.timestamp() < validity.not_before.timestamp()
            || now.timestamp() > validity.not_after.timestamp()
        {
            return Err(ApiError::unauthorized());
        }
        let subject = certificate.subject();
        let Some(name) = subject.iter_common_name().next().and_then(|cn| cn.as_str().ok()) else {
            return Ok(None);
        };
        if name.is_empty() {
            return Ok(None);
        }
        let mut groups: Vec<String> =
            subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
        groups.push(crate::AUTHENTICATED.to_owned());
        let id = Sha256::digest(leaf).iter().fold("X509SHA256=".to_owned(), |mut id, byte| {
            let _ = write!(id, "{byte:02x}");
            id
        });
        let extra = BTreeMap::from([(CREDENTIAL.to_owned(), vec![id])]);
        Ok(Some(UserInfo { name: name.to_owned(), groups, extra, ..UserInfo::default() }))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(not_after: i32) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(not_after, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[tokio::test]
    async fn the_common_name_is_the_user_and_organisations_are_groups() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let user = ClientCertificate
            .authenticate(&http::HeaderMap::new(), &[certificate(2030)], now)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(user.name, "jane");
        assert_eq!(user.groups, ["dev", "system:authenticated"]);
        let id = &user.extra["authentication.kubernetes.io/credential-id"][0];
        assert_eq!(id.strip_prefix("X509SHA256=").map(str::len), Some(64), "{id}");
    }

    #[tokio::test]
    async fn an_expired_certificate_is_refused() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let answer = ClientCertificate.authenticate(&http::HeaderMap::new(), &[certificate(2021)], now).await;
        assert_eq!(answer.unwrap_err().code, 401);
    }

    #[tokio::test]
    async fn no_certificate_is_no_opinion() {
        let answer = ClientCertificate.authenticate(&http::HeaderMap::new(), &[], Utc::now()).await;
        assert_eq!(answer, Ok(None));
    }
}

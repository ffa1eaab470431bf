//! Bound ServiceAccount tokens: signing (TokenRequest), checking, and the issuer's discovery documents.
//!
//! ES256 JSON Web Tokens with upstream's claims (`kubernetes.io` holds namespace, service account, pod, node, secret).
//! Source: KEP-1205, KEP-4193, RFC 7519, RFC 7517.

use std::{collections::BTreeMap, sync::Arc};

use apimachinery::{ApiError, Object};
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use p256::{
    elliptic_curve::sec1::ToEncodedPoint,
    pkcs8::{DecodePrivateKey, EncodePublicKey, LineEnding},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Authenticator, Reader, UserInfo};

/// A bound object or the service account may be this long under deletion before its tokens stop working.
const DELETION_LEEWAY: TimeDelta = TimeDelta::seconds(60);
/// The lifetime that the ServiceAccount admission plugin asks for; it marks a token that is extended to a year.
const EXTENDABLE_SECONDS: i64 = 3607;
/// Clocks of servers may be apart as far, as upstream's library has it.
const LEEWAY_SECONDS: i64 = 60;
const YEAR_SECONDS: i64 = 365 * 24 * 3600;

/// Why the keys of the issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a PKCS#8 P-256 key in PEM.
    #[error("the service account signing key is not a PKCS#8 P-256 private key in PEM: {0}")]
    Malformed(String),
}

/// Something that a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// A token that was signed.
pub struct Issued {
    /// The token.
    pub token: String,
    /// When the client is told that it ends.
    pub expires: DateTime<Utc>,
    /// What audit logs know it as: `JTI=` and its number.
    pub credential_id: String,
}

fn credential_id(id: &str) -> String {
    format!("JTI={id}")
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Private {
    namespace: String,
    serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnafter: Option<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    private: Private,
    nbf: i64,
    sub: String,
}

/// What a TokenRequest asks for, already checked against the stored objects.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// Namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub service_account: Reference,
    /// The pod the token is bound to.
    pub pod: Option<Reference>,
    /// The node of that pod, or the node it is bound to.
    pub node: Option<Reference>,
    /// The secret it is bound to.
    pub secret: Option<Reference>,
    /// Audiences; empty: the API server's.
    pub audiences: Vec<String>,
    /// Lifetime in seconds, at least 600.
    pub seconds: i64,
}

/// Signs and checks the tokens of one cluster.
pub struct Issuer {
    /// `iss`, also where the discovery documents say they are: `https://kubernetes.default.svc.cluster.local`.
    pub url: String,
    key: EncodingKey,
    check: DecodingKey,
    key_id: String,
    jwk: Value,
}

impl Issuer {
    /// `pem`: a PKCS#8 P-256 private key.
    pub fn new(url: &str, pem: &str) -> Result<Self, KeyError> {
        let malformed = |e: &dyn std::fmt::Display| KeyError::Malformed(e.to_string());
        let secret = p256::SecretKey::from_pkcs8_pem(pem).map_err(|e| malformed(&e))?;
        let public = secret.public_key();
        let public_pem = public.to_public_key_pem(LineEnding::LF).map_err(|e| malformed(&e))?;
        let der = public.to_public_key_der().map_err(|e| malformed(&e))?;
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(der.as_bytes()));
        let point = public.to_encoded_point(false);
        let (Some(x), Some(y)) = (point.x(), point.y()) else {
            return Err(KeyError::Malformed("the public key is the point at infinity".to_owned()));
        };
        let jwk = json!({
            "use": "sig", "kty": "EC", "kid": key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        });
        Ok(Self {
            url: url.to_owned(),
            key: EncodingKey::from_ec_pem(pem.as_bytes()).map_err(|e| malformed(&e))?,
            check: DecodingKey::from_ec_pem(public_pem.as_bytes()).map_err(|e| malformed(&e))?,
            key_id,
            jwk,
        })
    }

    /// A new key for [`Issuer::new`], as PEM.
    pub fn generate_key() -> Result<String, KeyError> {
        // rcgen's default algorithm is ECDSA P-256; it prints PKCS#8.
        let pair = rcgen::KeyPair::generate().map_err(|e| KeyError::Malformed(e.to_string()))?;
        Ok(pair.serialize_pem())
    }

    /// `/.well-known/openid-configuration`
    #[must_use]
    pub fn configuration(&self) -> Value {
        json!({
            "issuer": self.url,
            "jwks_uri": format!("{}/openid/v1/jwks", self.url),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// `/openid/v1/jwks`
    #[must_use]
    pub fn jwks(&self) -> Value {
        json!({"keys": [self.jwk]})
    }

    /// A pod's token for the API server with the default lifetime is
    /// valid for a year, as upstream's, for clients that never read it again.
    pub fn sign(&self, grant: &Grant, now: DateTime<Utc>) -> Result<Issued, ApiError> {
        let audiences =
            if grant.audiences.is_empty() { vec![self.url.clone()] } else { grant.audiences.clone() };
        let told = now + TimeDelta::seconds(grant.seconds);
        let extended =
            grant.seconds == EXTENDABLE_SECONDS && grant.pod.is_some() && audiences == [self.url.clone()];
        let expires = if extended { now.timestamp() + YEAR_SECONDS } else { told.timestamp() };
        let claims = Claims {
            aud: audiences,
            exp: expires,
            iat: now.timestamp(),
            iss: self.url.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            private: Private {
                namespace: grant.namespace.clone(),
                serviceaccount: grant.service_account.clone(),
                pod: grant.pod.clone(),
                node: grant.node.clone(),
                secret: grant.secret.clone(),
                warnafter: extended.then(|| told.timestamp()),
            },
            nbf: now.timestamp(),
            sub: format!("system:serviceaccount:{}:{}", grant.namespace, grant.service_account.name),
        };
        let header = Header { kid: Some(self.key_id.clone()), typ: None, ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims, &self.key).map_err(ApiError::internal)?;
        Ok(Issued { token, expires: told, credential_id: credential_id(&claims.jti) })
    }

    fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<Claims, String> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_aud = false;
        // Time is a parameter here, so it is checked below.
        validation.validate_exp = false;
        validation.set_issuer(&[&self.url]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.check, &validation)
            .map_err(|e| e.to_string())?
            .claims;
        let now = now.timestamp();
        if now > claims.exp + LEEWAY_SECONDS {
            return Err("service account token has expired".to_owned());
        }
        if now + LEEWAY_SECONDS < claims.nbf {
            return Err("service account token is not valid yet".to_owned());
        }
        Ok(claims)
    }

    /// Who holds this token. `audiences`: any of these has to be among the token's; the second result is which are.
    /// The service account and what the token is bound to must still exist with the same UIDs.
    pub fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        reader: &dyn Reader,
        now: DateTime<Utc>,
    ) -> Result<(UserInfo, Vec<String>), String> {
        let claims = self.verify(token, now)?;
        let matching: Vec<String> = audiences.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        if matching.is_empty() {
            return Err(format!(
                "token audiences {:?} is invalid for the target audiences {audiences:?}",
                claims.aud
            ));
        }
        let private = claims.private;
        let namespace = private.namespace.as_str();
        let account = &private.serviceaccount;
        alive(reader, "serviceaccounts", namespace, account, now)?;
        let mut extra = BTreeMap::new();
        extra.insert(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![credential_id(&claims.jti)],
        );
        if let Some(secret) = &private.secret {
            alive(reader, "secrets", namespace, secret, now)?;
        }
        if let Some(pod) = &private.pod {
            alive(reader, "pods", namespace, pod, now)?;
            extra.insert("authentication.kubernetes.io/pod-name".to_owned(), vec![pod.name.clone()]);
            extra.insert("authentication.kubernetes.io/pod-uid".to_owned(), vec![pod.uid.clone()]);
        }
        if let Some(node) = &private.node {
            if private.pod.is_none() {
                alive(reader, "nodes", "", node, now)?;
            }
            extra.insert("authentication.kubernetes.io/node-name".to_owned(), vec![node.name.clone()]);
            extra.insert("authentication.kubernetes.io/node-uid".to_owned(), vec![node.uid.clone()]);
        }
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            crate::AUTHENTICATED.to_owned(),
        ];
        Ok((UserInfo { name: claims.sub, uid: account.uid.clone(), groups, extra }, matching))
    }
}

/// The object is there, is the same one, and has not been under deletion for long.
fn alive(
    reader: &dyn Reader,
    resource: &str,
    namespace: &str,
    reference: &Reference,
    now: DateTime<Utc>,
) -> Result<(), String> {
    let gone = || format!("{resource} {namespace}/{} of the token does not exist any more", reference.name);
    let object: Arc<Object> = reader.get("", resource, namespace, &reference.name).ok_or_else(gone)?;
    let metadata = &object["metadata"];
    if metadata["uid"].as_str() != Some(&reference.uid) {
        return Err(gone());
    }
    let deleted = metadata["deletionTimestamp"].as_str().and_then(|t| DateTime::parse_from_rfc3339(t).ok());
    match deleted {
        Some(at) if now > at.to_utc() + DELETION_LEEWAY => Err(gone()),
        _ => Ok(()),
    }
}

/// Authenticates `Authorization: Bearer` tokens that the issuer signed.
pub struct ServiceAccountTokens {
    /// The cluster's issuer.
    pub issuer: Arc<Issuer>,
    /// Sees the objects that tokens are bound to.
    pub reader: Arc<dyn Reader>,
}

#[async_trait]
impl Authenticator for ServiceAccountTokens {
    async fn authenticate(
        &self,
        headers: &http::HeaderMap,
        _certificates: &[Vec<u8>],
        now: DateTime<Utc>,
    ) -> Result<Option<UserInfo>, ApiError> {
        let Some(token) = bearer(headers) else { return Ok(None) };
        let audiences = [self.issuer.url.clone()];
        match self.issuer.authenticate(token, &audiences, &*self.reader, now) {
            Ok((user, _)) => Ok(Some(user)),
            Err(why) => {
                tracing::debug!(why, "refused a bearer token");
                Err(ApiError::unauthorized())
            }
        }
    }
}

/// The token of an `Authorization: Bearer` header.
#[must_use]
pub fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

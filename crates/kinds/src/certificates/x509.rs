//! What certificates and requests say, as far as rules of the API look at it.
//!
//! Source: RFC 5280, RFC 2986. Words of errors follow Go's `crypto/x509` where they are fixed.

use sha2::{Digest as _, Sha384, Sha512};
use x509_parser::{
    certification_request::X509CertificationRequest,
    error::X509Error,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{self, Oid},
    prelude::{FromDer as _, X509Certificate},
    x509::{SubjectPublicKeyInfo, X509Name},
};

use super::pem;

/// A certificate signing request (PKCS#10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The subject's common name; empty if there is none. Of several the last one.
    pub common_name: String,
    /// The subject's organisations.
    pub organizations: Vec<String>,
    /// The key that a certificate is wanted for.
    pub key: PublicKey,
    /// Its own key's signature is right; else the words that say what is wrong.
    pub signature: Result<(), String>,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Subject's key.
    pub key: PublicKey,
    /// `BasicConstraints.cA`
    pub is_ca: bool,
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
    /// Names of the subjectAltName extension.
    pub dns_names: Vec<String>,
    /// Addresses of the subjectAltName extension.
    pub emails: Vec<String>,
}

/// A public key: what kind it is, and its bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Algorithm and strength.
    pub kind: KeyKind,
    bits: Vec<u8>,
}

/// Kinds of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519
    Ed25519,
    /// The curve's name: `P-256`; a dotted object identifier for one without a name.
    Elliptic(String),
    /// Bits of the modulus.
    Rsa(usize),
    /// Anything else.
    Other,
}

impl PublicKey {
    fn of(info: &SubjectPublicKeyInfo) -> Self {
        let algorithm = &info.algorithm;
        let kind = if algorithm.algorithm == oid_registry::OID_SIG_ED25519 {
            KeyKind::Ed25519
        } else if algorithm.algorithm == oid_registry::OID_KEY_TYPE_EC_PUBLIC_KEY {
            let curve = algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            KeyKind::Elliptic(curve.map_or_else(String::new, |curve| curve_name(&curve)))
        } else if algorithm.algorithm == oid_registry::OID_PKCS1_RSAENCRYPTION {
            KeyKind::Rsa(info.parsed().map_or(0, |key| key.key_size()))
        } else {
            KeyKind::Other
        };
        Self { kind, bits: info.subject_public_key.data.to_vec() }
    }

    /// What is wrong with a signature by this key.
    fn wrong_signature(&self) -> &'static str {
        match self.kind {
            KeyKind::Ed25519 => "x509: Ed25519 verification failure",
            KeyKind::Elliptic(_) => "x509: ECDSA verification failure",
            KeyKind::Rsa(_) => "crypto/rsa: verification error",
            KeyKind::Other => UNIMPLEMENTED,
        }
    }
}

const UNIMPLEMENTED: &str = "x509: cannot verify signature: algorithm unimplemented";

fn curve_name(curve: &Oid) -> String {
    let names = [
        (oid_registry::OID_EC_P256, "P-256"),
        (oid_registry::OID_NIST_EC_P384, "P-384"),
        (oid_registry::OID_NIST_EC_P521, "P-521"),
    ];
    let known = names.into_iter().find(|(oid, _)| oid == curve);
    known.map_or_else(|| curve.to_id_string(), |(_, name)| name.to_owned())
}

/// The signature of a key on P-521, which *ring* does not know: with the digest that goes with the curve (RFC 5758, 3.2),
/// or SHA-384.
fn verify_521(key: &[u8], request: &X509CertificationRequest<'_>) -> Result<(), X509Error> {
    use p521::ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier as _};
    let signed = request.certification_request_info.raw;
    let algorithm = &request.signature_algorithm.algorithm;
    let digest = if *algorithm == oid_registry::OID_SIG_ECDSA_WITH_SHA512 {
        Sha512::digest(signed).to_vec()
    } else if *algorithm == oid_registry::OID_SIG_ECDSA_WITH_SHA384 {
        Sha384::digest(signed).to_vec()
    } else {
        return Err(X509Error::SignatureUnsupportedAlgorithm);
    };
    let wrong = |_| X509Error::SignatureVerificationError;
    let key = VerifyingKey::from_sec1_bytes(key).map_err(wrong)?;
    let signature = Signature::from_der(&request.signature_value.data).map_err(wrong)?;
    key.verify_prehash(&digest, &signature).map_err(wrong)
}

fn texts<'n>(name: &'n X509Name<'_>, attribute: &Oid<'static>) -> Vec<&'n str> {
    name.iter_by_oid(attribute).filter_map(|value| value.as_str().ok()).collect()
}

impl Request {
    /// From PEM, as CertificateSigningRequests carry it.
    ///
    /// # Errors
    /// In Go's words where they are fixed.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        match pem::blocks(text).next() {
            Some(block) if block.label == "CERTIFICATE REQUEST" => Self::from_der(&block.data),
            _ => Err("PEM block type must be CERTIFICATE REQUEST".to_owned()),
        }
    }

    /// From DER, as PodCertificateRequests carry it.
    ///
    /// # Errors
    /// Says what is malformed.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|why| format!("x509: malformed request: {why}"))?;
        if !rest.is_empty() {
            return Err("asn1: syntax error: trailing data".to_owned());
        }
        let info = &request.certification_request_info;
        let key = PublicKey::of(&info.subject_pki);
        let checked = match &key.kind {
            KeyKind::Elliptic(curve) if curve == "P-521" => verify_521(&key.bits, &request),
            _ => request.verify_signature(),
        };
        let signature = checked.map_err(|why| match why {
            X509Error::SignatureUnsupportedAlgorithm => UNIMPLEMENTED.to_owned(),
            _ => key.wrong_signature().to_owned(),
        });
        let organizations = texts(&info.subject, &oid_registry::OID_X509_ORGANIZATION_NAME);
        let common_name = texts(&info.subject, &oid_registry::OID_X509_COMMON_NAME).pop();
        Ok(Self {
            common_name: common_name.unwrap_or_default().to_owned(),
            organizations: organizations.into_iter().map(str::to_owned).collect(),
            key,
            signature,
        })
    }
}

impl Certificate {
    /// # Errors
    /// Says what is malformed.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| "x509: malformed certificate".to_owned())?;
        if !rest.is_empty() {
            return Err("x509: trailing data".to_owned());
        }
        let (mut dns_names, mut emails, mut is_ca) = (Vec::new(), Vec::new(), false);
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) => is_ca = constraints.ca,
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        match name {
                            GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                            GeneralName::RFC822Name(name) => emails.push((*name).to_owned()),
                            _ => {}
                        }
                    }
                }
                ParsedExtension::ParseError { error } => {
                    return Err(format!("x509: malformed extension: {error}"));
                }
                _ => {}
            }
        }
        Ok(Self {
            key: PublicKey::of(certificate.public_key()),
            is_ca,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            dns_names,
            emails,
        })
    }
}

//! The cluster's certificate authority, as far as it signs what is requested.
//!
//! Certificates are put together here, from the request's own bytes, so that a subject with several organizations (a user of
//! several groups) and any kind of key come out as they went in.
//!
//! Source: `pkg/controller/certificates/authority/{authority,policies}.go`; RFC 5280.

use std::{fmt, sync::Arc};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, SigningKey as _};
use sha2::{Digest as _, Sha256};
use x509_parser::{
    certificate::X509Certificate, extensions::ParsedExtension, pem::parse_x509_pem, prelude::FromDer,
};

use super::{der, request::Request};

/// How long ago a certificate begins, for clocks that are behind.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// A certificate that lives shorter than this is not cut by [`BACKDATE`].
const SHORT: SignedDuration = SignedDuration::from_hours(8);
/// The longest and the default life, `--cluster-signing-duration`.
const LONGEST: SignedDuration = SignedDuration::from_hours(365 * 24);
/// The shortest life.
const SHORTEST: SignedDuration = SignedDuration::from_mins(10);

/// Arcs below `2.5.29`: extensions of certificates.
const KEY_USAGE: [u8; 3] = [0x55, 0x1d, 15];
const ALTERNATIVE_NAME: [u8; 3] = [0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 19];
const AUTHORITY_KEY: [u8; 3] = [0x55, 0x1d, 35];
const EXTENDED_KEY_USAGE: [u8; 3] = [0x55, 0x1d, 37];

/// Bits of `KeyUsage`, from the highest of the first byte.
const USAGES: [(&str, u16); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// Purposes of `ExtKeyUsage`, with their object identifiers, in the order in which they are written.
const PURPOSES: [(&str, &[u8]); 13] = [
    ("any", &[0x55, 0x1d, 37, 0]),
    ("server auth", &[0x2b, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[0x2b, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[0x2b, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[0x2b, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[0x2b, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[0x2b, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[0x2b, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[0x2b, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[0x2b, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[0x2b, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 3, 3]),
    ("netscape sgc", &[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 4, 1]),
];

/// A certificate and its key.
#[derive(Clone)]
pub struct Authority {
    key: Arc<KeyPair>,
    /// The algorithm by which the key signs, DER.
    algorithm: Vec<u8>,
    /// The subject's name, DER.
    name: Vec<u8>,
    key_identifier: Vec<u8>,
    not_after: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// What has to be known to sign.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// For whom.
    pub request: &'a Request,
    /// `client auth`, …
    pub usages: &'a [String],
    /// For how long, as asked for.
    pub seconds: Option<i32>,
    /// What makes the serial number one of its own: unique, as a UID is.
    pub unique: &'a str,
    /// The time.
    pub now: Timestamp,
}

impl Authority {
    /// Of a certificate and its key, PEM (PKCS#8).
    ///
    /// # Errors
    /// When they cannot be read, or the key is of a sort that cannot sign here.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(key).map_err(|error| format!("the authority's key: {error}"))?;
        let algorithm = algorithm(&key)?;
        let wrong = |error: &dyn fmt::Display| format!("the authority's certificate: {error}");
        let (_, block) = parse_x509_pem(certificate.as_bytes()).map_err(|error| wrong(&error))?;
        let (_, parsed) = X509Certificate::from_der(&block.contents).map_err(|error| wrong(&error))?;
        let identifier = parsed.extensions().iter().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp());
        Ok(Self {
            key: Arc::new(key),
            algorithm,
            name: parsed.subject().as_raw().to_vec(),
            key_identifier: identifier.unwrap_or_default(),
            not_after: not_after.map_err(|error| wrong(&error))?,
        })
    }

    /// A certificate, PEM. It is no authority, ends no later than this one, and has the names that are asked for.
    ///
    /// # Errors
    /// When a usage is unknown, or this authority's own time is over.
    pub fn sign(&self, order: &Order<'_>) -> Result<String, String> {
        let life = match order.seconds.map(|s| SignedDuration::from_secs(i64::from(s))) {
            Some(asked) => asked.clamp(SHORTEST, LONGEST),
            None => LONGEST,
        };
        let cut = if life < SHORT { life } else { life - BACKDATE };
        let from = order.now.saturating_sub(BACKDATE).unwrap_or(Timestamp::MIN);
        let until = order.now.saturating_add(cut).unwrap_or(Timestamp::MAX).min(self.not_after);
        if order.now >= self.not_after {
            let end = self.not_after;
            return Err(format!("refusing to sign a certificate that expired in the past: NotAfter={end}"));
        }
        let mut hash = Sha256::new();
        hash.update(order.unique);
        hash.update(order.now.as_nanosecond().to_be_bytes());
        hash.update(&order.request.key);
        let serial = hash.finalize();
        let serial = serial.get(..16).unwrap_or_default();
        let body = der::sequence(&[
            der::tagged(0, &der::integer(&[2])),
            der::integer(serial),
            self.algorithm.clone(),
            self.name.clone(),
            der::sequence(&[der::time(from), der::time(until)]),
            order.request.subject.clone(),
            order.request.key.clone(),
            der::tagged(3, &der::sequence(&self.extensions(order)?)),
        ]);
        let signature =
            self.key.sign(&body).map_err(|error| format!("failed to sign certificate: {error}"))?;
        let certificate = der::sequence(&[body, self.algorithm.clone(), der::bits(0, &signature)]);
        Ok(pem(&certificate))
    }

    fn extensions(&self, order: &Order<'_>) -> Result<Vec<Vec<u8>>, String> {
        let mut bits = 0_u16;
        let mut purposes = Vec::new();
        let mut unknown = Vec::new();
        for usage in order.usages {
            if let Some((_, bit)) = USAGES.iter().find(|(name, _)| name == usage) {
                bits |= 0x8000 >> bit;
            } else if let Some(place) = PURPOSES.iter().position(|(name, _)| name == usage) {
                purposes.push(place);
            } else {
                unknown.push(format!("{usage:?}"));
            }
        }
        if !unknown.is_empty() {
            return Err(format!("unrecognized usage values: [{}]", unknown.join(" ")));
        }
        let mut extensions = Vec::new();
        if bits != 0 {
            let bytes = bits.to_be_bytes();
            let length = if bytes[1] == 0 { 1 } else { 2 };
            let bytes = bytes.get(..length).unwrap_or_default();
            let unused = u8::try_from(bytes.last().map_or(0, |b| b.trailing_zeros())).unwrap_or(0);
            extensions.push(der::extension(&KEY_USAGE, true, &der::bits(unused, bytes)));
        }
        purposes.sort_unstable();
        let mut oids: Vec<Vec<u8>> = purposes
            .into_iter()
            .filter_map(|place| Some(der::value(der::OID, PURPOSES.get(place)?.1)))
            .collect();
        oids.dedup();
        if !oids.is_empty() {
            extensions.push(der::extension(&EXTENDED_KEY_USAGE, false, &der::sequence(&oids)));
        }
        extensions.push(der::extension(&BASIC_CONSTRAINTS, true, &der::sequence(&[])));
        if !self.key_identifier.is_empty() {
            let identifier = der::sequence(&[der::value(0x80, &self.key_identifier)]);
            extensions.push(der::extension(&AUTHORITY_KEY, false, &identifier));
        }
        if !order.request.names.is_empty() {
            // an empty subject is an empty sequence: two bytes
            let critical = order.request.subject.len() <= 2;
            let names = der::value(der::SEQUENCE, &order.request.names);
            extensions.push(der::extension(&ALTERNATIVE_NAME, critical, &names));
        }
        Ok(extensions)
    }
}

/// How a key's signatures are named.
fn algorithm(key: &KeyPair) -> Result<Vec<u8>, String> {
    const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
    const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
    const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    const NULL: [u8; 2] = [5, 0];
    let used = key.algorithm();
    let known: [(&rcgen::SignatureAlgorithm, &[u8], bool); 4] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, ECDSA_SHA256, false),
        (&rcgen::PKCS_ECDSA_P384_SHA384, ECDSA_SHA384, false),
        (&rcgen::PKCS_ED25519, ED25519, false),
        (&rcgen::PKCS_RSA_SHA256, RSA_SHA256, true),
    ];
    let (_, oid, null) = known
        .into_iter()
        .find(|(known, ..)| *known == used)
        .ok_or_else(|| "the authority's key is of a sort that cannot sign here".to_owned())?;
    let mut parts = vec![der::value(der::OID, oid)];
    if null {
        parts.push(NULL.to_vec());
    }
    Ok(der::sequence(&parts))
}

fn pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}

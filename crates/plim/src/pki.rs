//! The cluster's own certificate authority and the certificates it gives.
//!
//! One authority signs servers and clients; a second one only the client by which other API servers know that the API
//! server speaks for its callers, so that no other certificate of the cluster may speak for anybody. Certificates that have used up two thirds of their life are made anew at the
//! next start; keys never leave the state folder.

use std::net::IpAddr;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::data::Data;

const AUTHORITY_LIFE: Duration = Duration::days(3650);
const LEAF_LIFE: Duration = Duration::days(365);

/// A certificate chain and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

/// The authority of a cluster.
pub struct Authority {
    /// Its certificate, PEM.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
    data: Data,
}

/// Whom a certificate is for.
#[derive(Clone, Debug)]
pub enum Subject<'a> {
    /// A client: user name and groups.
    Client { user: &'a str, groups: &'a [&'a str] },
    /// A server that is reached under these names and addresses; it may be a client too (a kubelet).
    Server { name: &'a str, groups: &'a [&'a str], names: Vec<String>, addresses: Vec<IpAddr> },
}

impl Authority {
    /// Takes the authority of the state folder, or makes it.
    pub fn open(data: &Data) -> Result<Self> {
        Self::open_as(data, "ca", "plimsoll-ca")
    }

    /// The same, for the front proxy's authority.
    pub fn open_front_proxy(data: &Data) -> Result<Self> {
        Self::open_as(data, "front-proxy-ca", "front-proxy-ca")
    }

    fn open_as(data: &Data, file: &str, name: &str) -> Result<Self> {
        let (crt, pem) = (format!("pki/{file}.crt"), format!("pki/{file}.key"));
        let (certificate, key) = match (data.read(&crt)?, data.read(&pem)?) {
            (Some(certificate), Some(key)) => (certificate, key),
            _ => {
                let identity = make_authority(name)?;
                data.write(&pem, &identity.key)?;
                data.write(&crt, &identity.certificate)?;
                (identity.certificate, identity.key)
            }
        };
        let damaged = |file: &str| format!("{file} is damaged: restore it from a backup");
        let key = KeyPair::from_pem(&key).with_context(|| damaged(&pem))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).with_context(|| damaged(&crt))?;
        Ok(Self { certificate, issuer, data: data.clone() })
    }

    /// The identity kept as `pki/NAME.crt` and `.key`; made anew when it is missing, old, or was made for other names.
    pub fn identity(&self, name: &str, subject: &Subject<'_>) -> Result<Identity> {
        let (crt, key, stamp) =
            (format!("pki/{name}.crt"), format!("pki/{name}.key"), format!("pki/{name}.for"));
        let now = OffsetDateTime::now_utc();
        let asked = format!("{subject:?}");
        if let (Some(certificate), Some(key), Some(made)) =
            (self.data.read(&crt)?, self.data.read(&key)?, self.data.read(&stamp)?)
            && let Some((until, subject)) = made.split_once('\n')
            && subject == asked
            && until.parse::<i64>().is_ok_and(|t| t > now.unix_timestamp())
        {
            return Ok(Identity { certificate, key });
        }
        let identity = self.sign(subject, now)?;
        self.data.write(&key, &identity.key)?;
        self.data.write(&crt, &identity.certificate)?;
        let renew: OffsetDateTime = now + LEAF_LIFE * 2 / 3;
        self.data.write(&stamp, &format!("{}\n{asked}", renew.unix_timestamp()))?;
        Ok(identity)
    }

    fn sign(&self, subject: &Subject<'_>, now: OffsetDateTime) -> Result<Identity> {
        let mut params = CertificateParams::default();
        // A clock that is a little behind must not refuse a new certificate.
        params.not_before = now - Duration::hours(1);
        params.not_after = now + LEAF_LIFE;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let (name, groups) = match subject {
            Subject::Client { user, groups } => (user, groups),
            Subject::Server { name, groups, names, addresses } => {
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
                for name in names {
                    params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
                }
                params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
                (name, groups)
            }
        };
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        params.distinguished_name.push(DnType::CommonName, *name);
        for group in *groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn make_authority(name: &str) -> Result<Identity> {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::hours(1);
    params.not_after = now + AUTHORITY_LIFE;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client<'a>() -> Subject<'a> {
        Subject::Client { user: "jane", groups: &["dev"] }
    }

    #[test]
    fn an_identity_is_kept_until_it_is_for_somebody_else() {
        let folder = tempfile::tempdir().unwrap();
        let data = Data::at(folder.path());
        let first = Authority::open(&data).unwrap().identity("x", &client()).unwrap();
        let again = Authority::open(&data).unwrap().identity("x", &client()).unwrap();
        assert_eq!(first.certificate, again.certificate);
        let other = Subject::Client { user: "jane", groups: &[] };
        let renewed = Authority::open(&data).unwrap().identity("x", &other).unwrap();
        assert_ne!(first.certificate, renewed.certificate);
    }

    #[test]
    fn the_authority_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let data = Data::at(folder.path());
        let first = Authority::open(&data).unwrap().certificate;
        assert_eq!(first, Authority::open(&data).unwrap().certificate);
        assert_ne!(first, Authority::open_front_proxy(&data).unwrap().certificate);
    }
}

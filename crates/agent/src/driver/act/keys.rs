//! Keys of pods' certificates, and the requests that prove who holds them.

use std::fmt::Display;

use p521::{
    ecdsa::{Signature, SigningKey, signature::Signer as _},
    elliptic_curve::rand_core::OsRng,
    pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding},
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SignatureAlgorithm};
use rustls::pki_types::PrivatePkcs8KeyDer;

/// A new key, and a request that carries nothing but its public half.
#[derive(Debug)]
pub(super) struct Proof {
    /// PKCS#8, PEM.
    pub key: String,
    /// PKCS#10, DER, without a subject: whose the certificate will be is for the signer to say.
    pub request: Vec<u8>,
}

/// Makes a key of a type that a projection may name. An RSA key takes seconds of one processor.
pub(super) fn prove(kind: &str) -> Result<Proof, String> {
    let pair = match kind {
        "ECDSAP256" => generate(&rcgen::PKCS_ECDSA_P256_SHA256),
        "ECDSAP384" => generate(&rcgen::PKCS_ECDSA_P384_SHA384),
        "ED25519" => generate(&rcgen::PKCS_ED25519),
        "RSA3072" => rsa(3072),
        "RSA4096" => rsa(4096),
        "ECDSAP521" => return elliptic_521(),
        _ => return Err(format!("unknown key type {kind:?}")),
    }?;
    let mut stub = CertificateParams::default();
    stub.distinguished_name = DistinguishedName::new();
    let stub = stub.serialize_request(&pair).map_err(unproved)?;
    Ok(Proof { key: pair.serialize_pem(), request: stub.der().to_vec() })
}

fn ungenerated(why: impl Display) -> String {
    format!("while generating keypair: {why}")
}

fn unproved(why: impl Display) -> String {
    format!("while generating stub PKCS#10 request: {why}")
}

fn generate(algorithm: &'static SignatureAlgorithm) -> Result<KeyPair, String> {
    KeyPair::generate_for(algorithm).map_err(ungenerated)
}

fn rsa(bits: usize) -> Result<KeyPair, String> {
    let key = rsa::RsaPrivateKey::new(&mut OsRng, bits).map_err(ungenerated)?;
    let der = key.to_pkcs8_der().map_err(ungenerated)?;
    let der = PrivatePkcs8KeyDer::from(der.as_bytes());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_RSA_SHA256).map_err(ungenerated)
}

/// On P-521, whose signatures *ring* does not make: the request is put together here (RFC 2986, 4).
fn elliptic_521() -> Result<Proof, String> {
    /// `SEQUENCE { OBJECT IDENTIFIER ecdsa-with-SHA512 }` (RFC 5758, 3.2).
    const ECDSA_SHA512: [u8; 12] = [0x30, 10, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4];
    const VERSION: [u8; 3] = [0x02, 1, 0];
    const NO_SUBJECT: [u8; 2] = [0x30, 0];
    const NO_ATTRIBUTES: [u8; 2] = [0xa0, 0];
    let secret = p521::SecretKey::random(&mut OsRng);
    let public = secret.public_key().to_public_key_der().map_err(ungenerated)?;
    let info = tagged(0x30, &[&VERSION, &NO_SUBJECT, public.as_bytes(), &NO_ATTRIBUTES]);
    let signer = SigningKey::from_bytes(&secret.to_bytes()).map_err(ungenerated)?;
    let signature: Signature = signer.try_sign(&info).map_err(unproved)?;
    let bits = tagged(0x03, &[&[0], signature.to_der().as_bytes()]);
    Ok(Proof {
        key: secret.to_pkcs8_pem(LineEnding::LF).map_err(ungenerated)?.to_string(),
        request: tagged(0x30, &[&info, &ECDSA_SHA512, &bits]),
    })
}

/// One value of DER, below 64 KiB.
fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let [.., high, low] = length;
    let mut value = match (high, low) {
        (0, 0..0x80) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    value.extend(content);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the API server looks at, and what TLS makes of the key.
    fn is_good(kind: &str) {
        use x509_parser::prelude::{FromDer, X509CertificationRequest};
        let proof = prove(kind).unwrap();
        assert!(proof.key.starts_with("-----BEGIN PRIVATE KEY-----"), "{kind}");
        let (rest, request) = X509CertificationRequest::from_der(&proof.request).unwrap();
        assert!(rest.is_empty() && request.certification_request_info.subject.iter().next().is_none());
        let read = kinds::certificates::x509::Request::from_der(&proof.request).unwrap();
        assert_eq!(read.signature, Ok(()), "{kind}");
        assert_eq!(
            format!("{:?}", read.key.kind),
            match kind {
                "RSA3072" => "Rsa(3072)".to_owned(),
                "RSA4096" => "Rsa(4096)".to_owned(),
                "ED25519" => "Ed25519".to_owned(),
                curve => format!("Elliptic(\"P-{}\")", &curve["ECDSAP".len()..]),
            }
        );
    }

    #[test]
    fn keys_are_of_the_wanted_type_and_prove_it() {
        ["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"].into_iter().for_each(is_good);
        assert!(prove("RSA1024").is_err());
    }

    #[test]
    #[cfg_attr(debug_assertions, ignore = "finding primes takes minutes unoptimised")]
    fn keys_of_rsa_have_the_wanted_length_and_prove_it() {
        ["RSA3072", "RSA4096"].into_iter().for_each(is_good);
    }
}

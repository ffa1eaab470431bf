//! Signing requests from their approval to a certificate that holds, and their end.

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, PublicKeyData as _, SigningKey as _,
};
use serde_json::{Value, json};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    pem::parse_x509_pem,
    prelude::FromDer,
};

use super::{
    approving::Approving,
    authority::{Authority, Order},
    cleaner::{Cleaner, PodCleaner},
    der,
    request::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, Request},
    signing::Signing,
    trust_bundle::TrustBundle,
};
use crate::{
    Controller, Outcome, Plan, Refusal, World,
    fixtures::{add, at, converse, created, deleted, key, noon, plan, updated, world},
};

/// A certificate and its key, PEM.
fn root() -> (String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "root");
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A request as OpenSSL would make it: several organizations, names of any kind.
fn pem(name: &str, organizations: &[&str], names: &[(u8, &[u8])]) -> String {
    let attribute = |oid: u8, text: &str| {
        let pair = [der::value(der::OID, &[0x55, 4, oid]), der::value(0x0c, text.as_bytes())];
        der::value(0x31, &der::sequence(&pair))
    };
    let mut subject: Vec<Vec<u8>> = organizations.iter().map(|o| attribute(10, o)).collect();
    subject.push(attribute(3, name));
    let key = KeyPair::generate().unwrap();
    let mut attributes = Vec::new();
    if !names.is_empty() {
        let names: Vec<Vec<u8>> = names.iter().map(|(tag, bytes)| der::value(*tag, bytes)).collect();
        let extensions = der::sequence(&[der::extension(&[0x55, 0x1d, 17], false, &der::sequence(&names))]);
        let oid = der::value(der::OID, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14]);
        attributes = der::sequence(&[oid, der::value(0x31, &extensions)]);
    }
    let info = der::sequence(&[
        der::integer(&[0]),
        der::sequence(&subject),
        key.subject_public_key_info(),
        der::tagged(0, &attributes),
    ]);
    let algorithm = der::sequence(&[der::value(der::OID, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2])]);
    let signature = key.sign(&info).unwrap();
    let whole = der::sequence(&[info, algorithm, der::bits(0, &signature)]);
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, whole);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", lines.join("\n"))
}

fn object(signer: &str, pem: &str, usages: &[&str], conditions: &[Value]) -> Value {
    let request = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "r"},
        "spec": {"signerName": signer, "request": request, "usages": usages,
            "username": "system:node:n", "groups": ["system:nodes"]},
        "status": {"conditions": conditions}})
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "lastUpdateTime": noon().to_string()})
}

const KUBELET: &[&str] = &["key encipherment", "digital signature", "client auth"];
const SERVING: &[&str] = &["digital signature", "server auth"];

fn signed(signer: &str, pem: &str, usages: &[&str], conditions: &[Value]) -> Plan {
    let (certificate, root_key) = root();
    let signing = Signing { authority: Authority::from_pem(&certificate, &root_key).unwrap() };
    plan(&signing, &world([object(signer, pem, usages, conditions)]), "", "r")
}

fn certificate_of(plan: &Plan) -> Vec<u8> {
    let text = updated(plan)[0]["status"]["certificate"].as_str().unwrap();
    let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
    parse_x509_pem(&pem).unwrap().1.contents
}

fn failure_of(plan: &Plan) -> String {
    let conditions = updated(plan)[0]["status"]["conditions"].as_array().unwrap();
    let failed = conditions.iter().find(|c| c["type"] == "Failed").unwrap();
    assert_eq!(failed["reason"], "SignerValidationFailure");
    failed["message"].as_str().unwrap().to_owned()
}

#[test]
fn an_approved_request_is_signed_with_all_its_organizations_and_names() {
    let (root_certificate, root_key) = root();
    let signing = Signing { authority: Authority::from_pem(&root_certificate, &root_key).unwrap() };
    let pem = pem("jane", &["dev", "ops"], &[(0x82, b"a.example"), (0x87, &[10, 0, 0, 1])]);
    let world = world([object(CLIENT, &pem, &["client auth"], &[condition("Approved")])]);
    let der = certificate_of(&plan(&signing, &world, "", "r"));
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let root = parse_x509_pem(root_certificate.as_bytes()).unwrap().1;
    let (_, root) = X509Certificate::from_der(&root.contents).unwrap();
    certificate.verify_signature(Some(root.public_key())).unwrap();
    assert_eq!(certificate.issuer(), root.subject());
    let subject = certificate.subject();
    let organizations: Vec<&str> = subject.iter_organization().map(|o| o.as_str().unwrap()).collect();
    assert_eq!(organizations, ["dev", "ops"]);
    assert!(!certificate.is_ca());
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    let names = certificate.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names[0], GeneralName::DNSName("a.example"));
    assert_eq!(names.general_names[1], GeneralName::IPAddress(&[10, 0, 0, 1]));
    let authority_key = certificate.extensions().iter().any(|e| {
        matches!(e.parsed_extension(), ParsedExtension::AuthorityKeyIdentifier(id) if id.key_identifier.is_some())
    });
    assert!(authority_key);
    let validity = certificate.validity();
    assert_eq!(validity.not_before.timestamp(), at(-300).as_second());
    assert_eq!(validity.not_after.timestamp(), at(365 * 86_400 - 300).as_second());
}

#[test]
fn key_usages_are_the_bits_that_were_asked_for() {
    let usages = ["digital signature", "key encipherment", "decipher only", "server auth"];
    let der = certificate_of(&signed(LEGACY, &pem("x", &[], &[]), &usages, &[condition("Approved")]));
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && usage.decipher_only());
    assert!(!usage.key_cert_sign() && !usage.key_agreement() && !usage.crl_sign());
}

#[test]
fn a_certificate_lives_as_long_as_asked_within_bounds_and_not_longer_than_its_authority() {
    let (certificate, root_key) = root();
    let authority = Authority::from_pem(&certificate, &root_key).unwrap();
    let request = Request::parse(pem("x", &[], &[]).as_bytes()).unwrap();
    let ends = |seconds: Option<i32>, now: Timestamp| {
        let order = Order { request: &request, usages: &[], seconds, unique: "u", now };
        authority.sign(&order).map(|pem| {
            let der = parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
            X509Certificate::from_der(&der).unwrap().1.validity().not_after.timestamp()
        })
    };
    assert_eq!(ends(Some(60), noon()), Ok(at(600).as_second()), "ten minutes at the least");
    assert_eq!(ends(Some(3600), noon()), Ok(at(3600).as_second()), "short ones are not cut");
    assert_eq!(ends(Some(86_400), noon()), Ok(at(86_100).as_second()));
    let late: Timestamp = "4095-12-31T00:00:00Z".parse().unwrap();
    assert_eq!(ends(None, late), Ok("4096-01-01T00:00:00Z".parse::<Timestamp>().unwrap().as_second()));
    assert!(ends(None, "4096-01-01T00:00:00Z".parse().unwrap()).unwrap_err().contains("expired"));
}

#[test]
fn nothing_is_signed_that_is_not_approved_or_is_somebody_elses() {
    let pem = pem("x", &[], &[]);
    let usages = &["client auth"];
    assert_eq!(signed(CLIENT, &pem, usages, &[]), Plan::none());
    assert_eq!(signed(CLIENT, &pem, usages, &[condition("Denied")]), Plan::none());
    let both = [condition("Approved"), condition("Failed")];
    assert_eq!(signed(CLIENT, &pem, usages, &both), Plan::none());
    assert_eq!(signed("example.com/mine", &pem, usages, &[condition("Approved")]), Plan::none());
}

#[test]
fn what_a_signer_does_not_take_fails_with_upstreams_words() {
    let node = |name: &str, names: &[(u8, &[u8])]| pem(name, &["system:nodes"], names);
    let dns: (u8, &[u8]) = (0x82, b"n");
    let mail: (u8, &[u8]) = (0x81, b"a@b");
    let cases: [(&str, String, &[&str], &str); 8] = [
        (
            CLIENT,
            pem("x", &[], &[]),
            &["server auth", "client auth"],
            "invalid usage for client certificate: server auth",
        ),
        (
            CLIENT,
            pem("x", &[], &[]),
            &["digital signature"],
            "missing required usage for client certificate: client auth",
        ),
        (
            KUBELET_CLIENT,
            pem("system:node:n", &["other"], &[]),
            KUBELET,
            "subject organization is not system:nodes",
        ),
        (KUBELET_CLIENT, node("system:node:n", &[dns]), KUBELET, "DNS subjectAltNames are not allowed"),
        (KUBELET_CLIENT, node("n", &[]), KUBELET, "subject common name does not begin with system:node:"),
        (
            KUBELET_CLIENT,
            node("system:node:n", &[]),
            SERVING,
            "usages did not match [client auth digital signature key encipherment]",
        ),
        (KUBELET_SERVING, node("system:node:n", &[]), SERVING, "DNS or IP subjectAltName is required"),
        (
            KUBELET_SERVING,
            node("system:node:n", &[dns, mail]),
            SERVING,
            "Email subjectAltNames are not allowed",
        ),
    ];
    for (signer, pem, usages, expected) in cases {
        assert_eq!(failure_of(&signed(signer, &pem, usages, &[condition("Approved")])), expected);
    }
    let serving = signed(KUBELET_SERVING, &node("system:node:n", &[dns]), SERVING, &[condition("Approved")]);
    assert!(!certificate_of(&serving).is_empty());
}

#[test]
fn a_request_that_was_tampered_with_is_not_read() {
    let good = pem("jane", &[], &[]);
    assert!(Request::parse(good.as_bytes()).is_ok());
    let der = parse_x509_pem(good.as_bytes()).unwrap().1.contents;
    let forged: Vec<u8> = {
        let at = der.windows(4).position(|w| w == b"jane").unwrap();
        let mut forged = der.clone();
        forged[at] = b'J';
        forged
    };
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, forged);
    let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n");
    let error = Request::parse(forged.as_bytes()).unwrap_err();
    assert!(error.starts_with("unable to verify certificate request signature"), "{error}");
    assert!(Request::parse(root().0.as_bytes()).is_err());
}

fn reviewed(world: &World, allowed: &str) -> Plan {
    converse(&Approving, world, &key("", "r"), Outcome::default(), noon(), |ask| {
        let body = ask.body.as_ref().unwrap();
        assert_eq!(body["spec"]["user"], "system:node:n");
        let asked = &body["spec"]["resourceAttributes"]["subresource"];
        Ok::<Value, Refusal>(json!({"status": {"allowed": *asked == *allowed}}))
    })
}

#[test]
fn a_kubelets_client_certificate_is_approved_for_those_who_may_have_it() {
    let own = object(KUBELET_CLIENT, &pem("system:node:n", &["system:nodes"], &[]), KUBELET, &[]);
    let world_of_own = world([own]);
    let approved = reviewed(&world_of_own, "selfnodeclient");
    let condition = &updated(&approved)[0]["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("Approved"), &json!("AutoApproved")));
    assert_eq!(
        condition["message"],
        "Auto approving self kubelet client certificate after SubjectAccessReview."
    );
    assert!(matches!(&approved.steps[0][0], crate::Write::Update { subresource: Some("approval"), .. }));
    let nothing = reviewed(&world_of_own, "none");
    assert!(nothing.steps.is_empty() && nothing.again.is_some());
    let others = object(KUBELET_CLIENT, &pem("system:node:m", &["system:nodes"], &[]), KUBELET, &[]);
    let world_of_others = world([others]);
    assert!(reviewed(&world_of_others, "selfnodeclient").steps.is_empty(), "not its own");
    assert_eq!(reviewed(&world_of_others, "nodeclient").steps.len(), 1);
    let serving = object(KUBELET_SERVING, &pem("system:node:n", &["system:nodes"], &[]), KUBELET, &[]);
    assert_eq!(reviewed(&world([serving]), "nodeclient"), Plan::none());
}

#[test]
fn requests_go_when_they_are_done_or_nobody_decides() {
    let look = |conditions: &[Value], seconds| {
        let world = world([object(CLIENT, &pem("x", &[], &[]), &["client auth"], conditions)]);
        Cleaner.reconcile(&key("", "r"), &world, &Outcome::default(), at(seconds))
    };
    for (kind, hours) in [("Denied", 1), ("Failed", 1), ("Approved", 24)] {
        let end = hours * 3600 + 1;
        assert_eq!(look(&[condition(kind)], end - 1).again, Some(at(end)), "{kind}");
        assert_eq!(deleted(&look(&[condition(kind)], end)), ["r"], "{kind}");
    }
    assert_eq!(look(&[], 86_400).again, Some(at(86_401)));
    assert_eq!(deleted(&look(&[], 86_401)), ["r"]);
}

#[test]
fn what_is_issued_goes_after_an_hour_or_when_its_certificate_is_over() {
    let issued = signed(CLIENT, &pem("x", &[], &[]), &["client auth"], &[condition("Approved")]);
    let mut object = updated(&issued)[0].clone();
    let look = |object: &Value| plan(&Cleaner, &world([object.clone()]), "", "r").again;
    assert_eq!(look(&object), Some(at(3601)));
    let mut short = object.clone();
    short["spec"]["expirationSeconds"] = json!(600);
    short["status"]["certificate"] = Value::Null;
    let (certificate, root_key) = root();
    let signing = Signing { authority: Authority::from_pem(&certificate, &root_key).unwrap() };
    object = updated(&plan(&signing, &world([short]), "", "r"))[0].clone();
    assert_eq!(look(&object), Some(at(601)));
    let pod = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest",
        "metadata": {"namespace": "shop", "name": "r"},
        "spec": {"signerName": "a/b", "podName": "p", "podUID": "u", "serviceAccountName": "s",
            "serviceAccountUID": "u", "nodeName": "n", "nodeUID": "u", "stubPKCS10Request": ""}});
    assert_eq!(plan(&PodCleaner, &world([pod]), "shop", "r").again, Some(at(901)));
}

#[test]
fn one_bundle_holds_the_servers_certificate_and_older_ones_go() {
    let loops = TrustBundle { certificate: "PEM".to_owned() };
    let first = plan(&loops, &World::default(), "", "");
    let mut bundle = created(&first)[0].clone();
    let name = bundle["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("kubernetes.io:kube-apiserver-serving:"));
    assert_eq!(name.len(), "kubernetes.io:kube-apiserver-serving:".len() + 24);
    let mut old = bundle.clone();
    old["metadata"]["name"] = json!("kubernetes.io:kube-apiserver-serving:old");
    let mut foreign = bundle.clone();
    foreign["metadata"]["name"] = json!("other");
    foreign["spec"]["signerName"] = json!("example.com/x");
    let mut world = world([bundle.clone(), old, foreign]);
    assert_eq!(deleted(&plan(&loops, &world, "", "")), ["kubernetes.io:kube-apiserver-serving:old"]);
    bundle["spec"]["trustBundle"] = json!("changed");
    add(&mut world, bundle);
    assert_eq!(updated(&plan(&loops, &world, "", ""))[0]["spec"]["trustBundle"], "PEM");
}

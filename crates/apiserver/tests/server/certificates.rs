//! Requests for certificates through their life, as upstream's conformance tests lead them.

use base64::Engine as _;
use chrono::{Duration, Utc};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::cluster::Cluster;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const POD_REQUESTS: &str = "/apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests";

fn base64(bytes: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["e2e.example.com".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "e2e.example.com");
    params
}

fn signing_request(signer: &str) -> Value {
    let request = params().serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "e2e-"},
        "spec": {
            "request": base64(request), "signerName": signer, "expirationSeconds": 3600, "username": "root",
            "usages": ["digital signature", "key encipherment", "server auth"],
        },
    })
}

#[tokio::test]
async fn a_signing_request_is_approved_and_answered_through_its_subresources() {
    let cluster = Cluster::new().await;
    let made = cluster.create(REQUESTS, &signing_request("example.com/a")).await.ok();
    for _ in 0..2 {
        cluster.create(REQUESTS, &signing_request("example.com/a")).await.ok();
    }
    cluster.create(REQUESTS, &signing_request("example.com/b")).await.ok();
    assert_eq!(made["spec"]["username"], "admin", "the server says who asks");
    assert_eq!(made["spec"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(made["metadata"]["managedFields"], Value::Null, "nothing of it is its writer's");
    let selected = format!("{REQUESTS}?fieldSelector=spec.signerName%3Dexample.com/a");
    assert_eq!(cluster.get(&selected).await.ok()["items"].as_array().unwrap().len(), 3);

    let path = format!("{REQUESTS}/{}", made["metadata"]["name"].as_str().unwrap());
    let mut object = cluster.merge(&path, &json!({"metadata": {"annotations": {"a": "1"}}})).await.ok();
    object["spec"]["signerName"] = "example.com/c".into();
    object["metadata"]["annotations"]["b"] = "2".into();
    let object = cluster.update(&path, &object).await.ok();
    assert_eq!(object["metadata"]["annotations"], json!({"a": "1", "b": "2"}));
    assert_eq!(object["spec"], made["spec"], "the spec stays");

    let approval = format!("{path}/approval");
    assert_eq!(cluster.get(&approval).await.ok()["kind"], "CertificateSigningRequest");
    let patch = json!({
        "metadata": {"annotations": {"c": "3"}},
        "status": {"certificate": "eA==", "conditions": [{"type": "Mine", "status": "True", "reason": "e2e"}]},
    });
    let mut patched = cluster.merge(&approval, &patch).await.ok();
    assert_eq!(patched["metadata"]["annotations"]["c"], "3");
    assert_eq!(patched["status"]["certificate"], Value::Null, "approval does not reach the certificate");
    let condition = &patched["status"]["conditions"][0];
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string());
    let approved = json!({"type": "Approved", "status": "True", "reason": "E2E", "message": "yes"});
    patched["status"]["conditions"].as_array_mut().unwrap().push(approved);
    let updated = cluster.update(&approval, &patched).await.ok();
    assert_eq!(updated["status"]["conditions"][1]["type"], "Approved");

    let key = KeyPair::generate().unwrap();
    let certificate = base64(params().self_signed(&key).unwrap().pem());
    let status = format!("{path}/status");
    let mut signed = cluster.merge(&status, &json!({"status": {"certificate": certificate}})).await.ok();
    assert_eq!(signed["status"]["certificate"], certificate);
    signed["status"]["conditions"].as_array_mut().unwrap().push(json!({"type": "More", "status": "True"}));
    let signed = cluster.update(&status, &signed).await.ok();
    assert_eq!(signed["status"]["conditions"].as_array().unwrap().len(), 3);
    let (code, why) = cluster.merge(&status, &json!({"status": {"certificate": null}})).await.refused();
    assert_eq!(code, 422);
    assert!(why.contains("updates may not modify existing certificate content"), "{why}");

    cluster.delete(&path).await.ok();
    assert_eq!(cluster.get(&path).await.code, 404);
    cluster.delete(&selected).await.ok();
    assert_eq!(cluster.get(&selected).await.ok()["items"], json!([]));
}

#[tokio::test]
async fn a_denied_request_is_not_approved_through_the_status_or_later() {
    let cluster = Cluster::new().await;
    let made = cluster.create(REQUESTS, &signing_request("example.com/a")).await.ok();
    let path = format!("{REQUESTS}/{}", made["metadata"]["name"].as_str().unwrap());
    let conditions = |kinds: &[&str]| -> Value {
        let conditions: Vec<Value> = kinds.iter().map(|k| json!({"type": k, "status": "True"})).collect();
        json!({"status": {"conditions": conditions}})
    };
    let (code, why) = cluster.merge(&format!("{path}/status"), &conditions(&["Approved"])).await.refused();
    assert_eq!(code, 422);
    assert!(why.contains("updates may not add a condition of type \"Approved\""), "{why}");
    cluster.merge(&format!("{path}/approval"), &conditions(&["Denied"])).await.ok();
    for kinds in [["Denied", "Approved"].as_slice(), &["Approved"]] {
        assert_eq!(cluster.merge(&format!("{path}/approval"), &conditions(kinds)).await.code, 422);
    }
}

/// Every sort of patch on an object that never had a status.
#[tokio::test]
async fn a_pods_request_is_issued_by_every_sort_of_patch() {
    let cluster = Cluster::new().await;
    let key = KeyPair::generate().unwrap();
    let stub = CertificateParams::default().serialize_request(&key).unwrap();
    let begin = Utc::now() - Duration::minutes(1);
    let begin = begin - Duration::nanoseconds(begin.timestamp_subsec_nanos().into());
    let end = begin + Duration::hours(1);
    let mut certificate = params();
    certificate.not_before = (std::time::UNIX_EPOCH
        + std::time::Duration::from_secs(u64::try_from(begin.timestamp()).unwrap()))
    .into();
    certificate.not_after = (std::time::UNIX_EPOCH
        + std::time::Duration::from_secs(u64::try_from(end.timestamp()).unwrap()))
    .into();
    let chain = certificate.self_signed(&key).unwrap().pem();
    let time = |at: chrono::DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = json!({
        "certificateChain": chain, "notBefore": time(begin), "notAfter": time(end),
        "beginRefreshAt": time(begin + Duration::minutes(15)),
        "conditions": [{"type": "Issued", "status": "True", "reason": "E2E", "message": "m", "lastTransitionTime": time(begin)}],
    });
    let request = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest",
        "metadata": {"name": "test", "labels": {"a": "1"}},
        "spec": {
            "signerName": "example.com/e2e", "podName": "p", "podUID": "1", "serviceAccountName": "default",
            "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3", "maxExpirationSeconds": 86400,
            "stubPKCS10Request": base64(stub.der()),
        },
    });
    let path = format!("{POD_REQUESTS}/test");
    for sort in ["apply", "strategic-merge-patch", "merge-patch", "json-patch"] {
        let made = cluster.create(POD_REQUESTS, &request).await.ok();
        let whole = |field: &str, value: Value| {
            let mut patch = json!({
                "apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest",
                "metadata": {"name": "test", "namespace": "default", "uid": made["metadata"]["uid"]},
            });
            match field {
                "metadata" => patch["metadata"]["labels"] = value,
                field => patch[field] = value,
            }
            patch
        };
        let json = sort == "json-patch";
        let labels = if json {
            json!([{"op": "add", "path": "/metadata/labels/b", "value": "2"}])
        } else {
            whole("metadata", json!({"b": "2"}))
        };
        let labelled = cluster.patch(sort, &path, &labels).await.ok();
        assert_eq!(labelled["metadata"]["labels"], json!({"a": "1", "b": "2"}), "{sort}");
        let issue = if json {
            let add = |(field, value): (&String, &Value)| json!({"op": "add", "path": format!("/status/{field}"), "value": value});
            status.as_object().unwrap().iter().map(add).collect()
        } else {
            whole("status", status.clone())
        };
        let issued = cluster.patch(sort, &format!("{path}/status"), &issue).await.ok();
        assert_eq!(issued["status"], status, "{sort}");
        assert_eq!(issued["spec"], made["spec"]);
        let again =
            cluster.merge(&format!("{path}/status"), &json!({"status": {"certificateChain": "x"}})).await;
        assert_eq!(again.code, 422, "an issued request stays as it is");
        cluster.delete(&path).await.ok();
    }
}

//! A machine that is not well: its disk is full, its clock jumps.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use access::{
    token::{Issuer, ServiceAccountTokens},
    x509::ClientCertificate,
};
use apiserver::ClientCertificates;
use chrono::{DateTime, TimeDelta, Utc};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;
use tower::Service as _;

use crate::cluster::{Cluster, account};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A file system of eight mebibytes.
struct Small(tempfile::TempDir);

impl Small {
    /// `None` for whoever may not mount.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
            return None;
        }
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(folder.path());
        mount.status().unwrap().success().then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_in_words_and_the_server_goes_on_when_there_is_room() {
    let Some(small) = Small::new() else { return };
    let (folder, ballast) = (small.path().join("store"), small.path().join("ballast"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&ballast, vec![0; 2 << 20]).unwrap();
    let cluster = Cluster::over(&folder, |_| {}).await;
    let map = |n: usize| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{n}")}, "data": {"x": "y".repeat(500_000)}});
    let mut kept = Vec::new();
    let full = loop {
        assert!(kept.len() < 100, "the disk never was full");
        let answer = cluster.create(MAPS, &map(kept.len())).await;
        if answer.code != 201 {
            break answer;
        }
        kept.push(format!("m{}", kept.len()));
    };
    assert!(!kept.is_empty());
    let (code, message) = full.refused();
    assert!((500..=507).contains(&code) && message.contains("No space left on device"), "{code} {message}");
    for _ in 0..3 {
        assert!(cluster.create(MAPS, &map(kept.len())).await.code >= 500, "again");
        let listed = cluster.get(MAPS).await.ok();
        let shown: Vec<_> =
            listed["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()).collect();
        let mut sorted = kept.clone();
        sorted.sort();
        assert_eq!(json!(shown), json!(sorted), "reads go on, and show what was acknowledged");
    }
    std::fs::remove_file(&ballast).unwrap();
    cluster.create(MAPS, &map(kept.len())).await.ok();
    let first = cluster.merge(&format!("{MAPS}/m0"), &json!({"data": {"x": "short"}})).await.ok();
    assert_eq!(first["data"]["x"], "short");
    assert_eq!(cluster.get("/readyz").await.code, 200, "it says that it is well again");
}

/// Asked about the path `/boom`, it panics.
struct Fragile;

impl access::Authorizer for Fragile {
    fn authorize(&self, request: &access::Attributes) -> access::Decision {
        assert!(request.path != "/boom", "on purpose");
        access::Decision::NoOpinion(String::new())
    }
}

#[tokio::test]
async fn a_panic_ends_its_own_request_only() {
    let cluster = Cluster::with(|config| config.authorizers.insert(0, Arc::new(Fragile))).await;
    for method in ["GET", "POST"] {
        let response = cluster.send(method, "/boom", &[], "").await;
        assert_eq!(response.status(), 500, "{method}");
        assert!(!apiserver::contained(), "nothing of it is left on this thread");
        assert_eq!(cluster.get("/version").await.code, 200, "others go on");
    }
}

/// How far the clock of the test below is off, in seconds.
static OFF: AtomicI64 = AtomicI64::new(0);

fn clock() -> DateTime<Utc> {
    Utc::now() + TimeDelta::seconds(OFF.load(Ordering::SeqCst))
}

fn set(hours: i64) {
    OFF.store(hours * 3600, Ordering::SeqCst);
}

#[tokio::test]
async fn a_clock_that_jumps_an_hour_ends_what_has_ended_and_nothing_for_good() {
    let pem = Issuer::generate_key().unwrap();
    let issuer = Arc::new(Issuer::new("https://kubernetes.default.svc", &pem).unwrap());
    let cluster = Cluster::with(|config| {
        let reader: Arc<dyn access::Reader> = Arc::new(config.reader.clone());
        let tokens = ServiceAccountTokens { issuer: issuer.clone(), reader };
        config.authenticators = vec![Arc::new(tokens), Arc::new(ClientCertificate)];
        (config.issuer, config.now) = (Some(issuer.clone()), clock);
    })
    .await;
    account(&cluster).await;
    let token = async || {
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600},
        });
        let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
        cluster.create(path, &request).await.ok()["status"]["token"].as_str().unwrap().to_owned()
    };
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "jane");
    let at = |minutes: i64| std::time::SystemTime::from(Utc::now() + TimeDelta::minutes(minutes)).into();
    (params.not_before, params.not_after) = (at(-30), at(30));
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
    let shown = ClientCertificates(Arc::new(vec![certificate]));

    // 403: known, but without any rights. 401: not known.
    let code = async |token: Option<&str>| {
        let mut request = http::Request::get("/api/v1/namespaces/default/secrets");
        match token {
            Some(token) => request = request.header("authorization", format!("Bearer {token}")),
            None => request = request.extension(shown.clone()),
        }
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        cluster.server.service().call(request).await.unwrap().status().as_u16()
    };
    let first = token().await;
    assert_eq!((code(Some(&first)).await, code(None).await), (403, 403));
    for hours in [1, -1] {
        set(hours);
        assert_eq!((code(Some(&first)).await, code(None).await), (401, 401), "{hours} h");
        let other = token().await;
        assert_eq!(code(Some(&other)).await, 403, "a new one is good at once");
        set(0);
        assert_eq!((code(Some(&first)).await, code(None).await), (403, 403), "back again");
        assert_eq!(code(Some(&other)).await, 401, "that of another hour is not");
    }
    // A server that is seconds behind the one that signed.
    OFF.store(-30, Ordering::SeqCst);
    assert_eq!(code(Some(&first)).await, 403);
    set(0);
}

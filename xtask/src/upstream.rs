//! The reference servers: built from the Go module, started on the loopback device, read, ended.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// One JSON field of a Go struct, as `conformance/cmd/prototags` prints it.
#[derive(Deserialize)]
pub struct GoField {
    /// JSON name.
    pub name: String,
    /// Scalar word or struct name, below any number of `[]` and `{}`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Protobuf field numbers, outermost first.
    #[serde(default)]
    pub tag: String,
    /// What an empty value is encoded as, JSON.
    #[serde(default)]
    pub always: Option<String>,
    /// Absent and zero differ.
    #[serde(default)]
    pub pointer: bool,
    /// The type as Go prints it, where it has a name that `kind` does not tell.
    #[serde(default)]
    pub go: String,
    /// The embedded structs that have the field, outermost first.
    #[serde(default, rename = "in")]
    pub within: String,
    /// Strategic merge patch strategy.
    #[serde(default)]
    pub patch: String,
    /// Strategic merge patch key.
    #[serde(default)]
    pub key: String,
}

/// Struct name in OpenAPI's spelling → its fields in Go's order.
pub type GoTypes = BTreeMap<String, Option<Vec<GoField>>>;

/// What the servers answered.
pub struct Published {
    /// `v1.37.2`
    pub version: String,
    /// Schemas by their OpenAPI v3 name.
    pub schemas: BTreeMap<String, Value>,
    /// Aggregated discovery: the groups of `/api` and `/apis`, in upstream's order.
    pub groups: Vec<Value>,
    /// `group/version plural` → `columnDefinitions` of its list as a Table.
    pub columns: BTreeMap<String, Value>,
}

fn go_build(conformance: &Path, package: &str, out: &Path) -> Result<()> {
    eprintln!("building {package}");
    let done = Command::new("go")
        .args(["build", "-o"])
        .arg(out)
        .arg(package)
        .current_dir(conformance)
        .status()
        .context("cannot run `go`; it is needed for `cargo xtask facts` only")?;
    ensure!(done.success(), "go build {package} failed");
    Ok(())
}

/// Builds and runs the reflection program.
pub fn reflect(conformance: &Path, cache: &Path) -> Result<GoTypes> {
    fs::create_dir_all(cache)?;
    let program = cache.join("prototags");
    go_build(conformance, "./cmd/prototags", &program)?;
    let output = Command::new(&program).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{} failed", program.display());
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The version of Kubernetes that go.mod pins; a server built from a module does not know its own.
pub fn version(conformance: &Path) -> Result<String> {
    let output = Command::new("go")
        .args(["list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes"])
        .current_dir(conformance)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "go list failed");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Builds etcd and kube-apiserver; the folder that holds them.
pub fn build_servers(conformance: &Path, cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("upstream");
    fs::create_dir_all(&folder)?;
    // The packages are pinned by conformance/tools.go; etcd's main lives in another module, so it gets a main here.
    go_build(conformance, "./cmd/etcd", &folder.join("etcd"))?;
    go_build(conformance, "k8s.io/kubernetes/cmd/kube-apiserver", &folder.join("kube-apiserver"))?;
    Ok(folder)
}

/// A server that ends with its owner.
struct Server(Child);
impl Drop for Server {
    fn drop(&mut self) {
        // Both may fail only when the process is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &Path, log: &Path, args: &[String]) -> Result<Server> {
    let log = fs::File::create(log)?;
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map(Server)
        .with_context(|| format!("cannot start {}", program.display()))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Certificates for one run: a CA, the server's, and one of `system:masters` as a PEM identity for the client.
struct Identity {
    ca: String,
    client: String,
}

fn certificates(folder: &Path) -> Result<Identity> {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "plimsoll-facts");
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let server_key = KeyPair::generate()?;
    let mut server = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server = server.signed_by(&server_key, &issuer)?;

    let client_key = KeyPair::generate()?;
    let mut client = CertificateParams::new(Vec::<String>::new())?;
    client.distinguished_name.push(DnType::OrganizationName, "system:masters");
    client.distinguished_name.push(DnType::CommonName, "facts");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client = client.signed_by(&client_key, &issuer)?;

    fs::write(folder.join("ca.crt"), &ca_pem)?;
    fs::write(folder.join("server.crt"), server.pem())?;
    fs::write(folder.join("server.key"), server_key.serialize_pem())?;
    fs::write(folder.join("server.pub"), server_key.public_key_pem())?;
    Ok(Identity { ca: ca_pem, client: client.pem() + &client_key.serialize_pem() })
}

/// Starts both servers and reads everything.
pub async fn read(programs: &Path, version: String) -> Result<Published> {
    let folder = tempfile::Builder::new().prefix("plimsoll-facts-").tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let identity = certificates(folder.path())?;
    let (etcd_port, peer_port, port) = (free_port()?, free_port()?, free_port()?);
    let etcd_url = format!("http://127.0.0.1:{etcd_port}");
    let _etcd = start(
        &programs.join("etcd"),
        &folder.path().join("etcd.log"),
        &[
            format!("--data-dir={}", path("etcd")),
            format!("--listen-client-urls={etcd_url}"),
            format!("--advertise-client-urls={etcd_url}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
            "--log-level=error".to_owned(),
        ],
    )?;
    let mut server = start(
        &programs.join("kube-apiserver"),
        &folder.path().join("kube-apiserver.log"),
        &[
            format!("--etcd-servers={etcd_url}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", path("run")),
            format!("--tls-cert-file={}", path("server.crt")),
            format!("--tls-private-key-file={}", path("server.key")),
            format!("--client-ca-file={}", path("ca.crt")),
            "--service-account-issuer=https://facts.invalid".to_owned(),
            format!("--service-account-key-file={}", path("server.pub")),
            format!("--service-account-signing-key-file={}", path("server.key")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
        ],
    )?;
    // Only the first caller installs it; there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .tls_built_in_root_certs(false)
        .add_root_certificate(reqwest::Certificate::from_pem(identity.ca.as_bytes())?)
        .identity(reqwest::Identity::from_pem(identity.client.as_bytes())?)
        .no_proxy()
        .build()?;
    let api = Api { client, base: format!("https://127.0.0.1:{port}") };
    let deadline = Instant::now() + Duration::from_secs(120);
    while api.get("/readyz", "*/*").await.is_err() {
        if let Some(status) = server.0.try_wait()? {
            let log = fs::read_to_string(folder.path().join("kube-apiserver.log")).unwrap_or_default();
            bail!(
                "kube-apiserver ended ({status}):\n{}",
                log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
            );
        }
        ensure!(Instant::now() < deadline, "kube-apiserver is not ready after two minutes");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    api.published(version).await
}

struct Api {
    client: reqwest::Client,
    base: String,
}

impl Api {
    async fn get(&self, path: &str, accept: &str) -> Result<Vec<u8>> {
        let response =
            self.client.get(format!("{}{path}", self.base)).header("Accept", accept).send().await?;
        Ok(response.error_for_status()?.bytes().await?.to_vec())
    }

    async fn json(&self, path: &str, accept: &str) -> Result<Value> {
        let body = self.get(path, accept).await?;
        serde_json::from_slice(&body).with_context(|| format!("{path} is not JSON"))
    }

    async fn published(&self, version: String) -> Result<Published> {
        const JSON: &str = "application/json";
        const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let mut schemas = BTreeMap::new();
        let index = self.json("/openapi/v3", JSON).await?;
        for group in index["paths"].as_object().context("/openapi/v3 has no paths")?.keys() {
            if !group.starts_with("api/") && group.matches('/').count() < 2 {
                continue;
            }
            let mut document = self.json(&format!("/openapi/v3/{group}"), JSON).await?;
            if let Value::Object(found) = document["components"]["schemas"].take() {
                schemas.extend(found);
            }
        }

        let mut groups = Vec::new();
        for root in ["/api", "/apis"] {
            if let Value::Array(items) = self.json(root, DISCOVERY).await?["items"].take() {
                groups.extend(items);
            }
        }

        let mut columns = BTreeMap::new();
        for group in &groups {
            let name = group["metadata"]["name"].as_str().unwrap_or_default();
            for version in list(&group["versions"]) {
                let version_name = text(&version["version"]);
                let (gv, path) = if name.is_empty() {
                    (version_name.to_owned(), format!("/api/{version_name}"))
                } else {
                    (format!("{name}/{version_name}"), format!("/apis/{name}/{version_name}"))
                };
                for resource in list(&version["resources"]) {
                    let plural = text(&resource["resource"]);
                    if !list(&resource["verbs"]).iter().any(|verb| verb == "list") {
                        continue;
                    }
                    let mut table = self
                        .json(&format!("{path}/{plural}"), "application/json;as=Table;v=v1;g=meta.k8s.io")
                        .await?;
                    columns.insert(format!("{gv} {plural}"), table["columnDefinitions"].take());
                }
            }
        }
        Ok(Published { version, schemas, groups, columns })
    }
}

/// The items of a JSON list, none if it is not one.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The text of a JSON string, empty if it is not one.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

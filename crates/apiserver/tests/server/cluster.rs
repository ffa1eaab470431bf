//! A server over a store of its own, called in process.

use std::{path::Path, sync::Arc};

use access::{UserInfo, admission, rbac::Rbac};
use apiserver::{ApiService, Body, Config, Server};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use store::Store as _;
use tower::Service as _;

/// Everything of one test; gone with it.
pub struct Cluster {
    pub store: Arc<store::Embedded>,
    pub server: Server,
    service: ApiService,
    _folder: Option<tempfile::TempDir>,
}

/// An answer.
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| String::from_utf8_lossy(&self.body).into())
    }

    /// The object; fails the test if the request failed.
    pub fn ok(self) -> Value {
        let json = self.json();
        assert!((200..300).contains(&self.code), "{}: {json:#}", self.code);
        json
    }

    /// Code and message of the refusal; fails the test if there is none.
    pub fn refused(self) -> (u16, String) {
        let json = self.json();
        assert!(self.code >= 400, "{}: {json:#}", self.code);
        (self.code, json["message"].as_str().unwrap_or_default().to_owned())
    }
}

impl Cluster {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A cluster whose configuration was changed before it began.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Self::over(folder.path(), change).await;
        Self { _folder: Some(folder), ..cluster }
    }

    /// A cluster over a folder that is there before it and after it.
    pub async fn over(folder: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let resources = kinds::all().to_vec();
        let extract = apiserver::extract(&resources);
        let store = store::Embedded::open(folder, store::Options::default(), extract).unwrap();
        let mut config = Config::new(Arc::clone(&store) as Arc<dyn store::Store>, resources);
        let reader: Arc<dyn access::Reader> = Arc::new(config.reader.clone());
        let rbac = Arc::new(Rbac::new(Arc::clone(&reader)));
        config.authorizers = vec![Arc::new(access::rbac::Masters), Arc::clone(&rbac) as _];
        let authorizer: Arc<dyn access::Authorizer> = Arc::new(access::Union(config.authorizers.clone()));
        config.admission = admission::chain(rbac, &authorizer);
        change(&mut config);
        let server = Server::new(config);
        server.start().await.unwrap();
        let admin = UserInfo {
            name: "admin".to_owned(),
            groups: vec!["system:masters".to_owned(), access::AUTHENTICATED.to_owned()],
            ..UserInfo::default()
        };
        let service = server.service_as(admin);
        Self { store, server, service, _folder: None }
    }

    /// Sends a request; `headers` are pairs of name and value.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<Body> {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(http_body_util::Full::new(body.into())).unwrap();
        self.service.clone().call(request).await.unwrap()
    }

    /// The same, made by somebody else.
    pub async fn ask_as(
        &self,
        user: &UserInfo,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let service = self.server.service_as(user.clone());
        let other = Self { service, store: self.store.clone(), server: self.server.clone(), _folder: None };
        other.ask(method, path, headers, body.into().into()).await
    }

    /// Lets a user do something: in one namespace, or everywhere if that is empty.
    pub async fn grant(&self, user: &UserInfo, namespace: &str, verbs: &[&str], resources: &[&str]) {
        const API: &str = "/apis/rbac.authorization.k8s.io/v1";
        let name = format!("{}-{}", user.name.replace(':', "-"), self.store.revision());
        let (base, kinds, plurals) = match namespace {
            "" => (
                API.to_owned(),
                ["ClusterRole", "ClusterRoleBinding"],
                ["clusterroles", "clusterrolebindings"],
            ),
            _ => {
                (format!("{API}/namespaces/{namespace}"), ["Role", "RoleBinding"], ["roles", "rolebindings"])
            }
        };
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kinds[0], "metadata": {"name": name},
            "rules": [{"apiGroups": ["*"], "resources": resources, "verbs": verbs}],
        });
        self.create(&format!("{base}/{}", plurals[0]), &role).await.ok();
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kinds[1], "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kinds[0], "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user.name}],
        });
        self.create(&format!("{base}/{}", plurals[1]), &binding).await.ok();
    }

    /// Sends a request and reads the whole answer.
    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let response = self.send(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], Vec::new()).await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.ask("GET", path, &[("accept", accept)], Vec::new()).await
    }

    pub async fn create(&self, path: &str, object: &Value) -> Answer {
        self.ask("POST", path, &[("user-agent", "tester/1")], object.to_string().into_bytes()).await
    }

    pub async fn update(&self, path: &str, object: &Value) -> Answer {
        self.ask("PUT", path, &[("user-agent", "tester/1")], object.to_string().into_bytes()).await
    }

    pub async fn merge(&self, path: &str, patch: &Value) -> Answer {
        let headers = [("content-type", "application/merge-patch+json"), ("user-agent", "tester/1")];
        self.ask("PATCH", path, &headers, patch.to_string().into_bytes()).await
    }

    /// PATCH of any sort.
    pub async fn patch(&self, sort: &str, path: &str, patch: &Value) -> Answer {
        let content = match sort {
            "apply" => "application/apply-patch+yaml".to_owned(),
            sort => format!("application/{sort}+json"),
        };
        let path =
            if sort == "apply" { format!("{path}?fieldManager=tester&force=true") } else { path.to_owned() };
        self.ask("PATCH", &path, &[("content-type", &content)], patch.to_string().into_bytes()).await
    }

    pub async fn apply(&self, path: &str, manager: &str, config: &Value) -> Answer {
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{joint}fieldManager={manager}");
        self.ask(
            "PATCH",
            &path,
            &[("content-type", "application/apply-patch+yaml")],
            config.to_string().into_bytes(),
        )
        .await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[], Vec::new()).await
    }

    /// Asks again whenever something was committed until `path` answers what `wanted` likes.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let wait = async {
            loop {
                let seen = self.store.revision();
                let answer = self.get(path).await;
                if wanted(&answer) {
                    return answer;
                }
                // A commit, or the work that follows one.
                let next = self.store.reached(store::Revision(seen.0 + 1));
                let _ = tokio::time::timeout(std::time::Duration::from_millis(20), next).await;
            }
        };
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| panic!("{path} never was as expected"))
    }
}

/// Somebody of this name and group who is known.
pub fn user(name: &str, group: &str) -> UserInfo {
    let groups = vec![group.to_owned(), access::AUTHENTICATED.to_owned()];
    UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
}

/// A ServiceAccount, without which no pod can be made.
pub async fn account(cluster: &Cluster) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    cluster.create("/api/v1/namespaces/default/serviceaccounts", &account).await.ok();
}

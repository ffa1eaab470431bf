//! The real API server in this process, without admission: everybody is an administrator.

use std::sync::Arc;

use kube::Client;

/// A client whose requests an administrator makes.
pub fn as_master(server: &apiserver::Server) -> Client {
    let user = access::UserInfo {
        name: "test".to_owned(),
        groups: vec!["system:masters".to_owned(), access::AUTHENTICATED.to_owned()],
        ..access::UserInfo::default()
    };
    Client::new(server.service_as(user), "default")
}

/// A server that is ready, and the folder of its store.
pub async fn start() -> (apiserver::Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let resources: Vec<_> = kinds::all().to_vec();
    let extract = apiserver::extract(&resources);
    let store = store::Embedded::open(folder.path(), store::Options::default(), extract).unwrap();
    let mut config = apiserver::Config::new(store, resources);
    config.authorizers = vec![Arc::new(access::rbac::Masters)];
    let server = apiserver::Server::new(config);
    server.start().await.unwrap();
    (server, folder)
}

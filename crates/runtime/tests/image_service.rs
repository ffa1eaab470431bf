//! CRI's image service over a store, and a registry on this machine.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request as HttpRequest, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use images::{Digest, Images};
use k8s_cri::v1::{self as cri, image_service_server::ImageService as _};
use runtime::ImageService;
use serde_json::json;
use tempfile::TempDir;
use tonic::{Code, Request};

fn spec(name: &str) -> Option<cri::ImageSpec> {
    Some(cri::ImageSpec { image: name.into(), ..Default::default() })
}

/// A store with an image of one empty layer.
fn store(tags: &[&str], user: &str) -> (TempDir, Images, images::Image) {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(dir.path()).unwrap();
    let tags: Vec<String> = tags.iter().map(|t| t.to_string()).collect();
    let config = json!({"config": {"User": user, "Cmd": ["/bin/true"]}});
    let image = images.import_rootfs(&[0u8; 1024][..], config, &tags, "test").unwrap();
    (dir, images, image)
}

async fn status(service: &ImageService, name: &str, verbose: bool) -> cri::ImageStatusResponse {
    let request = cri::ImageStatusRequest { image: spec(name), verbose };
    service.image_status(Request::new(request)).await.unwrap().into_inner()
}

async fn list(service: &ImageService) -> Vec<cri::Image> {
    service.list_images(Request::new(Default::default())).await.unwrap().into_inner().images
}

#[tokio::test]
async fn images_are_told_as_containerd_tells_them() {
    let (_dir, images, image) = store(&["busybox:1", "quay.io/a/b:2"], "1000:1000");
    let service = ImageService::new(images);
    let listed = list(&service).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, image.id);
    assert!(listed[0].id.starts_with("sha256:"));
    assert_eq!(listed[0].repo_tags, ["docker.io/library/busybox:1", "quay.io/a/b:2"]);
    assert_eq!(listed[0].uid, Some(cri::Int64Value { value: 1000 }));
    assert_eq!(listed[0].username, "");
    for name in ["busybox:1", "docker.io/library/busybox:1", &image.id, &image.id["sha256:".len()..]] {
        assert_eq!(status(&service, name, false).await.image.as_ref(), Some(&listed[0]), "{name}");
    }
    let verbose = status(&service, "busybox:1", true).await;
    let info: serde_json::Value = serde_json::from_str(&verbose.info["info"]).unwrap();
    assert_eq!(info["imageSpec"]["config"]["Cmd"], json!(["/bin/true"]));
    assert_eq!(info["chainID"], image.config.rootfs().diff_ids()[0].as_str());
}

#[tokio::test]
async fn an_image_that_is_not_there_is_no_error() {
    let (_dir, images, _) = store(&[], "web");
    let service = ImageService::new(images);
    assert_eq!(status(&service, "nginx", false).await, cri::ImageStatusResponse::default());
    let request = cri::RemoveImageRequest { image: spec("nginx") };
    service.remove_image(Request::new(request)).await.unwrap();
    let error = service.image_status(Request::new(Default::default())).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let request = cri::ImageStatusRequest { image: spec("Not A Name"), verbose: false };
    assert_eq!(service.image_status(Request::new(request)).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(list(&service).await[0].username, "web");
}

#[tokio::test]
async fn removing_an_image_takes_all_its_names_but_not_the_layers_of_a_container() {
    let (_dir, images, image) = store(&["a:1", "b:2"], "");
    let service = ImageService::new(images.clone());
    let lease = images.lease(&image.id).unwrap();
    let request = cri::RemoveImageRequest { image: spec("a:1") };
    service.remove_image(Request::new(request)).await.unwrap();
    assert!(list(&service).await.is_empty());
    assert!(image.layers[0].is_dir());
    drop(lease);
    images.prune(None).unwrap();
    assert!(!image.layers[0].exists());
}

#[tokio::test]
async fn the_stores_file_system_is_measured() {
    let (dir, images, image) = store(&["a:1"], "");
    let service = ImageService::new(images);
    let info = async || service.image_fs_info(Request::new(Default::default())).await.unwrap().into_inner();
    let before = info().await.image_filesystems.remove(0);
    let canonical = dir.path().canonicalize().unwrap();
    assert_eq!(before.fs_id.as_ref().unwrap().mountpoint, canonical.display().to_string());
    assert!(before.used_bytes.unwrap().value > 0 && before.timestamp > 0);
    // the image's blobs and its layer at least: manifest, config, archive, and the layer's folder
    assert!(before.inodes_used.unwrap().value >= 4);
    let after = info().await;
    assert_eq!(after.container_filesystems[0].used_bytes, before.used_bytes);
    assert!(image.layers[0].is_dir());
}

/// Serves the image of a store as `team/app:1` to whoever logs in as `user`, `secret`.
async fn registry(images: &Images, image: &images::Image) -> String {
    let blob = |digest: &str| {
        std::fs::read(images.dir().join("blobs/sha256").join(&digest["sha256:".len()..])).unwrap()
    };
    let manifest = blob(&image.manifest);
    let value: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let mut files = HashMap::from([("/v2/team/app/manifests/1".to_owned(), manifest)]);
    for one in value["layers"].as_array().unwrap().iter().chain([&value["config"]]) {
        let digest = one["digest"].as_str().unwrap();
        files.insert(format!("/v2/team/app/blobs/{digest}"), blob(digest));
    }
    let files = Arc::new(files);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let files = files.clone();
            let service = service_fn(move |request: HttpRequest<Incoming>| {
                let file = files.get(request.uri().path()).cloned();
                // user:secret
                let known =
                    request.headers().get("authorization").is_some_and(|a| a == "Basic dXNlcjpzZWNyZXQ=");
                let mut response = Response::new(Full::new(Bytes::from(file.clone().unwrap_or_default())));
                if !known {
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                    response.headers_mut().insert("www-authenticate", "Basic realm=\"r\"".parse().unwrap());
                } else if file.is_none() {
                    *response.status_mut() = StatusCode::NOT_FOUND;
                }
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address.to_string()
}

#[tokio::test]
async fn an_image_is_pulled_with_the_pods_secret() {
    let (_source, source, image) = store(&["x"], "");
    let registry = registry(&source, &image).await;
    let dir = tempfile::tempdir().unwrap();
    let service = ImageService::new(Images::open(dir.path()).unwrap());
    let pull = async |tag: &str, auth: Option<cri::AuthConfig>| {
        let request = cri::PullImageRequest {
            image: spec(&format!("{registry}/team/app:{tag}")),
            auth,
            ..Default::default()
        };
        service.pull_image(Request::new(request)).await.map(|r| r.into_inner().image_ref)
    };
    let secret = cri::AuthConfig { username: "user".into(), password: "secret".into(), ..Default::default() };
    let denied = pull("1", None).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
    assert!(denied.message().starts_with("failed to pull image"), "{denied}");
    let elsewhere = cri::AuthConfig { server_address: "quay.io".into(), ..secret.clone() };
    assert_eq!(pull("1", Some(elsewhere)).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(pull("2", Some(secret.clone())).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(pull("1", Some(secret)).await.unwrap(), image.id);
    let pulled = &list(&service).await[0];
    assert_eq!(pulled.repo_tags, [format!("{registry}/team/app:1")]);
    assert_eq!(
        pulled.repo_digests,
        [format!("{registry}/team/app@{}", Digest::parse(&image.manifest).unwrap())]
    );
}

//! CRI's image service over the image store.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use images::{Credentials, Digest, Image, Images, PullPolicy, Reference};
use k8s_cri::v1 as cri;
use parking_lot::Mutex;
use tonic::{Code, Request, Response, Status, async_trait};

/// The service; clones share it.
#[derive(Clone)]
pub struct ImageService {
    images: Images,
    /// Of an unpacked layer, what it takes on disk. A layer never changes.
    layers: Arc<Mutex<HashMap<PathBuf, Usage>>>,
}

impl ImageService {
    /// The images of this store.
    pub fn new(images: Images) -> Self {
        Self { images, layers: Arc::default() }
    }

    /// Runs what reads or writes files where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let service = self.clone();
        tokio::task::spawn_blocking(move || work(&service))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
    }

    /// The image with this name, ID or digest; `None` if there is none.
    fn find(&self, spec: Option<cri::ImageSpec>) -> Result<Option<Image>, Status> {
        match self.images.get(&named(spec)?) {
            Ok(image) => Ok(Some(image)),
            Err(images::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(status(&error)),
        }
    }

    /// What the store takes on disk, as files.
    fn usage(&self) -> Result<Usage, Status> {
        let failed =
            |error: io::Error| Status::internal(format!("failed to measure the image store: {error}"));
        let mut total = Usage::default();
        total.add(measure(&self.images.dir().join("blobs")).map_err(failed)?);
        let mut layers: Vec<PathBuf> =
            self.images.list().map_err(|e| status(&e))?.into_iter().flat_map(|image| image.layers).collect();
        layers.sort_unstable();
        layers.dedup();
        let known = self.layers.lock().clone();
        let mut measured = HashMap::with_capacity(layers.len());
        for layer in layers {
            let usage = match known.get(&layer) {
                Some(usage) => *usage,
                None => measure(&layer).map_err(failed)?,
            };
            total.add(usage);
            measured.insert(layer, usage);
        }
        *self.layers.lock() = measured;
        Ok(total)
    }
}

#[async_trait]
impl cri::image_service_server::ImageService for ImageService {
    async fn list_images(
        &self,
        request: Request<cri::ListImagesRequest>,
    ) -> Result<Response<cri::ListImagesResponse>, Status> {
        let wanted = request.into_inner().filter.and_then(|f| f.image).filter(|i| !i.image.is_empty());
        let images = self
            .blocking(move |service| match wanted {
                Some(spec) => Ok(service.find(Some(spec))?.into_iter().collect()),
                None => service.images.list().map_err(|e| status(&e)),
            })
            .await?;
        Ok(Response::new(cri::ListImagesResponse { images: images.iter().map(describe).collect() }))
    }

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Result<Response<cri::ImageStatusResponse>, Status> {
        let cri::ImageStatusRequest { image: spec, verbose } = request.into_inner();
        let response = self
            .blocking(move |service| {
                let Some(image) = service.find(spec)? else { return Ok(cri::ImageStatusResponse::default()) };
                let info = if verbose { service.info(&image)? } else { HashMap::new() };
                Ok(cri::ImageStatusResponse { image: Some(describe(&image)), info })
            })
            .await?;
        Ok(Response::new(response))
    }

    async fn pull_image(
        &self,
        request: Request<cri::PullImageRequest>,
    ) -> Result<Response<cri::PullImageResponse>, Status> {
        let cri::PullImageRequest { image, auth, .. } = request.into_inner();
        let name = named(image)?;
        let reference = Reference::parse(&name).map_err(|e| status(&e))?;
        let credentials =
            auth.and_then(|auth| credentials(&auth, reference.domain()).transpose()).transpose()?;
        let pulled = self.images.pull(&name, credentials.as_ref(), PullPolicy::Always, &()).await;
        let image = pulled.map_err(|error| {
            let status = status(&error);
            Status::new(status.code(), format!("failed to pull image {name:?}: {error}"))
        })?;
        Ok(Response::new(cri::PullImageResponse { image_ref: image.id }))
    }

    async fn remove_image(
        &self,
        request: Request<cri::RemoveImageRequest>,
    ) -> Result<Response<cri::RemoveImageResponse>, Status> {
        let spec = request.into_inner().image;
        self.blocking(move |service| {
            // All names go, and the image with them; a container that runs from it holds its layers by a lease.
            let Some(image) = service.find(spec)? else { return Ok(()) };
            match service.images.remove(&image.id) {
                Ok(_) | Err(images::Error::NotFound(_)) => Ok(()),
                Err(error) => Err(status(&error)),
            }
        })
        .await?;
        Ok(Response::new(cri::RemoveImageResponse {}))
    }

    /// Images and containers lie on one file system, so both lists have the same one.
    async fn image_fs_info(
        &self,
        _: Request<cri::ImageFsInfoRequest>,
    ) -> Result<Response<cri::ImageFsInfoResponse>, Status> {
        let usage = self.blocking(ImageService::usage).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let filesystem = cri::FilesystemUsage {
            timestamp: i64::try_from(now).unwrap_or(i64::MAX),
            fs_id: Some(cri::FilesystemIdentifier { mountpoint: self.images.dir().display().to_string() }),
            used_bytes: Some(cri::UInt64Value { value: usage.bytes }),
            inodes_used: Some(cri::UInt64Value { value: usage.inodes }),
        };
        Ok(Response::new(cri::ImageFsInfoResponse {
            image_filesystems: vec![filesystem.clone()],
            container_filesystems: vec![filesystem],
        }))
    }
}

impl ImageService {
    /// What containerd tells when asked to be verbose: `chainID` and the image's config, as JSON.
    fn info(&self, image: &Image) -> Result<HashMap<String, String>, Status> {
        let config = self.images.raw_config(&image.id).map_err(|e| status(&e))?;
        let diff_ids = image.config.rootfs().diff_ids().iter();
        // https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md#layer-chainid
        let chain = diff_ids
            .cloned()
            .reduce(|chain, diff_id| Digest::of(format!("{chain} {diff_id}").as_bytes()).to_string());
        let info = serde_json::json!({"chainID": chain.unwrap_or_default(), "imageSpec": config});
        Ok([("info".to_owned(), info.to_string())].into())
    }
}

fn named(spec: Option<cri::ImageSpec>) -> Result<String, Status> {
    match spec {
        Some(spec) if !spec.image.is_empty() => Ok(spec.image),
        _ => Err(Status::invalid_argument("an image name is required")),
    }
}

/// The image in CRI's words.
fn describe(image: &Image) -> cri::Image {
    let user = image.config.config().as_ref().and_then(|c| c.user().as_deref()).unwrap_or_default();
    // `user`, `uid`, `user:group` …
    let user = user.split(':').next().unwrap_or_default();
    let uid = user.parse().ok();
    cri::Image {
        id: image.id.clone(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        size: image.size,
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        uid: uid.map(|value| cri::Int64Value { value }),
        spec: None,
        pinned: false,
    }
}

/// What a pull secret holds, if it is meant for this registry.
fn credentials(auth: &cri::AuthConfig, registry: &str) -> Result<Option<Credentials>, Status> {
    if *auth == cri::AuthConfig::default() {
        return Ok(None);
    }
    if !auth.server_address.is_empty() && host(&auth.server_address) != registry {
        return Ok(None);
    }
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let (username, password) = if auth.username.is_empty() && !auth.auth.is_empty() {
        let decoded = BASE64_STANDARD.decode(&auth.auth).ok().and_then(|d| String::from_utf8(d).ok());
        let pair = decoded.as_deref().and_then(|d| d.split_once(':'));
        let (user, password) = pair.ok_or_else(|| {
            Status::invalid_argument("invalid auth config: auth is not base64 of user:password")
        })?;
        (user.to_owned(), password.trim_end_matches('\0').to_owned())
    } else {
        (auth.username.clone(), auth.password.clone())
    };
    Ok(Some(Credentials {
        username,
        password,
        identity_token: some(&auth.identity_token),
        registry_token: some(&auth.registry_token),
    }))
}

/// The registry that an address of a Docker configuration stands for.
fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

fn status(error: &images::Error) -> Status {
    let code = match error {
        images::Error::InvalidReference { .. } | images::Error::AmbiguousId(_) => Code::InvalidArgument,
        images::Error::NotFound(_) | images::Error::Missing { .. } => Code::NotFound,
        images::Error::DigestMismatch { .. } => Code::DataLoss,
        images::Error::Invalid { .. } => Code::FailedPrecondition,
        images::Error::Limit { .. } => Code::ResourceExhausted,
        images::Error::Denied { .. } => Code::PermissionDenied,
        images::Error::Registry { .. } => Code::Unavailable,
        images::Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            Code::ResourceExhausted
        }
        _ => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// What a tree takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    bytes: u64,
    inodes: u64,
}

impl Usage {
    fn add(&mut self, other: Usage) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// Blocks and inodes of a tree. What goes away meanwhile does not count, symbolic links are not followed.
fn measure(root: &Path) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut count = |meta: fs::Metadata| {
        usage.bytes += meta.blocks() * 512;
        usage.inodes += 1;
        meta.is_dir()
    };
    let mut folders = Vec::new();
    match fs::symlink_metadata(root) {
        Ok(meta) if count(meta.clone()) => folders.push(root.to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Ok(meta) if count(meta.clone()) => folders.push(entry.path()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_for_another_registry_stay_here() {
        let auth = |server: &str| cri::AuthConfig {
            username: "u".into(),
            password: "p".into(),
            server_address: server.into(),
            ..Default::default()
        };
        for server in ["", "https://index.docker.io/v1/", "docker.io", "http://registry-1.docker.io"] {
            let found = credentials(&auth(server), "docker.io").unwrap().unwrap();
            assert_eq!((found.username.as_str(), found.password.as_str()), ("u", "p"), "{server}");
        }
        for server in ["quay.io", "https://docker.io.evil.example/", "docker.io:5000"] {
            assert_eq!(credentials(&auth(server), "docker.io").unwrap(), None, "{server}");
        }
    }

    #[test]
    fn user_and_password_may_be_one_base64_text() {
        let auth = |text: &str| cri::AuthConfig { auth: text.into(), ..Default::default() };
        let found = credentials(&auth("dXNlcjpwYTpzcw=="), "r").unwrap().unwrap();
        assert_eq!((found.username.as_str(), found.password.as_str()), ("user", "pa:ss"));
        assert_eq!(credentials(&auth("dXNlcg=="), "r").unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(credentials(&auth("*"), "r").unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(credentials(&auth(""), "r").unwrap(), None);
    }

    #[test]
    fn a_tree_is_measured_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), vec![1; 10_000]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("l")).unwrap();
        let usage = measure(dir.path()).unwrap();
        assert_eq!(usage.inodes, 4);
        assert!((10_000..1 << 20).contains(&usage.bytes), "{usage:?}");
        assert_eq!(measure(&dir.path().join("none")).unwrap(), Usage::default());
    }
}

//! The volumes of a pod: where each lies on the host once it is there.
//!
//! [`sources`] says what a volume needs from the API, [`atomic`] writes files that change all at once, [`subpath`]
//! finds places within a volume safely. Nothing here waits for the API: what is needed comes in as values.

pub mod atomic;
pub mod sources;
pub mod subpath;
pub mod trust;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{HostPathVolumeSource, PodSpec, Volume};

use crate::quantity;
pub use sources::{Needs, Objects, needs};

/// Where a volume is.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// At this path on the host; the flag says read-only.
    Path(PathBuf, bool),
    /// The runtime mounts this image.
    Image(String),
}

/// Why a volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Something it is made from is not there, or does not fit.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
    Source {
        /// The volume.
        volume: String,
        /// What is wrong.
        why: String,
    },
    /// The file system refused.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    Io {
        /// The volume.
        volume: String,
        /// Its error.
        source: io::Error,
    },
}

/// Puts all volumes of the pod in place under `dir` and says where they are. Doing it again renews what has changed.
pub fn set_up(
    dir: &Path,
    pod: &k8s_openapi::api::core::v1::Pod,
    objects: &Objects<'_>,
) -> Result<BTreeMap<String, Place>, VolumeError> {
    let spec = crate::spec::spec(pod);
    let group = spec.security_context.as_ref().and_then(|s| s.fs_group).and_then(|g| u32::try_from(g).ok());
    let mut places = BTreeMap::new();
    for volume in spec.volumes.iter().flatten() {
        let name = volume.name.clone();
        let place = one(dir, volume, &spec, pod, objects, group)?;
        places.insert(name, place);
    }
    Ok(places)
}

/// Renews what [`set_up`] made from API objects; everything else is left as it is.
pub fn renew(
    dir: &Path,
    pod: &k8s_openapi::api::core::v1::Pod,
    objects: &Objects<'_>,
) -> Result<(), VolumeError> {
    let spec = crate::spec::spec(pod);
    let group = spec.security_context.as_ref().and_then(|s| s.fs_group).and_then(|g| u32::try_from(g).ok());
    for volume in spec.volumes.iter().flatten() {
        let Some(payload) = sources::payload(volume, pod, objects) else { continue };
        let payload = payload.map_err(|why| VolumeError::Source { volume: volume.name.clone(), why })?;
        atomic::write(&dir.join("volumes").join(&volume.name), &payload, group)
            .map_err(|source| VolumeError::Io { volume: volume.name.clone(), source })?;
    }
    Ok(())
}

fn one(
    dir: &Path,
    volume: &Volume,
    spec: &PodSpec,
    pod: &k8s_openapi::api::core::v1::Pod,
    objects: &Objects<'_>,
    group: Option<u32>,
) -> Result<Place, VolumeError> {
    let place = dir.join("volumes").join(&volume.name);
    let io = |source| VolumeError::Io { volume: volume.name.clone(), source };
    let wrong = |why: String| VolumeError::Source { volume: volume.name.clone(), why };
    if let Some(empty) = &volume.empty_dir {
        let memory = empty.medium.as_deref() == Some("Memory");
        // after a restart of the machine the directory is still there, what was mounted on it is not
        if !place.exists() || (memory && !is_mounted(&place)) {
            fs::create_dir_all(&place).map_err(io)?;
            if memory {
                let limit = empty.size_limit.as_ref().and_then(quantity::units).filter(|l| *l > 0);
                let pod_limit = crate::resources::pod_total(spec, "memory", |r| r.limits.as_ref());
                let size = [limit, Some(pod_limit).filter(|l| *l > 0)].into_iter().flatten().min();
                tmpfs(&place, size).map_err(io)?;
            }
            let mode = if group.is_some() { 0o2777 } else { 0o777 };
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).map_err(io)?;
            chown(&place, None, group).map_err(io)?;
        }
        return Ok(Place::Path(place, false));
    }
    if let Some(host) = &volume.host_path {
        check_host_path(host).map_err(wrong)?;
        return Ok(Place::Path(host.path.clone().into(), false));
    }
    if let Some(image) = &volume.image {
        return Ok(Place::Image(image.reference.clone().unwrap_or_default()));
    }
    if let Some(claim) = sources::claim_name(pod, volume) {
        let (path, read_only) = objects.claimed(&claim).map_err(wrong)?;
        if !path.is_dir() {
            return Err(wrong(format!("path {:?} does not exist", path.display())));
        }
        if let Some(gid) = group.filter(|_| !read_only) {
            own_by_group(&path, gid, spec).map_err(io)?;
        }
        return Ok(Place::Path(path, read_only));
    }
    match sources::payload(volume, pod, objects) {
        Some(payload) => {
            let payload = payload.map_err(wrong)?;
            if sources::confidential(volume) {
                in_memory(&place).map_err(io)?;
            }
            atomic::write(&place, &payload, group).map_err(io)?;
            Ok(Place::Path(place, true))
        }
        None => Err(wrong("volume type is not supported by this node".into())),
    }
}

/// Keeps what is written to `place` off the disk. Without the right to mount, it lies there like everything else.
fn in_memory(place: &Path) -> io::Result<()> {
    fs::create_dir_all(place)?;
    if is_mounted(place) {
        return Ok(());
    }
    match tmpfs(place, None) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!(place = %place.display(), "no right to mount: secrets lie on the disk");
            Ok(())
        }
        result => result,
    }
}

/// Whether another file system begins at `place`.
fn is_mounted(place: &Path) -> bool {
    let device = |p: &Path| fs::symlink_metadata(p).map(|m| m.dev()).ok();
    place.parent().is_some_and(|parent| device(place) != device(parent))
}

fn tmpfs(place: &Path, size: Option<i64>) -> io::Result<()> {
    let size = size.map(|s| format!(",size={s}")).unwrap_or_default();
    let options = std::ffi::CString::new(format!("mode=755{size}"))?;
    let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
    Ok(rustix::mount::mount("tmpfs", place, "tmpfs", flags, Some(options.as_c_str()))?)
}

/// Gives a volume to `fsGroup`, all of it, or nothing if its root already fits and the policy is `OnRootMismatch`.
fn own_by_group(root: &Path, gid: u32, spec: &PodSpec) -> io::Result<()> {
    let policy = spec.security_context.as_ref().and_then(|s| s.fs_group_change_policy.as_deref());
    let meta = fs::metadata(root)?;
    if policy == Some("OnRootMismatch") && meta.gid() == gid && meta.mode() & 0o2070 == 0o2070 {
        return Ok(());
    }
    fn walk(path: &Path, gid: u32) -> io::Result<()> {
        let meta = fs::symlink_metadata(path)?;
        std::os::unix::fs::lchown(path, None, Some(gid))?;
        if meta.is_symlink() {
            return Ok(());
        }
        let more = if meta.is_dir() { 0o2070 } else { 0o060 };
        fs::set_permissions(path, fs::Permissions::from_mode((meta.mode() & 0o7777) | more))?;
        if meta.is_dir() {
            for entry in fs::read_dir(path)? {
                walk(&entry?.path(), gid)?;
            }
        }
        Ok(())
    }
    walk(root, gid)
}

/// Checks a hostPath against its type, making what `…OrCreate` asks for.
fn check_host_path(host: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&host.path);
    let meta = fs::metadata(path);
    let kind = host.type_.as_deref().unwrap_or_default();
    let is = |f: fn(&fs::Metadata) -> bool| meta.as_ref().is_ok_and(f);
    let fail = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", host.path));
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if meta.is_err() => fs::create_dir_all(path).map_err(|e| e.to_string()),
        "FileOrCreate" if meta.is_err() => {
            fs::OpenOptions::new().create(true).append(true).open(path).map(drop).map_err(|e| e.to_string())
        }
        "Directory" | "DirectoryOrCreate" if is(fs::Metadata::is_dir) => Ok(()),
        "File" | "FileOrCreate" if is(fs::Metadata::is_file) => Ok(()),
        "Socket" if is(|m| m.file_type().is_socket()) => Ok(()),
        "CharDevice" if is(|m| m.file_type().is_char_device()) => Ok(()),
        "BlockDevice" if is(|m| m.file_type().is_block_device()) => Ok(()),
        "Directory" | "DirectoryOrCreate" => fail("a directory"),
        "File" | "FileOrCreate" => fail("a file"),
        "Socket" => fail("a socket file"),
        "CharDevice" => fail("a character device"),
        "BlockDevice" => fail("a block device"),
        other => Err(format!("{other} is an invalid volume type")),
    }
}

/// Unmounts what [`set_up`] and subPaths have mounted under a pod's directory; succeeds where nothing is.
pub fn unmount_all(dir: &Path) -> io::Result<()> {
    let children = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default()
    };
    for container in children(&dir.join("subpaths")) {
        for target in children(&container) {
            subpath::unbind(&target)?;
        }
    }
    for volume in children(&dir.join("volumes")) {
        subpath::unbind(&volume)?;
    }
    Ok(())
}

/// Removes a pod's directory, after making sure that nothing is mounted in it.
pub fn remove(dir: &Path) -> io::Result<()> {
    unmount_all(dir)?;
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

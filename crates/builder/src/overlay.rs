//! Root file systems of steps: layers below, a folder above that becomes the next layer.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use images::{Images, WorkDir};
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, open, statfs},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use crate::{
    Error, Result,
    error::IoContext,
    root::{Root, proc_path},
    upper,
};

const OVERLAYFS_MAGIC: u32 = 0x794c_7630;

/// A mount that ends with this value.
#[derive(Debug)]
pub(crate) struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// A file system in memory.
    pub(crate) fn tmpfs(at: &Path, size: Option<u64>) -> Result<Mounted> {
        fs::create_dir_all(at).at("creating", at)?;
        let options = match size {
            Some(size) => format!("mode=1777,size={size}\0"),
            None => "mode=1777\0".to_owned(),
        };
        let options = std::ffi::CStr::from_bytes_until_nul(options.as_bytes()).unwrap_or_default();
        mount("tmpfs", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options).at("mounting", at)?;
        Ok(Mounted { at: at.to_owned() })
    }

    /// An overlay; `upper` is the folder above and the one that overlayfs works in. Layers are base first.
    fn overlay(at: &Path, layers: &[&Path], upper: Option<(&Path, &Path)>) -> Result<Mounted> {
        // Descriptors keep the options short whatever the paths: the kernel takes one page of them.
        let open_folder = |path: &Path| -> Result<OwnedFd> {
            open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("opening", path)
        };
        let layers = layers.iter().rev().map(|l| open_folder(l)).collect::<Result<Vec<_>>>()?;
        let below: Vec<String> = layers.iter().map(|l| proc_path(l).display().to_string()).collect();
        let mut options = format!("lowerdir={}", below.join(":"));
        let above = match upper {
            Some((upper, work)) => Some((open_folder(upper)?, open_folder(work)?)),
            None => None,
        };
        if let Some((upper, work)) = &above {
            // A layer holds whole files and folders, and nothing that only this mount understands.
            options += &format!(
                ",upperdir={},workdir={},redirect_dir=off,metacopy=off,index=off",
                proc_path(upper).display(),
                proc_path(work).display()
            );
        }
        // What is lost in a crash is built again.
        let volatile = if above.is_some() { ",volatile" } else { "" };
        let mut result = Err(rustix::io::Errno::INVAL);
        for extra in [volatile, ""] {
            let text = format!("{options}{extra}\0");
            let text = std::ffi::CStr::from_bytes_until_nul(text.as_bytes()).unwrap_or_default();
            result = mount("overlay", at, "overlay", MountFlags::NODEV, text);
            if result != Err(rustix::io::Errno::INVAL) {
                break;
            }
        }
        match result {
            Ok(()) => Ok(Mounted { at: at.to_owned() }),
            Err(e) => Err(refusal(e, upper.map(|(upper, _)| upper))),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::warn!(at = %self.at.display(), %error, "a mount of the build stays");
        }
    }
}

fn refusal(e: rustix::io::Errno, upper: Option<&Path>) -> Error {
    let over = |path: &Path| statfs(path).is_ok_and(|s| s.f_type as u32 == OVERLAYFS_MAGIC);
    if upper.is_some_and(over) {
        return Error::Invalid(
            "the image store lies on an overlay file system (that of a container?), where layers cannot be stacked; \
             put it on a disk or a volume with --data"
                .into(),
        );
    }
    let hint = match e {
        rustix::io::Errno::PERM => " (builds need root, or CAP_SYS_ADMIN)",
        rustix::io::Errno::NODEV => " (the kernel has no overlayfs: modprobe overlay)",
        _ => "",
    };
    Error::Io { what: format!("stacking the layers of a step{hint}"), source: e.into() }
}

/// The root file system of a step, to be changed.
#[derive(Debug)]
pub(crate) struct Rootfs {
    // In the order in which they must go.
    mount: Mounted,
    upper: WorkDir,
    scratch: WorkDir,
    layers: Vec<PathBuf>,
}

impl Rootfs {
    /// Stacks the layers, base first, and an empty folder on top; `injected` lies between, and is no part of the
    /// image.
    pub(crate) fn new(images: &Images, layers: &[PathBuf], injected: Option<&Path>) -> Result<Rootfs> {
        let (upper, scratch) = (images.work_dir()?, images.work_dir()?);
        let inside = |name: &str| -> Result<PathBuf> {
            let path = scratch.path().join(name);
            fs::create_dir(&path).at("creating", &path)?;
            Ok(path)
        };
        let (work, at, empty) = (inside("work")?, inside("root")?, inside("empty")?);
        let mut stack: Vec<&Path> = layers.iter().map(PathBuf::as_path).chain(injected).collect();
        if stack.is_empty() {
            stack.push(&empty);
        }
        let mount = Mounted::overlay(&at, &stack, Some((upper.path(), &work)))?;
        Ok(Rootfs { mount, upper, scratch, layers: layers.to_vec() })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.mount.at
    }

    pub(crate) fn root(&self) -> Result<Root> {
        Root::open(self.path()).at("opening", self.path())
    }

    /// The folder in which the changes come to lie.
    pub(crate) fn upper(&self) -> &Path {
        self.upper.path()
    }

    /// A place outside of the root for what else the step needs.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// The changes as a folder to be committed; none if nothing changed.
    pub(crate) fn finish(self) -> Result<Option<WorkDir>> {
        let Rootfs { mount, upper, scratch, layers } = self;
        drop(mount);
        drop(scratch);
        let changed = upper::tidy(upper.path(), &layers).at("looking at", upper.path())?;
        Ok(changed.then_some(upper))
    }
}

/// Layers stacked to be read.
#[derive(Debug)]
pub(crate) struct View {
    _mount: Option<Mounted>,
    _scratch: WorkDir,
    path: PathBuf,
}

impl View {
    pub(crate) fn new(images: &Images, layers: &[PathBuf]) -> Result<View> {
        let scratch = images.work_dir()?;
        let at = scratch.path().to_owned();
        if layers.is_empty() {
            return Ok(View { _mount: None, path: at, _scratch: scratch });
        }
        // A single layer may hold overlayfs' marks too, so it is not read as it is; overlayfs wants two.
        let (empty, root) = (at.join("empty"), at.join("root"));
        for path in [&empty, &root] {
            fs::create_dir(path).at("creating", path)?;
        }
        let stack: Vec<&Path> = std::iter::once(&*empty).chain(layers.iter().map(PathBuf::as_path)).collect();
        let mount = Mounted::overlay(&root, &stack, None)?;
        Ok(View { _mount: Some(mount), path: root, _scratch: scratch })
    }

    pub(crate) fn root(&self) -> Result<Root> {
        Root::open(&self.path).at("opening", &self.path)
    }
}

/// Takes away the mounts of builds that were killed; their folders go with the next prune.
pub(crate) fn sweep(images: &Images) {
    let work = images.dir().join("work");
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else { return };
    for line in table.lines().rev() {
        let Some(at) = line.split(' ').nth(4).map(unescaped) else { continue };
        let Ok(inside) = at.strip_prefix(&work) else { continue };
        let Some(owner) = inside.components().next().map(|c| work.join(c)) else { continue };
        // Who builds holds a lock on the folder.
        let abandoned = File::open(&owner)
            .is_ok_and(|folder| flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok());
        if abandoned {
            let gone = unmount(&at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
            tracing::debug!(at = %at.display(), ?gone, "a mount of a build that was killed");
        }
    }
}

/// A path of the mount table, where blanks and the like are octal numbers.
fn unescaped(field: &str) -> PathBuf {
    let mut path = field.to_owned();
    for (code, c) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        path = path.replace(code, c);
    }
    PathBuf::from(path)
}

/// The layers of a stack, as overlayfs wants them: each once; of two equal ones the upper covers the lower.
pub(crate) fn distinct(layers: &[images::Layer]) -> Vec<PathBuf> {
    let unlike =
        |(i, layer): &(usize, &images::Layer)| !layers[i + 1..].iter().any(|l| l.diff_id == layer.diff_id);
    layers.iter().enumerate().filter(unlike).map(|(_, l)| l.path.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_a_build_that_was_killed_are_taken_away() {
        let dir = tempfile::Builder::new().prefix("with blank").tempdir().unwrap();
        let images = Images::open(dir.path()).unwrap();
        let (dead, alive) = (images.dir().join("work/work-dead/root"), images.work_dir().unwrap());
        let Ok(lost) = Mounted::tmpfs(&dead, None) else {
            eprintln!("skipped: mounting needs root");
            return;
        };
        std::mem::forget(lost);
        let held = Mounted::tmpfs(&alive.path().join("root"), None).unwrap();
        sweep(&images);
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted =
            |at: &Path| table.lines().any(|l| l.split(' ').nth(4).map(unescaped).as_deref() == Some(at));
        assert!(!mounted(&dead) && mounted(&held.at));
    }
}

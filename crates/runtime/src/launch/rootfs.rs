//! The root filesystem of a container, put together inside its own mount namespace.
//!
//! Everything is mounted from descriptors: sources are detached trees taken before the root is changed, targets are
//! resolved beneath the new root after it, so no path that an image or a volume controls is ever resolved against the
//! host. Nothing here needs to be undone: with the namespace, all of it goes.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, symlinkat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, UnmountFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, unmount,
    },
    process::{fchdir, pivot_root},
};

use super::{
    Context, Failure,
    beneath::{Kind, ensure, is_directory},
    sys::{attach, clone_host_tree, clone_tree, detached, mount_setattr, open_beneath},
};
use crate::plan::{Mount, Propagation, Root, Source};

const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
const RDONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// Devices every container has, beside `null`.
const DEVICES: [&str; 5] = ["zero", "full", "random", "urandom", "tty"];
/// Links every container has in `/dev`.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What is taken from the host before the root changes.
struct Taken {
    mounts: Vec<OwnedFd>,
    devices: Vec<OwnedFd>,
    extra_devices: Vec<OwnedFd>,
    /// `/dev/null`, known to be it; also what masked files are covered with.
    null: OwnedFd,
    shm: Option<OwnedFd>,
    cgroups: Vec<OwnedFd>,
}

/// Enters the root filesystem. For a terminal, gives the controlling side and the process' own.
pub fn enter(root: &Root, terminal: bool) -> Result<Option<(OwnedFd, OwnedFd)>, Failure> {
    let taken = take(root)?;
    // What is mounted from here on must not reach the host. The copies taken above keep their peers.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .doing("make the mounts private")?;
    let tree = open_source(root)?;
    let staging =
        rustix::fs::open(&root.staging, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .doing_with(|| format!("open {}", root.staging.display()))?;
    attach(tree.as_fd(), staging.as_fd()).doing("mount the root filesystem")?;
    fchdir(&tree).doing("enter the root filesystem")?;
    pivot_root(".", ".").doing("pivot_root")?;
    // The old root now lies over the new one.
    unmount(".", UnmountFlags::DETACH).doing("unmount the old root")?;
    rustix::process::chdir("/").doing("enter the new root")?;
    let new = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing("open the new root")?;
    let new = new.as_fd();

    let proc = detached("proc", &[], NOSUID | NODEV | NOEXEC).doing("make a procfs")?;
    attach(proc.as_fd(), real_directory(new, "proc")?.as_fd()).doing("mount /proc")?;
    let pty = populate_dev(new, root, &taken, terminal)?;
    mount_sys(new, root, &taken)?;
    for (mount, source) in root.mounts.iter().zip(&taken.mounts) {
        bind(new, mount, source.as_fd())
            .map_err(|f| Failure(format!("mount {} at {}: {f}", shown(mount), mount.target)))?;
    }
    protect(new, root, &taken)?;
    if root.read_only {
        mount_setattr(reopened(new)?.as_fd(), false, RDONLY, 0).doing("make the root read-only")?;
    }
    Ok(pty)
}

fn shown(mount: &Mount) -> String {
    mount.source.first().map(|p| p.display().to_string()).unwrap_or_default()
}

/// The mount that is at `/` now.
fn reopened(new: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    open_beneath(new, Path::new("."), OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty())
        .doing("open the root")
}

fn take(root: &Root) -> Result<Taken, Failure> {
    let device = |path: &Path| clone_host_tree(path, false).doing_with(|| format!("take {}", path.display()));
    let null = device(Path::new("/dev/null"))?;
    let stat = rustix::fs::fstat(&null).doing("look at /dev/null")?;
    if (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) != (1, 3) {
        return Err(Failure("/dev/null of the host is not the null device".into()));
    }
    let mut taken = Taken {
        mounts: Vec::with_capacity(root.mounts.len()),
        devices: Vec::new(),
        extra_devices: Vec::new(),
        null,
        shm: None,
        cgroups: Vec::new(),
    };
    for mount in &root.mounts {
        taken.mounts.push(mount_source(mount).map_err(|f| Failure(format!("mount {}: {f}", shown(mount))))?);
    }
    if root.all_devices {
        taken.devices.push(clone_host_tree(Path::new("/dev"), false).doing("take /dev")?);
    } else {
        for name in DEVICES {
            taken.devices.push(device(&Path::new("/dev").join(name))?);
        }
        for extra in &root.devices {
            taken.extra_devices.push(device(&extra.host)?);
        }
    }
    if let Some(shm) = &root.shm {
        taken.shm = Some(clone_host_tree(shm, false).doing("take the pod's /dev/shm")?);
    }
    for (name, path) in &root.cgroups {
        taken.cgroups.push(clone_host_tree(path, false).doing_with(|| format!("take the cgroup of {name}"))?);
    }
    Ok(taken)
}

/// A detached mount of the root filesystem.
fn open_source(root: &Root) -> Result<OwnedFd, Failure> {
    match &root.source {
        Source::Directory(path) => {
            let tree = clone_host_tree(path, true).doing_with(|| format!("open {}", path.display()))?;
            let attributes = if root.all_devices { MountAttrFlags::empty() } else { NODEV };
            mount_setattr(tree.as_fd(), true, attributes, libc::MS_PRIVATE).doing("set the root up")?;
            Ok(tree)
        }
        Source::Overlay { lower, upper, work } => overlay(
            lower,
            Some((upper, work)),
            if root.all_devices { MountAttrFlags::empty() } else { NODEV },
        ),
    }
}

/// A detached overlay; `lower` has the topmost first.
fn overlay(
    lower: &[impl AsRef<Path>],
    upper: Option<(&Path, &Path)>,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Failure> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).doing("make an overlay")?;
    let mut separate = true;
    for (i, path) in lower.iter().enumerate() {
        match fsconfig_set_string(fs.as_fd(), "lowerdir+", path.as_ref()) {
            // Linux before 6.5 wants all of them in one string
            Err(Errno::INVAL) if i == 0 => {
                separate = false;
                break;
            }
            done => done.doing_with(|| format!("lower layer {}", path.as_ref().display()))?,
        }
    }
    if !separate {
        let text =
            lower.iter().map(|p| p.as_ref().display().to_string().replace(':', "\\:")).collect::<Vec<_>>();
        fsconfig_set_string(fs.as_fd(), "lowerdir", text.join(":")).doing("set the lower layers")?;
    }
    if let Some((upper, work)) = upper {
        fsconfig_set_string(fs.as_fd(), "upperdir", upper).doing("set the upper layer")?;
        fsconfig_set_string(fs.as_fd(), "workdir", work).doing("set the overlay's work folder")?;
        // What a container writes to its own layer does not outlive the machine's boot, so nobody waits for it to be on
        // disk; otherwise each end of a container syncs the whole file system below. Linux before 5.10 does.
        match fsconfig_set_flag(fs.as_fd(), "volatile") {
            Err(Errno::INVAL) => {}
            done => done.doing("make the overlay volatile")?,
        }
    }
    fsconfig_create(fs.as_fd()).doing("make an overlay")?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).doing("mount an overlay")
}

/// `/proc`, `/dev` and `/sys` must be the image's own folders (or missing): never symlinks.
fn real_directory(new: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Failure> {
    match mkdirat(new, name, Mode::from_raw_mode(0o755)) {
        // an image without layers, or one on a read-only directory, has it or fails below
        Ok(()) | Err(Errno::EXIST | Errno::ROFS) => {}
        Err(error) => return Err(error).doing_with(|| format!("make /{name}")),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    open_beneath(new, Path::new(name), flags, ResolveFlags::NO_SYMLINKS).map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR => Failure(format!("/{name} in the image is not a directory")),
        error => Failure(format!("open /{name}: {error}")),
    })
}

fn populate_dev(
    new: BorrowedFd<'_>,
    root: &Root,
    taken: &Taken,
    terminal: bool,
) -> Result<Option<(OwnedFd, OwnedFd)>, Failure> {
    let target = real_directory(new, "dev")?;
    // Nodes that the container makes cannot be opened; those it is given are mounts of the host's, without that flag.
    let dev = detached("tmpfs", &[("mode", "755"), ("size", "65536k")], NOSUID | NODEV).doing("make /dev")?;
    let dev_dir = || {
        open_beneath(dev.as_fd(), Path::new("."), OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty())
            .doing("open /dev")
    };
    let at = dev_dir()?;
    for name in ["pts", "shm", "mqueue"] {
        mkdirat(&at, name, Mode::from_raw_mode(0o755)).doing("populate /dev")?;
    }
    for (name, to) in LINKS {
        symlinkat(to, &at, name).doing("populate /dev")?;
    }
    let file = |name: &str| -> Result<OwnedFd, Failure> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::WRONLY;
        rustix::fs::openat(&at, name, flags, Mode::from_raw_mode(0o666)).doing("populate /dev")
    };
    attach(dev.as_fd(), target.as_fd()).doing("mount /dev")?;
    attach(taken.null.as_fd(), file("null")?.as_fd()).doing("populate /dev")?;
    if root.all_devices {
        copy_devices(&at, taken.devices.first())?;
    } else {
        for (name, source) in DEVICES.iter().zip(&taken.devices) {
            attach(source.as_fd(), file(name)?.as_fd()).doing("populate /dev")?;
        }
    }
    for (device, source) in root.devices.iter().zip(&taken.extra_devices) {
        let (at, _) = ensure(new, Path::new(&device.target), Kind::File)
            .doing_with(|| format!("make the device {}", device.target))?;
        if device.read_only {
            mount_setattr(source.as_fd(), false, RDONLY, 0).doing("make a device read-only")?;
        }
        attach(source.as_fd(), at.as_fd()).doing_with(|| format!("make the device {}", device.target))?;
    }
    let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let pts = detached("devpts", &options, NOSUID | NOEXEC).doing("make /dev/pts")?;
    let pty = terminal.then(|| open_terminal(pts.as_fd())).transpose()?;
    let sub = |name: &str| {
        open_beneath(at.as_fd(), Path::new(name), OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS)
            .doing_with(|| format!("open /dev/{name}"))
    };
    attach(pts.as_fd(), sub("pts")?.as_fd()).doing("mount /dev/pts")?;
    match &taken.shm {
        Some(shm) => attach(shm.as_fd(), sub("shm")?.as_fd()).doing("mount /dev/shm")?,
        None => {
            let shm = detached("tmpfs", &[("mode", "1777"), ("size", "65536k")], NOSUID | NODEV | NOEXEC)
                .doing("make /dev/shm")?;
            attach(shm.as_fd(), sub("shm")?.as_fd()).doing("mount /dev/shm")?;
        }
    }
    match detached("mqueue", &[], NOSUID | NODEV | NOEXEC) {
        Ok(mqueue) => attach(mqueue.as_fd(), sub("mqueue")?.as_fd()).doing("mount /dev/mqueue")?,
        // a kernel without POSIX message queues
        Err(Errno::NODEV) => {}
        Err(error) => return Err(error).doing("make /dev/mqueue"),
    }
    if let Some((_, slave)) = &pty {
        // the very descriptor, not its name: the name could be another one's by now
        let console = clone_tree(slave.as_fd(), Path::new(""), false).doing("take the terminal")?;
        attach(console.as_fd(), file("console")?.as_fd()).doing("mount /dev/console")?;
    }
    Ok(pty)
}

/// Binds every device node of the host's `/dev` (not those in its folders), for privileged containers.
fn copy_devices(at: &OwnedFd, host: Option<&OwnedFd>) -> Result<(), Failure> {
    let Some(host) = host else { return Ok(()) };
    let listing =
        open_beneath(host.as_fd(), Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY, ResolveFlags::empty())
            .doing("list the host's devices")?;
    for entry in rustix::fs::Dir::read_from(&listing).doing("list the host's devices")? {
        let entry = entry.doing("list the host's devices")?;
        let name = entry.file_name();
        let Ok(stat) = rustix::fs::statat(host, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        if !(kind.is_char_device() || kind.is_block_device())
            || [c"console", c"ptmx", c"null"].contains(&name)
        {
            continue;
        }
        // nodev on /dev would forbid nodes, so the privileged get a copy of each node on a mount without it
        rustix::fs::mknodat(at, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)
            .doing("copy a device")?;
    }
    let mount =
        open_beneath(at.as_fd(), Path::new("."), OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty())
            .doing("open /dev")?;
    super::sys::mount_clear(mount.as_fd(), NODEV).doing("allow devices")
}

/// A new terminal of this devpts: the controlling side and the process'.
pub fn open_terminal(pts: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd), Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat(pts, "ptmx", flags, Mode::empty()).doing("open a terminal")?;
    rustix::pty::unlockpt(&master).doing("unlock the terminal")?;
    let flags =
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).doing("open the terminal's other side")?;
    Ok((master, slave))
}

fn mount_sys(new: BorrowedFd<'_>, root: &Root, taken: &Taken) -> Result<(), Failure> {
    let access = if root.writable_sys { MountAttrFlags::empty() } else { RDONLY };
    let sys = detached("sysfs", &[], NOSUID | NODEV | NOEXEC | access).doing("make a sysfs")?;
    attach(sys.as_fd(), real_directory(new, "sys")?.as_fd()).doing("mount /sys")?;
    let place = || {
        open_beneath(
            new,
            Path::new("sys/fs/cgroup"),
            OFlags::PATH | OFlags::DIRECTORY,
            ResolveFlags::NO_SYMLINKS,
        )
    };
    // a kernel without cgroups has no such folder
    let Ok(target) = place() else { return Ok(()) };
    if root.cgroup2 {
        // shows the process' own group as the root, because of its cgroup namespace
        let cgroup =
            detached("cgroup2", &[], NOSUID | NODEV | NOEXEC | access).doing("make /sys/fs/cgroup")?;
        return attach(cgroup.as_fd(), target.as_fd()).doing("mount /sys/fs/cgroup");
    }
    if root.cgroups.is_empty() {
        return Ok(());
    }
    let tmpfs = detached("tmpfs", &[("mode", "755"), ("size", "64k")], NOSUID | NODEV | NOEXEC)
        .doing("make /sys/fs/cgroup")?;
    attach(tmpfs.as_fd(), target.as_fd()).doing("mount /sys/fs/cgroup")?;
    let at = place().doing("open /sys/fs/cgroup")?;
    for ((name, _), source) in root.cgroups.iter().zip(&taken.cgroups) {
        mkdirat(&at, name.as_str(), Mode::from_raw_mode(0o755)).doing("populate /sys/fs/cgroup")?;
        let place = rustix::fs::openat(
            &at,
            name.as_str(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .doing("populate /sys/fs/cgroup")?;
        mount_setattr(source.as_fd(), false, NOSUID | NODEV | NOEXEC | access, libc::MS_PRIVATE)
            .doing("set a cgroup mount up")?;
        attach(source.as_fd(), place.as_fd()).doing("populate /sys/fs/cgroup")?;
    }
    mount_setattr(at.as_fd(), false, access, 0).doing("make /sys/fs/cgroup read-only")
}

/// A detached tree of what is to be mounted.
fn mount_source(mount: &Mount) -> Result<OwnedFd, Failure> {
    if mount.image {
        return image_source(mount);
    }
    let path = mount.source.first().ok_or_else(|| Failure("it has no source".into()))?;
    let tree = clone_host_tree(path, true).map_err(|e| Failure(e.to_string()))?;
    let propagation = match mount.propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => 0,
    };
    let nodev = if mount.devices { MountAttrFlags::empty() } else { NODEV };
    mount_setattr(tree.as_fd(), true, nodev, propagation).doing("set its flags")?;
    if mount.read_only {
        mount_setattr(tree.as_fd(), mount.recursive_read_only, RDONLY, 0).doing("make it read-only")?;
    }
    Ok(tree)
}

/// Image volumes: the layers of an image, read-only. Even one layer goes through overlayfs, which reads its own marks.
fn image_source(mount: &Mount) -> Result<OwnedFd, Failure> {
    let attributes = NOSUID | NODEV | RDONLY;
    let tree = match mount.source.as_slice() {
        [] => detached("tmpfs", &[("size", "4k")], attributes).doing("make an empty volume")?,
        layers => overlay(layers, None, attributes)?,
    };
    if mount.sub_path.is_empty() {
        return Ok(tree);
    }
    let sub = open_beneath(tree.as_fd(), Path::new(&mount.sub_path), OFlags::PATH, ResolveFlags::empty())
        .doing_with(|| format!("open {} in the image", mount.sub_path))?;
    clone_tree(sub.as_fd(), Path::new(""), false).doing("take a part of the image")
}

fn bind(new: BorrowedFd<'_>, mount: &Mount, source: BorrowedFd<'_>) -> Result<(), Failure> {
    let kind = if is_directory(source).doing("look at the source")? { Kind::Directory } else { Kind::File };
    let (target, _) = ensure(new, Path::new(&mount.target), kind).map_err(|e| Failure(e.to_string()))?;
    // procfs must stay what the container's own kernel view is: nothing is laid over it (CVE-2019-19921)
    let stat = rustix::fs::fstatfs(&target).doing("look at the target")?;
    if stat.f_type == libc::PROC_SUPER_MAGIC {
        return Err(Failure("it lies in /proc".into()));
    }
    attach(source, target.as_fd()).map_err(|e| Failure(e.to_string()))
}

/// Hides and write-protects paths of procfs and sysfs.
fn protect(new: BorrowedFd<'_>, root: &Root, taken: &Taken) -> Result<(), Failure> {
    for path in &root.masked {
        let Some(target) = existing(new, path)? else { continue };
        if is_directory(target.as_fd()).doing_with(|| format!("look at {path}"))? {
            let empty =
                detached("tmpfs", &[("size", "4k"), ("mode", "755")], RDONLY | NOSUID | NODEV | NOEXEC)
                    .doing("make an empty folder")?;
            attach(empty.as_fd(), target.as_fd()).doing_with(|| format!("hide {path}"))?;
        } else {
            let null = clone_tree(taken.null.as_fd(), Path::new(""), false).doing("take /dev/null")?;
            attach(null.as_fd(), target.as_fd()).doing_with(|| format!("hide {path}"))?;
        }
    }
    for path in &root.read_only_paths {
        let Some(target) = existing(new, path)? else { continue };
        let tree = clone_tree(target.as_fd(), Path::new(""), true).doing_with(|| format!("take {path}"))?;
        mount_setattr(tree.as_fd(), true, RDONLY, 0).doing_with(|| format!("protect {path}"))?;
        attach(tree.as_fd(), target.as_fd()).doing_with(|| format!("protect {path}"))?;
    }
    Ok(())
}

fn existing(new: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>, Failure> {
    match open_beneath(new, Path::new(path), OFlags::PATH, ResolveFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error).doing_with(|| format!("open {path}")),
    }
}

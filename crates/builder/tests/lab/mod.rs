//! A store with a base image made of busybox, contexts, and an executor of its own.
#![allow(dead_code)]

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use builder::{Build, Error, Executor, Outcome, Progress, Step};
use images::{Image, Images, ImportOptions};
use runtime::oneshot::Oneshot;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A place for builds.
pub struct Lab {
    dir: tempfile::TempDir,
    pub images: Images,
    pub seen: Arc<Seen>,
    pub executor: Arc<Chroot>,
    pub cancel: CancellationToken,
}

impl Lab {
    /// None, with the reason told, where builds are not possible.
    pub fn new() -> Option<Lab> {
        if !rustix::process::getuid().is_root() {
            eprintln!("skipped: building needs root");
            return None;
        }
        let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists())
        else {
            eprintln!("skipped: there is no busybox (Debian: busybox-static)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(dir.path().join("store")).unwrap();
        let lab = Lab {
            dir,
            images,
            seen: Arc::default(),
            executor: Arc::default(),
            cancel: CancellationToken::new(),
        };
        fs::create_dir(lab.context()).unwrap();
        lab.import("base", &base_files(busybox), json!({"config": {"Env": ["BASE=yes"], "Cmd": ["sh"]}}));
        match lab.build("FROM scratch\nWORKDIR /probe\n", |_| {}) {
            Ok(_) => Some(lab),
            Err(error) => {
                eprintln!("skipped: layers cannot be stacked here: {error}");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    /// Writes a file of the context.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn import(&self, name: &str, tar: &[u8], config: Value) -> Image {
        let path = self.dir.path().join("import.tar");
        fs::write(&path, tar).unwrap();
        let options = ImportOptions { tags: vec![name.into()], rootfs: Some(config) };
        self.images.import(&path, &options).unwrap().remove(0)
    }

    pub fn build(&self, dockerfile: &str, change: impl FnOnce(&mut Build)) -> Result<Image, Error> {
        self.write("Dockerfile", dockerfile);
        let mut build = Build::new(self.context(), self.dir.path().join("caches"));
        build.pull = images::PullPolicy::Never;
        change(&mut build);
        self.run(&build)
    }

    pub fn run(&self, build: &Build) -> Result<Image, Error> {
        self.seen.0.lock().unwrap().clear();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
        let built = builder::build(
            build,
            &self.images,
            self.executor.clone(),
            self.seen.clone(),
            self.cancel.clone(),
        );
        runtime.block_on(built)
    }

    pub fn good(&self, dockerfile: &str) -> Image {
        self.build(dockerfile, |_| {}).unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn refused(&self, dockerfile: &str) -> String {
        match self.build(dockerfile, |_| {}) {
            Ok(_) => panic!("should fail: {dockerfile}"),
            Err(error) => error.to_string(),
        }
    }

    /// The merged content of an image: path → what it is.
    pub fn files(&self, image: &Image) -> std::collections::BTreeMap<String, String> {
        let mut files = std::collections::BTreeMap::new();
        for layer in &image.layers {
            walk(layer, layer, &mut files);
        }
        files
    }

    pub fn read(&self, image: &Image, path: &str) -> Option<String> {
        let file =
            image.layers.iter().rev().map(|l| l.join(path)).find(|p| fs::symlink_metadata(p).is_ok())?;
        fs::read_to_string(file).ok()
    }

    /// The image config as it is written.
    pub fn config(&self, image: &Image) -> Value {
        self.images.raw_config(&image.id).unwrap()
    }

    /// No mount of a build is left.
    pub fn assert_clean(&self) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.path().to_str().unwrap();
        assert!(!table.contains(dir), "{table}");
        let work: Vec<_> = fs::read_dir(self.dir.path().join("store/work")).unwrap().collect();
        assert!(work.is_empty(), "{work:?}");
    }
}

fn walk(top: &Path, dir: &Path, files: &mut std::collections::BTreeMap<String, String>) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        if kind.is_char_device() && meta.rdev() == 0 {
            files.retain(|n, _| n != &name && !n.starts_with(&format!("{name}/")));
            continue;
        }
        let what = if kind.is_dir() {
            "dir".to_owned()
        } else if kind.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else {
            format!("file {}", meta.len())
        };
        files.insert(name, format!("{what} {:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid()));
        if kind.is_dir() {
            walk(top, &path, files);
        }
    }
}

/// Paths, modes and contents of an archive. A path that ends with / is a folder; content that begins with -> a link.
pub fn archive(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_mtime(1);
        if let Some(target) = content.strip_prefix(b"->") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path, std::str::from_utf8(target).unwrap()).unwrap();
            continue;
        }
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn base_files(busybox: &str) -> Vec<u8> {
    let program = fs::read(busybox).unwrap();
    let mut entries: Vec<(&str, u32, &[u8])> = vec![
        ("bin/", 0o755, b""),
        ("bin/busybox", 0o755, &program),
        ("etc/", 0o755, b""),
        ("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:100:App:/home/app:/bin/sh\n"),
        ("etc/group", 0o644, b"root:x:0:\nusers:x:100:\n"),
        ("etc/ssl/", 0o755, b""),
        ("etc/ssl/certs/", 0o755, b""),
        ("tmp/", 0o1777, b""),
        ("sbin", 0o777, b"->bin"),
    ];
    let applets = [
        "sh", "cat", "ls", "mkdir", "rm", "touch", "echo", "chmod", "id", "env", "mv", "cp", "ln", "test",
        "grep", "sleep", "pwd", "stat", "wc", "head", "true", "false", "date", "rmdir", "find", "sort",
        "printf",
    ];
    let paths: Vec<String> = applets.iter().map(|a| format!("bin/{a}")).collect();
    entries.extend(paths.iter().map(|p| (p.as_str(), 0o777, &b"->busybox"[..])));
    archive(&entries)
}

/// What was told.
#[derive(Default)]
pub struct Seen(pub Mutex<Vec<String>>);

impl Seen {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// How the steps ended that begin with this.
    pub fn outcomes(&self, text: &str) -> Vec<String> {
        let seen = self.all();
        let ends = seen.iter().filter_map(|s| s.strip_prefix("end "));
        ends.filter(|s| s.split_once("] ").is_some_and(|(_, t)| t.starts_with(text)))
            .map(|s| s.rsplit_once(' ').unwrap().1.to_owned())
            .collect()
    }

    /// True if some RUN, COPY or WORKDIR was carried out.
    pub fn worked(&self) -> bool {
        self.all().iter().any(|s| s.starts_with("end ") && s.ends_with(" Done"))
    }
}

impl Progress for Seen {
    fn start(&self, step: &Step) {
        self.0.lock().unwrap().push(format!("start {step}"));
    }

    fn output(&self, step: &Step, line: &str) {
        self.0.lock().unwrap().push(format!("line {}: {line}", step.line));
    }

    fn done(&self, step: &Step, outcome: Outcome, _: Duration) {
        self.0.lock().unwrap().push(format!("end {step} {outcome:?}"));
    }

    fn warning(&self, text: &str) {
        self.0.lock().unwrap().push(format!("warning {text}"));
    }
}

/// Runs steps by chroot in a mount namespace. It leaves its mount points behind: the builder has to remove them.
#[derive(Default)]
pub struct Chroot {
    pub ran: Mutex<Vec<Oneshot>>,
}

#[async_trait]
impl Executor for Chroot {
    async fn run(
        &self,
        step: &Oneshot,
        output: &mut (dyn for<'o> FnMut(&'o [u8]) + Send),
        cancel: &CancellationToken,
    ) -> io::Result<i32> {
        self.ran.lock().unwrap().push(step.clone());
        let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
        let (step, cancel) = (step.clone(), cancel.clone());
        let task = tokio::task::spawn_blocking(move || run(&step, send, &cancel));
        while let Some(bytes) = receive.recv().await {
            let bytes: Vec<u8> = bytes;
            output(&bytes);
        }
        task.await.unwrap()
    }
}

fn run(
    step: &Oneshot,
    output: tokio::sync::mpsc::UnboundedSender<Vec<u8>>,
    cancel: &CancellationToken,
) -> io::Result<i32> {
    let (mut from, to) = io::pipe()?;
    let mut mounts: Vec<(PathBuf, PathBuf, bool)> = Vec::new();
    for bind in &step.binds {
        let target = step.root.join(bind.target.strip_prefix("/").unwrap());
        if bind.source.is_dir() {
            fs::create_dir_all(&target)?;
        } else if !target.exists() {
            fs::create_dir_all(target.parent().unwrap())?;
            File::create(&target)?;
        }
        mounts.push((bind.source.clone(), target, bind.writable));
    }
    fs::create_dir_all(step.root.join("dev"))?;
    mounts.insert(0, ("/dev/null".into(), step.root.join("dev/null"), true));
    let null = step.root.join("dev/null");
    let made = !null.exists() && File::create(&null).is_ok();
    let split = |v: &OsString| {
        let at = v.as_bytes().iter().position(|b| *b == b'=').unwrap();
        let part = |bytes: &[u8]| OsString::from(std::ffi::OsStr::from_bytes(bytes));
        (part(&v.as_bytes()[..at]), part(&v.as_bytes()[at + 1..]))
    };
    let env: Vec<_> = step.env.iter().map(split).collect();
    let mut command = Command::new(&step.args[0]);
    command.args(&step.args[1..]).env_clear().envs(env).stdin(Stdio::null());
    command.stdout(to.try_clone()?).stderr(to);
    let (root, cwd, user) = (step.root.clone(), step.cwd.clone(), step.user.clone());
    let in_child = move || -> io::Result<()> {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount_bind, mount_change, mount_remount};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        for (source, target, writable) in &mounts {
            mount_bind(source, target)?;
            if !writable {
                mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, "")?;
            }
        }
        nix::unistd::chroot(&root)?;
        nix::unistd::chdir(&cwd)?;
        let groups: Vec<_> = user.2.iter().map(|g| nix::unistd::Gid::from_raw(*g)).collect();
        nix::unistd::setgroups(&groups)?;
        nix::unistd::setgid(nix::unistd::Gid::from_raw(user.1))?;
        nix::unistd::setuid(nix::unistd::Uid::from_raw(user.0))?;
        Ok(())
    };
    // SAFETY: the test process allocates in the child, which is single-threaded and about to execute.
    unsafe { command.pre_exec(in_child) };
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(127),
        Err(e) => return Err(e),
    };
    drop(command);
    let mut buffer = [0; 4096];
    loop {
        if cancel.is_cancelled() {
            child.kill()?;
        }
        let mut poll = [rustix::event::PollFd::new(&from, rustix::event::PollFlags::IN)];
        let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        if rustix::event::poll(&mut poll, Some(&timeout))? == 0 {
            continue;
        }
        match from.read(&mut buffer)? {
            0 => break,
            n => drop(output.send(buffer[..n].to_vec())),
        }
    }
    let status = child.wait()?;
    // Beyond what it was asked for, so it is not for the builder to remove.
    if made {
        fs::remove_file(null)?;
    }
    use std::os::unix::process::ExitStatusExt;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

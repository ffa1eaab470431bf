//! A cluster of the real program in a network namespace of its own, so that several can run beside each other and
//! beside a cluster of the machine's.
//!
//! Everything it needs is looked for first; a test without it says what is missing, and passes.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// The name of the test image: busybox with a shell and all its applets.
pub const IMAGE: &str = "test/busybox:1";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running cluster; dropping it takes everything away again.
pub struct Cluster {
    pub folder: tempfile::TempDir,
    namespace: String,
    kubectl: PathBuf,
    flags: Vec<String>,
    /// The folder is a file system of its own.
    apart: bool,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    places.map(|p| p.join(name)).find(|p| p.exists())
}

/// kubectl from `KUBECTL`, else from the cache that `scripts/deps` fills, else from the PATH.
pub fn kubectl() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("KUBECTL") {
        return Some(given.into());
    }
    let cached = Path::new(&std::env::var_os("HOME")?).join(".cache/plimsoll/bin/kubectl");
    if cached.exists() { Some(cached) } else { on_path("kubectl") }
}

impl Cluster {
    /// Starts one with so many nodes, and with the test image; `None` (and why) if this machine cannot.
    pub fn up(nodes: usize) -> Option<Self> {
        let cluster = Self::prepared(nodes, None)?;
        let said = cluster.start();
        // What it warns of (a full disk) would let every test wait for pods that never run.
        assert!(!said.contains("warning"), "{said}");
        Some(cluster)
    }

    /// One that is not started, its state on a file system of so many bytes, if that is given.
    pub fn prepared(nodes: usize, disk: Option<u64>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: a node needs root");
            return None;
        }
        let Some(kubectl) = kubectl() else {
            eprintln!("skipped: no kubectl; `make deps` installs one");
            return None;
        };
        if let Some(missing) = ["ip", "nsenter", "busybox", "tar"].iter().find(|t| on_path(t).is_none()) {
            eprintln!("skipped: no {missing}; `make deps` installs it");
            return None;
        }
        let namespace = format!("plt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        network(&namespace);
        let flags = if nodes == 1 {
            vec!["--node-name".to_owned(), "one".to_owned()]
        } else {
            vec!["--nodes".to_owned(), nodes.to_string()]
        };
        let folder = tempfile::tempdir().unwrap();
        if let Some(size) = disk {
            let size = format!("size={size}");
            must(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()));
        }
        let cluster = Self { folder, namespace, kubectl, flags, apart: disk.is_some() };
        cluster.import_image();
        Some(cluster)
    }

    /// The network namespace.
    pub fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }

    /// A command inside the network namespace.
    pub fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.netns().display())).arg("--").arg(program);
        command
    }

    /// `plim … --data FOLDER`
    pub fn plim(&self, args: &[&str]) -> Output {
        let mut command = self.inside(env!("CARGO_BIN_EXE_plim"));
        command.arg("--data").arg(self.folder.path()).args(args).output().unwrap()
    }

    /// What plim prints; fails the test if it fails.
    pub fn plim_ok(&self, args: &[&str]) -> String {
        let output = self.plim(args);
        assert!(
            output.status.success(),
            "plim {args:?}: {}{}\n{}",
            text(&output.stdout),
            text(&output.stderr),
            self.log()
        );
        text(&output.stdout)
    }

    /// Starts it; gives what `plim up` says.
    pub fn start(&self) -> String {
        let mut args = vec!["up", "-d", "--port", "0"];
        args.extend(self.flags.iter().map(String::as_str));
        let output = self.plim(&args);
        let said = text(&output.stderr) + &text(&output.stdout);
        assert!(output.status.success(), "plim {args:?}: {said}\n{}", self.log());
        said
    }

    /// The flags of `plim up` beside its port.
    pub fn flags(&self) -> impl Iterator<Item = &str> {
        self.flags.iter().map(String::as_str)
    }

    /// What the cluster has written to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log/plim.log")).unwrap_or_default()
    }

    fn import_image(&self) {
        let root = self.folder.path().join("rootfs");
        for folder in ["bin", "tmp", "etc"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        let busybox = on_path("busybox").unwrap();
        std::fs::copy(&busybox, root.join("bin/busybox")).unwrap();
        for applet in must(Command::new(&busybox).arg("--list")).lines().filter(|a| *a != "busybox") {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").unwrap();
        std::fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
        let archive = self.folder.path().join("busybox.tar");
        must(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."));
        let archive = archive.to_str().unwrap();
        self.plim_ok(&["image", "import", archive, "--rootfs", "--tag", IMAGE, "--cmd", "/bin/sh"]);
    }

    fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = self.inside(&self.kubectl);
        command
            .args(args)
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .env("NO_PROXY", "*");
        command
    }

    /// Runs kubectl with something on its standard input.
    pub fn kubectl(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = self
            .kubectl_command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What kubectl prints; fails the test if kubectl fails.
    pub fn ok(&self, args: &[&str], input: &str) -> String {
        let output = self.kubectl(args, input);
        if !output.status.success() {
            let seen = self.kubectl(&["get", "pods,events", "-A", "-o", "wide"], "");
            panic!(
                "kubectl {args:?}: {}{}\n{}\n{}",
                text(&output.stdout),
                text(&output.stderr),
                text(&seen.stdout),
                self.log()
            );
        }
        text(&output.stdout)
    }

    /// What kubectl complains about; fails the test if it does not.
    pub fn refused(&self, args: &[&str], input: &str) -> String {
        let output = self.kubectl(args, input);
        assert!(!output.status.success(), "kubectl {args:?} was not refused");
        text(&output.stderr)
    }

    /// Starts kubectl and lets it run.
    pub fn spawn(&self, args: &[&str]) -> std::process::Child {
        self.kubectl_command(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Asks again until the answer is as wanted.
    pub fn until(&self, what: &str, args: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            let output = self.kubectl(args, "");
            let answer = text(&output.stdout);
            if output.status.success() && wanted(&answer) {
                return answer;
            }
            assert!(
                Instant::now() < limit,
                "{what}: kubectl {args:?} still says {answer}{}\n{}",
                text(&output.stderr),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Number of the process that serves.
    pub fn pid(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("run/plim.pid")).unwrap().trim().to_owned()
    }

    /// Ends the serving process as a crash would, and waits until its last thread is gone.
    pub fn kill(&self) {
        use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
        let pid = Pid::from_raw(self.pid().parse().unwrap()).unwrap();
        let gone = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        let mut fds = [rustix::event::PollFd::new(&gone, rustix::event::PollFlags::IN)];
        let limit = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
        assert!(rustix::event::poll(&mut fds, Some(&limit)).unwrap() > 0, "process {pid:?} does not end");
    }

    /// Mounts, cgroups and processes that name this cluster's folder.
    pub fn leftovers(&self) -> Vec<String> {
        let folder = self.folder.path().to_str().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut left: Vec<String> =
            mounts.lines().filter(|l| l.contains(folder)).map(|l| format!("mount {l}")).collect();
        let machine =
            std::fs::read_to_string(self.folder.path().join("run/machine.json")).unwrap_or_default();
        left.extend((!machine.is_empty()).then(|| "run/machine.json".to_owned()));
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if text(&command).contains(folder) {
                left.push(format!("process {}", text(&command).replace('\0', " ")));
            }
        }
        left
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.apart {
            self.plim(&["down"]);
            let _ = Command::new("umount").arg(self.folder.path()).status();
        } else {
            self.plim(&["down", "--delete"]);
        }
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
    }
}

/// A network namespace with an address that is not loopback, as a machine has one.
fn network(name: &str) {
    must(Command::new("ip").args(["netns", "add", name]));
    for args in [
        "link set lo up",
        "link add uplink type veth peer name outside",
        "addr add 172.31.255.1/24 dev uplink",
        "link set uplink up",
        "link set outside up",
        "route add default via 172.31.255.254",
    ] {
        must(Command::new("ip").args(["-n", name]).args(args.split(' ')));
    }
}

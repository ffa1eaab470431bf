//! From a fresh child of the holder to the process that was asked for: everything between `clone3` and `execve`.
//!
//! The holder has one thread, so its child may do whatever an ordinary program may. The order matters: what needs the
//! host (cgroups, mount sources) comes first, then the root changes, then rights are given up, and last the program
//! takes over. A failure is a sentence sent to the holder.

pub mod beneath;
pub mod identity;
pub mod rights;
pub mod rootfs;
pub mod sys;

use std::{
    ffi::CString,
    fmt::Display,
    fs, io,
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use serde::{Deserialize, Serialize};

use crate::plan::{Identity, Launch, Namespace, Process, Role};

/// Why a process could not be started: a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Puts what was being done in front of an error.
pub trait Context<T> {
    /// With words that are there.
    fn doing(self, what: &str) -> Result<T, Failure>;
    /// With words that have to be made.
    fn doing_with(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn doing(self, what: &str) -> Result<T, Failure> {
        self.map_err(|e| Failure(format!("{what}: {e}")))
    }

    fn doing_with(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| Failure(format!("{}: {e}", what())))
    }
}

/// What the child tells the holder over its socket, a packet each. The end without a failure is success.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The program is about to take over. A terminal's controlling side comes along.
    Ready(Identity),
    /// It will not.
    Failed(String),
}

/// The streams the process is given; `None` is `/dev/null`.
#[derive(Debug, Default)]
pub struct Streams {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// Becomes the process, or reports why not and ends. `target` is the process to join, for an exec.
pub fn become_process(
    launch: &Launch,
    target: Option<BorrowedFd<'_>>,
    streams: Streams,
    report: &OwnedFd,
) -> ! {
    let Err(failure) = prepare(launch, target, streams, report);
    send(report, &Report::Failed(failure.0), &[]);
    // SAFETY: ends this process without running the holder's exit handlers.
    unsafe { libc::_exit(1) }
}

fn send(report: &OwnedFd, what: &Report, fds: &[BorrowedFd<'_>]) {
    let bytes = serde_json::to_vec(what).unwrap_or_default();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    // Nobody is there to be told of an error here; the holder sees the end of the socket.
    let _ = sendmsg(report, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL);
}

fn prepare(
    launch: &Launch,
    target: Option<BorrowedFd<'_>>,
    streams: Streams,
    report: &OwnedFd,
) -> Result<std::convert::Infallible, Failure> {
    reset_signals();
    rustix::process::setsid().doing("start a session")?;
    for cgroup in &launch.cgroups {
        let path = cgroup.join("cgroup.procs");
        fs::write(&path, "0").doing_with(|| format!("enter the cgroup {}", cgroup.display()))?;
    }
    let process = &launch.process;
    // Always: the holder may be protected, its children are not. Lowering it needs CAP_SYS_RESOURCE, which a nested host
    // may lack: the runtime has warned of that.
    let _ = fs::write("/proc/self/oom_score_adj", process.oom_score_adj.to_string());
    join_namespaces(launch, target)?;
    let mut pty = match &launch.root {
        Some(root) => rootfs::enter(root, process.terminal)?,
        None => None,
    };
    if matches!(launch.role, Role::PodInit) {
        reap_forever(report);
    }
    if process.terminal && pty.is_none() {
        pty = Some(terminal_of_container()?);
    }
    let who = identity::resolve(&process.user)?;
    connect_streams(streams, pty.as_ref().map(|(_, slave)| slave), &who.identity)?;
    let master = pty.map(|(master, _)| master);
    for (resource, soft, hard) in &process.rlimits {
        let limit = libc::rlimit { rlim_cur: *soft, rlim_max: *hard };
        // SAFETY: a pointer to a struct that outlives the call.
        if unsafe { libc::setrlimit(*resource as _, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error()).doing("set a resource limit");
        }
    }
    new_keyring();
    enter_directory(&process.cwd)?;
    let env = environment(process, &who)?;
    // A filter that comes without no_new_privs needs a privilege that is given up next; the other kind comes last, for
    // what is called in between is none of the filter's business.
    let filter = process.seccomp.as_deref().map(rights::decode_filter).transpose()?;
    if let (Some(filter), false) = (&filter, process.no_new_privileges) {
        rights::install_filter(filter)?;
    }
    rights::give_up(&process.capabilities, &who.identity)?;
    // Once more, now as the user: a directory that only root could enter is not for it to keep (CVE-2024-21626 asks
    // that it lies inside).
    inside_root()?;
    let program = find_program(process)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).doing("set no_new_privs")?;
        if let Some(filter) = &filter {
            rights::install_filter(filter)?;
        }
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    sys::close_on_exec_from(3).doing("close descriptors")?;
    send(report, &Report::Ready(who.identity.clone()), &master.iter().map(|m| m.as_fd()).collect::<Vec<_>>());
    drop(master);
    exec(&program, process, &env)
}

/// The holder blocks and ignores some; a program finds them all as they are by default.
fn reset_signals() {
    // SAFETY: plain calls on local memory; a number that is no signal, or one that cannot be set, is refused.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

fn join_namespaces(launch: &Launch, target: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    if let Some(target) = target {
        let all = libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        return sys::setns(target, all).doing("join the container's namespaces");
    }
    let spaces = &launch.namespaces;
    for (namespace, kind, name) in [
        (&spaces.net, libc::CLONE_NEWNET, "network"),
        (&spaces.ipc, libc::CLONE_NEWIPC, "IPC"),
        (&spaces.uts, libc::CLONE_NEWUTS, "UTS"),
    ] {
        if let Namespace::Path(path) = namespace {
            let file = fs::File::open(path).doing_with(|| format!("open the {name} namespace"))?;
            sys::setns(file.as_fd(), kind).doing_with(|| format!("join the {name} namespace"))?;
        }
    }
    if spaces.uts == Namespace::New && !spaces.hostname.is_empty() {
        rustix::system::sethostname(spaces.hostname.as_bytes()).doing("set the hostname")?;
    }
    if launch.root.is_some() {
        // SAFETY: this process has one thread and shares no memory.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWCGROUP) }
            .doing("make a cgroup namespace")?;
    }
    Ok(())
}

/// Opens a terminal of the container that was joined; what is mounted at its `/dev/pts` is judged, not believed.
fn terminal_of_container() -> Result<(OwnedFd, OwnedFd), Failure> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing("open the container's root")?;
    let pts = sys::open_beneath(
        root.as_fd(),
        Path::new("dev/pts"),
        OFlags::PATH | OFlags::DIRECTORY,
        ResolveFlags::NO_SYMLINKS,
    )
    .doing("open /dev/pts")?;
    if rustix::fs::fstatfs(&pts).doing("look at /dev/pts")?.f_type != 0x1cd1 {
        return Err(Failure("/dev/pts of the container is not a devpts".into()));
    }
    rootfs::open_terminal(pts.as_fd())
}

fn connect_streams(streams: Streams, pty: Option<&OwnedFd>, who: &Identity) -> Result<(), Failure> {
    if let Some(pty) = pty {
        rustix::stdio::dup2_stdin(pty).doing("connect the terminal")?;
        rustix::stdio::dup2_stdout(pty).doing("connect the terminal")?;
        rustix::stdio::dup2_stderr(pty).doing("connect the terminal")?;
        rustix::process::ioctl_tiocsctty(pty).doing("take the terminal")?;
        let owner = (rustix::fs::Uid::from_raw(who.uid), rustix::fs::Gid::from_raw(5));
        return rustix::fs::fchown(pty, Some(owner.0), Some(owner.1)).doing("own the terminal");
    }
    let null = || rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let pick = |stream: Option<OwnedFd>| match stream {
        Some(fd) => {
            // so that a user other than root can open /dev/stdout; sockets and the like may refuse
            let _ = rustix::fs::fchown(&fd, Some(rustix::fs::Uid::from_raw(who.uid)), None);
            Ok(fd)
        }
        None => null().doing("open /dev/null"),
    };
    let (stdin, stdout, stderr) = (pick(streams.stdin)?, pick(streams.stdout)?, pick(streams.stderr)?);
    rustix::stdio::dup2_stdin(&stdin).doing("connect standard input")?;
    rustix::stdio::dup2_stdout(&stdout).doing("connect standard output")?;
    rustix::stdio::dup2_stderr(&stderr).doing("connect standard error")
}

/// Keys of the host's session are not for the container.
fn new_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: no memory is passed. A kernel without keys, or one out of quota, has nothing to hide.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) };
}

fn enter_directory(cwd: &str) -> Result<(), Failure> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !cwd.starts_with('/') {
        return Err(Failure(format!("the working directory {cwd:?} is not absolute")));
    }
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing("open the root")?;
    let (dir, _) = beneath::ensure(root.as_fd(), Path::new(cwd), beneath::Kind::Directory)
        .doing_with(|| format!("enter the working directory {cwd}"))?;
    rustix::process::fchdir(&dir).doing_with(|| format!("enter the working directory {cwd}"))?;
    inside_root()
}

fn inside_root() -> Result<(), Failure> {
    let here = std::env::current_dir().doing("look at the working directory")?;
    if here.is_absolute() {
        Ok(())
    } else {
        Err(Failure("the working directory lies outside of the container's root".into()))
    }
}

fn environment(process: &Process, who: &identity::Resolved) -> Result<Vec<CString>, Failure> {
    let mut env = Vec::with_capacity(process.env.len() + 3);
    for entry in &process.env {
        env.push(sys::c_string(entry).doing("the environment")?);
    }
    if variable(process, b"HOME").is_none_or(<[u8]>::is_empty) {
        env.retain(|e| !e.as_bytes().starts_with(b"HOME="));
        env.push(sys::c_string(&[b"HOME=", who.home.as_bytes()].concat()).doing("the environment")?);
    }
    if process.terminal && variable(process, b"TERM").is_none() {
        env.push(c"TERM=xterm".to_owned());
    }
    Ok(env)
}

fn variable<'a>(process: &'a Process, name: &[u8]) -> Option<&'a [u8]> {
    process.env.iter().rev().find_map(|e| e.strip_prefix(name)?.strip_prefix(b"="))
}

/// Looks the program up as execvp(3) does, but with the container's `PATH`.
fn find_program(process: &Process) -> Result<PathBuf, Failure> {
    const DEFAULT: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let name = process
        .args
        .first()
        .filter(|a| !a.is_empty())
        .ok_or_else(|| Failure("no command specified".into()))?;
    let shown = String::from_utf8_lossy(name);
    let name = Path::new(std::ffi::OsStr::from_bytes(name));
    if name.as_os_str().as_bytes().contains(&b'/') {
        return match rustix::fs::access(name, rustix::fs::Access::EXEC_OK) {
            Ok(()) if name.is_dir() => Err(Failure(format!("exec: {shown:?}: is a directory"))),
            Ok(()) => Ok(name.to_owned()),
            Err(Errno::NOENT) => {
                Err(Failure(format!("exec: {shown:?}: stat {shown}: no such file or directory")))
            }
            Err(Errno::ACCESS) => Err(Failure(format!("exec: {shown:?}: permission denied"))),
            Err(error) => Err(Failure(format!("exec: {shown:?}: {error}"))),
        };
    }
    let mut denied = false;
    for folder in variable(process, b"PATH").unwrap_or(DEFAULT).split(|b| *b == b':') {
        let folder = if folder.is_empty() { b"." } else { folder };
        let candidate = Path::new(std::ffi::OsStr::from_bytes(folder)).join(name);
        match rustix::fs::access(&candidate, rustix::fs::Access::EXEC_OK) {
            Ok(()) if candidate.is_file() => return Ok(candidate),
            Err(Errno::ACCESS) => denied = true,
            _ => {}
        }
    }
    Err(Failure(if denied {
        format!("exec: {shown:?}: permission denied")
    } else {
        format!("exec: {shown:?}: executable file not found in $PATH")
    }))
}

fn exec(program: &Path, process: &Process, env: &[CString]) -> Result<std::convert::Infallible, Failure> {
    let path = sys::c_string(program.as_os_str().as_bytes()).doing("the program")?;
    let args = process
        .args
        .iter()
        .map(|a| sys::c_string(a))
        .collect::<io::Result<Vec<_>>>()
        .doing("the arguments")?;
    match nix::unistd::execve(&path, &args, env) {
        Err(nix::Error::ENOEXEC) => Err(Failure(format!("exec {}: exec format error", program.display()))),
        Err(error) => Err(Failure(format!("exec {}: {}", program.display(), error.desc().to_lowercase()))),
    }
}

/// Process 1 of a pod: waits for whatever is left to it, until it is killed.
fn reap_forever(report: &OwnedFd) -> ! {
    // It keeps nothing of the host: no descriptor, no directory.
    let _ = rustix::process::chdir("/");
    send(report, &Report::Ready(Identity::default()), &[]);
    let _ = rustix::thread::set_name(c"pod-init");
    // SAFETY: closing descriptors and waiting; nothing else of this copy of the holder is used again. SIGCHLD has its
    // default action and is waited for; SIGTERM and the like have none in process 1.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        loop {
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
            libc::sigwaitinfo(&raw const set, std::ptr::null_mut());
        }
    }
}

//! A process in the holder: made by `clone3`, followed by its pidfd and its pipes.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Instant,
};

use rustix::{
    fs::{Mode, OFlags},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::{PipeFlags, pipe_with},
};

use super::{output::Output, wire::Exit};
use crate::{
    launch::{Streams, become_process, sys},
    plan::{Identity, Launch, Namespace, Role},
};

/// A process.
#[derive(Debug)]
pub struct Process {
    /// On the host.
    pub pid: i32,
    /// Ours.
    pub pidfd: OwnedFd,
    /// The connection that an exec or a one-shot process ends with.
    pub owner: Option<u64>,
    /// Where it is in its life.
    pub phase: Phase,
    /// Whom it runs as.
    pub who: Identity,
    /// Its output, for a container.
    pub output: Option<Output>,
    /// Our end of its input.
    pub stdin: Option<OwnedFd>,
    /// The input is closed when this connection ends.
    pub stdin_owner: Option<u64>,
    /// The first attacher's leaving closes the input.
    pub stdin_once: bool,
    /// When to send SIGKILL.
    pub deadline: Option<Instant>,
}

/// Where a process is in its life.
#[derive(Debug)]
pub enum Phase {
    /// Between `clone3` and `execve`; the launch is answered on the connection with this number.
    Starting {
        /// What the child says.
        report: OwnedFd,
        /// Connection and number of the call.
        call: (u64, u64),
        /// What it has said.
        ready: bool,
        /// Why it failed.
        failure: Option<String>,
        /// The terminal to send back.
        terminal: Option<OwnedFd>,
    },
    /// The program runs.
    Running,
    /// It has ended.
    Exited(Exit),
}

impl Process {
    /// Sends a signal; one that has ended is fine.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        // SAFETY: no memory is passed.
        let done = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match io::Error::last_os_error() {
            _ if done == 0 => Ok(()),
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        }
    }
}

/// Starts a process. `target` is the pidfd of the process whose namespaces it joins; `own_pidns` the holder's PID
/// namespace; `fds` are the streams that came along.
///
/// # Errors
/// A sentence.
pub fn launch(
    launch: &Launch,
    target: Option<&OwnedFd>,
    own_pidns: &OwnedFd,
    fds: Vec<OwnedFd>,
    call: (u64, u64),
) -> Result<Process, String> {
    let fail = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    let mut streams = Streams::default();
    let (mut output, mut stdin, mut once) = (None, None, false);
    match &launch.role {
        Role::Container { log, stdin: wants_stdin, stdin_once } => {
            once = *stdin_once;
            let (out, child) =
                Output::new(log.clone(), launch.process.terminal).map_err(fail("prepare the log"))?;
            output = Some(out);
            if let Some((stdout, stderr)) = child {
                (streams.stdout, streams.stderr) = (Some(stdout), Some(stderr));
                if *wants_stdin {
                    let (read, write) =
                        pipe_with(PipeFlags::CLOEXEC).map_err(|e| format!("make a pipe: {e}"))?;
                    (streams.stdin, stdin) = (Some(read), Some(write));
                }
            }
        }
        Role::Exec { .. } | Role::Oneshot => {
            let mut fds = fds.into_iter();
            (streams.stdin, streams.stdout, streams.stderr) = (fds.next(), fds.next(), fds.next());
        }
        Role::PodInit => {}
    }
    let (report, child_report) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|e| format!("make a socket: {e}"))?;
    let spaces = &launch.namespaces;
    let mut flags = 0;
    if launch.root.is_some() {
        flags |= libc::CLONE_NEWNS;
    }
    for (namespace, flag) in [
        (&spaces.pid, libc::CLONE_NEWPID),
        (&spaces.net, libc::CLONE_NEWNET),
        (&spaces.ipc, libc::CLONE_NEWIPC),
        (&spaces.uts, libc::CLONE_NEWUTS),
    ] {
        if *namespace == Namespace::New {
            flags |= flag;
        }
    }
    // Our children, not we, enter it; it is below ours, so we may always come back.
    let joins = matches!(spaces.pid, Namespace::Of(_)) || matches!(launch.role, Role::Exec { .. });
    if let (true, Some(target)) = (joins, target) {
        sys::setns(target.as_fd(), libc::CLONE_NEWPID).map_err(fail("join the PID namespace"))?;
    }
    // On v2 the child is born where it belongs: moving it there costs the kernel a pause of all CPUs.
    let born_in = match launch.cgroups.as_slice() {
        [only] => open_cgroup2(only),
        _ => None,
    };
    // SAFETY: the holder has one thread.
    let cloned = unsafe { sys::clone3(flags as u64, born_in.as_ref().map(|fd| fd.as_fd())) };
    match cloned {
        Ok(None) => {
            let joined = target.filter(|_| matches!(launch.role, Role::Exec { .. })).map(|t| t.as_fd());
            drop(report);
            if born_in.is_some() {
                let launch = Launch { cgroups: Vec::new(), ..launch.clone() };
                become_process(&launch, joined, streams, &child_report)
            }
            become_process(launch, joined, streams, &child_report)
        }
        cloned => {
            if joins && target.is_some() {
                sys::setns(own_pidns.as_fd(), libc::CLONE_NEWPID).map_err(fail("leave the PID namespace"))?;
            }
            let (pid, pidfd) =
                cloned.map_err(fail("make a process"))?.ok_or("make a process: it is the child")?;
            Ok(Process {
                pid,
                pidfd,
                owner: matches!(launch.role, Role::Exec { .. } | Role::Oneshot).then_some(call.0),
                phase: Phase::Starting { report, call, ready: false, failure: None, terminal: None },
                who: Identity::default(),
                output,
                stdin,
                stdin_owner: None,
                stdin_once: once,
                deadline: None,
            })
        }
    }
}

fn open_cgroup2(path: &Path) -> Option<OwnedFd> {
    const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    (rustix::fs::fstatfs(&directory).ok()?.f_type as i64 == CGROUP2_SUPER_MAGIC).then_some(directory)
}

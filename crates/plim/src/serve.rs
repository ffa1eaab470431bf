//! A process that serves a state folder: in front or in the background, one a folder, ended in order.

use std::{
    io::{BufRead, BufReader, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::FlockOperation,
    process::{Pid, Signal, kill_process},
};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use crate::{data::Data, progress::Progress};

/// Holds the number of the process that serves the folder.
const PID_FILE: &str = "run/plim.pid";
/// What a process in the background says.
const LOG_FILE: &str = "log/plim.log";
/// Tells a background process the descriptor on which to report its steps.
const REPORT_FD: &str = "PLIM_REPORT_FD";
/// The line that ends the report of a successful start.
const READY: &str = "ready";

/// Runs `work` for the folder, in front or in the background. A second one on the same folder is told of the first.
pub fn run(data: &Data, detach: bool, work: impl AsyncFnOnce(Progress, Ready) -> Result<()>) -> Result<()> {
    if let Some(pid) = running(data)? {
        if detach {
            println!("already running (process {pid})");
            return Ok(());
        }
        bail!("a server is running in {} (process {pid}): `plim down` stops it", data.root().display());
    }
    if detach { in_background(data) } else { in_front(data, work) }
}

/// Starts this program again without `-d`, in a session of its own, and shows its steps until it is ready.
fn in_background(data: &Data) -> Result<()> {
    data.folder("log")?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(data.path(LOG_FILE))?;
    let (read, write) = rustix::pipe::pipe().context("cannot make a pipe")?;
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1).filter(|a| a != "-d" && a != "--detach"));
    command.env(REPORT_FD, write.as_raw_fd().to_string());
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: setsid is async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(Into::into));
    }
    let mut child = command.spawn().context("cannot start the background process")?;
    drop(write);
    for line in BufReader::new(std::fs::File::from(read)).lines() {
        let line = line?;
        if line == READY {
            return Ok(());
        }
        println!("{line}");
    }
    let status = child.wait()?;
    let log = data.path(LOG_FILE);
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let mut tail: Vec<&str> = text.lines().rev().take(5).collect();
    tail.reverse();
    bail!("it did not start ({status}); {} ends with:\n{}", log.display(), tail.join("\n"))
}

fn in_front(data: &Data, work: impl AsyncFnOnce(Progress, Ready) -> Result<()>) -> Result<()> {
    crate::log::start();
    // One provider is linked; a second call in one process cannot happen, and would change nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let report = report_to_parent();
    let progress = match &report {
        Some(file) => Progress::to(Box::new(file.try_clone()?)),
        None => Progress::terminal(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let ready = Ready {
            report,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let _mark = mark_running(data)?;
        work(progress, ready).await
    })
}

/// Runs `work`, which keeps nothing in a folder, until it ends or this process is told to end.
pub fn until_signal(work: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    crate::log::start();
    // As in `in_front`.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            ended = work() => ended,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

/// How `work` tells that it is ready, and learns that it shall end.
pub struct Ready {
    report: Option<std::fs::File>,
    terminate: Signals,
    interrupt: Signals,
}

impl Ready {
    /// Tells the command in front, if there is one, that everything is ready, and waits for the signal to end.
    pub async fn wait_for_end(mut self, progress: Progress) -> Result<()> {
        drop(progress);
        if let Some(mut file) = self.report {
            // The command in front is gone if this fails; nobody waits for it then.
            let _ = writeln!(file, "{READY}");
        }
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        Ok(())
    }
}

/// The pipe to the command in front, if this process was started by one.
fn report_to_parent() -> Option<std::fs::File> {
    let fd: i32 = std::env::var(REPORT_FD).ok()?.parse().ok()?;
    // SAFETY: the descriptor was made for this process by its parent, which names it only here; nothing else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(fd.into())
}

/// The process that serves the folder, if there is one: it holds a lock on the file with its number.
pub fn running(data: &Data) -> Result<Option<i32>> {
    let Ok(file) = std::fs::File::open(data.path(PID_FILE)) else { return Ok(None) };
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return Ok(None);
    }
    Ok(data.read(PID_FILE)?.and_then(|text| text.trim().parse().ok()))
}

/// Marks the folder as served by this process for as long as the file is open.
fn mark_running(data: &Data) -> Result<std::fs::File> {
    data.folder("run")?;
    let path = data.path(PID_FILE);
    let mut file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another process serves {}: `plim down` stops it", data.root().display()))?;
    file.set_len(0)?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

/// Ends the process of the folder, if there is one, and waits until it has ended; tells whether there was one.
pub fn end(data: &Data) -> Result<bool> {
    let Some(pid) = running(data)? else { return Ok(false) };
    if let Some(process) = Pid::from_raw(pid) {
        let exit = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())?;
        kill_process(process, Signal::TERM)?;
        let mut fds = [rustix::event::PollFd::new(&exit, rustix::event::PollFlags::IN)];
        let limit = rustix::time::Timespec { tv_sec: 30, tv_nsec: 0 };
        ensure!(
            rustix::event::poll(&mut fds, Some(&limit))? > 0,
            "process {pid} has not ended after 30 s; its log is {}",
            data.path(LOG_FILE).display()
        );
    }
    Ok(true)
}

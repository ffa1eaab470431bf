//! A process that serves a state folder: in front or in the background, one a folder, ended in order.

use std::{
    io::{BufRead, BufReader, Write},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::FlockOperation,
    pipe::PipeFlags,
    process::{Pid, Signal, kill_process},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal as Signals, SignalKind, signal},
};

use crate::{data::Data, progress::Progress};

/// Holds the number of the process that serves the folder.
const PID_FILE: &str = "run/plim.pid";
/// What a process in the background says.
const LOG_FILE: &str = "log/plim.log";
/// Tells a background process the descriptor on which to report its steps.
const REPORT_FD: &str = "PLIM_REPORT_FD";
/// The line that ends the report of a successful start.
const READY: &str = "ready";
/// How long the end waits for what cannot be broken off, such as unpacking a layer.
const LIMIT: Duration = Duration::from_secs(10);

/// What a process does for a state folder: it starts, runs until it is told to end, and stops.
pub trait Service {
    /// What has been started.
    type Running;

    /// Brings everything up. When the process is told to end meanwhile, this future is dropped.
    async fn start(&mut self, progress: &Progress) -> Result<Self::Running>;

    /// What a user is told when everything is ready.
    fn tell(&self, running: &Self::Running, progress: &Progress);

    /// Ends in order what has been started.
    async fn stop(&self, running: Self::Running);

    /// Takes away what a start that did not come to its end has left in the kernel. Nothing of the start runs any more.
    async fn undo(&self) -> Result<()>;
}

/// Serves the folder, in front or in the background. A second process on the same folder is told of the first.
pub fn run(data: &Data, detach: bool, service: impl Service) -> Result<()> {
    if let Some(pid) = running(data)? {
        if detach {
            println!("already running (process {pid})");
            return Ok(());
        }
        bail!("a server is running in {} (process {pid}): `plim down` stops it", data.root().display());
    }
    if detach { in_background(data) } else { in_front(data, service) }
}

/// Starts this program again without `-d`, in a session of its own, and shows its steps until it is ready.
fn in_background(data: &Data) -> Result<()> {
    data.folder("log")?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(data.path(LOG_FILE))?;
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    // The background process gets the writing end alone: with the other it would never learn that this command has gone.
    rustix::io::fcntl_setfd(&write, rustix::io::FdFlags::empty())?;
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

fn in_front(data: &Data, mut service: impl Service) -> Result<()> {
    let runtime = begin()?;
    let report = report_to_parent();
    let progress = match &report {
        Some(file) => Progress::to(Box::new(file.try_clone()?)),
        None => Progress::terminal(),
    };
    // From here on a signal is heeded in order; before it ends a process that has made nothing yet.
    let mut end = End::listen(&runtime)?;
    let _mark = mark_running(data)?;
    let started = runtime.block_on(async {
        tokio::select! {
            biased;
            () = end.told() => None,
            () = abandoned(report.as_ref()) => None,
            started = service.start(&progress) => Some(started),
        }
    });
    match started {
        Some(Ok(running)) if ready(&service, &running, progress, report) => {
            runtime.block_on(async {
                end.told().await;
                service.stop(running).await;
            });
            runtime.shutdown_timeout(LIMIT);
            Ok(())
        }
        unfinished => {
            let outcome = match unfinished {
                Some(Err(error)) => Err(error),
                Some(Ok(running)) => {
                    drop(running);
                    Ok(())
                }
                None => Ok(()),
            };
            runtime.shutdown_timeout(LIMIT);
            let undone = threads()?.block_on(service.undo());
            outcome.and(undone)
        }
    }
}

/// Tells that everything is ready, and the command in front, if there is one, that it may go. False if that has gone
/// already, without having learned what became of the start.
fn ready<S: Service>(
    service: &S,
    running: &S::Running,
    progress: Progress,
    report: Option<std::fs::File>,
) -> bool {
    service.tell(running, &progress);
    report.is_none_or(|mut file| writeln!(file, "{READY}").is_ok())
}

/// Ends when the command in front has gone: it was interrupted, and with it the start that it was waiting for.
async fn abandoned(report: Option<&std::fs::File>) {
    // A pipe whose reader is gone is in error. Nothing else can be waited for on its writing end.
    let pipe = report.and_then(|file| {
        // SAFETY: an owned descriptor stays the same until it is dropped, together with the registration.
        unsafe { AsyncFd::register_with_interest(file.as_fd().try_clone_to_owned().ok()?, Interest::ERROR) }
            .ok()
    });
    match pipe {
        Some(pipe) if pipe.ready(Interest::ERROR).await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// Runs `work`, which keeps nothing in a folder, until it ends or this process is told to end.
pub fn until_told(work: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let runtime = begin()?;
    let mut end = End::listen(&runtime)?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            biased;
            () = end.told() => Ok(()),
            ended = work() => ended,
        }
    });
    runtime.shutdown_background();
    outcome
}

/// What every process that serves needs first.
fn begin() -> Result<tokio::runtime::Runtime> {
    crate::log::start();
    // One provider is linked; a second call in one process changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    threads()
}

fn threads() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// The signals that tell this process to end. One that comes before anybody waits for it is kept.
struct End {
    terminate: Signals,
    interrupt: Signals,
}

impl End {
    fn listen(runtime: &tokio::runtime::Runtime) -> Result<Self> {
        let _inside = runtime.enter();
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
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

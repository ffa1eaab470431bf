//! `plim server` and `plim down`.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::{
    fs::FlockOperation,
    process::{Pid, Signal, kill_process},
};

use crate::{
    control::{Addresses, Control},
    data::Data,
    progress::Progress,
};

/// Shown by `plim server --help`.
pub const EXAMPLES: &str = "Examples:\n  plim server -d                    start in the background\n  plim server -d --data /srv/other --port 7443\n                                    a second server beside the first";
/// Holds the number of the process that serves the folder.
const PID_FILE: &str = "run/plim.pid";
/// What a process in the background says.
const LOG_FILE: &str = "log/plim.log";
/// Tells a background process the descriptor on which to report its steps.
const REPORT_FD: &str = "PLIM_REPORT_FD";
/// The line that ends the report of a successful start.
const READY: &str = "ready";

/// Start the control plane: API server, store and scheduler.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// Go on in the background once the server is ready.
    #[arg(short, long)]
    detach: bool,
    /// Port of the API server; 0 takes a free one.
    #[arg(long, default_value_t = 6443)]
    port: u16,
    /// Address of the API server.
    #[arg(long, default_value = "0.0.0.0")]
    listen: IpAddr,
    /// Addresses of services; the first is the API server itself.
    #[arg(long, default_value = "10.96.0.0/16", value_name = "CIDR")]
    service_cidr: ipnet::Ipv4Net,
}

impl Serve {
    /// Starts the server, in front or in the background.
    pub fn run(self, data: &Data) -> Result<()> {
        if let Some(pid) = running(data)? {
            if self.detach {
                println!("already running (process {pid})");
                return Ok(());
            }
            bail!("a server is running in {} (process {pid}): `plim down` stops it", data.root().display());
        }
        if self.detach { self.detached(data) } else { self.foreground(data) }
    }

    /// Starts this program again without `-d`, in a session of its own, and shows its steps until it is ready.
    fn detached(&self, data: &Data) -> Result<()> {
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
        bail!("the server did not start ({status}); {} ends with:\n{}", log.display(), tail.join("\n"))
    }

    fn foreground(&self, data: &Data) -> Result<()> {
        crate::log::start();
        // One provider is linked; a second call in one process cannot happen, and would change nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let report = report_to_parent();
        let progress = match &report {
            Some(file) => Progress::to(Box::new(file.try_clone()?)),
            None => Progress::terminal(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(self.serve(data, progress, report))
    }

    async fn serve(&self, data: &Data, progress: Progress, report: Option<std::fs::File>) -> Result<()> {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let _mark = mark_running(data)?;
        let control = Control::start(data, &self.addresses()?, &progress).await?;
        progress.line(&format!("Ready after {:.2} s.", progress.seconds()));
        progress.line(&format!("  API server  {}", control.url));
        let folder = if data.root() == std::path::Path::new(crate::data::DEFAULT) {
            String::new()
        } else {
            format!(" --data {}", data.root().display())
        };
        progress.line(&format!(
            "  kubectl     export KUBECONFIG={}",
            data.path(crate::kubeconfig::FILE).display()
        ));
        progress.line(&format!("  stop        plim down{folder}"));
        if let Some(mut file) = report {
            // The command in front is gone if this fails; nobody waits for it then.
            let _ = writeln!(file, "{READY}");
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        control.stop().await;
        Ok(())
    }

    fn addresses(&self) -> Result<Addresses> {
        let range = self.service_cidr;
        ensure!(range.prefix_len() <= 24, "--service-cidr needs a range of /24 or larger");
        let advertise = if self.listen.is_unspecified() { own_address() } else { self.listen };
        Ok(Addresses { listen: SocketAddr::new(self.listen, self.port), advertise, services: range })
    }
}

/// The address that this machine would use towards the outside; no packet is sent.
fn own_address() -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    probe().ok().filter(|a| !a.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
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

/// `plim down`: ends the process; the state folder stays.
pub fn down(data: &Data) -> Result<()> {
    let Some(pid) = running(data)? else {
        println!("nothing is running in {}", data.root().display());
        return Ok(());
    };
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
    println!("stopped; the state stays in {}", data.root().display());
    Ok(())
}

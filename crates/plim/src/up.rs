//! `plim up` and `plim down`.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, ExitCode, Stdio},

};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::{control::Addresses, data::Data, node, progress::Progress};

/// Shown by `plim up --help`.
pub const EXAMPLES: &str = "Examples:\n  plim up -d                        start in the background\n  plim up --nodes 3                 three nodes on this machine\n  plim up -d --data /srv/other --port 7443\n                                    a second cluster beside the first";
/// Holds the number of the process that serves the folder.
const PID_FILE: &str = "run/plim.pid";
/// What a process in the background says.
const LOG_FILE: &str = "log/plim.log";
/// Tells a background process the descriptor on which to report its steps.
const REPORT_FD: &str = "PLIM_REPORT_FD";
/// The line that ends the report of a successful start.
const READY: &str = "ready";

/// Start a cluster on this machine.
#[derive(Args, Clone, Debug)]
pub struct Up {
    /// Go on in the background once the node is ready.
    #[arg(short, long)]
    detach: bool,
    /// How many nodes this machine plays, each with a network of its own when there is more than one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=50))]
    nodes: u16,
    /// Port of the API server.
    #[arg(long, default_value_t = 6443)]
    port: u16,
    /// Address of the API server.
    #[arg(long, default_value = "0.0.0.0")]
    listen: IpAddr,
    /// Addresses of services; the tenth is the cluster's DNS.
    #[arg(long, default_value = "10.96.0.0/16", value_name = "CIDR")]
    service_cidr: ipnet::Ipv4Net,
    /// Addresses of pods.
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR")]
    pod_cidr: ipnet::Ipv4Net,
    /// Addresses that LoadBalancer services get.
    #[arg(long, default_value = "10.97.0.0/24", value_name = "CIDR")]
    lb_cidr: ipnet::Ipv4Net,
}

impl Up {
    /// Starts the cluster, in front or in the background.
    pub fn run(self, data: &Data) -> Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "starting containers needs root: run `sudo plim up`"
        );
        if let Some(pid) = running(data)? {
            if self.detach {
                println!("already running (process {pid})");
                return Ok(());
            }
            bail!("a cluster is running in {} (process {pid}): `plim down` stops it", data.root().display());
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
        bail!("the cluster did not start ({status}); {} ends with:\n{}", log.display(), tail.join("\n"))
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
        data.folder("run")?;
        data.write(PID_FILE, &std::process::id().to_string())?;
        let cluster = node::Cluster::start(data, &self.addresses()?, self.nodes, self.lb_cidr, &progress).await?;
        progress.line(&format!("Ready after {:.2} s.", progress.seconds()));
        progress.line(&format!("  API server  {}", cluster.url()));
        let folder = if data.root() == std::path::Path::new(crate::data::DEFAULT) {
            String::new()
        } else {
            format!(" --data {}", data.root().display())
        };
        progress.line(&format!("  kubectl     export KUBECONFIG={}", data.path(crate::kubeconfig::FILE).display()));
        progress.line(&format!("  next        plim status{folder}"));
        if let Some(mut file) = report {
            // The command in front is gone if this fails; nobody waits for it then.
            let _ = writeln!(file, "{READY}");
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cluster.stop().await;
        let _ = std::fs::remove_file(data.path(PID_FILE));
        Ok(())
    }

    fn addresses(&self) -> Result<Addresses> {
        let (a, b) = (self.service_cidr, self.pod_cidr);
        ensure!(!a.contains(&b.network()) && !b.contains(&a.network()), "--service-cidr and --pod-cidr overlap");
        ensure!(a.prefix_len() <= 24, "--service-cidr needs a range of /24 or larger");
        let advertise = if self.listen.is_unspecified() { own_address() } else { self.listen };
        Ok(Addresses { listen: SocketAddr::new(self.listen, self.port), advertise, services: a, pods: b })
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

/// The process that serves the folder, if it is alive.
fn running(data: &Data) -> Result<Option<i32>> {
    let Some(pid) = data.read(PID_FILE)?.and_then(|t| t.trim().parse::<i32>().ok()) else { return Ok(None) };
    let alive = Pid::from_raw(pid).is_some_and(|p| test_kill_process(p).is_ok());
    // The number may have gone to somebody else after a crash.
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Ok((alive && name.trim() == "plim").then_some(pid))
}

/// `plim down`: ends the process, the pods and the network; the state folder stays.
pub fn down(data: &Data) -> Result<()> {
    if let Some(pid) = running(data)?
        && let Some(process) = Pid::from_raw(pid)
    {
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(node::tear_down(data))?;
    println!("stopped; the state stays in {}", data.root().display());
    Ok(())
}

/// Runs the holder of containers if this process was started to be one.
pub fn holder() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != node::HOLDER_ARGUMENT {
        return None;
    }
    Some(ExitCode::from(u8::try_from(runtime::holder::main(args)).unwrap_or(1)))
}


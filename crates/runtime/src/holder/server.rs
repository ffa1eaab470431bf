//! The holder's loop: one `epoll`, no threads, nothing that waits.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use rustix::{
    event::epoll,
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

use super::{
    conversation::Connection,
    log,
    output::Watch,
    process::{self, Phase, Process},
    wire::{Answer, Exit, Said},
};
use crate::{
    launch::Report,
    plan::{Launch, Namespace, Role},
};

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    Listener,
    Signals,
    Connection(u64),
    Report(String),
    Output(String),
}

/// Everything there is.
pub(super) struct Server {
    epoll: OwnedFd,
    pub(super) listener: OwnedFd,
    signals: OwnedFd,
    own_pidns: OwnedFd,
    pub(super) connections: HashMap<u64, Connection>,
    pub(super) next_connection: u64,
    pub(super) processes: HashMap<String, Process>,
    by_pid: HashMap<i32, String>,
    watched: HashMap<RawFd, (About, epoll::EventFlags)>,
    buffer: Vec<u8>,
    pub(super) ending: bool,
    /// Open files a process may have: what the holder had before it raised its own limit.
    files: (u64, u64),
}

/// Serves until it is told to end. The lock is kept for as long.
pub fn serve(listener: OwnedFd, lock: File) -> i32 {
    let served = Server::new(listener).and_then(|mut server| server.run());
    drop(lock);
    i32::from(served.is_err())
}

fn block_signals() -> io::Result<OwnedFd> {
    // SAFETY: plain calls on local memory; the descriptor is new.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        // A service manager that ends the runtime must not end the containers with it; SIGKILL always does.
        for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
            libc::signal(signal, libc::SIG_IGN);
        }
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Lets this process have all the files it may: pipes of hundreds of containers. Returns what the limits were.
fn raise_files_limit() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: pointers to a local.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        let before = (limit.rlim_cur, limit.rlim_max);
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(before)
    }
}

impl Server {
    fn new(listener: OwnedFd) -> io::Result<Server> {
        let mut server = Server {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            signals: block_signals()?,
            own_pidns: File::open("/proc/self/ns/pid")?.into(),
            listener,
            connections: HashMap::new(),
            next_connection: 1,
            processes: HashMap::new(),
            by_pid: HashMap::new(),
            watched: HashMap::new(),
            buffer: vec![0; 65_536],
            ending: false,
            files: raise_files_limit()?,
        };
        server.watch(server.listener.as_raw_fd(), About::Listener, epoll::EventFlags::IN)?;
        server.watch(server.signals.as_raw_fd(), About::Signals, epoll::EventFlags::IN)?;
        Ok(server)
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        while !self.ending || !self.by_pid.is_empty() {
            let timeout = self.deadline().map(|at| {
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
            });
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let fd = event.data.u64() as RawFd;
                // an earlier event may have closed it
                if let Some((about, _)) = self.watched.get(&fd).cloned() {
                    self.handle(about);
                }
            }
            self.pass_time();
        }
        Ok(())
    }

    fn handle(&mut self, about: About) {
        match about {
            About::Listener => self.accept(),
            About::Signals => self.reap(),
            About::Connection(number) => self.converse(number),
            About::Report(id) => self.hear(&id),
            About::Output(id) => {
                let Some(output) = self.processes.get_mut(&id).and_then(|p| p.output.as_mut()) else {
                    return;
                };
                let before = output.watches();
                output.advance(Instant::now(), &mut self.buffer);
                // seldom anything changes, and to look for what does goes through all that is watched
                if output.watches() != before {
                    self.watch_output(&id);
                }
            }
        }
    }

    // ---- what is watched

    pub(super) fn watch(&mut self, fd: RawFd, about: About, flags: epoll::EventFlags) -> io::Result<()> {
        // SAFETY: the descriptor is owned by this struct and is taken out of the map before it is closed.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let data = epoll::EventData::new_u64(fd as u64);
        let known = self.watched.insert(fd, (about.clone(), flags));
        match known {
            Some((_, same)) if same == flags => {}
            Some(_) => match epoll::modify(&self.epoll, borrowed, data, flags) {
                Err(Errno::NOENT) => epoll::add(&self.epoll, borrowed, data, flags)?,
                result => result?,
            },
            None => match epoll::add(&self.epoll, borrowed, data, flags) {
                Err(Errno::EXIST) => epoll::modify(&self.epoll, borrowed, data, flags)?,
                result => result?,
            },
        }
        Ok(())
    }

    pub(super) fn unwatch(&mut self, fd: RawFd) {
        if self.watched.remove(&fd).is_some() {
            // SAFETY: as in `watch`; a descriptor that is closed has left the set by itself.
            let _ = epoll::delete(&self.epoll, unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) });
        }
    }

    /// Watches exactly what a process' output wants to be watched.
    pub(super) fn watch_output(&mut self, id: &str) {
        let wanted = self
            .processes
            .get(id)
            .and_then(|p| p.output.as_ref())
            .map(|output| output.watches())
            .unwrap_or_default();
        let about = About::Output(id.to_owned());
        let fd_of = |w: &Watch| match w {
            Watch::Read(fd) | Watch::Write(fd) => *fd,
        };
        let stale: Vec<RawFd> = self
            .watched
            .iter()
            .filter(|(fd, (a, _))| *a == about && !wanted.iter().any(|w| fd_of(w) == **fd))
            .map(|(fd, _)| *fd)
            .collect();
        for fd in stale {
            self.unwatch(fd);
        }
        for watch in wanted {
            let flags = match watch {
                Watch::Read(_) => epoll::EventFlags::IN,
                Watch::Write(_) => epoll::EventFlags::OUT,
            };
            let _ = self.watch(fd_of(&watch), about.clone(), flags);
        }
    }

    pub(super) fn unwatch_all(&mut self, id: &str) {
        let theirs = |about: &About| matches!(about, About::Output(i) | About::Report(i) if i == id);
        let fds: Vec<RawFd> =
            self.watched.iter().filter(|(_, (a, _))| theirs(a)).map(|(fd, _)| *fd).collect();
        for fd in fds {
            self.unwatch(fd);
        }
    }

    // ---- time

    fn deadline(&self) -> Option<Instant> {
        self.processes
            .values()
            .flat_map(|p| [p.deadline, p.output.as_ref().and_then(|o| o.deadline())])
            .flatten()
            .min()
    }

    fn pass_time(&mut self) {
        let now = Instant::now();
        if self.deadline().is_none_or(|at| at > now) {
            return;
        }
        let mut late = Vec::new();
        for (id, process) in &mut self.processes {
            if process.deadline.is_some_and(|at| at <= now) {
                process.deadline = None;
                let _ = process.signal(libc::SIGKILL);
            }
            if process.output.as_ref().and_then(|o| o.deadline()).is_some_and(|at| at <= now) {
                late.push(id.clone());
            }
        }
        for id in late {
            self.handle(About::Output(id));
        }
    }

    // ---- processes

    pub(super) fn launch(
        &mut self,
        mut launch: Launch,
        fds: Vec<OwnedFd>,
        call: (u64, u64),
    ) -> Result<(), String> {
        if self.processes.contains_key(&launch.id) {
            return Err(format!("there is a process {} already", launch.id));
        }
        let target = match (&launch.role, &launch.namespaces.pid) {
            (Role::Exec { target }, _) | (_, Namespace::Of(target)) => {
                let process = self.processes.get(target).filter(|p| matches!(p.phase, Phase::Running));
                let process = process.ok_or_else(|| format!("the process {target} does not run"))?;
                Some(process.pidfd.try_clone().map_err(|e| e.to_string())?)
            }
            _ => None,
        };
        launch.process.rlimits.insert(0, (libc::RLIMIT_NOFILE, self.files.0, self.files.1));
        let process = process::launch(&launch, target.as_ref(), &self.own_pidns, fds, call)?;
        let id = launch.id;
        let report = match &process.phase {
            Phase::Starting { report, .. } => report.as_raw_fd(),
            _ => return Err("a process that is not starting".into()),
        };
        self.by_pid.insert(process.pid, id.clone());
        self.processes.insert(id.clone(), process);
        self.watch(report, About::Report(id.clone()), epoll::EventFlags::IN).map_err(|e| e.to_string())?;
        self.watch_output(&id);
        Ok(())
    }

    /// A starting process says something, or its program has taken over.
    fn hear(&mut self, id: &str) {
        let Some(process) = self.processes.get_mut(id) else { return };
        let Phase::Starting { report, ready, failure, terminal, .. } = &mut process.phase else { return };
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slice = [io::IoSliceMut::new(&mut self.buffer)];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let n = match recvmsg(&*report, &mut slice, &mut control, flags) {
            Ok(got) => got.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => 0,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                *terminal = fds.last();
            }
        }
        match serde_json::from_slice::<Report>(&self.buffer[..n]) {
            Ok(Report::Ready(who)) => {
                *ready = true;
                process.who = who;
                return;
            }
            Ok(Report::Failed(why)) => {
                *failure = Some(why);
                return;
            }
            Err(_) => {}
        }
        // the end of the socket: the program runs, or nothing does
        let fd = report.as_raw_fd();
        self.unwatch(fd);
        self.started(id);
    }

    fn started(&mut self, id: &str) {
        let Some(process) = self.processes.get_mut(id) else { return };
        let Phase::Starting { call, ready, failure, terminal, .. } =
            std::mem::replace(&mut process.phase, Phase::Running)
        else {
            return;
        };
        let mut fds = Vec::new();
        let answer = match failure {
            None if ready => {
                match (terminal, &mut process.output) {
                    (Some(terminal), Some(output)) => {
                        // a container's terminal stays here: it is read into the log
                        let _ = output.add_terminal(&terminal);
                        process.stdin = Some(terminal);
                    }
                    (Some(terminal), None) => fds.push(terminal),
                    (None, _) => {}
                }
                Ok(Answer::Started { pid: process.pid, who: process.who.clone() })
            }
            failure => {
                // it is about to end; nobody is told of that any more
                let pid = process.pid;
                self.unwatch_all(id);
                self.processes.remove(id);
                self.by_pid.insert(pid, String::new());
                Err(failure.unwrap_or_else(|| "it was killed while it was being started".into()))
            }
        };
        self.watch_output(id);
        self.say(call.0, &Said::Answer { number: call.1, answer }, fds);
    }

    /// Some child has ended.
    fn reap(&mut self) {
        let mut drained = [0u8; 1024];
        while rustix::io::read(&self.signals, &mut drained).is_ok() {}
        loop {
            let mut status = 0;
            // SAFETY: a pointer to a local.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            let code = if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            };
            if let Some(id) = self.by_pid.remove(&pid)
                && !id.is_empty()
            {
                self.exited(&id, Exit { code, at: log::now() });
                // a launch that failed has left a note to ignore this one
                self.by_pid.remove(&pid);
            }
        }
    }

    fn exited(&mut self, id: &str, exit: Exit) {
        // its last words may not have been heard yet
        while self.processes.get(id).is_some_and(|p| matches!(p.phase, Phase::Starting { .. })) {
            self.hear(id);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let Some(process) = self.processes.get_mut(id) else {
            self.buffer = buffer;
            return;
        };
        if let Some(output) = &mut process.output {
            output.drain(Instant::now(), &mut buffer);
        }
        self.buffer = buffer;
        process.phase = Phase::Exited(exit);
        process.deadline = None;
        process.stdin = None;
        let owner = process.owner;
        self.watch_output(id);
        let said = Said::Exited { id: id.to_owned(), exit };
        let listeners: Vec<u64> = self
            .connections
            .iter()
            .filter(|(n, c)| c.listens && owner.is_none_or(|o| o == **n))
            .map(|(n, _)| *n)
            .collect();
        if owner.is_some() {
            self.processes.remove(id);
        }
        for number in listeners {
            self.say(number, &said, Vec::new());
        }
    }
}

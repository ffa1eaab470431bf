//! The holder's side of its socket: connections, requests and answers.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::epoll,
    net::{SocketFlags, accept_with},
};

use super::{
    process::{Phase, Process},
    server::{About, Server},
    wire::{Answer, Call, Incoming, Outgoing, Request, Said, State, VERSION},
};

/// Answers that wait for a runtime which does not read: then it is not worth talking to.
const MAX_QUEUE: usize = 10_000;

/// A connection.
pub(super) struct Connection {
    socket: OwnedFd,
    incoming: Incoming,
    queue: VecDeque<Outgoing>,
    /// Exits are told.
    pub(super) listens: bool,
    /// Everything ends with it.
    private: bool,
}

impl Server {
    pub(super) fn accept(&mut self) {
        while let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            let number = self.next_connection;
            self.next_connection += 1;
            let fd = socket.as_raw_fd();
            let connection = Connection {
                socket,
                incoming: Incoming::default(),
                queue: VecDeque::new(),
                listens: false,
                private: false,
            };
            self.connections.insert(number, connection);
            if self.watch(fd, About::Connection(number), epoll::EventFlags::IN).is_err() {
                self.part(number);
            }
        }
    }

    pub(super) fn converse(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let alive = match connection.incoming.receive(connection.socket.as_fd()) {
            Ok(more) => more,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        loop {
            let Some(connection) = self.connections.get_mut(&number) else { return };
            match connection.incoming.next_message::<Call>() {
                Ok(Some((call, fds))) => self.answer(number, call, fds),
                Ok(None) => break,
                Err(_) => return self.part(number),
            }
        }
        if !alive {
            return self.part(number);
        }
        self.flush(number);
    }

    fn flush(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let mut lost = connection.queue.len() > MAX_QUEUE;
        while let Some(message) = connection.queue.front_mut() {
            match message.send(connection.socket.as_fd()) {
                Ok(_) => {
                    connection.queue.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    lost = true;
                    break;
                }
            }
        }
        let mut flags = epoll::EventFlags::IN;
        if !connection.queue.is_empty() {
            flags |= epoll::EventFlags::OUT;
        }
        let fd = connection.socket.as_raw_fd();
        if lost || self.watch(fd, About::Connection(number), flags).is_err() {
            self.part(number);
        }
    }

    /// A connection has ended, and what belongs to it.
    pub(super) fn part(&mut self, number: u64) {
        let Some(connection) = self.connections.remove(&number) else { return };
        self.unwatch(connection.socket.as_raw_fd());
        for process in self.processes.values_mut() {
            if process.owner == Some(number) || connection.private {
                let _ = process.signal(libc::SIGKILL);
            }
            if process.stdin_owner == Some(number) {
                process.stdin = None;
            }
        }
        self.processes.retain(|_, p| !(p.owner == Some(number) && matches!(p.phase, Phase::Exited(_))));
        self.ending |= connection.private;
    }

    pub(super) fn say(&mut self, number: u64, said: &Said, fds: Vec<OwnedFd>) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        match Outgoing::new(said, fds) {
            Ok(message) => connection.queue.push_back(message),
            Err(_) => return self.part(number),
        }
        self.flush(number);
    }

    fn answer(&mut self, number: u64, call: Call, fds: Vec<OwnedFd>) {
        let answer = match call.request {
            Request::Launch(launch) => match self.launch(*launch, fds, (number, call.number)) {
                Ok(()) => return,
                Err(error) => Err(error),
            },
            Request::Attach { id, stdin, stdout, stderr } => {
                match self.attach(number, &id, stdin, (stdout, stderr), fds) {
                    Ok(fds) => {
                        let said = Said::Answer { number: call.number, answer: Ok(Answer::Done) };
                        return self.say(number, &said, fds);
                    }
                    Err(error) => Err(error),
                }
            }
            request => self.simple(number, request),
        };
        self.say(number, &Said::Answer { number: call.number, answer }, Vec::new());
    }

    fn simple(&mut self, number: u64, request: Request) -> Result<Answer, String> {
        match request {
            Request::Hello => {
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.listens = true;
                }
                let state = |(id, p): (&String, &Process)| State {
                    id: id.clone(),
                    pid: p.pid,
                    who: p.who.clone(),
                    exit: match p.phase {
                        Phase::Exited(exit) => Some(exit),
                        _ => None,
                    },
                };
                let processes = self.processes.iter().filter(|(_, p)| p.owner.is_none()).map(state).collect();
                let pid = std::process::id() as i32;
                return Ok(Answer::State { version: VERSION, pid, processes });
            }
            Request::Private => {
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.private = true;
                }
            }
            Request::Signal { id, signal } => {
                self.process(&id)?.signal(signal).map_err(|e| format!("signal {signal}: {e}"))?;
            }
            Request::Stop { id, signal, grace } => {
                let process = self.process(&id)?;
                process.signal(signal).map_err(|e| format!("signal {signal}: {e}"))?;
                let deadline = Instant::now() + Duration::from_millis(grace.min(1 << 40));
                process.deadline = Some(process.deadline.map_or(deadline, |d| d.min(deadline)));
            }
            Request::Reopen { id } => {
                if let Some(output) = &mut self.process(&id)?.output {
                    output.reopen().map_err(|e| format!("open the log: {e}"))?;
                }
            }
            Request::CloseStdin { id } => {
                self.process(&id)?.stdin = None;
            }
            Request::Forget { id } => {
                if self.processes.get(&id).is_some_and(|p| matches!(p.phase, Phase::Exited(_))) {
                    if let Some(output) = self.processes.get_mut(&id).and_then(|p| p.output.as_mut()) {
                        output.close();
                    }
                    self.unwatch_all(&id);
                    self.processes.remove(&id);
                }
            }
            Request::Launch(_) | Request::Attach { .. } => {}
        }
        Ok(Answer::Done)
    }

    fn process(&mut self, id: &str) -> Result<&mut Process, String> {
        self.processes.get_mut(id).ok_or_else(|| format!("there is no process {id}"))
    }

    fn attach(
        &mut self,
        number: u64,
        id: &str,
        stdin: bool,
        (stdout, stderr): (bool, bool),
        fds: Vec<OwnedFd>,
    ) -> Result<Vec<OwnedFd>, String> {
        let process = self.process(id)?;
        if matches!(process.phase, Phase::Exited(_)) {
            return Err(format!("the process {id} has ended"));
        }
        let output = process.output.as_mut().ok_or_else(|| format!("{id} has no streams to attach to"))?;
        let mut fds = fds.into_iter();
        for (wanted, stream) in [(stdout, 1), (stderr, 2)] {
            if wanted && let Some(fd) = fds.next() {
                output.attach(stream, fd).map_err(|e| format!("attach: {e}"))?;
            }
        }
        let mut back = Vec::new();
        if stdin && let Some(input) = &process.stdin {
            back.push(input.try_clone().map_err(|e| format!("attach: {e}"))?);
            if process.stdin_once {
                process.stdin_owner = Some(number);
            }
        }
        self.watch_output(id);
        Ok(back)
    }
}

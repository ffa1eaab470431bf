//! The runtime's end of the holder's socket.

use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{Mode, OFlags},
    net::{AddressFamily, SocketFlags, SocketType, connect, socket_with},
};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, oneshot},
};

use crate::holder::{
    self,
    wire::{Answer, Call, Exit, Incoming, Outgoing, Request, Said, State},
};

/// What comes of a request: the answer, with descriptors.
type Outcome = io::Result<(Answer, Vec<OwnedFd>)>;

struct Asked {
    number: u64,
    message: Outgoing,
    answer: oneshot::Sender<Outcome>,
}

/// A connection to a holder. Clones share it; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct Link {
    calls: mpsc::UnboundedSender<Asked>,
    next: Arc<AtomicU64>,
    pid: i32,
}

/// Ends of processes, in order; closed when the connection is lost.
pub type Exits = mpsc::UnboundedReceiver<(String, Exit)>;

/// A connection to the holder in `dir`, which is started if there is none: its state, and the exits from then on.
///
/// # Errors
/// When there is none and none can be started.
pub async fn open(command: &[OsString], dir: &Path) -> io::Result<(Link, Vec<State>, Exits)> {
    let socket = match connect_to(dir) {
        Ok(socket) => socket,
        Err(_) => {
            let (command, folder) = (command.to_vec(), dir.to_owned());
            tokio::task::spawn_blocking(move || holder::start(&command, &folder))
                .await
                .map_err(io::Error::other)??;
            connect_to(dir)?
        }
    };
    let (mut link, exits) = Link::over(socket)?;
    match link.call(Request::Hello, Vec::new()).await? {
        (Answer::State { version, pid, processes }, _) if version >= holder::wire::VERSION => {
            link.pid = pid;
            Ok((link, processes, exits))
        }
        (Answer::State { .. }, _) => Err(io::Error::other("the holder is of an older version")),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the holder does not say what it has")),
    }
}

fn connect_to(dir: &Path) -> io::Result<OwnedFd> {
    let folder = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &holder::address(&folder)?)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

impl Link {
    fn over(socket: OwnedFd) -> io::Result<(Link, Exits)> {
        // SAFETY: an owned descriptor stays the same until it is dropped, together with the registration.
        let socket = unsafe { AsyncFd::register(socket) }?;
        let (calls, asked) = mpsc::unbounded_channel();
        let (exits_in, exits) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut waiting = HashMap::new();
            if let Err(error) = converse(&socket, asked, &mut waiting, &exits_in).await {
                tracing::debug!(%error, "the connection to the holder has ended");
            }
            for (_, answer) in waiting {
                let _ = answer.send(Err(lost()));
            }
        });
        Ok((Link { calls, next: Arc::new(AtomicU64::new(1)), pid: 0 }, exits))
    }

    /// Asks for something and waits for the answer.
    ///
    /// # Errors
    /// What the holder says, or that it is gone (`BrokenPipe`).
    pub async fn call(&self, request: Request, fds: Vec<OwnedFd>) -> Outcome {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let message = Outgoing::new(&Call { number, request }, fds)?;
        let (answer, answered) = oneshot::channel();
        self.calls.send(Asked { number, message, answer }).map_err(|_| lost())?;
        answered.await.map_err(|_| lost())?
    }

    /// As [`Link::call`], where only success matters.
    ///
    /// # Errors
    /// As [`Link::call`].
    pub async fn tell(&self, request: Request) -> io::Result<()> {
        self.call(request, Vec::new()).await.map(|_| ())
    }

    /// Asks for something whose answer nobody waits for.
    pub fn ask(&self, request: Request) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let Ok(message) = Outgoing::new(&Call { number, request }, Vec::new()) {
            let _ = self.calls.send(Asked { number, message, answer: oneshot::channel().0 });
        }
    }

    /// PID of the holder.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether the holder is still there.
    pub fn is_alive(&self) -> bool {
        !self.calls.is_closed()
    }
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection to the holder is lost")
}

/// Sends what is asked and hands out what comes, until either side has ended.
async fn converse(
    socket: &AsyncFd<OwnedFd>,
    mut asked: mpsc::UnboundedReceiver<Asked>,
    waiting: &mut HashMap<u64, oneshot::Sender<Outcome>>,
    exits: &mpsc::UnboundedSender<(String, Exit)>,
) -> io::Result<()> {
    let mut incoming = Incoming::default();
    loop {
        tokio::select! {
            call = asked.recv() => {
                let Some(Asked { number, mut message, answer }) = call else { return Ok(()) };
                waiting.insert(number, answer);
                loop {
                    // The holder never waits for us, so it always comes to read.
                    let mut ready = socket.writable().await?;
                    match ready.try_io(|socket| message.send(socket.as_fd())) {
                        Ok(result) => { result?; break }
                        Err(_would_block) => {}
                    }
                }
            }
            ready = socket.readable() => {
                let mut ready = ready?;
                match ready.try_io(|socket| incoming.receive(socket.as_fd())) {
                    Ok(more) => if !more? { return Err(lost()) },
                    Err(_would_block) => continue,
                }
                while let Some((said, fds)) = incoming.next_message::<Said>()? {
                    match said {
                        Said::Answer { number, answer } => if let Some(to) = waiting.remove(&number) {
                            let _ = to.send(answer.map(|a| (a, fds)).map_err(io::Error::other));
                        },
                        Said::Exited { id, exit } => {
                            let _ = exits.send((id, exit));
                        }
                    }
                }
            }
        }
    }
}

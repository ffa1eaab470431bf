//! What the runtime and the holder say to each other.
//!
//! A message is its length (four bytes, little endian), the number of its descriptors (a byte) and JSON; the descriptors
//! travel beside its first byte. A holder
//! outlives the program it was started by, so a newer one may talk to it: fields are only ever added, with defaults.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::plan::{Identity, Launch};

/// Version of this protocol.
pub const VERSION: u32 = 1;
/// Largest message; a container's environment may be a megabyte or two.
const MAX_MESSAGE: usize = 32 << 20;
/// Most descriptors beside one message.
const MAX_FDS: usize = 8;

/// A request and the number its answer will carry.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the caller.
    pub number: u64,
    /// What is asked for.
    pub request: Request,
}

/// What the holder can be asked for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// The state of everything; exits are told from here on.
    Hello,
    /// Ends with this connection, and everything in it too.
    Private,
    /// Starts a process. The answer comes when its program runs or it has failed.
    Launch(Box<Launch>),
    /// Sends a signal to a process.
    Signal {
        /// Which.
        id: String,
        /// Number of the signal.
        signal: i32,
    },
    /// Sends a signal, and SIGKILL if the process is still there after a while.
    Stop {
        /// Which.
        id: String,
        /// Number of the signal.
        signal: i32,
        /// Milliseconds until SIGKILL.
        grace: u64,
    },
    /// Opens the log by its name again.
    Reopen {
        /// Which.
        id: String,
    },
    /// Gets the output from now on, into the pipes that come along (stdout, then stderr); answers with standard input or
    /// the terminal.
    Attach {
        /// Which.
        id: String,
        /// Whether the answer brings the input (a terminal: always).
        stdin: bool,
        /// Whether a pipe for it comes along.
        stdout: bool,
        /// Whether a pipe for it comes along.
        stderr: bool,
    },
    /// Closes the input of a process whose first attacher has left.
    CloseStdin {
        /// Which.
        id: String,
    },
    /// The exit code was recorded.
    Forget {
        /// Which.
        id: String,
    },
}

/// What the holder says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    /// The answer to a request; an error is a sentence.
    Answer {
        /// Of the request.
        number: u64,
        /// What came of it.
        answer: Result<Answer, String>,
    },
    /// A process has ended.
    Exited {
        /// Which.
        id: String,
        /// How.
        exit: Exit,
    },
}

/// What comes of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// To `Hello`.
    State {
        /// Version of the protocol.
        version: u32,
        /// PID of the holder.
        #[serde(default)]
        pid: i32,
        /// All there is.
        processes: Vec<State>,
    },
    /// To `Launch`.
    Started {
        /// On the host.
        pid: i32,
        /// Whom it runs as.
        who: Identity,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, or 128 and the signal.
    pub code: i32,
    /// Nanoseconds since 1970.
    pub at: i64,
}

/// A process in the holder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// As it was launched.
    pub id: String,
    /// On the host.
    pub pid: i32,
    /// Whom it runs as.
    pub who: Identity,
    /// If it has ended.
    pub exit: Option<Exit>,
}

/// A message ready to be sent.
#[derive(Debug)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

impl Outgoing {
    /// Encodes a message.
    ///
    /// # Errors
    /// When it is too large.
    pub fn new(message: &impl Serialize, fds: Vec<OwnedFd>) -> io::Result<Outgoing> {
        let mut bytes = vec![0; 5];
        serde_json::to_writer(&mut bytes, message)?;
        let length = bytes.len() - 5;
        if length > MAX_MESSAGE || fds.len() > MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too large"));
        }
        bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[4] = fds.len() as u8;
        Ok(Outgoing { bytes, sent: 0, fds })
    }

    /// Sends what the socket takes; true when all is sent.
    ///
    /// # Errors
    /// The socket's, `WouldBlock` too.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        while self.sent < self.bytes.len() {
            let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let rest = IoSlice::new(&self.bytes[self.sent..]);
            match sendmsg(socket, &[rest], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(n) => {
                    self.sent += n;
                    self.fds.clear();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

/// Bytes and descriptors that have come.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Incoming {
    /// Takes what the socket has; false at its end.
    ///
    /// # Errors
    /// The socket's, `WouldBlock` too.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let start = self.bytes.len();
        self.bytes.resize(start + 16_384, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let result = loop {
            let mut slice = [IoSliceMut::new(&mut self.bytes[start..])];
            match recvmsg(socket, &mut slice, &mut control, RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result,
            }
        };
        self.bytes.truncate(start + result.as_ref().map_or(0, |r| r.bytes));
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        Ok(result?.bytes > 0)
    }

    /// The next whole message, if there is one, with its descriptors.
    ///
    /// # Errors
    /// When the other side does not speak this protocol.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some([a, b, c, d, fds]) = self.bytes.first_chunk::<5>().copied() else { return Ok(None) };
        let (length, fds) = (u32::from_le_bytes([a, b, c, d]) as usize, usize::from(fds));
        if length > MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too large"));
        }
        let Some(body) = self.bytes.get(5..5 + length) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        if self.fds.len() < fds {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a descriptor got lost on the way"));
        }
        self.bytes.drain(..5 + length);
        if self.bytes.is_empty() {
            self.bytes.shrink_to(16_384);
        }
        Ok(Some((message, self.fds.drain(..fds).collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(bytes: &[u8]) -> Incoming {
        Incoming { bytes: bytes.to_vec(), fds: VecDeque::new() }
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let call = |number| Call { number, request: Request::Forget { id: "x".into() } };
        let mut bytes = Outgoing::new(&call(1), Vec::new()).unwrap().bytes;
        bytes.extend(Outgoing::new(&call(2), Vec::new()).unwrap().bytes);
        let mut incoming = fed(&bytes[..bytes.len() - 1]);
        assert_eq!(incoming.next_message::<Call>().unwrap().unwrap().0.number, 1);
        assert!(incoming.next_message::<Call>().unwrap().is_none());
        incoming.bytes.push(bytes[bytes.len() - 1]);
        assert_eq!(incoming.next_message::<Call>().unwrap().unwrap().0.number, 2);
    }

    #[test]
    fn a_descriptor_that_did_not_come_is_an_error() {
        let mut bytes = Outgoing::new(&Request::Hello, Vec::new()).unwrap().bytes;
        bytes[4] = 1;
        assert!(fed(&bytes).next_message::<Request>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = fed(&bytes).next_message::<Call>();
            let mut framed = (bytes.len() as u32).to_le_bytes().to_vec();
            framed.push(0);
            framed.extend(&bytes);
            let _ = fed(&framed).next_message::<Call>();
        }
    }
}

//! A netlink socket: send a buffer of requests, collect their answers.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::{HEADER, Messages};
use crate::error::{Error, Result};
use crate::netns;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Requests are answered by the kernel within the call; this only guards against a lost answer.
const ANSWER_TIMEOUT_S: i64 = 10;

/// A blocking netlink socket of one namespace. Answers come at once, so calls take microseconds.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens an rtnetlink socket in the namespace at `path`, or in the caller's.
    pub fn route(path: Option<&Path>) -> Result<Self> {
        netns::within(path, || Self::open(libc::NETLINK_ROUTE))?
            .map_err(Error::io("open a netlink route socket"))
    }

    /// Opens a netfilter socket (nf_tables, conntrack) in the namespace at `path`, or in the caller's.
    pub fn netfilter(path: Option<&Path>) -> Result<Self> {
        netns::within(path, || Self::open(libc::NETLINK_NETFILTER))?
            .map_err(Error::io("open a netfilter netlink socket"))
    }

    fn open(protocol: i32) -> io::Result<Self> {
        // SAFETY: plain socket(2); the result is checked before it is owned.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by socket(2) and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Self { fd, sequence: 1, buffer: vec![0; 64 * 1024] };
        // A batch of a thousand operations must fit; without CAP_NET_ADMIN in the first user namespace the
        // forced sizes are refused and the usual limits hold.
        if socket.option(libc::SO_SNDBUFFORCE, 8 << 20).is_err() {
            let _ = socket.option(libc::SO_SNDBUF, 8 << 20);
        }
        if socket.option(libc::SO_RCVBUFFORCE, 8 << 20).is_err() {
            let _ = socket.option(libc::SO_RCVBUF, 8 << 20);
        }
        let timeout = libc::timeval { tv_sec: ANSWER_TIMEOUT_S, tv_usec: 0 };
        // SAFETY: the pointer and length describe `timeout`, which outlives the call.
        let rc = unsafe {
            libc::setsockopt(
                socket.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const timeout).cast(),
                size_of_val(&timeout) as u32,
            )
        };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
    }

    fn option(&self, name: i32, value: i32) -> io::Result<()> {
        // SAFETY: the pointer and length describe `value`, which outlives the call.
        let rc = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                (&raw const value).cast(),
                size_of_val(&value) as u32,
            )
        };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn send(&mut self, messages: &mut Messages) -> io::Result<(u32, u32)> {
        let first = self.sequence;
        for &start in &messages.starts {
            messages.bytes[start + 8..start + 12].copy_from_slice(&self.sequence.to_ne_bytes());
            self.sequence = self.sequence.wrapping_add(1);
        }
        // SAFETY: the pointer and length describe `messages.bytes`; an unconnected netlink socket sends to the
        // kernel (pid 0).
        let sent = unsafe {
            libc::send(self.fd.as_raw_fd(), messages.bytes.as_ptr().cast(), messages.bytes.len(), 0)
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((first, self.sequence.wrapping_sub(1)))
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            // SAFETY: the pointer and length describe `self.buffer`, which the kernel fills at most to its end.
            let n = unsafe {
                libc::recv(self.fd.as_raw_fd(), self.buffer.as_mut_ptr().cast(), self.buffer.len(), 0)
            };
            if n >= 0 {
                return Ok(n as usize);
            }
            let e = io::Error::last_os_error();
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(e);
            }
        }
    }

    /// Sends messages that each carry `NLM_F_ACK` and waits for every answer. The answer of message `i` is the
    /// `i`th of the result: the first error does not hide what came after it.
    pub(crate) fn request_each(&mut self, mut messages: Messages) -> io::Result<Vec<io::Result<()>>> {
        let count = messages.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let (first, _) = self.send(&mut messages)?;
        let mut answers: Vec<Option<io::Result<()>>> = (0..count).map(|_| None).collect();
        let mut open = count;
        while open > 0 {
            let n = self.receive()?;
            for (seq, kind, body) in split(&self.buffer[..n]) {
                let index = seq.wrapping_sub(first) as usize;
                if kind == NLMSG_ERROR && index < count && answers[index].is_none() {
                    answers[index] = Some(errno(body));
                    open -= 1;
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// As [`Socket::request_each`], but fails with the first error.
    pub(crate) fn request(&mut self, messages: Messages) -> io::Result<()> {
        self.request_each(messages)?.into_iter().collect()
    }

    /// Sends one request and hands every answer message `(type, body)` to `visit`, until the end of the dump or
    /// the acknowledgement.
    pub(crate) fn query(
        &mut self,
        mut message: Messages,
        mut visit: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        let (first, _) = self.send(&mut message)?;
        loop {
            let n = self.receive()?;
            for (seq, kind, body) in split(&self.buffer[..n]) {
                match kind {
                    _ if seq != first => {}
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return errno(body),
                    kind => visit(kind, body),
                }
            }
        }
    }

    /// Sends an nf_tables transaction (begin, messages, end; the last message before the end asks for the
    /// acknowledgement). Either all of it is done or nothing. The error names the message that was refused.
    pub(crate) fn transact(&mut self, mut messages: Messages) -> Result<(), (usize, io::Error)> {
        let (first, last) = self.send(&mut messages).map_err(|e| (0, e))?;
        let acknowledged = last.wrapping_sub(1);
        let mut refused: Option<(usize, io::Error)> = None;
        loop {
            let n = self.receive().map_err(|e| (0, e))?;
            for (seq, kind, body) in split(&self.buffer[..n]) {
                let index = seq.wrapping_sub(first) as usize;
                if kind != NLMSG_ERROR || index >= messages.len() {
                    continue;
                }
                if let Err(e) = errno(body) {
                    refused.get_or_insert((index, e));
                }
                // An error for the batch's first message means that the whole of it was turned away.
                if seq == acknowledged || (seq == first && refused.is_some()) {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }
}

/// Splits a datagram into `(sequence, type, body)`; stops at the first malformed message.
fn split(mut data: &[u8]) -> impl Iterator<Item = (u32, u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(data.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(data.get(4..6)?.try_into().ok()?);
        let seq = u32::from_ne_bytes(data.get(8..12)?.try_into().ok()?);
        let body = data.get(HEADER..len)?;
        data = data.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((seq, kind, body))
    })
}

fn errno(body: &[u8]) -> io::Result<()> {
    let code = body.get(..4).and_then(|b| b.try_into().ok()).map_or(-libc::EPROTO, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

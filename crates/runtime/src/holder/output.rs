//! A container's output: read from its pipes or terminal, written to its log, and to whoever is attached.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use rustix::{
    io::{Errno, ioctl_fionbio},
    pipe::{PipeFlags, pipe_with},
};

use super::log::{Lines, Writer};
use crate::plan::Log;

/// An attacher that takes nothing for so long is let go; the container waits for it until then.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is kept at most for an attacher of a container that has ended.
const MAX_PENDING: usize = 1 << 20;

/// The output of a container.
#[derive(Debug)]
pub struct Output {
    log: Option<Writer>,
    streams: Vec<Stream>,
    attached: Vec<Attached>,
}

#[derive(Debug)]
struct Stream {
    /// 1 or 2.
    number: u8,
    source: Option<OwnedFd>,
    lines: Lines,
}

#[derive(Debug)]
struct Attached {
    number: u8,
    to: OwnedFd,
    pending: Vec<u8>,
    since: Option<Instant>,
}

/// What is to be watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Readable.
    Read(RawFd),
    /// Writable.
    Write(RawFd),
}

impl Output {
    /// Opens the log and makes the pipes: the child's ends of standard output and error. A terminal comes later.
    ///
    /// # Errors
    /// When the log cannot be opened.
    pub fn new(log: Option<Log>, terminal: bool) -> io::Result<(Output, Option<(OwnedFd, OwnedFd)>)> {
        let log = log.map(Writer::open).transpose()?;
        let mut output = Output { log, streams: Vec::new(), attached: Vec::new() };
        if terminal {
            return Ok((output, None));
        }
        let mut ends = Vec::with_capacity(2);
        for number in [1, 2] {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            output.add(number, read)?;
            ends.push(write);
        }
        Ok((output, ends.pop().and_then(|stderr| Some((ends.pop()?, stderr)))))
    }

    fn add(&mut self, number: u8, source: OwnedFd) -> io::Result<()> {
        ioctl_fionbio(&source, true)?;
        let lines = Lines::new(if number == 1 { "stdout" } else { "stderr" });
        self.streams.push(Stream { number, source: Some(source), lines });
        Ok(())
    }

    /// Reads a terminal from now on.
    ///
    /// # Errors
    /// When the descriptor cannot be used.
    pub fn add_terminal(&mut self, master: &OwnedFd) -> io::Result<()> {
        self.add(1, master.try_clone()?)
    }

    /// Someone gets stream 1 or 2 from now on.
    ///
    /// # Errors
    /// When the descriptor cannot be used.
    pub fn attach(&mut self, number: u8, to: OwnedFd) -> io::Result<()> {
        ioctl_fionbio(&to, true)?;
        self.attached.push(Attached { number, to, pending: Vec::new(), since: None });
        Ok(())
    }

    /// Opens the log by its name again.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.log.as_mut().map_or(Ok(()), Writer::reopen)
    }

    /// What to watch for now.
    pub fn watches(&self) -> Vec<Watch> {
        let waiting = |number| self.attached.iter().any(|a| a.number == number && !a.pending.is_empty());
        let reads = self.streams.iter().filter(|s| !waiting(s.number));
        let reads = reads.filter_map(|s| Some(Watch::Read(s.source.as_ref()?.as_raw_fd())));
        let writes = self.attached.iter().filter(|a| !a.pending.is_empty());
        reads.chain(writes.map(|a| Watch::Write(a.to.as_raw_fd()))).collect()
    }

    /// When the next attacher is to be let go.
    pub fn deadline(&self) -> Option<Instant> {
        self.attached.iter().filter_map(|a| Some(a.since? + PATIENCE)).min()
    }

    /// Something can be read or written, or time has passed. `buffer` is scratch space.
    pub fn advance(&mut self, now: Instant, buffer: &mut [u8]) {
        for attached in &mut self.attached {
            attached.flush(now);
        }
        self.attached.retain(|a| a.since.is_none_or(|s| now < s + PATIENCE));
        for i in 0..self.streams.len() {
            let number = self.streams[i].number;
            if !self.attached.iter().any(|a| a.number == number && !a.pending.is_empty()) {
                self.read(i, now, buffer);
            }
        }
        self.let_go();
    }

    /// The process has ended: takes what it has written, whoever waits for whom.
    pub fn drain(&mut self, now: Instant, buffer: &mut [u8]) {
        for i in 0..self.streams.len() {
            while self.read(i, now, buffer) {}
            let stream = &mut self.streams[i];
            if let Some(log) = &mut self.log {
                stream.lines.finish(log);
            }
        }
        self.let_go();
    }

    /// Nothing will come any more, even if some descendant still has the pipe.
    pub fn close(&mut self) {
        for stream in &mut self.streams {
            stream.source = None;
        }
        self.let_go();
    }

    /// Attachers of a stream that has ended get what is pending, then the end.
    fn let_go(&mut self) {
        let open: Vec<u8> = self.streams.iter().filter(|s| s.source.is_some()).map(|s| s.number).collect();
        self.attached.retain(|a| !a.pending.is_empty() || open.contains(&a.number));
    }

    /// Reads once; false when there is nothing to read (any more).
    fn read(&mut self, i: usize, now: Instant, buffer: &mut [u8]) -> bool {
        let stream = &mut self.streams[i];
        let Some(source) = &stream.source else { return false };
        let n = match rustix::io::read(source, &mut *buffer) {
            // a terminal whose other side is closed says EIO
            Ok(0) | Err(Errno::IO) => {
                stream.source = None;
                if let Some(log) = &mut self.log {
                    stream.lines.finish(log);
                }
                return false;
            }
            Ok(n) => n,
            Err(Errno::INTR) => return true,
            Err(_) => return false,
        };
        let data = &buffer[..n];
        if let Some(log) = &mut self.log {
            stream.lines.take(data, log);
        }
        for attached in self.attached.iter_mut().filter(|a| a.number == stream.number) {
            attached.pending.extend_from_slice(data);
            attached.flush(now);
        }
        self.attached.retain(|a| a.pending.len() <= MAX_PENDING);
        true
    }
}

impl Attached {
    fn flush(&mut self, now: Instant) {
        while !self.pending.is_empty() {
            match rustix::io::write(self.to.as_fd(), &self.pending) {
                Ok(n) => {
                    self.pending.drain(..n);
                    self.since = None;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.since.get_or_insert(now);
                    return;
                }
                // it has left
                Err(_) => {
                    self.pending.clear();
                    self.number = 0;
                    return;
                }
            }
        }
        self.since = None;
    }
}

//! Goes through a log file, and waits for more.

use std::{future::Future, io, os::unix::fs::MetadataExt as _, path::PathBuf, pin::Pin};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
};

use super::{
    line,
    printer::{Options, Printer},
    tail,
    watch::Watch,
};

/// Bytes read at once, and about as many are given on at once.
const BLOCK: usize = 32 << 10;
/// The longest line of a file; runtimes split at 16 KiB. What is longer is passed over.
const MAX_LINE: usize = 1 << 20;

/// Resolves when nothing more is written to a log.
pub type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The log in this file. With `follow` it goes on, over rotations of the file, until that resolves and the rest has been
/// read.
///
/// # Errors
/// When the file cannot be opened; later ones are the last item.
pub async fn read(
    path: PathBuf,
    options: Options,
    follow: Option<Ended>,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send> {
    let reader = Reader::open(path, options, follow).await?;
    Ok(futures::stream::try_unfold(reader, |mut reader| async move {
        let next = reader.next().await?;
        Ok(next.map(|bytes| (bytes, reader)))
    }))
}

struct Reader {
    path: PathBuf,
    file: File,
    inode: u64,
    /// Read and not yet shown.
    buffer: BytesMut,
    /// Bytes at the buffer's beginning that have no newline.
    searched: usize,
    /// Within a line that is passed over.
    skipping: bool,
    printer: Printer,
    /// Lines still to be shown.
    lines: Option<u64>,
    follow: Option<Follow>,
}

struct Follow {
    watch: Watch,
    ended: Ended,
    over: bool,
}

impl Reader {
    async fn open(path: PathBuf, options: Options, ended: Option<Ended>) -> io::Result<Self> {
        // Watched before it is read, so that no change is missed.
        let follow = match ended {
            Some(ended) => Some(Follow { watch: Watch::new(&path)?, ended, over: false }),
            None => None,
        };
        let tail = options.tail;
        let (opened, path) = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::open(&path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("the log is not a regular file"));
            }
            if let Some(lines) = tail {
                let start = tail::start(&mut file, lines)?;
                io::Seek::seek(&mut file, io::SeekFrom::Start(start))?;
            }
            let inode = file.metadata()?.ino();
            Ok(((file, inode), path))
        })
        .await
        .map_err(io::Error::other)??;
        let mut file = File::from_std(opened.0);
        file.set_max_buf_size(BLOCK);
        Ok(Self {
            path,
            file,
            inode: opened.1,
            buffer: BytesMut::new(),
            searched: 0,
            skipping: false,
            printer: Printer::new(options),
            // What is written meanwhile is not part of a tail that is not followed.
            lines: tail.filter(|_| follow.is_none()),
            follow,
        })
    }

    /// The next bytes to show; `None` at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut out = BytesMut::new();
        loop {
            while out.len() < BLOCK && !self.done() {
                let Some(line) = self.line() else { break };
                self.show(&line, &mut out);
            }
            if out.len() >= BLOCK || self.done() {
                return Ok((!out.is_empty()).then(|| out.freeze()));
            }
            if self.fill().await? > 0 {
                continue;
            }
            // What there is goes out before anything is waited for.
            if !out.is_empty() {
                return Ok(Some(out.freeze()));
            }
            if !self.more().await? {
                // A last line without its end.
                let rest = self.buffer.split();
                self.show(&rest, &mut out);
                return Ok((!out.is_empty()).then(|| out.freeze()));
            }
        }
    }

    fn done(&self) -> bool {
        self.printer.full() || self.lines == Some(0)
    }

    fn show(&mut self, bytes: &[u8], out: &mut BytesMut) {
        match line::parse(bytes) {
            Ok(line) => self.printer.print(&line, out),
            Err(error) if !bytes.is_empty() => tracing::debug!(path = %self.path.display(), %error),
            Err(_) => return,
        }
        self.lines = self.lines.map(|left| left.saturating_sub(1));
    }

    /// Takes a whole line off the buffer.
    fn line(&mut self) -> Option<BytesMut> {
        loop {
            let fresh = self.buffer.get(self.searched..)?;
            let Some(end) = fresh.iter().position(|b| *b == b'\n') else {
                self.searched = self.buffer.len();
                if self.skipping || self.buffer.len() > MAX_LINE {
                    self.skipping = true;
                    self.buffer.clear();
                    self.searched = 0;
                }
                return None;
            };
            let line = self.buffer.split_to(self.searched + end + 1);
            self.searched = 0;
            if !std::mem::take(&mut self.skipping) {
                return Some(line);
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < BLOCK / 8 {
            self.buffer.reserve(BLOCK);
        }
        self.file.read_buf(&mut self.buffer).await
    }

    /// Waits until there may be more to read; false when there will be none. The file has been read to its end.
    async fn more(&mut self) -> io::Result<bool> {
        loop {
            let Some(follow) = &mut self.follow else { return Ok(false) };
            // A new file has taken the place of this one. Its writer has gone over to it, so the old one is complete
            // once it has been read to the end again.
            if let Ok(meta) = tokio::fs::metadata(&self.path).await {
                if meta.ino() != self.inode {
                    if self.fill().await? > 0 {
                        return Ok(true);
                    }
                    self.reopen().await?;
                    return Ok(true);
                }
                // Truncated in place.
                if meta.len() < self.file.stream_position().await? {
                    self.file.rewind().await?;
                    self.buffer.clear();
                    self.searched = 0;
                    return Ok(true);
                }
            }
            if follow.over {
                return Ok(false);
            }
            tokio::select! {
                () = &mut follow.ended => follow.over = true,
                () = follow.watch.changed() => {}
            }
            if self.fill().await? > 0 {
                return Ok(true);
            }
        }
    }

    async fn reopen(&mut self) -> io::Result<()> {
        let mut file = match File::open(&self.path).await {
            Ok(file) => file,
            // Rotated once more, or the container has gone; the watch tells.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        file.set_max_buf_size(BLOCK);
        self.inode = file.metadata().await?.ino();
        self.file = file;
        if let Some(follow) = &mut self.follow {
            follow.watch.file(&self.path);
        }
        Ok(())
    }
}

//! SPDY/3.1 as far as Kubernetes' streams need it (the draft "SPDY Protocol - Draft 3.1").
//!
//! Kubernetes speaks it through Go's `spdystream`, which knows no flow control: it never sends WINDOW_UPDATE and passes
//! over those it gets. So neither side waits for windows here; TCP holds back a sender, and each stream keeps a bounded
//! amount of what its reader has not taken.
//!
//! `headers` compresses, `frame` is the codec (pure), `connection` has the streams.

mod connection;
mod frame;
mod headers;

pub use connection::{Reader, Stream, Streams, Writer, serve};
pub use frame::{Decoder, Encoder, Frame};
pub use headers::Headers;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A control frame of another version.
    #[error("a frame of SPDY version {0}, not 3")]
    Version(u16),
    /// A control frame that is larger than any that makes sense.
    #[error("a control frame of {0} bytes")]
    TooLarge(usize),
    /// A control frame whose length or fields contradict its type.
    #[error("a malformed {0} frame")]
    Malformed(&'static str),
    /// A header block that does not decompress.
    #[error("a header block that cannot be decompressed")]
    Compression,
    /// A header block that breaks the rules.
    #[error("a header block with {0}")]
    Headers(&'static str),
    /// Streams out of order.
    #[error("stream {0} begins out of turn")]
    StreamId(u32),
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

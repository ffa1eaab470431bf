//! Frames and their bytes.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::{
    Error,
    headers::{Deflater, Headers, Inflater},
};

/// Bytes of a control frame's body.
const MAX_CONTROL: usize = 16 << 10;
/// Bytes of data given on at once; a frame may be larger.
const CHUNK: usize = 32 << 10;

const VERSION: u16 = 3;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// A frame; of data, a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the draft's names")]
pub enum Frame {
    SynStream {
        id: u32,
        associated: u32,
        priority: u8,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    },
    SynReply {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    RstStream {
        id: u32,
        status: u32,
    },
    /// Its entries are not kept: what they set (windows, numbers of streams) is not used.
    Settings,
    Ping(u32),
    GoAway {
        last: u32,
        status: u32,
    },
    Headers {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    WindowUpdate {
        id: u32,
        delta: u32,
    },
    Data {
        id: u32,
        fin: bool,
        bytes: Bytes,
    },
}

/// Bytes into frames.
pub struct Decoder {
    inflater: Inflater,
    state: State,
}

enum State {
    Head,
    /// Within a data frame.
    Data {
        id: u32,
        fin: bool,
        left: usize,
    },
    /// Within a frame that is passed over.
    Skip {
        left: usize,
    },
}

impl Default for Decoder {
    fn default() -> Self {
        Self { inflater: Inflater::new(), state: State::Head }
    }
}

impl Decoder {
    /// Takes the next frame off the buffer, `None` if more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are not SPDY; nothing after them can be read.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Error> {
        loop {
            match self.state {
                State::Data { id, fin, left } => {
                    let bytes = buffer.split_to(left.min(buffer.len()).min(CHUNK)).freeze();
                    if bytes.is_empty() {
                        return Ok(None);
                    }
                    let left = left - bytes.len();
                    self.state = if left == 0 { State::Head } else { State::Data { id, fin, left } };
                    return Ok(Some(Frame::Data { id, fin: fin && left == 0, bytes }));
                }
                State::Skip { left } => {
                    let skipped = left.min(buffer.len());
                    buffer.advance(skipped);
                    self.state = match left - skipped {
                        0 => State::Head,
                        left => State::Skip { left },
                    };
                    if skipped < left {
                        return Ok(None);
                    }
                }
                State::Head => {
                    let mut head: &[u8] = buffer;
                    let (Ok(first), Ok(second)) = (head.try_get_u32(), head.try_get_u32()) else {
                        return Ok(None);
                    };
                    let [flags, ..] = second.to_be_bytes();
                    let length = (second & 0x00ff_ffff) as usize;
                    if first >> 31 == 0 {
                        buffer.advance(8);
                        let fin = flags & FIN != 0;
                        if length == 0 {
                            return Ok(Some(Frame::Data { id: first, fin, bytes: Bytes::new() }));
                        }
                        self.state = State::Data { id: first, fin, left: length };
                        continue;
                    }
                    let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
                    if version != VERSION {
                        return Err(Error::Version(version));
                    }
                    if !known(kind) {
                        buffer.advance(8);
                        self.state = State::Skip { left: length };
                        continue;
                    }
                    if length > MAX_CONTROL {
                        return Err(Error::TooLarge(length));
                    }
                    if buffer.len() < 8 + length {
                        return Ok(None);
                    }
                    buffer.advance(8);
                    let body = buffer.split_to(length).freeze();
                    return self.control(kind, flags, body).map(Some);
                }
            }
        }
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<Frame, Error> {
        let fin = flags & FIN != 0;
        let mut word = |name: &'static str| body.try_get_u32().map_err(|_| Error::Malformed(name));
        let frame = match kind {
            SYN_STREAM => {
                let name = "SYN_STREAM";
                let (id, associated) = (stream(word(name)?, name)?, word(name)? & 0x7fff_ffff);
                let priority = body.try_get_u16().map_err(|_| Error::Malformed(name))? >> 13;
                let headers = self.inflater.read(&body)?;
                let (priority, unidirectional) = (priority as u8, flags & UNIDIRECTIONAL != 0);
                return Ok(Frame::SynStream { id, associated, priority, fin, unidirectional, headers });
            }
            SYN_REPLY | HEADERS => {
                let name = if kind == HEADERS { "HEADERS" } else { "SYN_REPLY" };
                let id = stream(word(name)?, name)?;
                let headers = self.inflater.read(&body)?;
                return Ok(match kind {
                    HEADERS => Frame::Headers { id, fin, headers },
                    _ => Frame::SynReply { id, fin, headers },
                });
            }
            RST_STREAM => {
                let name = "RST_STREAM";
                Frame::RstStream { id: stream(word(name)?, name)?, status: word(name)? }
            }
            SETTINGS => {
                let name = "SETTINGS";
                let entries = word(name)? as usize;
                if entries.checked_mul(8) != Some(body.len()) {
                    return Err(Error::Malformed(name));
                }
                return Ok(Frame::Settings);
            }
            PING => Frame::Ping(word("PING")?),
            GOAWAY => {
                let name = "GOAWAY";
                Frame::GoAway { last: word(name)? & 0x7fff_ffff, status: word(name)? }
            }
            _ => {
                let name = "WINDOW_UPDATE";
                Frame::WindowUpdate { id: word(name)? & 0x7fff_ffff, delta: word(name)? & 0x7fff_ffff }
            }
        };
        if body.is_empty() { Ok(frame) } else { Err(Error::Malformed("control")) }
    }
}

fn known(kind: u16) -> bool {
    matches!(kind, SYN_STREAM | SYN_REPLY | RST_STREAM | SETTINGS | PING | GOAWAY | HEADERS | WINDOW_UPDATE)
}

fn stream(word: u32, name: &'static str) -> Result<u32, Error> {
    match word & 0x7fff_ffff {
        0 => Err(Error::Malformed(name)),
        id => Ok(id),
    }
}

/// Frames into bytes.
pub struct Encoder {
    deflater: Deflater,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { deflater: Deflater::new() }
    }
}

impl Encoder {
    /// Appends the frame. Its data must be shorter than 16 MiB, the largest a frame can hold.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        let fin = |fin: &bool| if *fin { FIN } else { 0 };
        let mut body = BytesMut::new();
        let (kind, flags) = match frame {
            Frame::Data { id, fin: end, bytes } => {
                out.put_u32(id & 0x7fff_ffff);
                out.put_u32(u32::from(fin(end)) << 24 | bytes.len() as u32 & 0x00ff_ffff);
                out.put_slice(bytes);
                return;
            }
            Frame::SynStream { id, associated, priority, fin: end, unidirectional, headers } => {
                body.put_u32(*id);
                body.put_u32(*associated);
                body.put_u16(u16::from(*priority) << 13);
                body.put_slice(&self.deflater.write(headers));
                (SYN_STREAM, fin(end) | if *unidirectional { UNIDIRECTIONAL } else { 0 })
            }
            Frame::SynReply { id, fin: end, headers } => {
                body.put_u32(*id);
                body.put_slice(&self.deflater.write(headers));
                (SYN_REPLY, fin(end))
            }
            Frame::Headers { id, fin: end, headers } => {
                body.put_u32(*id);
                body.put_slice(&self.deflater.write(headers));
                (HEADERS, fin(end))
            }
            Frame::RstStream { id, status } => {
                body.put_u32(*id);
                body.put_u32(*status);
                (RST_STREAM, 0)
            }
            Frame::Settings => {
                body.put_u32(0);
                (SETTINGS, 0)
            }
            Frame::Ping(id) => {
                body.put_u32(*id);
                (PING, 0)
            }
            Frame::GoAway { last, status } => {
                body.put_u32(*last);
                body.put_u32(*status);
                (GOAWAY, 0)
            }
            Frame::WindowUpdate { id, delta } => {
                body.put_u32(*id);
                body.put_u32(*delta);
                (WINDOW_UPDATE, 0)
            }
        };
        out.put_u16(0x8000 | VERSION);
        out.put_u16(kind);
        out.put_u32(u32::from(flags) << 24 | body.len() as u32 & 0x00ff_ffff);
        out.put_slice(&body);
    }
}

#[cfg(test)]
mod tests;

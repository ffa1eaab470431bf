//! Compression of layers, recognised by content: media types lie.

use std::io::{self, BufReader, Read, Write};

use flate2::{bufread::MultiGzDecoder, write::GzEncoder};

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip: every client reads it.
    Gzip,
    /// zstd: several times faster; read by Docker ≥ 23, containerd ≥ 1.5, Podman.
    #[default]
    Zstd,
}

impl Compression {
    /// The OCI media type of such a layer.
    pub fn media_type(self) -> &'static str {
        match self {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    fn of_magic(magic: &[u8]) -> Compression {
        match magic {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // zstd:chunked and pzstd begin with a skippable frame.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// The uncompressed stream, and what compression was found.
pub(crate) fn decompress<'a>(
    mut inner: impl Read + Send + 'a,
) -> io::Result<(Box<dyn Read + Send + 'a>, Compression)> {
    let mut magic = [0u8; 4];
    let mut n = 0;
    while n < magic.len() {
        match inner.read(&mut magic[n..]) {
            Ok(0) => break,
            Ok(read) => n += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let found = Compression::of_magic(&magic[..n]);
    let whole = BufReader::with_capacity(128 * 1024, io::Cursor::new(magic).take(n as u64).chain(inner));
    let stream: Box<dyn Read + Send + 'a> = match found {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(MultiGzDecoder::new(whole)),
        // The decoder's own limit of 128 MiB for the window holds.
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(whole)?),
    };
    Ok((stream, found))
}

/// Compresses what is written; the same bytes always give the same result.
pub(crate) enum Compressor<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    pub(crate) fn new(to: W, how: Compression) -> io::Result<Self> {
        Ok(match how {
            Compression::None => Compressor::None(to),
            // The header's time stays 0 and its name empty.
            Compression::Gzip => Compressor::Gzip(GzEncoder::new(to, flate2::Compression::new(6))),
            Compression::Zstd => Compressor::Zstd(zstd::Encoder::new(to, 3)?),
        })
    }

    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Compressor::None(to) => Ok(to),
            Compressor::Gzip(encoder) => encoder.finish(),
            Compressor::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Compressor::None(to) => to.write(buf),
            Compressor::Gzip(encoder) => encoder.write(buf),
            Compressor::Zstd(encoder) => encoder.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Compressor::None(to) => to.flush(),
            Compressor::Gzip(encoder) => encoder.flush(),
            Compressor::Zstd(encoder) => encoder.flush(),
        }
    }
}

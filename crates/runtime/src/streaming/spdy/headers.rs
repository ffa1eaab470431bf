//! Header blocks: names and values, compressed over the whole connection from a dictionary that both sides know.

use bytes::{Buf as _, BufMut as _};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Error;

/// Bytes of a header block once decompressed.
const MAX_BLOCK: usize = 16 << 10;
/// Headers of one block.
const MAX_HEADERS: usize = 100;

/// Names and values. Several values of one name are joined by NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of the header with this name (in lower case).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(n, v)| (n.into(), v.into())).collect())
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, Error> {
    let short = || Error::Headers("less in it than it says");
    let count = block.try_get_u32().map_err(|_| short())? as usize;
    if count > MAX_HEADERS {
        return Err(Error::Headers("too many headers"));
    }
    let mut text = || -> Result<String, Error> {
        let length = block.try_get_u32().map_err(|_| short())? as usize;
        let (text, rest) = block.split_at_checked(length).ok_or_else(short)?;
        block = rest;
        String::from_utf8(text.to_vec()).map_err(|_| Error::Headers("text that is not UTF-8"))
    };
    let mut headers = Headers::default();
    for _ in 0..count {
        let (name, value) = (text()?, text()?);
        if name.is_empty() || name.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Error::Headers("a name that is empty or not in lower case"));
        }
        if headers.get(&name).is_some() {
            return Err(Error::Headers("the same name twice"));
        }
        headers.0.push((name, value));
    }
    if block.is_empty() { Ok(headers) } else { Err(Error::Headers("more in it than it says")) }
}

fn write(headers: &Headers) -> Vec<u8> {
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut block = Vec::new();
    block.put_u32(length(headers.0.len()));
    for text in headers.0.iter().flat_map(|(name, value)| [name, value]) {
        block.put_u32(length(text.len()));
        block.put_slice(text.as_bytes());
    }
    block
}

/// Reads the header blocks of a connection, each in its turn.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn read(&mut self, mut block: &[u8]) -> Result<Headers, Error> {
        let mut out = Vec::with_capacity(512);
        loop {
            if out.len() == out.capacity() {
                if out.len() >= MAX_BLOCK {
                    return Err(Error::Headers("more than 16 KiB"));
                }
                out.reserve(out.len());
            }
            let (read, written) = (self.0.total_in(), out.len());
            let result = self.0.decompress_vec(block, &mut out, FlushDecompress::Sync);
            let read = usize::try_from(self.0.total_in() - read).map_err(|_| Error::Compression)?;
            block = block.get(read..).ok_or(Error::Compression)?;
            match result {
                Ok(Status::StreamEnd) => return Err(Error::Compression),
                // all of the block has been taken, and all it gave has been written
                Ok(_) if block.is_empty() && out.len() < out.capacity() => return parse(&out),
                Ok(_) if read == 0 && out.len() == written && out.len() < out.capacity() => {
                    return Err(Error::Compression);
                }
                Ok(_) => {}
                Err(error) => match error.needs_dictionary() {
                    Some(_) => {
                        self.0.set_dictionary(&DICTIONARY).map_err(|_| Error::Compression)?;
                    }
                    None => return Err(Error::Compression),
                },
            }
        }
    }
}

/// Writes the header blocks of a connection.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Self {
        // The dictionary needs 2 KiB of window; the few headers that follow need no more.
        let mut compress = Compress::new_with_window_bits(Compression::fast(), true, 11);
        // It can only fail once something has been compressed.
        let set = compress.set_dictionary(&DICTIONARY);
        debug_assert!(set.is_ok());
        Self(compress)
    }

    pub(super) fn write(&mut self, headers: &Headers) -> Vec<u8> {
        let block = write(headers);
        let mut rest = block.as_slice();
        let mut out = Vec::with_capacity(block.len() / 2 + 64);
        loop {
            let read = self.0.total_in();
            let done = self.0.compress_vec(rest, &mut out, FlushCompress::Sync);
            let read = usize::try_from(self.0.total_in() - read).unwrap_or(0);
            rest = rest.get(read..).unwrap_or_default();
            // Compression into memory only fails for want of space.
            if done.is_err() || rest.is_empty() && out.len() < out.capacity() {
                return out;
            }
            out.reserve(out.capacity());
        }
    }
}

/// The words of the dictionary, each with its length in front (section 2.6.10.1 of the draft) …
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host \
    if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";
/// … and the text after them.
const TEXT: &str = "10010120120220520630030230330430530630740240540640740840941041141241341441541641750250450\
    5203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 \
    Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun \
    Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,\
    image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,\
    sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// What both sides' compressors start from.
static DICTIONARY: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
    let mut dictionary = Vec::with_capacity(1423);
    for word in WORDS.split(' ') {
        dictionary.put_u32(u32::try_from(word.len()).unwrap_or(0));
        dictionary.extend(word.bytes().map(|b| if b == b'_' { b' ' } else { b }));
    }
    dictionary.put_slice(TEXT.as_bytes());
    dictionary
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_dictionary_is_that_of_the_draft() {
        // the checksum that stands in every zlib header made with it
        let (mut a, mut b) = (1u32, 0u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((DICTIONARY.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_share_one_compressor() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let headers: Headers =
            [("streamtype", "data"), ("port", "80"), ("requestid", "0")].into_iter().collect();
        let first = deflater.write(&headers);
        let second = deflater.write(&headers);
        assert!(second.len() < first.len());
        assert_eq!(inflater.read(&first).unwrap(), headers);
        assert_eq!(inflater.read(&second).unwrap(), headers);
    }

    #[test]
    fn a_block_that_grows_without_end_is_refused() {
        let mut bomb = Deflater::new();
        let large: Headers = [("x", "0".repeat(10 << 20))].into_iter().collect();
        let block = bomb.write(&large);
        assert!(block.len() < 100_000);
        assert!(matches!(Inflater::new().read(&block), Err(Error::Headers("more than 16 KiB"))));
    }

    #[test]
    fn blocks_that_break_the_rules_are_refused() {
        let raw = |pairs: &[(&str, &str)]| {
            let block = write(&pairs.iter().copied().collect());
            parse(&block)
        };
        assert!(raw(&[("a", "1"), ("a", "2")]).is_err());
        assert!(raw(&[("", "1")]).is_err());
        assert!(raw(&[("Port", "1")]).is_err());
        assert!(parse(&[0, 0, 0, 1, 255, 255, 255, 255, 0]).is_err());
        assert!(parse(&[255, 255, 255, 255]).is_err());
        assert!(parse(&[0, 0, 0, 0, 0]).is_err());
        assert!(parse(&[0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn any_block_is_read_or_refused(block: Vec<u8>) {
            let _ = Inflater::new().read(&block);
            let _ = parse(&block);
        }

        #[test]
        fn what_is_written_is_read(blocks in prop::collection::vec(
            prop::collection::btree_map("[a-z-]{1,20}", "\\PC{0,50}", 0..8), 1..5,
        )) {
            let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
            for block in blocks {
                let headers: Headers = block.into_iter().collect();
                let written = deflater.write(&headers);
                prop_assert_eq!(inflater.read(&written).unwrap(), headers);
            }
        }
    }
}

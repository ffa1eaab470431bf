//! Local archives that ADD unpacks, known by their content.

use std::{
    fs::File,
    io::{self, Read, Seek},
};

/// What ADD does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Copy it.
    Plain,
    /// Unpack it: a tar archive, plain or compressed with gzip or zstd.
    Archive,
    /// Compressed in a way that is not read here.
    Foreign(&'static str),
}

pub(super) fn kind(file: &mut File) -> io::Result<Kind> {
    let mut block = Vec::new();
    file.take(512).read_to_end(&mut block)?;
    file.rewind()?;
    let inner = match block.as_slice() {
        [0x1f, 0x8b, ..] => first_block(flate2::read::MultiGzDecoder::new(&*file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::Decoder::new(&*file).map(first_block).unwrap_or_default(),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => return Ok(Kind::Foreign("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return Ok(Kind::Foreign("xz")),
        _ => block,
    };
    file.rewind()?;
    Ok(if is_header(&inner) { Kind::Archive } else { Kind::Plain })
}

/// What is not compressed after all is no archive.
fn first_block(reader: impl Read) -> Vec<u8> {
    let mut block = Vec::new();
    match reader.take(512).read_to_end(&mut block) {
        Ok(_) => block,
        Err(_) => Vec::new(),
    }
}

/// True if this is the first header of a tar archive: its sum is right.
fn is_header(block: &[u8]) -> bool {
    let Some(block) = block.first_chunk::<512>() else { return false };
    let field = &block[148..156];
    let digits: String = field.iter().map(|b| char::from(*b)).filter(|c| !matches!(c, ' ' | '\0')).collect();
    let Ok(sum) = u32::from_str_radix(&digits, 8) else { return false };
    let bytes = block.iter().enumerate();
    let actual: u32 = bytes.map(|(i, b)| u32::from(if (148..156).contains(&i) { b' ' } else { *b })).sum();
    sum == actual && block[0] != 0
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn archives_are_known_by_their_content() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_cksum();
        tar.append_data(&mut header, "a", &b"x"[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        for (bytes, expected) in [
            (tar.clone(), Kind::Archive),
            (gzip(&tar), Kind::Archive),
            (zstd::encode_all(&*tar, 1).unwrap(), Kind::Archive),
            (gzip(b"only a text"), Kind::Plain),
            (vec![0x1f, 0x8b, 1, 2, 3], Kind::Plain),
            (vec![0; 1024], Kind::Plain),
            (Vec::new(), Kind::Plain),
            (b"BZh91AY".to_vec(), Kind::Foreign("bzip2")),
            (b"\xfd7zXZ\0".to_vec(), Kind::Foreign("xz")),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            file.rewind().unwrap();
            assert_eq!(kind(&mut file).unwrap(), expected, "{:?}", &bytes[..bytes.len().min(8)]);
        }
    }
}

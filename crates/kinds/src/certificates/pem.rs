//! PEM, read as leniently as upstream reads it: text around blocks is passed over, and so is a block that is malformed.
//!
//! Source: RFC 1421, RFC 7468; what is accepted is what Go's `encoding/pem` accepts.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

const BEGIN: &str = "-----BEGIN ";
const END: &str = "\n-----END ";
const DASHES: &str = "-----";

/// Base64 with exact padding whose last bits may be anything.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// One block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// `CERTIFICATE`, `CERTIFICATE REQUEST`, …
    pub label: String,
    /// There were `Key: value` lines before the data.
    pub headers: bool,
    /// DER, mostly.
    pub data: Vec<u8>,
}

/// The blocks of a text, in order. Takes time in proportion to the text, whatever it is.
pub fn blocks(text: &str) -> impl Iterator<Item = Block> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (before, after) = rest.split_once(END)?;
            let (trailer, left) = line(after);
            rest = left;
            // A block without an end is passed over: the last beginning before the end counts.
            let Some(begin) = before.rfind(BEGIN) else { continue };
            if begin > 0 && before.as_bytes()[begin - 1] != b'\n' {
                continue;
            }
            let body = &before[begin + BEGIN.len()..];
            if let Some(block) = trailer.strip_suffix(DASHES).and_then(|label| block(label, body)) {
                return Some(block);
            }
        }
    })
}

/// The line without the white space at its end, and what follows it.
fn line(text: &str) -> (&str, &str) {
    let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
    (line.trim_end_matches([' ', '\t', '\r']), rest)
}

/// The block of this label, from the text behind the words that begin it.
fn block(label: &str, body: &str) -> Option<Block> {
    let (first, mut rest) = line(body);
    if first.strip_suffix(DASHES)? != label {
        return None;
    }
    let mut headers = false;
    while line(rest).0.contains(':') {
        headers = true;
        rest = line(rest).1;
    }
    let digits: String = rest.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let data = LENIENT.decode(digits).ok()?;
    Some(Block { label: label.to_owned(), headers, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Vec<String> {
        blocks(text).map(|block| block.label).collect()
    }

    #[test]
    fn text_around_blocks_is_passed_over() {
        let text =
            "hello\n-----BEGIN A-----\nYWJj\nZGVm\n-----END A-----\nmore\n-----BEGIN B-----\n-----END B-----";
        let found: Vec<Block> = blocks(text).collect();
        assert_eq!(found[0], Block { label: "A".to_owned(), headers: false, data: b"abcdef".to_vec() });
        assert_eq!(found[1].data, b"");
    }

    #[test]
    fn malformed_blocks_are_passed_over() {
        let good = "-----BEGIN B-----\nYWJj\n-----END B-----\n";
        for bad in ["-----BEGIN A\n", "-----BEGIN A-----\nYWJj\n", "-----BEGIN A-----\n*\n-----END A-----\n"]
        {
            assert_eq!(labels(&format!("{bad}{good}")), ["B"], "{bad}");
        }
        assert!(labels("a -----BEGIN A-----\n-----END A-----").is_empty());
    }

    #[test]
    fn headers_are_seen() {
        let text = "-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nYWJj\n-----END A-----\n";
        assert!(blocks(text).next().unwrap().headers);
    }
}

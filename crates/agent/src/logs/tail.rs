//! Where the last lines of a file begin.

use std::io::{self, Read, Seek, SeekFrom};

/// Bytes looked at at once.
const BLOCK: usize = 64 << 10;

/// The offset of the last `lines` lines. A last line without its end does not count, and is included.
pub(super) fn start(file: &mut (impl Read + Seek), lines: u64) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut seen = 0;
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let begin = end.saturating_sub(BLOCK as u64);
        let Some(block) = block.get_mut(..(end - begin) as usize) else { break };
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(block)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            // The end of the line before the first that is wanted.
            if seen == lines {
                return Ok(begin + at as u64 + 1);
            }
            seen += 1;
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn tail(text: &str, lines: u64) -> &str {
        &text[start(&mut Cursor::new(text), lines).unwrap() as usize..]
    }

    #[test]
    fn the_last_lines_are_found() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(tail("a\nb\nc\n", 3), "a\nb\nc\n");
        assert_eq!(tail("a\nb\nc\n", 9), "a\nb\nc\n");
        assert_eq!(tail("a\nb\nc\n", 0), "");
        assert_eq!(tail("a\nb\nc", 1), "b\nc");
        assert_eq!(tail("a\nb\nc", 0), "c");
        assert_eq!(tail("", 1), "");
        assert_eq!(tail("\n\n\n", 2), "\n\n");
    }

    proptest! {
        #[test]
        fn the_last_lines_of_a_long_file_are_found(
            lengths in prop::collection::vec(0usize..30_000, 0..12), lines in 0u64..14,
        ) {
            let all: Vec<String> = lengths.iter().map(|n| format!("{}\n", "x".repeat(*n))).collect();
            let expected = all[all.len().saturating_sub(lines as usize)..].concat();
            let text = all.concat();
            prop_assert_eq!(tail(&text, lines), expected);
        }
    }
}

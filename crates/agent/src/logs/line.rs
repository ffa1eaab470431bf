//! A line of a log file.

use chrono::{DateTime, FixedOffset};

/// Which output a text came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was written.
    pub time: DateTime<FixedOffset>,
    /// From where.
    pub stream: Stream,
    /// Whether the container's line goes on in the file's next.
    pub partial: bool,
    /// The text, without the end of the line.
    pub text: &'a [u8],
}

/// Not a line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed log line: {0}")]
pub struct Malformed(&'static str);

/// Reads a line, which may still have its newline. Of the tags (separated by `:`) only the first is known.
pub fn parse(line: &[u8]) -> Result<Line<'_>, Malformed> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut words = line.splitn(4, |b| *b == b' ');
    let mut word = || words.next().ok_or(Malformed("it ends early"));
    let time = std::str::from_utf8(word()?).ok().and_then(|t| DateTime::parse_from_rfc3339(t).ok());
    let time = time.ok_or(Malformed("it does not begin with a time"))?;
    let stream = match word()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return Err(Malformed("the stream is neither stdout nor stderr")),
    };
    let partial = word()?.split(|b| *b == b':').next() == Some(b"P");
    Ok(Line { time, stream, partial, text: word()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_has_time_stream_tags_and_text() {
        let line = parse(b"2026-11-25T21:47:53.123456789Z stderr F hello  world\n").unwrap();
        assert_eq!(line.time.timestamp_subsec_nanos(), 123_456_789);
        assert_eq!((line.stream, line.partial, line.text), (Stream::Stderr, false, &b"hello  world"[..]));
        let line = parse(b"2026-11-25T21:47:53+02:00 stdout P:x \xff").unwrap();
        assert_eq!((line.stream, line.partial, line.text), (Stream::Stdout, true, &b"\xff"[..]));
    }

    #[test]
    fn other_lines_are_refused() {
        for bad in [
            "",
            "\n",
            "2026-11-25T21:47:53Z",
            "2026-11-25T21:47:53Z stdout",
            "2026-11-25T21:47:53Z stdout F",
            "yesterday stdout F x",
            "2026-11-25T21:47:53Z stdin F x",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line: Vec<u8>) {
            let _ = parse(&line);
        }
    }
}

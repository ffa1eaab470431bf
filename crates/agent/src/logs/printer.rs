//! What of a log is shown.

use bytes::{BufMut as _, BytesMut};
use chrono::{DateTime, FixedOffset, SecondsFormat};

use super::line::{Line, Stream};

/// Which streams are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Wants {
    #[default]
    All,
    Stdout,
    Stderr,
}

/// What is asked for, as in `PodLogOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Lines of the file at the end; a line that the runtime has split counts for each part.
    pub tail: Option<u64>,
    /// Nothing older.
    pub since: Option<DateTime<FixedOffset>>,
    /// Puts the time in front of each line.
    pub timestamps: bool,
    /// Bytes at most.
    pub limit: Option<u64>,
    /// See the type.
    pub stream: Wants,
}

/// Writes lines as they are asked for.
#[derive(Debug)]
pub struct Printer {
    options: Options,
    left: Option<u64>,
    /// Whether the next text begins a line.
    at_start: bool,
}

impl Printer {
    /// For one reading of a log.
    pub fn new(options: Options) -> Self {
        Self { left: options.limit, options, at_start: true }
    }

    /// Appends what is shown of the line.
    pub fn print(&mut self, line: &Line<'_>, out: &mut BytesMut) {
        // a line that goes on has no end yet, shown or not
        let at_start = std::mem::replace(&mut self.at_start, !line.partial);
        if self.options.since.is_some_and(|since| line.time < since) {
            return;
        }
        match (self.options.stream, line.stream) {
            (Wants::Stdout, Stream::Stderr) | (Wants::Stderr, Stream::Stdout) => return,
            _ => {}
        }
        let time;
        let mut parts: [&[u8]; 4] = [b"", b"", line.text, b"\n"];
        if self.options.timestamps && at_start {
            time = line.time.to_rfc3339_opts(SecondsFormat::Nanos, true);
            (parts[0], parts[1]) = (time.as_bytes(), b" ");
        }
        if line.partial {
            parts[3] = b"";
        }
        for part in parts {
            let room = self
                .left
                .map_or(part.len(), |left| part.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            out.put_slice(&part[..room]);
            self.left = self.left.map(|left| left - room as u64);
        }
    }

    /// Whether as much has been shown as was asked for.
    pub fn full(&self) -> bool {
        self.left == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::line::parse, *};

    const LOG: [&str; 5] = [
        "2026-01-01T00:00:01Z stdout F one",
        "2026-01-01T00:00:02.5Z stderr P tw",
        "2026-01-01T00:00:03Z stderr P o",
        "2026-01-01T00:00:04Z stderr F ",
        "2026-01-01T00:00:05+01:00 stdout F three",
    ];

    fn shown(options: Options) -> String {
        let (mut printer, mut out) = (Printer::new(options), BytesMut::new());
        for line in LOG {
            if printer.full() {
                break;
            }
            printer.print(&parse(line.as_bytes()).unwrap(), &mut out);
        }
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn lines_that_the_runtime_has_split_are_one_again() {
        assert_eq!(shown(Options::default()), "one\ntwo\nthree\n");
    }

    #[test]
    fn times_have_nine_digits_and_stand_before_whole_lines() {
        let options = Options { timestamps: true, ..Default::default() };
        let expected = "2026-01-01T00:00:01.000000000Z one\n2026-01-01T00:00:02.500000000Z two\n\
                        2026-01-01T00:00:05.000000000+01:00 three\n";
        assert_eq!(shown(options), expected);
    }

    #[test]
    fn older_lines_and_other_streams_are_left_out() {
        let since = DateTime::parse_from_rfc3339("2026-01-01T00:00:02.5Z").ok();
        assert_eq!(shown(Options { since, ..Default::default() }), "two\n");
        assert_eq!(shown(Options { stream: Wants::Stdout, ..Default::default() }), "one\nthree\n");
        assert_eq!(shown(Options { stream: Wants::Stderr, ..Default::default() }), "two\n");
    }

    #[test]
    fn no_more_bytes_are_shown_than_asked_for() {
        for limit in 0..15 {
            let all = "one\ntwo\nthree\n";
            let shown = shown(Options { limit: Some(limit), ..Default::default() });
            assert_eq!(shown, all[..(limit as usize).min(all.len())]);
        }
    }
}

//! A container's log, in CRI's format: `2026-01-02T03:04:05.000000006Z stdout F a line`.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::plan::Log;

/// Longer lines are logged in parts (`P`), as containerd does.
pub const MAX_LINE: usize = 16 * 1024;

/// Seconds since 1970 as `YYYY-MM-DD`, hour, minute and second.
fn civil(seconds: i64) -> (i64, u32, u32, u32, u32, u32) {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant, "chrono-compatible low-level date algorithms"
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32, (rest / 3600) as u32, (rest / 60 % 60) as u32, (rest % 60) as u32)
}

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

fn timestamp(nanoseconds: i64) -> String {
    let (y, mo, d, h, mi, s) = civil(nanoseconds.div_euclid(1_000_000_000));
    let fraction = nanoseconds.rem_euclid(1_000_000_000);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{fraction:09}Z")
}

/// An open log.
#[derive(Debug)]
pub struct Writer {
    plan: Log,
    /// `None` while it cannot be opened: the container goes on, what it says is lost.
    file: Option<File>,
    size: u64,
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::options().append(true).create(true).open(path)
}

impl Writer {
    /// Opens the log.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(plan: Log) -> io::Result<Writer> {
        let file = open(&plan.path)?;
        let size = file.metadata()?.len();
        Ok(Writer { plan, file: Some(file), size })
    }

    /// Opens it by its name again, after someone has moved it away.
    ///
    /// # Errors
    /// When the file cannot be made; the old one stays in use.
    pub fn reopen(&mut self) -> io::Result<()> {
        let file = open(&self.plan.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Writes whole records.
    fn write(&mut self, records: &[u8]) {
        if self.plan.max_size > 0 && self.size > 0 && self.size + records.len() as u64 > self.plan.max_size {
            self.rotate();
        }
        if self.file.is_none() {
            let _ = self.reopen();
        }
        if let Some(file) = &mut self.file {
            match file.write_all(records) {
                Ok(()) => self.size += records.len() as u64,
                // A full disk must not stop the container; the next record tries again.
                Err(_) => self.size = file.metadata().map_or(self.size, |m| m.len()),
            }
        }
    }

    /// Moves the file away (`0.log.20260102-030405.000000006`) and removes the oldest.
    fn rotate(&mut self) {
        let (y, mo, d, h, mi, s) = civil(now().div_euclid(1_000_000_000));
        let fraction = now().rem_euclid(1_000_000_000);
        let mut moved = self.plan.path.clone().into_os_string();
        moved.push(format!(".{y:04}{mo:02}{d:02}-{h:02}{mi:02}{s:02}.{fraction:09}"));
        if fs::rename(&self.plan.path, &moved).is_err() || self.reopen().is_err() {
            return;
        }
        let keep = (self.plan.max_files.max(1) - 1) as usize;
        let mut old = self.rotated();
        old.sort();
        for path in old.iter().take(old.len().saturating_sub(keep)) {
            let _ = fs::remove_file(path);
        }
    }

    fn rotated(&self) -> Vec<PathBuf> {
        let (Some(folder), Some(name)) = (self.plan.path.parent(), self.plan.path.file_name()) else {
            return Vec::new();
        };
        let mut prefix = name.to_os_string();
        prefix.push(".");
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        entries
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| {
                p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(prefix.as_encoded_bytes()))
            })
            .collect()
    }
}

/// One stream on its way into the log: keeps the line that is not yet whole.
#[derive(Debug)]
pub struct Lines {
    name: &'static str,
    partial: Vec<u8>,
}

impl Lines {
    /// `stdout` or `stderr`.
    pub fn new(name: &'static str) -> Lines {
        Lines { name, partial: Vec::new() }
    }

    /// Takes what the process has written.
    pub fn take(&mut self, mut data: &[u8], log: &mut Writer) {
        let stamp = timestamp(now());
        let mut records = Vec::with_capacity(data.len() + 64);
        while !data.is_empty() {
            let room = MAX_LINE - self.partial.len();
            match data.iter().take(room + 1).position(|b| *b == b'\n') {
                Some(end) => {
                    self.record(&stamp, 'F', &data[..end], &mut records);
                    data = &data[end + 1..];
                }
                None if data.len() > room => {
                    self.record(&stamp, 'P', &data[..room], &mut records);
                    data = &data[room..];
                }
                None => {
                    self.partial.extend_from_slice(data);
                    break;
                }
            }
        }
        if !records.is_empty() {
            log.write(&records);
        }
    }

    fn record(&mut self, stamp: &str, tag: char, rest: &[u8], records: &mut Vec<u8>) {
        records.extend_from_slice(format!("{stamp} {} {tag} ", self.name).as_bytes());
        records.append(&mut self.partial);
        records.extend_from_slice(rest);
        records.push(b'\n');
    }

    /// The stream has ended: what is left is the beginning of a line whose end nobody wrote.
    pub fn finish(&mut self, log: &mut Writer) {
        if self.partial.is_empty() {
            return;
        }
        let mut records = Vec::new();
        self.record(&timestamp(now()), 'P', &[], &mut records);
        log.write(&records);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(dir: &Path, plan: Log, pieces: &[&[u8]]) -> Vec<String> {
        let path = plan.path.clone();
        let mut log = Writer::open(plan).unwrap();
        let mut lines = Lines::new("stdout");
        for piece in pieces {
            lines.take(piece, &mut log);
        }
        lines.finish(&mut log);
        assert!(path.starts_with(dir));
        fs::read_to_string(path).unwrap().lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect()
    }

    fn plan(dir: &Path) -> Log {
        Log { path: dir.join("web/0.log"), ..Log::default() }
    }

    #[test]
    fn lines_that_come_in_pieces_are_one_record() {
        let dir = tempfile::tempdir().unwrap();
        let got = logged(dir.path(), plan(dir.path()), &[b"a\nb", b"c\n\nd"]);
        assert_eq!(got, ["stdout F a", "stdout F bc", "stdout F ", "stdout P d"]);
    }

    #[test]
    fn a_long_line_is_logged_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let long = vec![b'x'; MAX_LINE + 5];
        let got = logged(dir.path(), plan(dir.path()), &[&long, b"\n"]);
        assert_eq!(got, [format!("stdout P {}", "x".repeat(MAX_LINE)), "stdout F xxxxx".into()]);
        let dir = tempfile::tempdir().unwrap();
        let exact = [vec![b'x'; MAX_LINE], b"\ny\n".to_vec()].concat();
        let got = logged(dir.path(), plan(dir.path()), &[&exact]);
        assert_eq!(got, [format!("stdout F {}", "x".repeat(MAX_LINE)), "stdout F y".into()]);
    }

    #[test]
    fn a_log_over_its_size_is_rotated_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Log { max_size: 100, max_files: 3, ..plan(dir.path()) };
        let line = [b'z'; 50];
        let mut pieces: Vec<&[u8]> = Vec::new();
        for _ in 0..10 {
            pieces.push(&line);
            pieces.push(b"\n");
        }
        logged(dir.path(), plan, &pieces);
        assert_eq!(fs::read_dir(dir.path().join("web")).unwrap().count(), 3);
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(timestamp(1_709_210_096_000_000_007), "2024-02-29T12:34:56.000000007Z");
    }

    proptest::proptest! {
        #[test]
        fn what_is_logged_is_what_was_written_however_it_comes(
            text in proptest::collection::vec(proptest::sample::select(vec![b'a', b'\n', b' ']), 0..200),
            long in 0usize..40_000,
            cuts in proptest::collection::vec(1usize..20_000, 0..8),
        ) {
            let mut text = text;
            text.extend(std::iter::repeat_n(b'x', long));
            let dir = tempfile::tempdir().unwrap();
            let (mut pieces, mut rest): (Vec<&[u8]>, &[u8]) = (Vec::new(), &text);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            let mut got = Vec::new();
            for record in logged(dir.path(), plan(dir.path()), &pieces) {
                let (tag, line) = record.strip_prefix("stdout ").unwrap().split_at(2);
                proptest::prop_assert!(line.len() <= MAX_LINE);
                got.extend_from_slice(line.as_bytes());
                if tag == "F " {
                    got.push(b'\n');
                }
            }
            proptest::prop_assert_eq!(got, text);
        }
    }
}

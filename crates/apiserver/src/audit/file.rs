//! The file of the audit log. A full one is renamed, with the time in its name, and a new one begun; old ones go.
//!
//! Source: the flags of `k8s.io/apiserver/pkg/server/options/audit.go`; names as `gopkg.in/natefinch/lumberjack.v2` makes
//! them, so that what reads upstream's files finds these.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use flate2::{Compression, write::GzEncoder};

/// When a file is full, and how long old ones stay. [`Rotation::default`] has upstream's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of a file; 0: it is never full. A line that is longer gets a file of its own.
    pub size: u64,
    /// How many old files stay; 0: all.
    pub backups: usize,
    /// How many days an old file stays; 0: for ever.
    pub days: u32,
    /// Old files are compressed.
    pub compress: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { size: 100 << 20, backups: 100, days: 366, compress: false }
    }
}

/// The time in the name of an old file, UTC, to the millisecond.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const COMPRESSED: &str = ".gz";
/// For whoever runs the server.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// See the module. Used by one thread.
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    size: u64,
    now: fn() -> DateTime<Utc>,
    /// Compresses and removes; one at a time.
    cleaning: Option<JoinHandle<()>>,
}

impl LogFile {
    /// Opens the file to append to it, and makes it, and the folder it is in, if it is not there.
    pub fn open(path: &Path, rotation: Rotation, now: fn() -> DateTime<Utc>) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        }
        let file = begin(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), rotation, file, size, now, cleaning: None })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut at = (self.now)();
        let mut old = old_name(&self.path, at);
        // Two in one millisecond must not be one.
        while old.exists() || compressed(&old).exists() {
            at += TimeDelta::milliseconds(1);
            old = old_name(&self.path, at);
        }
        match fs::rename(&self.path, &old) {
            // Somebody else has moved it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.file = begin(&self.path)?;
        self.clean();
        Ok(())
    }

    /// Compressing takes a while: requests do not wait for it.
    fn clean(&mut self) {
        if let Some(before) = self.cleaning.take() {
            let _ = before.join();
        }
        let (path, rotation, now) = (self.path.clone(), self.rotation, (self.now)());
        let work = move || {
            if let Err(error) = clean(&path, rotation, now) {
                tracing::error!(%error, "old audit logs were not removed or compressed");
            }
        };
        self.cleaning = std::thread::Builder::new().name("audit-clean".to_owned()).spawn(work).ok();
    }
}

impl Write for LogFile {
    /// Whole lines: what is written at a time is never torn apart.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let (most, length) = (self.rotation.size, lines.len() as u64);
        if most > 0 && self.size > 0 && self.size + length > most {
            // Rather a file that is too large than an event that is lost; it is tried again after as much.
            if let Err(error) = self.rotate() {
                tracing::error!(%error, "the audit log cannot be rotated");
            }
            self.size = 0;
        }
        self.file.write_all(lines)?;
        self.size += length;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        if let Some(cleaning) = self.cleaning.take() {
            let _ = cleaning.join();
        }
    }
}

fn begin(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(FILE_MODE).open(path)
}

/// What stands before and behind the time in the names of old files: `audit-` and `.log` of `audit.log`.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let ending = match text(path.extension()) {
        ending if ending.is_empty() => ending,
        ending => format!(".{ending}"),
    };
    (format!("{}-", text(path.file_stem())), ending)
}

fn old_name(path: &Path, at: DateTime<Utc>) -> PathBuf {
    let (prefix, ending) = parts(path);
    path.with_file_name(format!("{prefix}{}{ending}", at.format(STAMP)))
}

fn compressed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(COMPRESSED);
    name.into()
}

/// An old file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Old {
    name: String,
    at: DateTime<Utc>,
    compressed: bool,
}

impl Old {
    /// `None`: the file is none of the log's.
    fn of(name: &str, (prefix, ending): &(String, String)) -> Option<Self> {
        let plain = name.strip_suffix(COMPRESSED);
        let stamp = plain.unwrap_or(name).strip_prefix(&**prefix)?.strip_suffix(&**ending)?;
        let at = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?.and_utc();
        Some(Self { name: name.to_owned(), at, compressed: plain.is_some() })
    }
}

/// Those that go: more than the newest, or too old.
fn superfluous(mut old: Vec<Old>, rotation: Rotation, now: DateTime<Utc>) -> (Vec<Old>, Vec<Old>) {
    old.sort_by_key(|one| std::cmp::Reverse(one.at));
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    // A file that was being compressed when the process ended is there twice.
    let mut times: Vec<DateTime<Utc>> = Vec::new();
    for one in old {
        if times.last() != Some(&one.at) {
            times.push(one.at);
        }
        let many = rotation.backups > 0 && times.len() > rotation.backups;
        let aged = rotation.days > 0 && one.at < now - TimeDelta::days(rotation.days.into());
        if many || aged { gone.push(one) } else { kept.push(one) }
    }
    (kept, gone)
}

fn clean(path: &Path, rotation: Rotation, now: DateTime<Utc>) -> io::Result<()> {
    let parts = parts(path);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut old = Vec::new();
    for entry in fs::read_dir(folder)? {
        old.extend(entry?.file_name().to_str().and_then(|name| Old::of(name, &parts)));
    }
    let (kept, gone) = superfluous(old, rotation, now);
    for one in gone {
        fs::remove_file(folder.join(one.name))?;
    }
    for one in kept.iter().filter(|one| rotation.compress && !one.compressed) {
        compress(&folder.join(&one.name))?;
    }
    Ok(())
}

/// The original goes when all of it lies on the disk in the other form.
fn compress(path: &Path) -> io::Result<()> {
    let to = compressed(path);
    let target = OpenOptions::new().create(true).write(true).truncate(true).mode(FILE_MODE).open(to)?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn day(day: u32) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(&format!("2026-12-{day:02}T04:00:00.5Z")).unwrap().to_utc()
    }

    fn log(folder: &Path, rotation: Rotation) -> LogFile {
        LogFile::open(&folder.join("sub/audit.log"), rotation, || day(1)).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder.join("sub")).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_renamed_and_no_line_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = log(folder.path(), Rotation { size: 10, ..Rotation::default() });
        for line in ["12345\n", "678\n", "9\n", "a line that is too long\n", "b\n"] {
            file.write_all(line.as_bytes()).unwrap();
        }
        drop(file);
        assert_eq!(
            names(folder.path()),
            [
                "audit-2026-12-01T04-00-00.500.log",
                "audit-2026-12-01T04-00-00.501.log",
                "audit-2026-12-01T04-00-00.502.log",
                "audit.log"
            ]
        );
        let read = |name: &str| fs::read_to_string(folder.path().join("sub").join(name)).unwrap();
        assert_eq!(read("audit-2026-12-01T04-00-00.500.log"), "12345\n678\n");
        assert_eq!(read("audit-2026-12-01T04-00-00.502.log"), "a line that is too long\n");
        assert_eq!(read("audit.log"), "b\n");
    }

    #[test]
    fn a_file_that_is_there_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let rotation = Rotation { size: 10, ..Rotation::default() };
        log(folder.path(), rotation).write_all(b"1234567\n").unwrap();
        log(folder.path(), rotation).write_all(b"89\n").unwrap();
        assert_eq!(names(folder.path()).len(), 2, "its size counts");
        log(folder.path(), Rotation { size: 0, ..rotation }).write_all(&[b'x'; 100]).unwrap();
        assert_eq!(names(folder.path()).len(), 2, "without a limit it is never full");
    }

    #[test]
    fn old_files_go_by_number_and_by_age() {
        let parts = ("audit-".to_owned(), ".log".to_owned());
        let all = |names: &[&str]| names.iter().filter_map(|name| Old::of(name, &parts)).collect::<Vec<_>>();
        let files = all(&[
            "audit-2026-12-01T04-00-00.000.log",
            "audit-2026-12-03T04-00-00.000.log.gz",
            "audit-2026-12-03T04-00-00.000.log",
            "audit-2026-12-09T04-00-00.000.log",
            "audit-yesterday.log",
            "audit.log",
            "other-2026-12-01T04-00-00.000.log",
        ]);
        assert_eq!(files.len(), 4, "what is not its own is left alone");
        let gone = |backups, days| {
            let rotation = Rotation { backups, days, ..Rotation::default() };
            superfluous(files.clone(), rotation, day(10)).1.len()
        };
        assert_eq!(gone(0, 0), 0);
        assert_eq!(gone(1, 0), 3);
        assert_eq!(gone(2, 0), 1, "both forms of a file are one");
        assert_eq!(gone(0, 8), 1);
        assert_eq!(gone(0, 5), 3);
    }

    #[test]
    fn old_files_are_compressed_when_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = log(folder.path(), Rotation { size: 4, compress: true, ..Rotation::default() });
        file.write_all(b"one\n").unwrap();
        file.write_all(b"two\n").unwrap();
        drop(file);
        let name = "audit-2026-12-01T04-00-00.500.log.gz";
        assert_eq!(names(folder.path()), [name, "audit.log"]);
        let packed = fs::read(folder.path().join("sub").join(name)).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\n");
    }
}

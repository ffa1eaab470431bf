//! Files that change all at once: a directory of symlinks through `..data`, which is swapped by one rename, so that a
//! reader sees the old files or the new ones and never a mixture.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink},
    path::{Component, Path},
};

/// One file: its bytes and permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Files by path within the volume.
pub type Payload = BTreeMap<String, File>;

/// Whether `path` stays within a volume and leaves our own names alone.
pub fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && !path.starts_with("..") && parts.all(|c| matches!(c, Component::Normal(_)))
}

/// Makes `dir` hold exactly `payload`, readable by `group` if one is given. Does nothing when it already does.
/// Returns whether anything changed.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    if let Some(bad) = payload.keys().find(|p| !is_inside(p)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("path {bad:?} leaves the volume")));
    }
    fs::create_dir_all(dir)?;
    let data = dir.join("..data");
    let old = fs::read_link(&data).ok();
    if old.as_ref().is_some_and(|o| holds(&dir.join(o), payload)) {
        return Ok(false);
    }
    // a name that no earlier one has, whatever the clock does
    let fresh = (0u32..)
        .map(|n| format!("..{}_{n}", std::process::id()))
        .find(|name| fs::symlink_metadata(dir.join(name)).is_err())
        .unwrap_or_default();
    let place = dir.join(&fresh);
    fs::DirBuilder::new().mode(0o755).create(&place)?;
    for (path, file) in payload {
        let target = place.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        // a group that shall read gets the owner's read bit
        let mode = if group.is_some() { file.mode | ((file.mode & 0o400) >> 3) } else { file.mode };
        let mut open = fs::OpenOptions::new();
        let handle = open.write(true).create_new(true).mode(mode).open(&target)?;
        io::Write::write_all(&mut &handle, &file.bytes)?;
        handle.set_permissions(fs::Permissions::from_mode(mode))?;
        if group.is_some() {
            chown(&target, None, group)?;
        }
    }
    let next = dir.join("..data_tmp");
    let _ = fs::remove_file(&next);
    symlink(&fresh, &next)?;
    fs::rename(&next, &data)?;
    let first = |path: &String| path.split('/').next().unwrap_or_default().to_owned();
    let wanted: BTreeSet<String> = payload.keys().map(first).collect();
    for name in &wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            fs::remove_file(dir.join(name.as_ref()))?;
        }
    }
    if let Some(old) = old {
        // the name was read from a link: only remove what can be one of ours
        if old.components().count() == 1 && old.to_string_lossy().starts_with("..") {
            let _ = fs::remove_dir_all(dir.join(old));
        }
    }
    Ok(true)
}

fn holds(place: &Path, payload: &Payload) -> bool {
    fn count(dir: &Path) -> usize {
        let Ok(entries) = fs::read_dir(dir) else { return 0 };
        entries.flatten().map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum()
    }
    payload.iter().all(|(path, file)| fs::read(place.join(path)).is_ok_and(|b| b == file.bytes))
        && count(place) == payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(p, b)| ((*p).to_owned(), File { bytes: b.as_bytes().to_vec(), mode: 0o640 }))
            .collect()
    }

    #[test]
    fn files_appear_change_and_go_together() {
        let dir = tempfile::tempdir().unwrap();
        let read = |p: &str| fs::read_to_string(dir.path().join(p));
        assert!(write(dir.path(), &payload(&[("a", "1"), ("d/e", "2")]), None).unwrap());
        assert_eq!((read("a").unwrap().as_str(), read("d/e").unwrap().as_str()), ("1", "2"));
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!write(dir.path(), &payload(&[("a", "1"), ("d/e", "2")]), None).unwrap(), "nothing to do");
        assert!(write(dir.path(), &payload(&[("a", "3")]), None).unwrap());
        assert_eq!(read("a").unwrap(), "3");
        assert!(read("d/e").is_err());
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 3, "the link, ..data and one directory");
    }

    #[test]
    fn paths_that_leave_the_volume_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "..data", "", "./x"] {
            assert!(write(dir.path(), &payload(&[(path, "1")]), None).is_err(), "{path}");
        }
    }
}

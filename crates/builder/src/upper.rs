//! What a step left in overlayfs' upper folder, freed of what is no change: folders that were only passed through, and
//! marks that hide nothing.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::root::MAX_DEPTH;

const OPAQUE: &str = "trusted.overlay.opaque";

/// Tidies an upper folder; false if it then holds no change. Layers are base first.
pub(crate) fn tidy(upper: &Path, layers: &[PathBuf]) -> io::Result<bool> {
    let below: Vec<PathBuf> = layers.iter().rev().cloned().collect();
    tidy_folder(upper, &below, 0)
}

fn is_opaque(folder: &Path) -> io::Result<bool> {
    Ok(xattr::get(folder, OPAQUE)?.as_deref() == Some(b"y"))
}

/// True if something is left. `below` are the folders that are merged under this one, topmost first.
fn tidy_folder(folder: &Path, below: &[PathBuf], depth: usize) -> io::Result<bool> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("the step made folders more than {MAX_DEPTH} deep")));
    }
    let mut left = false;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            left = true;
            continue;
        }
        let path = entry.path();
        let merged = merged(below, &entry.file_name())?;
        let opaque = is_opaque(&path)?;
        if opaque && merged.is_empty() {
            xattr::remove(&path, OPAQUE)?;
        }
        let covered = opaque && !merged.is_empty();
        let inside = tidy_folder(&path, if covered { &[] } else { &merged }, depth + 1)?;
        let passed_through = match merged.first() {
            Some(first) if !inside && !covered => same(&path, first)?,
            _ => false,
        };
        if passed_through {
            fs::remove_dir(&path)?;
        } else {
            left = true;
        }
    }
    Ok(left)
}

/// The folders of this name that overlayfs merges, topmost first.
fn merged(below: &[PathBuf], name: &std::ffi::OsStr) -> io::Result<Vec<PathBuf>> {
    let mut merged = Vec::new();
    for folder in below {
        let path = folder.join(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                let opaque = is_opaque(&path)?;
                merged.push(path);
                if opaque {
                    break;
                }
            }
            // A file, or the mark of a deleted one, ends what is seen.
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(merged)
}

/// Whether two folders differ in nothing but their times.
fn same(a: &Path, b: &Path) -> io::Result<bool> {
    let (one, other) = (fs::symlink_metadata(a)?, fs::symlink_metadata(b)?);
    let shape = |m: &fs::Metadata| (m.mode(), m.uid(), m.gid());
    Ok(shape(&one) == shape(&other) && xattrs(a)? == xattrs(b)?)
}

fn xattrs(path: &Path) -> io::Result<Vec<(std::ffi::OsString, Option<Vec<u8>>)>> {
    let mut found = Vec::new();
    for name in xattr::list(path)? {
        if !name.as_encoded_bytes().starts_with(b"trusted.overlay.") {
            let value = xattr::get(path, &name)?;
            found.push((name, value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of folders with what is in them; false when attributes of overlayfs cannot be set here.
    fn can_mark(dir: &Path) -> bool {
        let able = xattr::set(dir, "trusted.overlay.test", b"y").is_ok();
        if !able {
            eprintln!("skipped: setting trusted.* attributes needs root");
        }
        able
    }

    #[test]
    fn folders_that_were_only_passed_through_go() {
        let dir = tempfile::tempdir().unwrap();
        if !can_mark(dir.path()) {
            return;
        }
        let (upper, base, top) = (dir.path().join("u"), dir.path().join("1"), dir.path().join("2"));
        for path in [
            "1/etc/ssl/certs",
            "1/var/x",
            "2/gone",
            "u/etc/ssl/certs",
            "u/var/x",
            "u/new",
            "u/gone/y",
            "u/replaced",
        ] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::create_dir_all(base.join("replaced")).unwrap();
        fs::write(upper.join("var/file"), "x").unwrap();
        for path in ["new", "replaced", "gone/y"] {
            xattr::set(upper.join(path), OPAQUE, b"y").unwrap();
        }
        let layers = [base, top];
        assert!(tidy(&upper, &layers).unwrap());
        assert!(!upper.join("etc").exists(), "only passed through");
        assert!(upper.join("var/file").exists() && !upper.join("var/x").exists());
        assert!(upper.join("new").is_dir() && !is_opaque(&upper.join("new")).unwrap(), "hides nothing");
        assert!(upper.join("gone/y").is_dir(), "is new");
        assert!(is_opaque(&upper.join("replaced")).unwrap(), "hides the old one");
    }

    #[test]
    fn a_changed_mode_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, base) = (dir.path().join("u"), dir.path().join("1"));
        fs::create_dir_all(upper.join("tmp")).unwrap();
        fs::create_dir_all(base.join("tmp")).unwrap();
        fs::set_permissions(base.join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let layers = [base.clone()];
        assert!(tidy(&upper, &layers).unwrap());
        fs::set_permissions(base.join("tmp"), fs::metadata(upper.join("tmp")).unwrap().permissions())
            .unwrap();
        assert!(!tidy(&upper, &layers).unwrap());
    }
}

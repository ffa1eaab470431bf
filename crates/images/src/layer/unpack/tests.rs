//! Layers made to harm: they leave nothing outside their folder, and end at their limits.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use flate2::{Compression, write::GzEncoder};
use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;

const LIMITS: Limits = Limits { bytes: 64 << 20, entries: 100, ratio: 10, ratio_from: 1 << 20 };

/// An archive whose entries belong to whoever runs the test.
struct Layer {
    archive: Builder<Vec<u8>>,
    uid: u64,
    gid: u64,
}

impl Layer {
    fn owned_as(folder: &TempDir) -> Self {
        let owner = fs::metadata(folder.path()).unwrap();
        Self { archive: Builder::new(Vec::new()), uid: owner.uid().into(), gid: owner.gid().into() }
    }

    fn entry(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path(path).unwrap();
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        header.set_mode(0o777);
        header.set_uid(self.uid);
        header.set_gid(self.gid);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.archive.append(&header, content).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.archive.into_inner().unwrap()
    }
}

fn unpack_into(folder: &TempDir, archive: &[u8], limits: &Limits) -> Result<Unpacked> {
    let packed = Some(archive.len() as u64);
    unpack(archive, packed, folder.path(), "the layer", limits, Whiteouts::Convert)
}

#[test]
fn what_follows_a_symlink_in_a_layer_reaches_nothing_outside() {
    use EntryType::{Directory, Link, Regular, Symlink};
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "before").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let (there, file) = (outside.path().to_str().unwrap(), secret.to_str().unwrap());
    let up = format!("../../../../../../../../../..{there}");
    for second in [
        (Regular, "a/new", "", "x"),
        (Regular, "a/secret", "", "x"),
        (Directory, "a/folder", "", ""),
        (Directory, "a", "", ""),
        (Symlink, "a/link", "x", ""),
        (Regular, "s", "", "x"),
        (Link, "h", "s", ""),
        (Link, "h", "a/secret", ""),
    ] {
        for way in [there, &up] {
            let folder = tempfile::tempdir().unwrap();
            let (kind, path, link, content) = second;
            let layer = Layer::owned_as(&folder)
                .entry(Symlink, "a", way, b"")
                .entry(Symlink, "s", file, b"")
                .entry(kind, path, link, content.as_bytes())
                // Whoever got hold of the file by a second name would write and chmod it now.
                .entry(Regular, "h", "", b"x");
            let _ = unpack_into(&folder, &layer.bytes(), &LIMITS);
            let names: Vec<_> =
                fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names, ["secret"], "{second:?}");
            assert_eq!(fs::read_to_string(&secret).unwrap(), "before", "{second:?}");
            let secret = fs::metadata(&secret).unwrap();
            assert_eq!((secret.mode() & 0o777, secret.nlink()), (0o600, 1), "{second:?}");
        }
    }
}

#[test]
fn a_layer_that_unpacks_to_many_times_its_size_ends_at_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let plain = Layer::owned_as(&folder).entry(EntryType::Regular, "zeros", "", &vec![0; 32 << 20]).bytes();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&plain).unwrap();
    for packed in [gzip.finish().unwrap(), zstd::encode_all(plain.as_slice(), 19).unwrap()] {
        assert!(packed.len() < 100 << 10, "{}", packed.len());
        let error = unpack_into(&folder, &packed, &LIMITS).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error}");
        let written = fs::metadata(folder.path().join("zeros")).unwrap().len();
        assert!(written <= LIMITS.ratio_from, "{written}");
    }
}

#[test]
fn a_layer_of_more_entries_than_its_limit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = |count: u64| {
        let layer = Layer::owned_as(&folder);
        (0..count).fold(layer, |layer, n| layer.entry(EntryType::Regular, &n.to_string(), "", b"")).bytes()
    };
    unpack_into(&folder, &files(LIMITS.entries), &LIMITS).unwrap();
    let error = unpack_into(&folder, &files(LIMITS.entries + 1), &LIMITS).unwrap_err();
    assert!(error.to_string().contains("too many entries"), "{error}");
}

#[test]
fn a_file_in_the_place_of_a_folder_takes_what_was_in_it() {
    use EntryType::{Directory, Regular};
    let folder = tempfile::tempdir().unwrap();
    let layer = Layer::owned_as(&folder)
        .entry(Directory, "a", "", b"")
        .entry(Directory, "a/b", "", b"")
        .entry(Regular, "a/c/d", "", b"")
        .entry(Directory, "a.b", "", b"")
        .entry(Directory, "ab", "", b"")
        .entry(Regular, "a", "", b"x");
    let unpacked = unpack_into(&folder, &layer.bytes(), &LIMITS).unwrap();
    assert_eq!(unpacked.implied, Vec::<PathBuf>::new());
    assert_eq!(fs::read_to_string(folder.path().join("a")).unwrap(), "x");
    assert!(folder.path().join("a.b").is_dir() && folder.path().join("ab").is_dir());
}

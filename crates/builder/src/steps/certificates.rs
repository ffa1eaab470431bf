//! The host's certificate authorities during a RUN step.
//!
//! They are not mounted over the files of the image: its own tools replace these by renaming (`update-ca-certificates`
//! does), which a mount forbids. Instead a layer with the host's bundle lies between the image's layers and the step's
//! changes. What the step does not touch is then in no layer; what it touched is looked at afterwards.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use images::{Images, WorkDir};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};

use crate::{
    Result,
    error::IoContext,
    host::{BUNDLES, Host, JAVA_STORE},
    root::{FOLDER, Root, remove_file},
};

/// Largest bundle, in bytes.
const MAX_BUNDLE: u64 = 16 * 1024 * 1024;

/// The layer that is injected.
#[derive(Debug)]
pub(super) struct Certificates {
    work: WorkDir,
    files: Vec<Injected>,
}

#[derive(Debug)]
struct Injected {
    /// Relative to the root, without links.
    path: PathBuf,
    content: Vec<u8>,
    /// What the image has there.
    original: Option<Vec<u8>>,
    java: bool,
}

/// What a step did to the injected files.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing of the host is left.
    Clean,
    /// Java's store was changed, and what is the host's cannot be told apart from the rest.
    JavaMixed,
}

impl Certificates {
    /// Prepares the layer for the image that is seen in `view`; none if there is nothing to inject.
    pub(super) fn prepare(
        images: &Images,
        view: &Root,
        host: &Host,
        java: bool,
    ) -> Result<Option<Certificates>> {
        let mut files: Vec<Injected> = Vec::new();
        if let Some(bundle) = &host.certificates {
            let content = read(bundle)?;
            for place in BUNDLES {
                // Debian's and Alpine's is made where the folder for it is there; the others only replaced.
                let may_be_new = place == BUNDLES[0];
                files.extend(injected(view, place, &content, may_be_new, false)?);
            }
        }
        if let (Some(store), true) = (&host.java_certificates, java) {
            files.extend(injected(view, JAVA_STORE, &read(store)?, false, true)?);
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        if files.is_empty() {
            return Ok(None);
        }
        let certificates = Certificates { work: images.work_dir()?, files };
        certificates.write(view)?;
        Ok(Some(certificates))
    }

    pub(super) fn path(&self) -> &Path {
        self.work.path()
    }

    pub(super) fn has_java(&self) -> bool {
        self.files.iter().any(|f| f.java)
    }

    fn write(&self, view: &Root) -> Result<()> {
        let top = self.work.path();
        for file in &self.files {
            // Folders look as those of the image do.
            let mut folder = PathBuf::new();
            for part in file.path.parent().unwrap_or(Path::new("")).components() {
                folder.push(part);
                let (to, like) = (top.join(&folder), view.on_host(&folder).at("looking up", &folder)?);
                if to.is_dir() {
                    continue;
                }
                let meta = fs::metadata(&like).at("reading", &like)?;
                fs::create_dir(&to).at("creating", &to)?;
                chown(&to, Some(meta.uid()), Some(meta.gid())).at("changing the owner of", &to)?;
                fs::set_permissions(&to, meta.permissions()).at("changing the mode of", &to)?;
            }
            let to = top.join(&file.path);
            fs::write(&to, &file.content).at("writing", &to)?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).at("changing the mode of", &to)?;
        }
        Ok(())
    }

    /// Takes out of the changes what is the host's.
    pub(super) fn settle(&self, upper: &Path) -> Result<Verdict> {
        let root = Root::open(upper).at("opening", upper)?;
        for file in &self.files {
            if file.settle(&root).at("cleaning up", &file.path)? == Verdict::JavaMixed {
                return Ok(Verdict::JavaMixed);
            }
        }
        Ok(Verdict::Clean)
    }
}

impl Injected {
    fn settle(&self, upper: &Root) -> io::Result<Verdict> {
        // The step may have put anything there, also links to where they must not be followed.
        let parent = self.path.parent().unwrap_or(Path::new(""));
        let Ok(folder) = upper.exact(parent, FOLDER) else { return Ok(Verdict::Clean) };
        let name = self.path.file_name().unwrap_or_default();
        let Ok(stat) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(Verdict::Clean) };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::CharacterDevice if stat.st_rdev == 0 && self.original.is_none() => {
                remove_file(&folder, name)?;
                return Ok(Verdict::Clean);
            }
            _ => return Ok(Verdict::Clean),
        }
        let Some(now) = upper.read(&self.path, MAX_BUNDLE)? else { return Ok(Verdict::Clean) };
        if now == self.content {
            remove_file(&folder, name)?;
        } else if self.java {
            return Ok(Verdict::JavaMixed);
        } else if let Some(added) = now.strip_prefix(self.content.as_slice()) {
            let own = [self.original.as_deref().unwrap_or_default(), added].concat();
            let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fs::File::from(openat(&folder, name, flags, Mode::empty())?).write_all(&own)?;
        }
        Ok(Verdict::Clean)
    }
}

/// One file to inject, if the image has a place for it.
fn injected(
    view: &Root,
    place: &str,
    content: &[u8],
    may_be_new: bool,
    java: bool,
) -> Result<Option<Injected>> {
    let place = Path::new(place);
    let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else { return Ok(None) };
    let Ok(folder) = view.locate(parent) else { return Ok(None) };
    let path = folder.join(name);
    let original = match view.exact(&path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(fd) => {
            let stat = rustix::fs::fstat(&fd).at("reading", &path)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                // A link leads to one of the other places.
                return Ok(None);
            }
            view.read(&path, MAX_BUNDLE).at("reading", &path)?
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && may_be_new => None,
        Err(_) => return Ok(None),
    };
    Ok(Some(Injected { path, content: content.to_vec(), original, java }))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_BUNDLE + 1).read_to_end(&mut bytes))
        .at("reading", path)?;
    match bytes.len() as u64 > MAX_BUNDLE {
        true => Err(io::Error::other(format!("is larger than {MAX_BUNDLE} bytes"))).at("reading", path),
        false => Ok(bytes),
    }
}

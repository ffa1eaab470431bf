//! COPY, ADD and WORKDIR.

use std::{fs::File, path::Path, sync::Arc};

use images::{Layer, Limits, unpack_archive};
use rustix::fs::OFlags;
use url::Url;

use super::{
    archive,
    fetch::{self, Fetched},
    order::{Item, Order},
};
use crate::{
    Result,
    copy::Target,
    dockerfile::Copy,
    error::IoContext,
    ignore::Ignore,
    key::Key,
    overlay::{Rootfs, View, distinct},
    plan,
    root::{Root, proc_path},
    session::Made,
    stage::{Here, State},
    tree::{self, Found, Missing, Origin, What},
    user,
};

/// Where a COPY or a mount takes files from, if not from the context.
pub(crate) struct Elsewhere {
    /// How errors call it.
    pub(crate) name: String,
    pub(crate) layers: Vec<Layer>,
}

/// An [`Item`] that was found.
enum Ready {
    Files(Vec<Found>),
    Inline {
        name: String,
        content: String,
    },
    /// A file to be fetched, or fetched already because nothing else tells its digest.
    Address {
        url: Url,
        name: String,
        digest: String,
        fetched: Option<Fetched>,
    },
}

impl Here<'_> {
    /// The stage or image that a `--from` names; waits for the stage.
    pub(crate) fn origin(&self, from: &str) -> Result<Elsewhere> {
        let session = self.session;
        match session.plan.origin(self.instruction, from)? {
            plan::Origin::Stage(at) => {
                let state: Arc<State> = session.stage(at)?;
                Ok(Elsewhere { name: format!("stage {from}"), layers: state.layers.clone() })
            }
            plan::Origin::Image(name) => {
                let load = session.bases.load(&name, &session.build, &session.images, &*session.progress);
                let base = session.handle.block_on(load).map_err(|error| {
                    let stage = session.plan.suggest(&name).map(str::to_owned);
                    match stage.or_else(|| crate::bases::suggest(&session.images, &name)) {
                        Some(meant) => self.fail(
                            format!("there is no stage \"{name}\", and no such image: {error}"),
                            Some(format!("Did you mean {meant}?")),
                        ),
                        None => error,
                    }
                })?;
                Ok(Elsewhere { layers: base.layers.clone(), name: format!("image {name}") })
            }
        }
    }

    pub(crate) fn workdir(&self, state: &State) -> Result<Made> {
        let (dir, user) = (state.config.workdir(), state.config.user());
        let key = self.key("workdir", state).fields([dir, user]).text();
        self.session.layer(&key, || {
            let rootfs = Rootfs::new(&self.session.images, &distinct(&state.layers), None)?;
            let root = rootfs.root()?;
            let owner = user::identity(&root, user).map_err(|why| self.fail(why, None))?;
            root.make_folders(Path::new(dir), (owner.uid, owner.gid))
                .doing(|| format!("making {dir} in the image"))?;
            drop(root);
            rootfs.finish()
        })
    }

    pub(super) fn key(&self, kind: &str, state: &State) -> Key {
        Key::new(kind, &state.layers, self.session.build.epoch)
    }

    pub(crate) fn copy(&self, state: &State, copy: &Copy, from: Option<&Elsewhere>) -> Result<Made> {
        let order = self.order(state, copy)?;
        let mut key = self.key(if copy.add { "add" } else { "copy" }, state);
        let folder = if order.folder { "folder" } else { "" };
        let options = [order.chown.as_deref(), order.chmod.as_ref().map(|(text, _)| text.as_str())];
        key.fields([&*order.target, folder]).fields(options.map(Option::unwrap_or_default));
        let Some(from) = from else {
            let ignore = &self.session.ignore;
            let origin =
                Origin { root: &self.session.context, ignore, foreign: true, cancel: &self.session.cancel };
            return self.copy_found(state, copy, &order, key, &origin, None);
        };
        // What lies in known layers needs not be looked at to be known.
        let mut quick = key.clone();
        quick.field("quick").layers(&from.layers).fields(&order.exclude);
        for item in &order.sources {
            match item {
                Item::Path(path) => quick.fields(["path", path]),
                Item::Inline { name, content } => quick.fields(["inline", name, content]),
                Item::Address { url, .. } => quick.fields(["address", url.as_str()]),
            };
        }
        let quick = quick.text();
        if let Some(made) = self.session.recall(&quick)? {
            return Ok(made);
        }
        let view = View::new(&self.session.images, &distinct(&from.layers))?;
        let (root, ignore) = (view.root()?, Ignore::default());
        let origin = Origin { root: &root, ignore: &ignore, foreign: false, cancel: &self.session.cancel };
        let made = self.copy_found(state, copy, &order, key, &origin, Some(from))?;
        self.session.remember(&quick, &made)?;
        Ok(made)
    }

    fn copy_found(
        &self,
        state: &State,
        copy: &Copy,
        order: &Order,
        mut key: Key,
        origin: &Origin<'_>,
        from: Option<&Elsewhere>,
    ) -> Result<Made> {
        let ready = self.find(copy, order, origin, from)?;
        for item in &ready {
            match item {
                Ready::Files(found) => key.field("files").field(tree::digest(found)),
                Ready::Inline { name, content } => key.fields(["inline", name, content]),
                Ready::Address { name, digest, .. } => key.fields(["address", name, digest]),
            };
        }
        self.session.layer(&key.text(), || {
            let rootfs = Rootfs::new(&self.session.images, &distinct(&state.layers), None)?;
            self.write(copy, order, &ready, origin.root, &rootfs)?;
            rootfs.finish()
        })
    }

    fn find(
        &self,
        copy: &Copy,
        order: &Order,
        origin: &Origin<'_>,
        from: Option<&Elsewhere>,
    ) -> Result<Vec<Ready>> {
        let exclude = Ignore::of_patterns(order.exclude.iter().map(String::as_str))
            .map_err(|why| self.fail(format!("--exclude: {why}"), None))?;
        let (mut ready, mut count) = (Vec::new(), 0);
        for item in &order.sources {
            self.session.check_cancelled()?;
            match item {
                Item::Path(path) => {
                    let found =
                        origin.find(path, &exclude).map_err(|m| self.missing(path, m, origin, from))?;
                    count += found.len();
                    ready.push(Ready::Files(found));
                }
                Item::Inline { name, content } => {
                    count += 1;
                    ready.push(Ready::Inline { name: name.clone(), content: content.clone() });
                }
                Item::Address { url, checksum } => {
                    count += 1;
                    let name = fetch::name(url).unwrap_or_default();
                    if name.is_empty() && order.folder {
                        let hint = "Write a target that does not end with /.";
                        return Err(self.fail(format!("{url} has no file name"), Some(hint.into())));
                    }
                    let (digest, fetched) = match checksum {
                        Some(digest) => (digest.clone(), None),
                        None => {
                            let fetched = self.fetch(url, None)?;
                            (fetched.digest.clone(), Some(fetched))
                        }
                    };
                    ready.push(Ready::Address { url: url.clone(), name, digest, fetched });
                }
            }
        }
        let keyword = if copy.add { "ADD" } else { "COPY" };
        match count {
            0 => Err(self.fail(format!("no file matches what {keyword} names"), None)),
            1 => Ok(ready),
            _ if order.folder => Ok(ready),
            n => {
                let message = format!("the sources are {n} files, and {} is not a folder", order.target);
                Err(self.fail(message, Some("The name of a folder ends with /.".into())))
            }
        }
    }

    pub(super) fn missing(
        &self,
        path: &str,
        missing: Missing,
        origin: &Origin<'_>,
        from: Option<&Elsewhere>,
    ) -> crate::Error {
        let place = from.map_or("the context", |f| &f.name);
        match missing {
            Missing::Absent => {
                let siblings = origin.siblings(path);
                let wanted = crate::root::relative(Path::new(path)).to_string_lossy().into_owned();
                let meant = crate::typo::nearest(&wanted, siblings.iter().map(String::as_str));
                self.fail(
                    format!("\"{path}\" is not in {place}"),
                    meant.map(|m| format!("Did you mean {m}?")),
                )
            }
            Missing::Ignored(line) => {
                let name = &self.session.ignore_name;
                self.fail(
                    format!("\"{path}\" does not exist for the build: {name}, line {line}, leaves it out"),
                    None,
                )
            }
            Missing::Io(at, error) => {
                // The path is told once.
                let at = at.display().to_string();
                let told = error.to_string();
                let message = if told.starts_with(&at) { told } else { format!("{at}: {told}") };
                self.fail(format!("{place}: {message}"), None)
            }
        }
    }

    fn write(&self, copy: &Copy, order: &Order, ready: &[Ready], from: &Root, rootfs: &Rootfs) -> Result<()> {
        let root = rootfs.root()?;
        let owner = order.chown.as_deref().map(|text| user::owner(&root, text));
        let target = Target {
            root: &root,
            path: &order.target,
            folder: order.folder,
            owner: owner.transpose().map_err(|why| self.fail(format!("--chown: {why}"), None))?,
            mode: order.chmod.as_ref().map(|(_, chmod)| chmod),
            time: self.session.build.epoch,
        };
        let fail = |e: std::io::Error| match e.raw_os_error() {
            Some(_) => crate::Error::Io { what: format!("copying into {}", order.target), source: e },
            None => self.fail(e.to_string(), None),
        };
        for item in ready {
            self.session.check_cancelled()?;
            match item {
                Ready::Inline { name, content } => {
                    target.put_stream(name, &mut content.as_bytes(), 0o644, None).map_err(fail)?;
                }
                Ready::Address { url, name, digest, fetched } => {
                    let again;
                    let fetched = match fetched {
                        Some(fetched) => fetched,
                        None => {
                            again = self.fetch(url, Some(digest))?;
                            &again
                        }
                    };
                    let mut file = File::open(&fetched.path).at("opening", &fetched.path)?;
                    target.put_stream(name, &mut file, 0o600, fetched.modified).map_err(fail)?;
                }
                Ready::Files(found) => {
                    for one in found {
                        let unpacked = copy.add && self.unpack(one, from, &target)?;
                        if !unpacked {
                            target.put(from, one).map_err(fail)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Unpacks a source of ADD if it is an archive.
    fn unpack(&self, found: &Found, from: &Root, target: &Target<'_>) -> Result<bool> {
        let [top] = found.entries.as_slice() else { return Ok(false) };
        if !matches!(top.what, What::File { .. }) {
            return Ok(false);
        }
        let name = found.at.display();
        let mut file: File = from
            .exact(&found.at, OFlags::RDONLY | OFlags::NONBLOCK)
            .doing(|| format!("opening {name}"))?
            .into();
        match archive::kind(&mut file).doing(|| format!("reading {name}"))? {
            archive::Kind::Plain => Ok(false),
            archive::Kind::Foreign(kind) => Err(self.fail(
                format!("ADD cannot unpack {name}: it is compressed with {kind}"),
                Some("COPY it and unpack it in a RUN step, or compress it with gzip or zstd.".into()),
            )),
            archive::Kind::Archive if target.owner.is_some() || target.mode.is_some() => Err(self.fail(
                format!("--chown and --chmod do not go with {name}, an archive that is unpacked with its own owners"),
                None,
            )),
            archive::Kind::Archive => {
                let folder = target
                    .folder(Path::new(target.path))
                    .doing(|| format!("making {} in the image", target.path))?;
                // The trailing dot: the descriptor's own path is a link.
                let into = proc_path(&folder).join(".");
                unpack_archive(file, &into, &name.to_string(), &Limits::default())?;
                Ok(true)
            }
        }
    }
}

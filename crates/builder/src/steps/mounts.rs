//! The mounts of a RUN step.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use runtime::oneshot::Bind;

use super::{caches, copy::Elsewhere};
use crate::{
    Result,
    copy::Target,
    dockerfile::{Mount, MountKind, Sharing},
    error::IoContext,
    ignore::Ignore,
    key::Key,
    overlay::{Mounted, Rootfs, View, distinct},
    root::{Root, absolute},
    stage::{Here, State},
    tree::{self, Found, Origin},
};

/// A mount, its variables replaced and what it shows found.
pub(super) enum Wanted {
    Cache { id: String, target: String, sharing: Sharing, writable: bool, owner: (u32, u32, u32) },
    Context { found: Vec<Found>, target: String },
    Elsewhere { from: Elsewhere, source: String, target: String, writable: bool },
    Secret { value: Vec<u8>, target: Option<String>, env: Option<String>, owner: (u32, u32, u32) },
    Tmpfs { target: String, size: Option<u64> },
}

/// Mounts in place for a step. Dropped once the step is over.
#[derive(Default)]
pub(super) struct InPlace {
    pub(super) binds: Vec<Bind>,
    /// Secrets in the environment.
    pub(super) env: Vec<(String, Vec<u8>)>,
    caches: Vec<caches::Cache>,
    views: Vec<View>,
    copies: Vec<Rootfs>,
    mounts: Vec<Mounted>,
}

impl InPlace {
    fn bind(&mut self, source: PathBuf, target: &str, writable: bool) {
        self.binds.push(Bind { source, target: target.into(), writable });
    }
}

impl Here<'_> {
    /// Replaces the variables of a step's mounts and finds what they show; waits for stages.
    pub(super) fn wanted(&self, state: &State, mounts: &[Mount]) -> Result<Vec<Wanted>> {
        mounts.iter().filter_map(|mount| self.one(state, mount).transpose()).collect()
    }

    fn one(&self, state: &State, mount: &Mount) -> Result<Option<Wanted>> {
        let target = match &mount.target {
            Some(target) => Some(absolute(state.config.workdir(), &self.expand(state, target)?)),
            None => None,
        };
        if target.as_deref() == Some("/") {
            return Err(self.fail("--mount: the root cannot be mounted over", None));
        }
        let place = || target.clone().unwrap_or_default();
        Ok(Some(match &mount.kind {
            MountKind::Cache { id, sharing, writable, owner } => Wanted::Cache {
                id: match id {
                    Some(id) => self.expand(state, id)?,
                    None => place(),
                },
                target: place(),
                sharing: *sharing,
                writable: *writable,
                owner: *owner,
            },
            MountKind::Tmpfs { size } => Wanted::Tmpfs { target: place(), size: *size },
            MountKind::Bind { from: None, source, writable: _ } => {
                let source = self.expand(state, source)?;
                let ignore = &self.session.ignore;
                let origin = Origin {
                    root: &self.session.context,
                    ignore,
                    foreign: true,
                    cancel: &self.session.cancel,
                };
                let relative = source.trim_start_matches('/');
                let found = origin.find(if relative.is_empty() { "." } else { relative }, &Ignore::default());
                let found = found.map_err(|missing| self.missing(&source, missing, &origin, None))?;
                Wanted::Context { found, target: place() }
            }
            MountKind::Bind { from: Some(from), source, writable } => Wanted::Elsewhere {
                from: self.origin(from)?,
                source: self.expand(state, source)?,
                target: place(),
                writable: *writable,
            },
            MountKind::Secret { id, env, required, owner } => {
                let id = match (id, &target) {
                    (Some(id), _) => self.expand(state, id)?,
                    (None, Some(target)) => target.rsplit('/').next().unwrap_or_default().to_owned(),
                    (None, None) => return Err(self.fail("--mount=type=secret needs an id", None)),
                };
                let Some(secret) = self.session.build.secrets.iter().find(|s| s.id == id) else {
                    if *required {
                        let hint = format!(
                            "Give it with --secret id={id},src=FILE or --secret id={id},env=VARIABLE."
                        );
                        return Err(self.fail(format!("the secret \"{id}\" is required"), Some(hint)));
                    }
                    return Ok(None);
                };
                let value =
                    secret.value().map_err(|why| self.fail(format!("the secret \"{id}\": {why}"), None))?;
                // Without a target and with a variable, there is no file.
                let file = target.or_else(|| env.is_none().then(|| format!("/run/secrets/{id}")));
                Wanted::Secret { value, target: file, env: env.clone(), owner: *owner }
            }
        }))
    }

    /// Puts what the step is given into the key: what a bind shows, not what a cache or a secret holds.
    pub(super) fn key_of_mounts(&self, key: &mut Key, wanted: &[Wanted]) {
        for mount in wanted {
            match mount {
                Wanted::Cache { id, target, .. } => key.fields(["cache", id, target]),
                Wanted::Context { found, target } => key.fields(["bind", target]).field(tree::digest(found)),
                Wanted::Elsewhere { from, source, target, writable } => {
                    let writable = if *writable { "rw" } else { "ro" };
                    key.fields(["from", source, target, writable]).layers(&from.layers)
                }
                Wanted::Secret { target, env, .. } => key.fields([
                    "secret",
                    target.as_deref().unwrap_or_default(),
                    env.as_deref().unwrap_or_default(),
                ]),
                Wanted::Tmpfs { target, .. } => key.fields(["tmpfs", target]),
            };
        }
    }

    /// Prepares the mounts in `scratch`.
    pub(super) fn place(&self, wanted: &[Wanted], scratch: &Path) -> Result<InPlace> {
        let mut place = InPlace::default();
        let images = &self.session.images;
        for (n, mount) in wanted.iter().enumerate() {
            let own = scratch.join(format!("mount-{n}"));
            match mount {
                Wanted::Cache { id, target, sharing, writable, owner } => {
                    let cache = caches::open(&self.session.build.caches, id, *sharing, *owner)?;
                    place.bind(cache.path.clone(), target, *writable);
                    place.caches.push(cache);
                }
                Wanted::Context { found, target } => {
                    let source = self.shown(found, &own)?;
                    // It is a copy: what is written to it is thrown away.
                    place.bind(source, target, true);
                }
                Wanted::Elsewhere { from, source, target, writable } => {
                    let layers = distinct(&from.layers);
                    let root = if *writable {
                        let copy = Rootfs::new(images, &layers, None)?;
                        let root = copy.root()?;
                        place.copies.push(copy);
                        root
                    } else {
                        let view = View::new(images, &layers)?;
                        let root = view.root()?;
                        place.views.push(view);
                        root
                    };
                    let found = root.on_host(Path::new(source)).map_err(|e| {
                        self.fail(format!("--mount: \"{source}\" of {}: {e}", from.name), None)
                    })?;
                    place.bind(found, target, *writable);
                }
                Wanted::Secret { value, target, env, owner: (mode, uid, gid) } => {
                    if let Some(env) = env {
                        place.env.push((env.clone(), value.clone()));
                    }
                    let Some(target) = target else { continue };
                    // In memory: a disk would remember it.
                    place.mounts.push(Mounted::tmpfs(&own, Some(1024 * 1024))?);
                    fs::set_permissions(&own, fs::Permissions::from_mode(0o700))
                        .at("changing the mode of", &own)?;
                    let path = own.join("secret");
                    let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
                    file.and_then(|mut f| f.write_all(value)).at("writing", &path)?;
                    chown(&path, Some(*uid), Some(*gid)).at("changing the owner of", &path)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode))
                        .at("changing the mode of", &path)?;
                    place.bind(path, target, false);
                }
                Wanted::Tmpfs { target, size } => {
                    place.mounts.push(Mounted::tmpfs(&own, *size)?);
                    place.bind(own, target, true);
                }
            }
        }
        Ok(place)
    }

    /// A copy of a part of the context, without what is ignored.
    fn shown(&self, found: &[Found], at: &Path) -> Result<PathBuf> {
        fs::create_dir(at).at("creating", at)?;
        let root = Root::open(at).at("opening", at)?;
        let is_file = found
            .first()
            .is_some_and(|f| !matches!(f.entries.first().map(|e| &e.what), Some(tree::What::Folder)));
        let path = if is_file { "/file" } else { "/" };
        let target = Target { root: &root, path, folder: !is_file, owner: None, mode: None, time: None };
        for one in found {
            target.put(&self.session.context, one).at("copying the context to", at)?;
        }
        Ok(if is_file { at.join("file") } else { at.to_owned() })
    }
}

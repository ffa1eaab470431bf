//! Custom resources: what CustomResourceDefinitions stand for is put into the catalogue beside the built-in kinds.
//!
//! One task follows the definitions. Whenever one changes it settles their names ([`kinds::apiextensions::names`]),
//! replaces the catalogue as a whole, and then says in the definitions' status what is served. Watches of a resource whose
//! definition changed end cleanly, as they do at their timeout; clients begin anew where they were.

mod cleanup;
mod convert;
mod serve;
mod versions;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
};

use apimachinery::{ApiError, Object, meta};
use kinds::apiextensions::names;
use store::Revision;

use crate::{
    catalogue::{Catalogue, Served},
    fields, options,
    server::{Call, Inner},
    verbs::update,
};

pub use convert::Converter;
pub use versions::Versions;

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";

/// A definition that is served, as long as nothing of it changes that matters for serving.
struct Known {
    /// uid, generation, and the accepted names.
    mark: (String, i64, String),
    terminating: bool,
    served: Vec<Arc<Served>>,
}

/// Follows the definitions.
pub(crate) struct Follower {
    definitions: Arc<Served>,
    builtin: Vec<Arc<Served>>,
    /// By name.
    known: HashMap<String, Known>,
    cleanups: cleanup::Running,
    generation: u64,
}

/// Serves what is defined now, and begins to follow changes. Resolves when the first is done; the rest ends with the
/// server.
pub(crate) async fn start(inner: &Arc<Inner>) -> Result<(), ApiError> {
    let Some(definitions) = inner.preferred(GROUP, PLURAL) else { return Ok(()) };
    let builtin = inner.catalogue.load().all().cloned().collect();
    let mut follower = Follower {
        definitions,
        builtin,
        known: HashMap::new(),
        cleanups: cleanup::Running::default(),
        generation: 0,
    };
    let since = follower.settle(inner).await?;
    tokio::spawn(follower.run(Arc::downgrade(inner), since));
    Ok(())
}

impl Follower {
    async fn run(mut self, inner: Weak<Inner>, mut since: Revision) {
        let prefix = self.definitions.prefix.clone();
        loop {
            let opened = match inner.upgrade() {
                None => return,
                Some(inner) => inner.config.store.watch(&prefix, since),
            };
            // History that is gone does not matter: the present is read again anyway.
            if let Ok(mut watch) = opened {
                while watch.changed().await.is_ok() {
                    let Some(inner) = inner.upgrade() else { return };
                    if let Err(error) = self.settle(&inner).await {
                        tracing::warn!(%error, "custom resources could not be brought up to date");
                    }
                }
            }
            let Some(inner) = inner.upgrade() else { return };
            match self.settle(&inner).await {
                Ok(at) => since = at,
                Err(error) => {
                    tracing::warn!(%error, "custom resources could not be brought up to date");
                    since = inner.config.store.revision();
                }
            }
        }
    }

    /// Brings names, catalogue and status to what the definitions say. Returns the revision that was looked at.
    async fn settle(&mut self, inner: &Arc<Inner>) -> Result<Revision, ApiError> {
        let page =
            inner.config.store.list(&self.definitions.prefix, None, 0, None).map_err(ApiError::internal)?;
        let mut all: BTreeMap<String, Object> = BTreeMap::new();
        for entry in &page.entries {
            let definition = self.definitions.object(entry)?;
            all.insert(meta::name(&definition).to_owned(), definition);
        }
        let changed = self.name(inner, &mut all);
        self.serve(inner, &all);
        for name in changed {
            if let Some(definition) = all.get(&name) {
                self.tell(inner, definition).await;
            }
        }
        self.cleanups.follow(inner, &self.definitions, &all);
        Ok(page.revision)
    }

    /// Settles the names of all, one after the other. Returns whose status changed.
    fn name(&self, inner: &Inner, all: &mut BTreeMap<String, Object>) -> Vec<String> {
        let now = (inner.config.now)();
        let mut order: Vec<String> = all.keys().cloned().collect();
        // Whoever came first has the first choice.
        order.sort_by_key(|name| {
            let made = all.get(name).map(|d| meta::creation_timestamp(d).to_owned());
            (made.unwrap_or_default(), name.clone())
        });
        let mut changed = Vec::new();
        for name in order {
            let Some(definition) = all.get(&name) else { continue };
            let others: Vec<&Object> = all.values().collect();
            if let Some(new) = names::accept(definition, &others, now) {
                all.insert(name.clone(), new);
                changed.push(name);
            }
        }
        changed
    }

    /// Replaces the catalogue if anything in it has to change.
    fn serve(&mut self, inner: &Inner, all: &BTreeMap<String, Object>) {
        let before = self.known.len();
        let mut changed = false;
        let mut known = HashMap::with_capacity(before);
        for (name, definition) in all {
            if !names::is_true(definition, "Established") {
                continue;
            }
            let accepted = definition["status"]["acceptedNames"].to_string();
            let mark = (meta::uid(definition).to_owned(), meta::generation(definition), accepted);
            let terminating = meta::deletion_timestamp(definition).is_some();
            // Deletion raises the generation too, and changes nothing but that creates are refused.
            let same = |old: &Known| {
                old.mark == mark
                    || terminating && !old.terminating && old.mark.0 == mark.0 && old.mark.2 == mark.2
            };
            match self.known.remove(name) {
                Some(old) if same(&old) => {
                    if terminating && !old.terminating {
                        old.served.iter().for_each(|served| served.terminate());
                    }
                    known.insert(name.clone(), Known { mark, terminating, served: old.served });
                }
                old => {
                    changed = true;
                    retire(old);
                    match serve::served(definition, inner.config.store.revision(), &self.builtin) {
                        Ok(served) => {
                            if terminating {
                                served.iter().for_each(|s| s.terminate());
                            }
                            known.insert(name.clone(), Known { mark, terminating, served });
                        }
                        Err(errors) => tracing::warn!(name, ?errors, "a definition cannot be served"),
                    }
                }
            }
        }
        for (_, gone) in self.known.drain() {
            changed = true;
            retire(Some(gone));
        }
        self.known = known;
        if changed {
            self.generation += 1;
            let custom = self.known.values().flat_map(|k| k.served.iter().cloned());
            let catalogue =
                Arc::new(Catalogue::of(self.builtin.iter().cloned().chain(custom), self.generation));
            inner.reader.set_catalogue(catalogue.clone());
            inner.catalogue.store(catalogue);
        }
    }

    /// Writes the status. Somebody who was faster is heard of by the next event.
    async fn tell(&self, inner: &Inner, definition: &Object) {
        let (status, uid) = (&definition["status"], meta::uid(definition));
        let told = write_status(inner, &self.definitions, meta::name(definition), |old| {
            if meta::uid(old) != uid {
                return None;
            }
            let mut new = old.clone();
            for field in ["conditions", "acceptedNames"] {
                new["status"][field] = status[field].clone();
            }
            Some(new)
        })
        .await;
        if let Err(error) = told
            && !matches!(error.code, 404 | 409)
        {
            tracing::warn!(%error, name = meta::name(definition), "the status of a definition was not written");
        }
    }
}

/// Ends what goes on with a definition that is not served like this any more.
fn retire(known: Option<Known>) {
    for served in known.iter().flat_map(|k| &k.served) {
        served.retired.cancel();
    }
}

/// Changes an object's status as the server itself. `make` gives `None` where nothing is to be done.
pub(crate) async fn write_status(
    inner: &Inner,
    served: &Served,
    name: &str,
    make: impl Fn(&Object) -> Option<Object> + Send + Sync,
) -> Result<(), ApiError> {
    let mut call = Call::internal(inner, served, "");
    name.clone_into(&mut call.info.name);
    "status".clone_into(&mut call.info.subresource);
    let tracker = fields::Tracker::internal(served, call.now).of("status");
    update::change(inner, &mut call, served, &options::Write::default(), |old, _| {
        let mut new = make(old).unwrap_or_else(|| old.clone());
        tracker.update(Some(old), &mut new);
        Ok(new)
    })
    .await
    .map(|_| ())
}

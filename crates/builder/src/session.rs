//! One build going on: what all its stages share.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use images::{CommitOptions, Images, Layer, Lease, WorkDir};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Build, Error, Executor, Outcome, Progress, Result, Step, bases::Bases, ignore::Ignore, plan::Stages,
    root::Root, stage::State,
};

/// Shared by all stages.
pub(crate) struct Session {
    pub(crate) build: Build,
    pub(crate) images: Images,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) cancel: CancellationToken,
    pub(crate) plan: Stages,
    pub(crate) bases: Bases,
    pub(crate) context: Root,
    pub(crate) ignore: Ignore,
    /// How errors call the ignore file.
    pub(crate) ignore_name: String,
    /// Keeps what the build makes until the image names it.
    pub(crate) lease: Lease,
    pub(crate) handle: Handle,
    /// Steps that may work at once.
    pub(crate) permits: Semaphore,
    /// What each stage came to.
    pub(crate) outputs: Vec<watch::Sender<Option<Arc<State>>>>,
    pub(crate) cache: Cache,
    pub(crate) started: Instant,
}

/// What the build has looked up and made.
#[derive(Default)]
pub(crate) struct Cache {
    made: Mutex<HashMap<String, Made>>,
    busy: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    used: Mutex<BTreeSet<String>>,
}

/// What a step came to.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// None if it changed nothing.
    pub(crate) layer: Option<Layer>,
    /// When, in seconds since 1970.
    pub(crate) created: i64,
    pub(crate) cached: bool,
}

impl Session {
    pub(crate) fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Waits for another stage; it is an error if that fails, told as a cancellation, for the cause is told elsewhere.
    pub(crate) fn stage(&self, at: usize) -> Result<Arc<State>> {
        let mut output = self.outputs[at].subscribe();
        self.handle.block_on(async {
            tokio::select! {
                state = output.wait_for(Option::is_some) => {
                    state.ok().and_then(|s| s.clone()).ok_or(Error::Cancelled)
                }
                () = self.cancel.cancelled() => Err(Error::Cancelled),
            }
        })
    }

    /// What is remembered under this key, if the build may use it.
    pub(crate) fn recall(&self, key: &str) -> Result<Option<Made>> {
        if let Some(made) = self.cache.made.lock().get(key) {
            return Ok(Some(Made { cached: true, ..made.clone() }));
        }
        if self.build.no_cache {
            return Ok(None);
        }
        let Some(found) = self.images.recall(key, &self.lease)? else { return Ok(None) };
        let Some(created) = found.note["created"].as_i64() else { return Ok(None) };
        self.cache.used.lock().insert(key.to_owned());
        Ok(Some(Made { layer: found.layer, created, cached: true }))
    }

    pub(crate) fn remember(&self, key: &str, made: &Made) -> Result<()> {
        self.images.remember(key, made.layer.as_ref(), serde_json::json!({ "created": made.created }))?;
        self.cache.made.lock().insert(key.to_owned(), made.clone());
        Ok(())
    }

    /// What is remembered under this key, or else what `make` makes. Two stages with the same step do it once.
    pub(crate) fn layer(&self, key: &str, make: impl FnOnce() -> Result<Option<WorkDir>>) -> Result<Made> {
        let turn = self.cache.busy.lock().entry(key.to_owned()).or_default().clone();
        let _turn = turn.lock();
        if let Some(made) = self.recall(key)? {
            return Ok(made);
        }
        let _permit = self.permit()?;
        let changes = make()?;
        self.check_cancelled()?;
        let options = CommitOptions { newest: self.build.epoch, compression: self.build.compression };
        let layer = changes.map(|work| self.images.commit_layer(work, options, &self.lease)).transpose()?;
        let created = self.build.epoch.unwrap_or_else(|| chrono::Utc::now().timestamp());
        let made = Made { layer, created, cached: false };
        self.remember(key, &made)?;
        Ok(made)
    }

    fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        self.handle.block_on(async {
            tokio::select! {
                permit = self.permits.acquire() => permit.map_err(|_| Error::Cancelled),
                () = self.cancel.cancelled() => Err(Error::Cancelled),
            }
        })
    }

    /// Tells of a step while it is done.
    pub(crate) fn step<T>(&self, step: &Step, work: impl FnOnce() -> Result<(T, bool)>) -> Result<T> {
        self.check_cancelled()?;
        let began = Instant::now();
        self.progress.start(step);
        let result = work();
        let outcome = match &result {
            Ok((_, true)) => Outcome::Cached,
            Ok((_, false)) => Outcome::Done,
            Err(_) => Outcome::Failed,
        };
        self.progress.done(step, outcome, began.elapsed());
        result.map(|(value, _)| value)
    }

    /// Notes that what was used is of use.
    pub(crate) fn touch(&self) -> Result<()> {
        let used: Vec<String> = self.cache.used.lock().iter().cloned().collect();
        if !used.is_empty() {
            self.images.touch(&used)?;
        }
        Ok(())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

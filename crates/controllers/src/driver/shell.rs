//! The driver at work: one task owns the core; watches, plans and events run beside it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition, jiff::Timestamp,
};
use kube::Client;
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
};

use super::{
    Answer, Core, Id, Report,
    discovery::{discover, is_collectable},
    events::Events,
    execute::execute,
    registry::types,
    requests::Requests,
    watches::{Told, Watches},
};
use crate::{
    Controller,
    local_path::Directories,
    world::{Kind, Served},
};

/// Requests under way at once, over all loops.
const REQUESTS: usize = 64;
/// Plans under way at once.
const PLANS: usize = 256;
/// How long a change of the definitions may be followed by others before they are all looked up together.
const SETTLE: Duration = Duration::from_millis(200);
/// After so long, loops that watch everything go on without the kinds that could not be listed.
const COMPLETE: Duration = Duration::from_secs(30);
/// Between two tries to ask which kinds there are.
const RETRY: Duration = Duration::from_secs(5);

/// Runs loops until the future is dropped. Broken connections are taken up again; a loop runs as soon as all that it
/// watches is listed.
pub async fn run(client: Client, loops: Vec<Box<dyn Controller>>) {
    run_with_disks(client, loops, None).await;
}

/// As [`run`], for loops that make directories on nodes.
pub async fn run_with_disks(
    client: Client,
    loops: Vec<Box<dyn Controller>>,
    directories: Option<Arc<dyn Directories>>,
) {
    let everything = loops.iter().any(|l| l.watches_everything());
    let core = Core::new(loops);
    let (watches, mut told) = Watches::new(client.clone());
    let (events, publish) = Events::new(client.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(publish);
    let mut driver = Driver {
        client,
        core,
        watches,
        events,
        tasks,
        running: JoinSet::new(),
        slots: Arc::new(Semaphore::new(REQUESTS)),
        bare: HashMap::new(),
        unlisted: None,
        directories,
    };
    driver.watch_typed(everything);
    let mut look = everything.then(tokio::time::Instant::now);
    let patience = tokio::time::Instant::now() + COMPLETE;
    let mut discovery: JoinSet<Result<Vec<Served>, kube::Error>> = JoinSet::new();
    loop {
        driver.start_plans();
        let deadline = driver.next_deadline();
        tokio::select! {
            Some(change) = told.recv() => {
                let now = Timestamp::now();
                let mut defined = driver.take(change, now);
                // Take in all that is already there before deciding, so that a burst is decided on its whole.
                while let Ok(change) = told.try_recv() {
                    defined |= driver.take(change, now);
                }
                if everything && defined {
                    look = Some(tokio::time::Instant::now() + SETTLE);
                }
            }
            Some(done) = driver.running.join_next() => {
                driver.finish(done);
                while let Some(done) = driver.running.try_join_next() {
                    driver.finish(done);
                }
            }
            () = until(deadline) => {}
            () = at(look), if discovery.is_empty() => {
                look = None;
                discovery.spawn(discover(driver.client.clone()));
            }
            Some(served) = discovery.join_next() => match served {
                Ok(Ok(served)) => driver.follow(served),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the server did not tell which kinds there are");
                    look = Some(tokio::time::Instant::now() + RETRY);
                }
                Err(_) => look = Some(tokio::time::Instant::now() + RETRY),
            },
            () = tokio::time::sleep_until(patience), if driver.unlisted.is_some() => driver.go_on(),
        }
    }
}

/// Resolves at `deadline`, never if there is none.
async fn until(deadline: Option<Timestamp>) {
    match deadline {
        Some(at) => {
            let wait = at.duration_since(Timestamp::now());
            tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
        }
        None => std::future::pending().await,
    }
}

async fn at(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// A plan's end: whose it was and what became of it.
type Done = (Id, Report);

struct Driver {
    client: Client,
    core: Core,
    watches: Watches,
    events: Events,
    tasks: JoinSet<()>,
    running: JoinSet<Done>,
    slots: Arc<Semaphore>,
    /// The watches of kinds that no loop reads.
    bare: HashMap<Kind, AbortHandle>,
    /// Of those, the ones not yet listed, until they all are.
    unlisted: Option<Vec<Kind>>,
    /// The disks of nodes, where they can be reached.
    directories: Option<Arc<dyn Directories>>,
}

impl Driver {
    fn watch_typed(&mut self, everything: bool) {
        let mut kinds: Vec<Kind> = self.core.watched().cloned().collect();
        let definitions = Kind::of::<CustomResourceDefinition>();
        if everything && !kinds.contains(&definitions) {
            self.core.also_watched(&definitions);
            kinds.push(definitions);
        }
        let types = types();
        for kind in kinds {
            match types.iter().find(|typed| typed.kind == kind) {
                Some(typed) => {
                    self.tasks.spawn((typed.watch)(&self.watches, kind));
                }
                None => tracing::error!(kind = %kind.kind, "a loop watches a kind that has no type"),
            }
        }
    }

    /// Takes a change in. Whether it is about which kinds there are.
    fn take(&mut self, told: Told, now: Timestamp) -> bool {
        let kind = match &told {
            Told::Is(kind, _) | Told::Gone(kind, _) | Told::Listed { kind, .. } => kind.clone(),
        };
        if let (Told::Listed { .. }, Some(unlisted)) = (&told, &mut self.unlisted) {
            unlisted.retain(|k| *k != kind);
        }
        told.take_into(&mut self.core, now);
        if self.unlisted.as_ref().is_some_and(Vec::is_empty) {
            self.go_on();
        }
        kind == Kind::of::<CustomResourceDefinition>()
    }

    /// The loops that watch everything have seen everything, or what there is of it.
    fn go_on(&mut self) {
        if let Some(unlisted) = self.unlisted.take() {
            if !unlisted.is_empty() {
                tracing::warn!(?unlisted, "these kinds could not be listed, going on without them");
            }
            self.core.completed(Timestamp::now());
        }
    }

    /// Starts and ends watches so that they fit what is served.
    fn follow(&mut self, served: Vec<Served>) {
        let now = Timestamp::now();
        let wanted: Vec<Kind> = served.iter().filter(|s| is_collectable(s)).map(|s| s.kind.clone()).collect();
        let first = self.core.world().served().is_empty();
        self.core.world_mut().set_served(served);
        let lost: Vec<Kind> = self.bare.keys().filter(|k| !wanted.contains(k)).cloned().collect();
        for kind in lost {
            if let Some(watch) = self.bare.remove(&kind) {
                watch.abort();
                self.core.unwatched(&kind, now);
            }
        }
        let typed: Vec<Kind> = self.core.watched().cloned().collect();
        let new: Vec<Kind> = wanted.into_iter().filter(|k| !typed.contains(k)).collect();
        for kind in &new {
            self.core.also_watched(kind);
            let watch = self.tasks.spawn(self.watches.bare(kind.clone()));
            self.bare.insert(kind.clone(), watch);
        }
        if first {
            self.unlisted = Some(new);
            if self.unlisted.as_ref().is_some_and(Vec::is_empty) {
                self.go_on();
            }
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        if self.running.len() < PLANS { self.core.deadline() } else { None }
    }

    fn start_plans(&mut self) {
        let now = Timestamp::now();
        while self.running.len() < PLANS
            && let Some(work) = self.core.next(now)
        {
            let Some(name) = self.core.loops().get(work.id.number).map(|l| l.name()) else { continue };
            for note in &work.plan.notes {
                self.events.say(name, note.clone(), now);
            }
            if work.plan.steps.is_empty() && work.plan.asks.is_empty() {
                continue;
            }
            let requests =
                Requests::new(self.client.clone(), self.slots.clone(), name).with(self.directories.clone());
            self.running.spawn(async move {
                let report = execute(&work.plan, &requests).await;
                (work.id, report)
            });
        }
    }

    fn finish(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let (id, report) = match done {
            Ok(done) => done,
            // Plans are not cancelled; a panic is a fault of ours that the log has to show.
            Err(error) => return tracing::error!(%error, "carrying out a plan ended in a panic"),
        };
        let now = Timestamp::now();
        let Some(name) = self.core.loops().get(id.number).map(|l| l.name()) else { return };
        for note in &report.notes {
            self.events.say(name, note.clone(), now);
        }
        for failure in &report.failures {
            tracing::debug!(
                controller = name,
                key = ?id.key,
                code = failure.code,
                reason = failure.reason,
                message = failure.message,
                "a write failed"
            );
        }
        for answer in &report.answers {
            if let Answer::Written { revision, .. } = answer {
                self.watches.wrote(*revision);
            }
        }
        self.core.done(&id, report, now);
    }
}

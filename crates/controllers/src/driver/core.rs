//! Which key of which loop is due. No I/O, no clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;

use super::execute::{Answer, Report};
use crate::{
    Controller,
    ask::MOST_ANSWERS,
    plan::{Outcome, Plan},
    world::{Key, Kind, Seen, World},
};

/// A key of a loop.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// Which loop, by its place in the list given to [`Core::new`].
    pub number: usize,
    /// What it works on.
    pub key: Key,
}

/// A plan to be carried out.
#[derive(Clone, Debug)]
pub struct Work {
    /// Whose it is.
    pub id: Id,
    /// What is to be done.
    pub plan: Plan,
}

/// An object whose deletion has not been seen yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Leaving {
    kind: Kind,
    namespace: String,
    name: String,
    uid: String,
}

/// What is known about a key.
#[derive(Default)]
struct State {
    /// When it is in the queue.
    due: Option<Timestamp>,
    /// A plan of it is being carried out.
    running: bool,
    /// It came up while it could not run.
    parked: bool,
    /// When the plan that is being carried out wants to be looked at again.
    again: Option<Timestamp>,
    /// Kinds that have to be seen up to a resourceVersion first.
    unseen: BTreeMap<Kind, u64>,
    /// Objects that have to be seen going first.
    leaving: BTreeSet<Leaving>,
    /// When it is given up to wait for what is unseen and leaving.
    patience: Timestamp,
    outcome: Outcome,
}

impl State {
    fn waits(&self) -> bool {
        !self.unseen.is_empty() || !self.leaving.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.due.is_none()
            && !self.running
            && !self.parked
            && !self.waits()
            && self.outcome == Outcome::default()
    }
}

/// The loops, their world and their queue.
///
/// Promises: a key's plans are carried out one after another; a key is asked for a plan only when the world holds everything
/// that its previous plan has written; a loop is asked only when everything it watches has been listed once.
pub struct Core {
    loops: Vec<Box<dyn Controller>>,
    /// Kinds that are watched but not yet listed.
    unlisted: HashSet<Kind>,
    watched: HashSet<Kind>,
    /// Everything that discovery told of has been listed, for the loops that watch everything.
    complete: bool,
    world: World,
    states: HashMap<Id, State>,
    queue: BTreeSet<(Timestamp, Id)>,
    /// Keys of loops that cannot run yet.
    held: BTreeSet<Id>,
    waiting: HashMap<Kind, BTreeSet<Id>>,
}

impl Core {
    /// Loops with an empty world.
    #[must_use]
    pub fn new(loops: Vec<Box<dyn Controller>>) -> Self {
        let watched: HashSet<Kind> = loops.iter().flat_map(|l| l.watches()).collect();
        let held = loops
            .iter()
            .enumerate()
            .flat_map(|(number, l)| l.first().into_iter().map(move |key| Id { number, key }))
            .collect();
        Self {
            complete: !loops.iter().any(|l| l.watches_everything()),
            unlisted: watched.clone(),
            watched,
            loops,
            world: World::default(),
            states: HashMap::new(),
            queue: BTreeSet::new(),
            held,
            waiting: HashMap::new(),
        }
    }

    /// The loops.
    #[must_use]
    pub fn loops(&self) -> &[Box<dyn Controller>] {
        &self.loops
    }

    /// What is seen.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What is seen, to put in what discovery tells.
    pub fn world_mut(&mut self) -> &mut World {
        &mut self.world
    }

    /// The kinds that are watched because a loop reads them.
    pub fn watched(&self) -> impl Iterator<Item = &Kind> {
        self.watched.iter()
    }

    /// Takes a change in: an object as it is now, or its last state and that it is gone.
    pub fn apply(&mut self, kind: &Kind, object: Arc<dyn Seen>, gone: bool, now: Timestamp) {
        let revision = crate::world::revision_of(object.meta());
        let Key { namespace, name } = Key::of(object.meta());
        self.put(kind, &namespace, &name, (!gone).then_some(object), revision, now);
    }

    /// Takes in that a kind has been listed: nothing else is there but the objects that `present` knows, and everything
    /// written up to `revision` is in the list.
    pub fn listed(
        &mut self,
        kind: &Kind,
        present: impl Fn(&ObjectMeta) -> bool,
        revision: u64,
        now: Timestamp,
    ) {
        let lost: Vec<Key> = self
            .world
            .each(kind, "")
            .filter(|object| !present(object.meta()))
            .map(|object| Key::of(object.meta()))
            .collect();
        for Key { namespace, name } in lost {
            self.put(kind, &namespace, &name, None, 0, now);
        }
        self.world.saw(kind, revision);
        self.unlisted.remove(kind);
        self.release(kind, now);
        self.unhold(now);
    }

    /// Everything that discovery told of has been listed.
    pub fn completed(&mut self, now: Timestamp) {
        self.complete = true;
        self.unhold(now);
    }

    /// Kinds beyond those that loops read are watched too, by their metadata.
    pub fn also_watched(&mut self, kind: &Kind) {
        self.watched.insert(kind.clone());
    }

    /// A kind is no longer watched: its objects are gone.
    pub fn unwatched(&mut self, kind: &Kind, now: Timestamp) {
        self.listed(kind, |_| false, u64::MAX, now);
        self.watched.remove(kind);
    }

    fn put(
        &mut self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        object: Option<Arc<dyn Seen>>,
        revision: u64,
        now: Timestamp,
    ) {
        let change = self.world.apply(kind, namespace, name, object);
        self.world.saw(kind, revision);
        let mut woken = Vec::new();
        for (number, one) in self.loops.iter().enumerate() {
            woken.extend(one.keys(&change, &self.world).into_iter().map(|key| Id { number, key }));
        }
        for id in woken {
            self.wake(id, now);
        }
        self.release(kind, now);
    }

    /// Looks at a key at this time at the latest.
    pub fn wake(&mut self, id: Id, at: Timestamp) {
        let state = self.states.entry(id.clone()).or_default();
        match state.due {
            Some(due) if due <= at => return,
            Some(due) => {
                self.queue.remove(&(due, id.clone()));
            }
            None => {}
        }
        state.due = Some(at);
        self.queue.insert((at, id));
    }

    /// When the next key is due, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.queue.first().map(|(at, _)| *at)
    }

    fn can_run(&self, number: usize) -> bool {
        self.loops.get(number).is_some_and(|one| {
            (self.complete || !one.watches_everything())
                && !one.watches().iter().any(|kind| self.unlisted.contains(kind))
        })
    }

    /// The next plan to be carried out, until nothing is due at `now`. What was carried out goes to [`Core::done`].
    pub fn next(&mut self, now: Timestamp) -> Option<Work> {
        while let Some((at, _)) = self.queue.first()
            && *at <= now
        {
            let Some((_, id)) = self.queue.pop_first() else { break };
            if !self.can_run(id.number) {
                if let Some(state) = self.states.get_mut(&id) {
                    state.due = None;
                }
                self.held.insert(id);
                continue;
            }
            let Some(state) = self.states.get_mut(&id) else { continue };
            state.due = None;
            if state.running {
                state.parked = true;
                continue;
            }
            if state.waits() {
                if now < state.patience {
                    state.parked = true;
                    let patience = state.patience;
                    if patience < Timestamp::MAX {
                        self.wake(id, patience);
                    }
                    continue;
                }
                tracing::warn!(
                    controller = self.loops.get(id.number).map(|l| l.name()),
                    key = ?id.key,
                    unseen = ?state.unseen,
                    leaving = ?state.leaving,
                    "own writes have not shown up in the watches, going on without them"
                );
                state.unseen.clear();
                state.leaving.clear();
            }
            state.parked = false;
            if let Some(work) = self.ask(id, now) {
                return Some(work);
            }
        }
        None
    }

    fn ask(&mut self, id: Id, now: Timestamp) -> Option<Work> {
        let (Some(one), Some(state)) = (self.loops.get(id.number), self.states.get_mut(&id)) else {
            return None;
        };
        let mut plan = one.reconcile(&id.key, &self.world, &state.outcome, now);
        // Nothing is asked twice in one conversation, or it would never end.
        plan.asks.retain(|ask| state.outcome.answer(ask).is_none());
        plan.asks.truncate(MOST_ANSWERS.saturating_sub(state.outcome.answers.len()));
        let asks = !plan.asks.is_empty();
        if asks {
            plan.steps.clear();
        } else {
            state.outcome.answers.clear();
        }
        if let Some(memory) = &plan.memory {
            state.outcome.memory = memory.clone();
        }
        if asks {
            state.running = true;
        } else if plan.steps.is_empty() {
            state.outcome.failures.clear();
            state.outcome.tries = 0;
        } else {
            state.running = true;
        }
        if state.running {
            state.again = plan.again;
        } else if let Some(again) = plan.again {
            self.wake(id.clone(), again);
        } else if state.is_idle() {
            self.states.remove(&id);
        }
        (asks || !plan.steps.is_empty() || !plan.notes.is_empty()).then_some(Work { id, plan })
    }

    /// What became of a plan that had steps or questions.
    pub fn done(&mut self, id: &Id, report: Report, now: Timestamp) {
        let Some(state) = self.states.get_mut(id) else { return };
        state.running = false;
        if !report.told.is_empty() {
            // The failures of the plan before stay until the loop has made up its mind.
            state.outcome.answers.extend(report.told);
            state.parked = false;
            self.wake(id.clone(), now);
            return;
        }
        let patience = self.loops.get(id.number).and_then(|l| l.patience());
        let end = patience.and_then(|patience| now.checked_add(patience).ok());
        state.patience = end.unwrap_or(Timestamp::MAX);
        for answer in report.answers {
            match answer {
                Answer::Nothing => {}
                Answer::Written { kind, revision } => {
                    if self.watched.contains(&kind) && self.world.revision(&kind) < revision {
                        let needed = state.unseen.entry(kind.clone()).or_default();
                        *needed = revision.max(*needed);
                        self.waiting.entry(kind).or_default().insert(id.clone());
                    }
                }
                Answer::Gone(target) => {
                    let leaving = Leaving {
                        kind: target.kind,
                        namespace: target.namespace,
                        name: target.name,
                        uid: target.uid,
                    };
                    if self.watched.contains(&leaving.kind) && is_there(&self.world, &leaving) {
                        self.waiting.entry(leaving.kind.clone()).or_default().insert(id.clone());
                        state.leaving.insert(leaving);
                    }
                }
            }
        }
        state.outcome.failures = report.failures;
        let again = state.again.take();
        let wake = if state.outcome.failures.is_empty() {
            state.outcome.tries = 0;
            if state.parked { Some(now) } else { again }
        } else {
            state.outcome.tries = state.outcome.tries.saturating_add(1);
            let wait = self.loops.get(id.number).map(|l| l.backoff().after(state.outcome.tries));
            let later = wait.and_then(|wait| now.saturating_add(wait).ok());
            if state.parked { Some(now) } else { later }
        };
        state.parked = false;
        let idle = state.is_idle();
        if let Some(at) = wake {
            self.wake(id.clone(), at);
        } else if idle {
            self.states.remove(id);
        }
    }

    /// Lets the keys go on that have now seen what they wrote.
    fn release(&mut self, kind: &Kind, now: Timestamp) {
        let Some(waiting) = self.waiting.get_mut(kind) else { return };
        let revision = self.world.revision(kind);
        let mut free = Vec::new();
        waiting.retain(|id| {
            let Some(state) = self.states.get_mut(id) else { return false };
            if state.unseen.get(kind).is_some_and(|needed| *needed <= revision) {
                state.unseen.remove(kind);
            }
            state.leaving.retain(|leaving| leaving.kind != *kind || is_there(&self.world, leaving));
            if !state.waits() && !state.running {
                free.push(id.clone());
            }
            state.unseen.contains_key(kind) || state.leaving.iter().any(|l| l.kind == *kind)
        });
        if waiting.is_empty() {
            self.waiting.remove(kind);
        }
        for id in free {
            let Some(state) = self.states.get_mut(&id) else { continue };
            if std::mem::take(&mut state.parked) {
                self.wake(id, now);
            } else if state.is_idle() {
                self.states.remove(&id);
            }
        }
    }

    fn unhold(&mut self, now: Timestamp) {
        let held = std::mem::take(&mut self.held);
        for id in held {
            if self.can_run(id.number) {
                self.wake(id, now);
            } else {
                self.held.insert(id);
            }
        }
    }
}

/// The object is in the world and nothing shows that it is being deleted.
fn is_there(world: &World, leaving: &Leaving) -> bool {
    let object = world.find(&leaving.kind, &leaving.namespace, &leaving.name);
    object.is_some_and(|object| {
        let meta = object.meta();
        meta.deletion_timestamp.is_none()
            && (leaving.uid.is_empty() || meta.uid.as_deref() == Some(&*leaving.uid))
    })
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;

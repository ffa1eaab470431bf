//! All loops together against a server and nodes that are not there, under a virtual clock.
//!
//! Everything that happens follows from the seed. Without chaos, watches tell and requests are answered at once; with it,
//! both take their turns in random order and some answers get lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Resource;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    api::{Api, Deletion},
    nodes::Nodes,
    requests::Requests,
};
use crate::{
    Controller,
    driver::{
        Core, Id,
        execute::{Report, execute},
        registry::{Typed, types},
    },
    plan::{Note, PatchKind},
    world::{Bare, Kind, Seen},
};

/// How one run differs from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chaos {
    /// Of 100 requests, so many are carried out but their answer is lost, and as many are not even carried out.
    pub lost: u32,
    /// How often a request or a watch may have to wait for its turn.
    pub turns: u32,
}

type Running = (Id, BoxFuture<'static, (Report, Vec<Note>)>);

/// A cluster.
pub struct Cluster {
    /// The server.
    pub api: Arc<Api>,
    /// Scheduler and kubelets.
    pub nodes: Nodes,
    /// The time.
    pub now: Timestamp,
    /// What the loops had to say.
    pub notes: Vec<Note>,
    /// How many plans were carried out.
    pub plans: usize,
    make: Box<dyn Fn() -> Vec<Box<dyn Controller>>>,
    core: Core,
    types: Vec<Typed>,
    /// How many changes of each watched kind were delivered.
    cursors: BTreeMap<Kind, usize>,
    running: Vec<Running>,
    chaos: Option<Chaos>,
    random: Arc<Mutex<StdRng>>,
    /// Requests of a driver that has been stopped are no longer carried out.
    alive: Arc<AtomicBool>,
    round_at: Timestamp,
    rounds: usize,
}

/// More rounds at one time mean that two loops, or a loop and itself, answer each other for ever.
const MOST_ROUNDS: usize = 10_000;

impl Cluster {
    fn last_said(&self) -> &[Note] {
        self.notes.get(self.notes.len().saturating_sub(4)..).unwrap_or_default()
    }

    /// Some nodes, nothing else, and the loops that `make` makes. The clock stands at an hour and a second after some
    /// midnight.
    pub fn new(
        nodes: usize,
        seed: u64,
        chaos: Option<Chaos>,
        make: impl Fn() -> Vec<Box<dyn Controller>> + 'static,
    ) -> Self {
        let now = super::at(1_790_000_000 / 86_400 * 86_400 + 3601);
        let core = Core::new(make());
        let mut cluster = Self {
            api: Arc::new(Api::new(now, seed)),
            nodes: Nodes::default(),
            now,
            notes: Vec::new(),
            plans: 0,
            make: Box::new(make),
            core,
            types: types(),
            cursors: BTreeMap::new(),
            running: Vec::new(),
            chaos,
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed ^ 0x5eed))),
            alive: Arc::new(AtomicBool::new(true)),
            round_at: now,
            rounds: 0,
        };
        for number in 0..nodes {
            cluster.add_node(&format!("node-{number}"));
        }
        cluster.list();
        cluster
    }

    fn roll(&self, below: u32) -> u32 {
        if below == 0 {
            return 0;
        }
        self.random.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..below)
    }

    /// A ready node without taints.
    pub fn add_node(&mut self, name: &str) {
        self.create(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
            "labels": {"kubernetes.io/hostname": name}}, "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
    }

    /// The machine is gone, and so is the node object.
    pub fn lose_node(&mut self, name: &str) {
        let kind = Kind::of::<k8s_openapi::api::core::v1::Node>();
        let _ = self.api.delete((&kind, "", name), &Deletion::default());
    }

    /// Makes an object as a user would.
    ///
    /// # Panics
    /// When the server refuses it.
    #[allow(clippy::panic)]
    pub fn create(&mut self, object: Value) -> Arc<Value> {
        match self.api.create(object) {
            Ok(object) => object,
            Err(error) => panic!("refused: {error}"),
        }
    }

    /// Applies a merge patch as a user would. Whether the object was there.
    pub fn patch<K: Resource<DynamicType = ()>>(
        &mut self,
        namespace: &str,
        name: &str,
        body: &Value,
    ) -> bool {
        self.api.patch((&Kind::of::<K>(), namespace, name), PatchKind::Merge, body, "").is_ok()
    }

    /// Applies a merge patch to the status, as a kubelet or a meddler would. Whether the object was there.
    pub fn patch_status<K: Resource<DynamicType = ()>>(
        &mut self,
        namespace: &str,
        name: &str,
        body: &Value,
    ) -> bool {
        self.api.patch((&Kind::of::<K>(), namespace, name), PatchKind::Merge, body, "status").is_ok()
    }

    /// Deletes an object as a user would, dependents in the background. Whether it was there.
    pub fn delete<K: Resource<DynamicType = ()>>(&mut self, namespace: &str, name: &str) -> bool {
        let deletion = Deletion { propagation: Some("Background"), ..Deletion::default() };
        self.api.delete((&Kind::of::<K>(), namespace, name), &deletion).is_ok()
    }

    /// One object as it is on the server.
    #[must_use]
    pub fn get<K>(&self, namespace: &str, name: &str) -> Option<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let found = self.api.get(&Kind::of::<K>(), namespace, name)?;
        serde_json::from_value(Value::clone(&found)).ok()
    }

    /// The objects of a kind as they are on the server.
    #[must_use]
    pub fn list_of<K>(&self, namespace: &str) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let found = self.api.list(&Kind::of::<K>(), namespace);
        found.iter().filter_map(|o| serde_json::from_value(Value::clone(o)).ok()).collect()
    }

    /// Reasons and messages of the events so far.
    #[must_use]
    pub fn said(&self) -> Vec<(&str, &str)> {
        self.notes.iter().map(|n| (n.reason.as_str(), n.message.as_str())).collect()
    }

    /// The driver stops in the middle of whatever it does, and a new one starts.
    pub fn restart(&mut self) {
        self.alive.store(false, Ordering::Relaxed);
        self.running.clear();
        self.alive = Arc::new(AtomicBool::new(true));
        self.core = Core::new((self.make)());
        self.cursors.clear();
        self.list();
    }

    fn decode(&self, kind: &Kind, object: &Value) -> Option<Arc<dyn Seen>> {
        match self.types.iter().find(|t| t.kind == *kind) {
            Some(typed) => (typed.decode)(object.clone()).ok(),
            None => Some(Arc::new(Bare { meta: serde_json::from_value(object["metadata"].clone()).ok()? })),
        }
    }

    /// Lists every watched kind.
    fn list(&mut self) {
        let everything = self.core.loops().iter().any(|l| l.watches_everything());
        let served = if everything { super::objects::served() } else { Vec::new() };
        for kind in served.iter().map(|s| &s.kind) {
            self.core.also_watched(kind);
        }
        self.core.world_mut().set_served(served);
        let mut kinds: Vec<Kind> = self.core.watched().cloned().collect();
        kinds.sort();
        for kind in kinds {
            self.cursors.insert(kind.clone(), self.api.count(&kind));
            let revision = self.api.revision();
            for object in self.api.list(&kind, "") {
                if let Some(object) = self.decode(&kind, &object) {
                    self.core.apply(&kind, object, false, self.now);
                }
            }
            self.core.listed(&kind, |_| true, revision, self.now);
        }
        self.core.completed(self.now);
    }

    /// Delivers changes. Whether there were any.
    fn deliver(&mut self) -> bool {
        let kinds: Vec<Kind> = self.cursors.keys().cloned().collect();
        let mut any = false;
        for kind in kinds {
            let seen = self.cursors.get(&kind).copied().unwrap_or(0);
            let mut events = self.api.changes(&kind, seen);
            if let Some(chaos) = self.chaos {
                events.truncate(self.roll(chaos.turns + 2) as usize);
            }
            any |= !events.is_empty();
            self.cursors.insert(kind.clone(), seen + events.len());
            for event in events {
                if let Some(object) = self.decode(&kind, &event.object) {
                    self.core.apply(&kind, object, event.gone, self.now);
                }
            }
        }
        any
    }

    /// Starts what is due, carries on what is under way. Whether there was anything.
    fn drive(&mut self) -> bool {
        let mut any = false;
        while let Some(work) = self.core.next(self.now) {
            any = true;
            self.plans += 1;
            let server = Requests {
                api: self.api.clone(),
                chaos: self.chaos,
                random: self.random.clone(),
                alive: self.alive.clone(),
            };
            let plan = work.plan;
            let carried_out = async move {
                let report = execute(&plan, &server).await;
                (report, plan.notes)
            };
            self.running.push((work.id, carried_out.boxed()));
        }
        let mut still = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        for (id, mut future) in std::mem::take(&mut self.running) {
            any = true;
            match future.poll_unpin(&mut context) {
                Poll::Pending => still.push((id, future)),
                Poll::Ready((report, notes)) => {
                    self.notes.extend(notes);
                    self.notes.extend(report.notes.iter().cloned());
                    self.core.done(&id, report, self.now);
                }
            }
        }
        self.running = still;
        any
    }

    /// One round of everything. Whether anything happened.
    ///
    /// # Panics
    /// When the loops go on and on without time passing.
    fn round(&mut self) -> bool {
        if self.round_at == self.now {
            self.rounds += 1;
            assert!(self.rounds < MOST_ROUNDS, "no rest at {}; last events {:?}", self.now, self.last_said());
        } else {
            (self.round_at, self.rounds) = (self.now, 0);
        }
        self.api.set_now(self.now);
        let delivered = self.deliver();
        let driven = self.drive();
        let acted = (self.chaos.is_none() || self.roll(3) == 0) && self.nodes.act(&self.api, self.now);
        let behind = self.nodes.behind(&self.api, self.now)
            || self.cursors.iter().any(|(kind, seen)| *seen < self.api.count(kind));
        delivered || driven || acted || behind
    }

    /// Runs for so long, and asks `check` after every round.
    pub fn run_checked(&mut self, length: SignedDuration, mut check: impl FnMut(&Self)) {
        let end = self.now.saturating_add(length).unwrap_or(Timestamp::MAX);
        loop {
            while self.round() {
                check(self);
            }
            check(self);
            match [self.core.deadline(), self.nodes.deadline()].into_iter().flatten().min() {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => break,
            }
        }
        self.now = end;
        self.api.set_now(end);
    }

    /// Runs for so many seconds.
    pub fn run(&mut self, seconds: i64) {
        self.run_checked(SignedDuration::from_secs(seconds), |_| {});
    }

    /// Runs until `reached`, for at most so many seconds.
    ///
    /// # Panics
    /// When it is not reached.
    #[allow(clippy::panic)]
    pub fn until(&mut self, seconds: i64, what: &str, reached: impl Fn(&Self) -> bool) {
        let end = self.now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        while !reached(self) {
            if self.round() {
                continue;
            }
            match [self.core.deadline(), self.nodes.deadline()].into_iter().flatten().min() {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => panic!("after {seconds} seconds it is not so that {what}"),
            }
        }
    }
}

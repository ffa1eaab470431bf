//! The control loops: what turns what is wanted into what is there.
//!
//! A loop is a pure function: [`Controller::reconcile`] takes a key, the [`World`] as last seen and the time, and gives a
//! [`Plan`]. It has no clock, does no I/O and keeps nothing to itself. One [`driver`] runs all loops: it watches, calls,
//! writes, and never runs a key on a world older than that key's own last write.
//!
//! Reading order: [`world`] (what is seen) → [`plan`] (what is to be done) → [`ask`] (what has to be asked first) → [`ownership`], [`pod_state`],
//! [`pod_template`], [`node_fit`], [`revisions`] (what loops share) → one file a loop → [`driver`] → [`testing`] (a cluster that is not there).

pub mod ask;
pub mod conditions;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod driver;
pub mod job;
pub mod node_fit;
pub mod ownership;
pub mod plan;
pub mod pod_control;
pub mod pod_state;
pub mod pod_template;
pub mod replicaset;
pub mod revisions;
pub mod statefulset;
#[cfg(test)]
mod storms;
pub mod testing;
pub mod world;

// the loops of the cluster itself
pub mod about;
pub mod attributes_class;
pub mod autoscaler;
pub mod backends;
pub mod certificates;
pub mod cluster_loops;
pub mod device_taints;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod ephemeral_volumes;
#[cfg(test)]
mod fixtures;
pub mod garbage_collector;
pub mod legacy_tokens;
pub mod local_path;
pub mod mirroring;
pub mod namespaces;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod node_ttl;
pub mod pod_gc;
pub mod protection;
pub mod quota;
pub mod resource_claims;
pub mod role_aggregation;
pub mod root_ca;
pub mod service_accounts;
pub mod service_cidrs;
pub mod storage_migration;
pub mod taint_eviction;
pub mod token_secrets;
pub mod ttl_after_finished;
pub mod volumes;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

pub use ask::{Ask, Refusal, Told};
pub use plan::{Failure, Note, Outcome, PatchKind, Plan, Target, Write};
pub use world::{Change, Key, Kind, World};

/// What the operator chooses about the loops.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The loops of the cluster itself and what they have to be told; only those of workloads if absent.
    pub cluster: Option<cluster_loops::Settings>,
}

/// Every loop of the control plane.
#[must_use]
pub fn all(options: &Options) -> Vec<Box<dyn Controller>> {
    let mut loops = options.cluster.clone().map(cluster_loops::loops).unwrap_or_default();
    loops.extend(workloads());
    loops
}

/// The loops of workloads.
fn workloads() -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(deployment::Deployments),
        Box::new(replicaset::replica_sets()),
        Box::new(replicaset::replication_controllers()),
        Box::new(statefulset::StatefulSets),
        Box::new(daemonset::DaemonSets),
        Box::new(job::Jobs),
        Box::new(cronjob::CronJobs),
    ]
}

/// One control loop.
pub trait Controller: Send + Sync {
    /// As upstream names it: `deployment-controller`. It is the events' `reportingController`, and the field manager is
    /// the program's.
    fn name(&self) -> &'static str;

    /// The kinds whose objects the loop reads; the driver watches them, once for all loops.
    fn watches(&self) -> Vec<Kind>;

    /// Whether it needs the metadata of the objects of every kind that can be listed, watched and deleted, custom resources
    /// included. [`World::served`] then tells which kinds there are.
    fn watches_everything(&self) -> bool {
        false
    }

    /// The keys to look at once, when the world is first complete, besides those of the objects found.
    fn first(&self) -> Vec<Key> {
        Vec::new()
    }

    /// The keys to look at after a change. The world already contains it; `change.before` is what was there. Also called
    /// for every object that is there at the start, with nothing before.
    fn keys(&self, change: &Change, world: &World) -> Vec<Key>;

    /// What to do about a key. `last` tells what became of this key's previous plan.
    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan;

    /// How long a key waits after its plan has failed.
    fn backoff(&self) -> Backoff {
        Backoff::default()
    }

    /// How long a key waits for its own writes to show up in the watches before it goes on without them. Watches slower than
    /// five minutes (upstream's `ExpectationsTimeout`) have broken in a way that nothing else has noticed. `None`: for ever.
    fn patience(&self) -> Option<SignedDuration> {
        Some(SignedDuration::from_mins(5))
    }
}

/// The wait after a failed plan: `first`, then twice as long each time, never more than `most`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: SignedDuration,
    /// The longest.
    pub most: SignedDuration,
}

impl Default for Backoff {
    /// 5 ms to 1000 s, client-go's `ItemExponentialFailureRateLimiter`.
    fn default() -> Self {
        Self { first: SignedDuration::from_millis(5), most: SignedDuration::from_secs(1000) }
    }
}

impl Backoff {
    /// The wait after so many failures in a row.
    #[must_use]
    pub fn after(&self, tries: u32) -> SignedDuration {
        let factor = 1_i32.checked_shl(tries.saturating_sub(1)).filter(|f| *f > 0).unwrap_or(i32::MAX);
        self.first.checked_mul(factor).map_or(self.most, |wait| wait.min(self.most))
    }
}

//! The driver: what makes an agent act.
//!
//! [`Agent`] joins the parts: [`node`] registers and reports, [`lease`] is the heartbeat, [`pods`] follows the pods bound
//! here and the runtime's events and gives each pod a [`worker`], which asks the state machine what to do and has it done
//! by [`act`]. [`adopt`] takes over what an earlier agent left running, [`admission`] judges what is new; [`gc`] and
//! [`eviction`] keep disk and memory from running out.

mod act;
mod admission;
mod adopt;
mod bundles;
mod cgroup;
mod context;
mod disk;
mod error;
mod events;
mod eviction;
mod hardware;
mod instance;
mod lease;
mod node;
mod objects;
mod pods;
mod probes;
mod registry;
mod retry;
mod services;
mod status;
mod worker;

use std::{path::PathBuf, sync::Arc};

use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub use disk::{Shortage, shortage};
pub use error::Error;

use self::{context::Context, node::Pressure, probes::dial::Dialer, registry::Registry, services::Services};
use crate::{config::Config, view};

/// A node agent, ready to run.
pub struct Agent {
    config: Config,
    registry: Arc<Registry>,
    port: Option<u16>,
    netns: Option<PathBuf>,
}

impl Agent {
    /// An agent of this configuration.
    pub fn new(config: Config) -> Self {
        let port = config.server.as_ref().and_then(|s| s.listener.local_addr().ok()).map(|a| a.port());
        Self { config, registry: Arc::default(), port, netns: None }
    }

    /// The node's pods, as the kubelet's HTTPS API shows them.
    pub fn pods(&self) -> Arc<dyn view::Pods> {
        Arc::clone(&self.registry) as _
    }

    /// The port that the kubelet's HTTPS API really listens on, where the configuration leaves it open.
    #[must_use]
    pub fn serving_on(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The network namespace of the node, where it is not the one of this process: probes and hooks connect from there.
    #[must_use]
    pub fn within(mut self, netns: PathBuf) -> Self {
        self.netns = Some(netns);
        self
    }

    /// Runs the node until `shutdown`. Pods go on running without it; the next agent takes them over.
    ///
    /// Errors: its directories cannot be made, its network namespace cannot be entered, or a task of it broke.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let config = self.config;
        for path in [config.root.join("pods"), config.log_root.clone()] {
            std::fs::create_dir_all(&path).map_err(|source| Error::Directory { path, source })?;
        }
        let dialer = match self.netns {
            Some(path) => Dialer::within(path.clone()).map_err(|source| Error::Directory { path, source })?,
            None => Dialer::default(),
        };
        let mut capacity = hardware::capacity(&config.root, config.max_pods);
        capacity.extend(config.capacity.clone());
        let allocatable = node::allocatable(&capacity, &config.reserved);
        let (events, events_writer) = events::Events::new(config.client.clone(), &config.node_name);
        let (node, node_known) = watch::channel(None);
        let (up, is_up) = watch::channel(false);
        let (pressed, pressure) = watch::channel(Pressure::default());
        let cx = Arc::new(Context {
            events,
            registry: self.registry,
            config_maps: objects::Cache::new(config.client.clone()),
            secrets: objects::Cache::new(config.client.clone()),
            trust_bundles: bundles::TrustBundles::new(config.client.clone()),
            services: Services::new(),
            node: node_known,
            allocatable: RwLock::new(allocatable.clone()),
            room: Mutex::new(()),
            freed: watch::Sender::new(0),
            memory: capacity.get("memory").copied().unwrap_or(0),
            disk: Notify::new(),
            news: Notify::new(),
            dialer,
            config,
        });
        let facts = node::Facts { capacity, allocatable, port: self.port, ..node::Facts::default() };
        let keeper = node::Keeper { cx: Arc::clone(&cx), facts, up: is_up, pressure };
        let pressed = Arc::new(pressed);
        let (evictions, evicted) = mpsc::channel(16);
        let (said, pump) = pods::runtime_events(Arc::clone(&cx), up);
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run());
        tasks.spawn(node::follow(Arc::clone(&cx), node));
        tasks.spawn(Arc::clone(&cx.services).run(cx.config.client.clone()));
        tasks.spawn(events_writer);
        tasks.spawn(pump);
        tasks.spawn(disk::run(Arc::clone(&cx), Arc::clone(&pressed)));
        tasks.spawn(eviction::run(Arc::clone(&cx), pressed, evictions));
        let pods = pods::Pods::new(cx, shutdown.clone()).run(said, evicted);
        tokio::select! {
            () = pods => {}
            ended = tasks.join_next() => {
                let why = match ended {
                    Some(Err(error)) => error.to_string(),
                    _ => "it had nothing more to do".to_owned(),
                };
                if !shutdown.is_cancelled() {
                    return Err(Error::Task(why));
                }
            }
        }
        Ok(())
    }
}

/// Runs a node agent until `shutdown`; see [`Agent`] for more control.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    Agent::new(config).run(shutdown).await
}

//! What a runtime does with what it finds: after a restart of its own, and after the loss of the holder.

use std::{collections::HashMap, time::Duration};

use tokio::sync::watch;

use super::{
    Container, ContainerRecord, Runtime, Sandbox, SandboxRecord,
    namespaces::{is_set_up, unmount_sandbox},
    now,
    record::{self, Phase},
    sandbox::{init_id, remove_dir},
};
use crate::{
    Error, Result,
    client::Exits,
    holder::wire::{Exit, Request, State},
};

/// Exit code of a container whose end nobody saw.
const UNSEEN: i32 = 137;

impl Runtime {
    /// Fills the tables from disk and brings them in line with what the holder has.
    pub(super) async fn recover(&self, states: Vec<State>) -> Result<()> {
        let read = |part: &str| self.config.dir.join(part);
        let (sandboxes, rubbish) =
            record::load::<SandboxRecord>(&read("sandboxes")).map_err(Error::io("read the sandboxes"))?;
        for dir in rubbish {
            unmount_sandbox(&dir)
                .and_then(|()| remove_dir(&dir))
                .map_err(Error::io("remove half a sandbox"))?;
        }
        let (containers, rubbish) =
            record::load::<ContainerRecord>(&read("containers")).map_err(Error::io("read the containers"))?;
        for dir in rubbish {
            remove_dir(&dir).map_err(Error::io("remove half a container"))?;
        }
        {
            let mut tables = self.tables.lock();
            for mut record in sandboxes {
                let dir = self.sandbox_dir(&record.id);
                record.ready &= record.boot == self.boot && is_set_up(&dir, &record);
                tables.sandboxes.insert(record.id.clone(), Sandbox { record, turn: Default::default() });
            }
            for record in containers {
                // one whose image is lost cannot be started any more, but it can be removed
                let lease = self.config.images.lease(&record.image_id).ok();
                let ended = watch::Sender::new(record.phase == Phase::Exited);
                let container = Container { record, turn: Default::default(), ended, _lease: lease };
                tables.containers.insert(container.record.id.clone(), container);
            }
        }
        self.align(states).await;
        Ok(())
    }

    /// Brings the tables in line with what a holder has.
    async fn align(&self, states: Vec<State>) {
        let mut known: HashMap<String, State> = states.into_iter().map(|s| (s.id.clone(), s)).collect();
        let (containers, inits): (Vec<ContainerRecord>, Vec<(String, bool)>) = {
            let tables = self.tables.lock();
            let shares = tables.sandboxes.values().filter(|s| s.record.shares_pids() && s.record.ready);
            (
                tables.containers.values().map(|c| c.record.clone()).collect(),
                shares.map(|s| (s.record.id.clone(), known.contains_key(&init_id(&s.record.id)))).collect(),
            )
        };
        for record in containers {
            match (known.remove(&record.id), record.phase) {
                (Some(state), Phase::Created | Phase::Starting | Phase::Running) => {
                    self.change_container(&record.id, |r| {
                        (r.phase, r.pid, r.who) = (Phase::Running, state.pid, state.who.clone());
                        r.started_at = if r.started_at == 0 { now() } else { r.started_at };
                    });
                    if let Some(exit) = state.exit {
                        self.container_ended(&record.id, exit).await;
                    }
                }
                (Some(_), Phase::Exited) => self.link().ask(Request::Forget { id: record.id }),
                (None, Phase::Starting | Phase::Running) => {
                    let cgroup = record.cgroup.clone();
                    let _ = self.blocking(move |me| me.remove_cgroup(&cgroup)).await;
                    self.container_ended(&record.id, Exit { code: UNSEEN, at: now() }).await;
                    self.change_container(&record.id, |r| {
                        r.reason = "Error".into();
                        r.message = "the process that watched over this container was lost, and with it the exit code".into();
                    });
                }
                (None, Phase::Created | Phase::Exited) => {}
            }
        }
        for (sandbox, there) in inits {
            known.remove(&init_id(&sandbox));
            if !there && let Some(sandbox) = self.tables.lock().sandboxes.get_mut(&sandbox) {
                sandbox.record.ready = false;
            }
        }
        // what nobody knows any more: a container that was removed half, a launch nobody recorded
        for (id, state) in known {
            tracing::warn!(process = id, "ending a process that belongs to nothing");
            if state.exit.is_none() {
                self.link().ask(Request::Signal { id: id.clone(), signal: libc::SIGKILL });
            } else {
                self.link().ask(Request::Forget { id });
            }
        }
    }

    /// The holder has died. Its containers go on without anyone to watch them, so they are ended.
    pub(super) async fn holder_lost(&self) -> Exits {
        tracing::error!("the holder is lost; its containers are ended");
        self.tables.lock().waiting.clear();
        let mut pause = Duration::from_millis(50);
        loop {
            match crate::client::open(&self.config.holder_command, &self.config.dir).await {
                Ok((link, states, exits)) => {
                    *self.link.lock() = link;
                    self.align(states).await;
                    return exits;
                }
                Err(error) => tracing::error!(%error, "no new holder can be started"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }
}

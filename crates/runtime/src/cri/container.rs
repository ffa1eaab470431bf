//! The life of a container: created, started, ended, removed.

use std::{
    fs,
    sync::{Arc, atomic::Ordering},
};

use k8s_cri::v1 as cri;
use tokio::sync::watch;
use tonic::Status;

use super::{
    Container, ContainerRecord, Runtime, SandboxRecord, internal, new_id, now, process,
    record::{self, Phase},
    sandbox::remove_dir,
};
use crate::{
    holder::wire::{Answer, Exit, Request},
    plan::Launch,
};

/// Exit code of a container whose program could not be started, as containerd reports it.
const START_ERROR: i32 = 128;

impl Runtime {
    pub(super) async fn create_container(
        &self,
        request: cri::CreateContainerRequest,
    ) -> Result<String, Status> {
        let invalid = |what: &str| Status::invalid_argument(what.to_owned());
        let config = request.config.ok_or_else(|| invalid("the container has no config"))?;
        let metadata = config.metadata.clone().ok_or_else(|| invalid("the container has no metadata"))?;
        let (sandbox, _) = self.find_sandbox(&request.pod_sandbox_id)?;
        if !sandbox.ready {
            return Err(Status::failed_precondition(format!("the sandbox {} is not ready", sandbox.id)));
        }
        let name = config.image.as_ref().map(|i| i.image.clone()).unwrap_or_default();
        let (image, lease) = self.leased_image(&name).await?;
        let id = new_id();
        let log_path = if config.log_path.is_empty() || sandbox.config.log_directory.is_empty() {
            String::new()
        } else {
            process::log_path(&sandbox.config.log_directory, &config.log_path)?
        };
        let record = ContainerRecord {
            cgroup: format!("{}/{id}", self.parent_of(&sandbox)),
            id: id.clone(),
            sandbox: sandbox.id.clone(),
            image_ref: image.digests.first().cloned().unwrap_or_else(|| image.id.clone()),
            image_id: image.id.clone(),
            log_path,
            phase: Phase::Created,
            created_at: now(),
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            who: crate::plan::Identity::default(),
            pid: 0,
            stop_signal: process::stop_signal(&image)?,
            config,
        };
        // whatever is wrong with the config shows now, not at the start
        self.plan(&record, &sandbox, &image)?;
        {
            let mut tables = self.tables.lock();
            let same = |c: &&Container| {
                c.record.sandbox == record.sandbox && c.record.config.metadata.as_ref() == Some(&metadata)
            };
            if let Some(other) = tables.containers.values().find(same) {
                return Err(Status::already_exists(format!(
                    "the container {} attempt {} is there already: {}",
                    metadata.name, metadata.attempt, other.record.id
                )));
            }
            let container = Container {
                record: record.clone(),
                turn: Arc::default(),
                ended: watch::Sender::new(false),
                _lease: Some(lease),
            };
            tables.containers.insert(id.clone(), container);
        }
        let dir = self.container_dir(&id);
        let copy = record.clone();
        let made = self
            .blocking(move |_| {
                fs::create_dir(&dir)?;
                for part in ["upper", "work", "rootfs"] {
                    fs::create_dir(dir.join(part))?;
                }
                record::save(&dir, &copy)
            })
            .await?;
        if let Err(error) = made {
            self.tables.lock().containers.remove(&id);
            return Err(internal("make the container's folder")(error));
        }
        self.announce(&id, &record.sandbox, cri::ContainerEventType::ContainerCreatedEvent);
        Ok(id)
    }

    async fn leased_image(&self, name: &str) -> Result<(images::Image, images::Lease), Status> {
        let name = name.to_owned();
        self.blocking(move |me| {
            let lease = me.config.images.lease(&name)?;
            Ok((me.config.images.get(&name)?, lease))
        })
        .await?
        .map_err(|error: images::Error| match error {
            images::Error::NotFound(_) => Status::not_found(error.to_string()),
            images::Error::InvalidReference { .. } => Status::invalid_argument(error.to_string()),
            error => Status::internal(error.to_string()),
        })
    }

    pub(super) async fn start_container(&self, id: &str) -> Result<(), Status> {
        let (found, turn) = self.find_container(id)?;
        let id = found.id;
        let _turn = turn.lock().await;
        let (record, _) = self.find_container(&id)?;
        if record.phase != Phase::Created {
            return Err(Status::failed_precondition(format!("the container {id} was started before")));
        }
        let (sandbox, _) = self.find_sandbox(&record.sandbox)?;
        if !sandbox.ready {
            return Err(Status::failed_precondition(format!("the sandbox {} is not ready", sandbox.id)));
        }
        let copy = record.clone();
        let launch = self.blocking(move |me| me.prepare(&copy, &sandbox)).await??;
        self.change_container(&id, |r| r.phase = Phase::Starting);
        match self.link().call(Request::Launch(Box::new(launch)), Vec::new()).await {
            Ok((Answer::Started { pid, who }, _)) => {
                let early = {
                    let started = now();
                    self.change_container(&id, |r| {
                        (r.phase, r.pid, r.who, r.started_at) = (Phase::Running, pid, who, started);
                    });
                    self.tables.lock().early.remove(&id)
                };
                self.announce(&id, &record.sandbox, cri::ContainerEventType::ContainerStartedEvent);
                if let Some(exit) = early {
                    self.container_ended(&id, exit).await;
                }
                Ok(())
            }
            Ok(_) => Err(Status::internal("the holder does not say whether it has started the container")),
            Err(error) => {
                let message = error.to_string();
                let cgroup = record.cgroup.clone();
                let _ = self.blocking(move |me| me.cgroups.remove(&cgroup)).await;
                self.change_container(&id, |r| {
                    let at = now();
                    (r.phase, r.started_at, r.finished_at) = (Phase::Exited, at, at);
                    (r.exit_code, r.reason) = (START_ERROR, "StartError".into());
                    r.message = format!("failed to start container: {message}");
                });
                self.mark_ended(&id);
                self.announce(&id, &record.sandbox, cri::ContainerEventType::ContainerStoppedEvent);
                Err(Status::unknown(format!("failed to start container {id:?}: {message}")))
            }
        }
    }

    /// Makes the cgroup and what the holder is told. Blocks.
    fn prepare(&self, record: &ContainerRecord, sandbox: &SandboxRecord) -> Result<Launch, Status> {
        let image = self.config.images.get(&record.image_id).map_err(|e| Status::internal(e.to_string()))?;
        let mut launch = self.plan(record, sandbox, &image)?;
        let resources = process::resources(&record.resources(), self.config.pids_limit);
        let guard = process::wants_device_guard(&launch);
        launch.cgroups = self
            .cgroups
            .create(&record.cgroup, &resources, guard)
            .map_err(internal("make the container's cgroup"))?;
        if let Some(root) = &mut launch.root {
            root.cgroups = self.cgroups.visible(&record.cgroup);
        }
        Ok(launch)
    }

    fn mark_ended(&self, id: &str) {
        if let Some(container) = self.tables.lock().containers.get(id) {
            container.ended.send_replace(true);
        }
    }

    /// Follows the ends of processes until the holder is lost; then takes over from its successor.
    pub(super) fn follow(self: &Arc<Self>, mut exits: crate::client::Exits) {
        let me = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                while let Some((id, exit)) = exits.recv().await {
                    let Some(me) = me.upgrade() else { return };
                    me.process_ended(id, exit);
                }
                let Some(me) = me.upgrade().filter(|me| !me.ended.load(Ordering::Acquire)) else { return };
                exits = me.holder_lost().await;
            }
        });
    }

    fn process_ended(self: &Arc<Self>, id: String, exit: Exit) {
        let mut tables = self.tables.lock();
        if let Some(waiting) = tables.waiting.remove(&id) {
            let _ = waiting.send(exit.code);
            return;
        }
        match tables.containers.get(&id).map(|c| c.record.phase) {
            Some(Phase::Running) => {
                drop(tables);
                let me = self.clone();
                tokio::spawn(async move { me.container_ended(&id, exit).await });
            }
            Some(Phase::Starting) => {
                tables.early.insert(id, exit);
            }
            // an init of a pod, or something from before this runtime knew
            _ => {
                drop(tables);
                self.init_ended(&id);
                self.link().ask(Request::Forget { id });
            }
        }
    }

    /// Records the end of a container, tells everyone, and cleans up.
    pub(super) async fn container_ended(&self, id: &str, exit: Exit) {
        let Ok((record, _)) = self.find_container(id) else { return };
        // Processes in a PID namespace of its own have died with it; others must not outlive it either.
        let alone =
            record.security().namespace_options.unwrap_or_default().pid() == cri::NamespaceMode::Container;
        let cgroup = record.cgroup.clone();
        let oom = self.blocking(move |me| {
            let oom = me.cgroups.oom_kills(&cgroup) > 0;
            if !alone {
                me.remove_cgroup(&cgroup);
            }
            oom
        });
        let oom = oom.await.unwrap_or(false);
        self.change_container(id, |r| {
            r.phase = Phase::Exited;
            (r.exit_code, r.finished_at) = (exit.code, exit.at.max(r.started_at));
            r.reason = match exit.code {
                _ if oom => "OOMKilled",
                0 => "Completed",
                _ => "Error",
            }
            .into();
        });
        self.forget_when_written(id);
        self.mark_ended(id);
        self.announce(id, &record.sandbox, cri::ContainerEventType::ContainerStoppedEvent);
        if alone {
            let _ = self.blocking(move |me| me.remove_cgroup(&record.cgroup)).await;
        }
    }

    /// The holder keeps the exit code until it is on disk.
    fn forget_when_written(&self, id: &str) {
        let (link, request) = (self.link(), Request::Forget { id: id.to_owned() });
        let tables = self.tables.lock();
        if let Some(container) = tables.containers.get(id) {
            let then = Box::new(move || link.ask(request));
            self.journal.write(self.container_dir(id), &container.record, Some(then));
        }
    }

    /// Blocks.
    pub(super) fn remove_cgroup(&self, cgroup: &str) {
        if let Err(error) = self.cgroups.remove(cgroup) {
            tracing::warn!(cgroup, %error, "a cgroup stays");
        }
    }

    pub(super) async fn stop_container(&self, id: &str, grace_seconds: i64) -> Result<(), Status> {
        let (record, turn) = match self.find_container(id) {
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(()),
            found => found?,
        };
        // one that is being started is stopped after that
        drop(turn.lock().await);
        let (record, _) = match self.find_container(&record.id) {
            Ok(found) if found.0.is_running() => found,
            _ => return Ok(()),
        };
        let mut ended = match self.tables.lock().containers.get(&record.id) {
            Some(container) => container.ended.subscribe(),
            None => return Ok(()),
        };
        let grace = u64::try_from(grace_seconds).unwrap_or(0).saturating_mul(1000);
        let id = record.id.clone();
        let request = if grace == 0 {
            Request::Signal { id, signal: libc::SIGKILL }
        } else {
            Request::Stop { id, signal: record.stop_signal, grace }
        };
        // It may have ended by itself meanwhile: then the holder does not know it any more, or will tell.
        if let Err(error) = self.link().tell(request).await {
            tracing::debug!(container = record.id, %error, "a stop found nothing to stop");
        }
        let _ = ended.wait_for(|ended| *ended).await;
        Ok(())
    }

    pub(super) async fn remove_container(&self, id: &str) -> Result<(), Status> {
        let (record, turn) = match self.find_container(id) {
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(()),
            found => found?,
        };
        self.stop_container(&record.id, 0).await?;
        let _turn = turn.lock().await;
        let (dir, cgroup) = (self.container_dir(&record.id), record.cgroup.clone());
        let removed = self
            .blocking(move |me| {
                me.cgroups.remove(&cgroup)?;
                remove_dir(&dir)
            })
            .await?;
        removed.map_err(internal("remove the container"))?;
        self.announce(&record.id, &record.sandbox, cri::ContainerEventType::ContainerDeletedEvent);
        self.tables.lock().containers.remove(&record.id);
        self.usage.lock().remove(&record.id);
        Ok(())
    }

    pub(super) async fn update_resources(
        &self,
        request: cri::UpdateContainerResourcesRequest,
    ) -> Result<(), Status> {
        let (record, turn) = self.find_container(&request.container_id)?;
        let _turn = turn.lock().await;
        let Some(wanted) = request.linux else { return Ok(()) };
        let merged = process::merged(&record.resources(), &wanted);
        if self.find_container(&record.id)?.0.is_running() {
            let (cgroup, resources) = (record.cgroup.clone(), process::resources(&wanted, 0));
            self.blocking(move |me| me.cgroups.update(&cgroup, &resources))
                .await?
                .map_err(internal("update the container's resources"))?;
        }
        self.change_container(&record.id, |r| {
            r.config.linux.get_or_insert_default().resources = Some(merged);
            r.config.annotations.extend(request.annotations);
        });
        Ok(())
    }
}

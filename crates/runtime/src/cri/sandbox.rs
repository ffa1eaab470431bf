//! Sandboxes: namespaces without a process, a network, and the files that every container of a pod gets.

use std::{fs, io, net::IpAddr, path::Path, sync::Arc};

use k8s_cri::v1 as cri;
use tonic::Status;

use super::{
    Runtime, Sandbox, SandboxRecord, internal,
    namespaces::{make_sandbox, unmount_sandbox},
    new_id, now, record,
};
use crate::{
    PodNetworkRequest,
    holder::wire::Request,
    plan::{Launch, Namespace, Namespaces, Role},
};

/// Process of a sandbox in the holder, where its containers share PIDs.
pub(super) fn init_id(sandbox: &str) -> String {
    format!("pod-{sandbox}")
}

impl Runtime {
    pub(super) async fn run_sandbox(&self, request: cri::RunPodSandboxRequest) -> Result<String, Status> {
        let config = request.config.ok_or_else(|| Status::invalid_argument("the sandbox has no config"))?;
        let metadata =
            config.metadata.clone().ok_or_else(|| Status::invalid_argument("the sandbox has no metadata"))?;
        if !request.runtime_handler.is_empty() {
            return Err(Status::invalid_argument(format!(
                "no runtime for {:?} is configured",
                request.runtime_handler
            )));
        }
        let linux = config.linux.clone().unwrap_or_default();
        check_sandbox(&linux)?;
        let record = SandboxRecord {
            id: new_id(),
            config,
            runtime_handler: request.runtime_handler,
            created_at: now(),
            ready: false,
            ips: Vec::new(),
            boot: self.boot.clone(),
        };
        let id = record.id.clone();
        // whoever wants to stop it waits until it is there
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        let _turn = turn.clone().lock_owned().await;
        {
            let mut tables = self.tables.lock();
            let same = |s: &&Sandbox| s.record.metadata() == metadata;
            if let Some(other) = tables.sandboxes.values().find(same) {
                return Err(Status::already_exists(format!(
                    "the sandbox {}/{} attempt {} is there already: {}",
                    metadata.namespace, metadata.name, metadata.attempt, other.record.id
                )));
            }
            tables.sandboxes.insert(id.clone(), Sandbox { record: record.clone(), turn });
        }
        match self.set_up(record).await {
            Ok(record) => {
                if let Some(sandbox) = self.tables.lock().sandboxes.get_mut(&id) {
                    sandbox.record = record;
                }
                self.announce(&id, &id, cri::ContainerEventType::ContainerCreatedEvent);
                self.announce(&id, &id, cri::ContainerEventType::ContainerStartedEvent);
                Ok(id)
            }
            Err(status) => {
                // the first error is the one that tells
                let _ = self.tear_down(&id).await;
                let dir = self.sandbox_dir(&id);
                let _ = self.blocking(move |_| fs::remove_dir_all(dir)).await;
                self.tables.lock().sandboxes.remove(&id);
                Err(status)
            }
        }
    }

    async fn set_up(&self, mut record: SandboxRecord) -> Result<SandboxRecord, Status> {
        let (dir, copy) = (self.sandbox_dir(&record.id), record.clone());
        self.blocking(move |me| {
            let made = make_sandbox(&dir, &copy, me.config.netns.as_deref());
            // known before anything of it can outlive this program
            made.and_then(|()| record::save(&dir, &copy))
        })
        .await?
        .map_err(internal("set the sandbox up"))?;
        if !record.host_network() {
            let metadata = record.metadata();
            let netns = self.sandbox_dir(&record.id).join("net");
            let request = PodNetworkRequest {
                sandbox_id: &record.id,
                namespace: &metadata.namespace,
                name: &metadata.name,
                uid: &metadata.uid,
                netns: &netns,
                ports: ports(&record.config.port_mappings),
            };
            record.ips =
                self.config.network.attach(request).await.map_err(internal("set the pod's network up"))?;
        }
        if record.shares_pids() {
            let launch = self.init_launch(&record).await?;
            self.link()
                .call(Request::Launch(Box::new(launch)), Vec::new())
                .await
                .map_err(internal("start the pod's init"))?;
        }
        record.ready = true;
        let (dir, copy) = (self.sandbox_dir(&record.id), record.clone());
        self.blocking(move |_| record::save(&dir, &copy))
            .await?
            .map_err(internal("write the sandbox's record"))?;
        Ok(record)
    }

    /// The process that reaps in a PID namespace shared by a pod.
    async fn init_launch(&self, record: &SandboxRecord) -> Result<Launch, Status> {
        let cgroup = format!("{}/{}", self.parent_of(record), record.id);
        let cgroups = self
            .blocking(move |me| me.cgroups.create(&cgroup, &crate::cgroup::Resources::default(), false))
            .await?
            .map_err(internal("make a cgroup"))?;
        Ok(Launch {
            id: init_id(&record.id),
            role: Role::PodInit,
            cgroups,
            namespaces: Namespaces { pid: Namespace::New, ..self.namespaces_of(record) },
            ..Launch::default()
        })
    }

    /// The cgroup that a sandbox' containers lie in.
    pub(super) fn parent_of(&self, record: &SandboxRecord) -> String {
        match record.linux().cgroup_parent {
            parent if parent.is_empty() => {
                format!("{}/{}", self.config.cgroup_parent.trim_end_matches('/'), record.id)
            }
            parent => format!("/{}", parent.trim_matches('/')),
        }
    }

    /// The namespaces that all of a sandbox share; that of PIDs is left to the caller.
    pub(super) fn namespaces_of(&self, record: &SandboxRecord) -> Namespaces {
        let dir = self.sandbox_dir(&record.id);
        let of = |host: bool, name: &str| {
            if host { Namespace::Host } else { Namespace::Path(dir.join(name)) }
        };
        Namespaces {
            net: match &self.config.netns {
                Some(path) if record.host_network() => Namespace::Path(path.clone()),
                _ => of(record.host_network(), "net"),
            },
            ipc: of(record.host_ipc(), "ipc"),
            uts: of(record.host_network(), "uts"),
            ..Namespaces::default()
        }
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<(), Status> {
        let (record, turn) = match self.find_sandbox(id) {
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(()),
            found => found?,
        };
        let _turn = turn.lock().await;
        let containers: Vec<String> = {
            let tables = self.tables.lock();
            let of = tables.containers.values().filter(|c| c.record.sandbox == record.id);
            of.filter(|c| c.record.is_running()).map(|c| c.record.id.clone()).collect()
        };
        let stops = containers.iter().map(|c| self.stop_container(c, 0));
        for stopped in futures::future::join_all(stops).await {
            stopped?;
        }
        self.tear_down(&record.id).await?;
        let was = {
            let mut tables = self.tables.lock();
            let Some(sandbox) = tables.sandboxes.get_mut(&record.id) else { return Ok(()) };
            let was = std::mem::replace(&mut sandbox.record.ready, false);
            if was {
                self.journal.write(self.sandbox_dir(&record.id), &sandbox.record, None);
            }
            was
        };
        if was {
            self.announce(&record.id, &record.id, cri::ContainerEventType::ContainerStoppedEvent);
        }
        Ok(())
    }

    /// Takes away what a sandbox has of the kernel's; may be repeated.
    pub(super) async fn tear_down(&self, id: &str) -> Result<(), Status> {
        self.config.network.detach(id).await.map_err(internal("take the pod's network down"))?;
        let Ok((record, _)) = self.find_sandbox(id) else { return Ok(()) };
        let (dir, cgroup) = (self.sandbox_dir(id), format!("{}/{id}", self.parent_of(&record)));
        self.blocking(move |me| {
            // ends the pod's init too, and waits for that
            me.cgroups.remove(&cgroup)?;
            unmount_sandbox(&dir)
        })
        .await?
        .map_err(internal("take the sandbox down"))
    }

    /// A pod's init has ended: without it nothing can be started in the pod any more.
    pub(super) fn init_ended(&self, process: &str) {
        let Some(id) = process.strip_prefix("pod-") else { return };
        let was = match self.tables.lock().sandboxes.get_mut(id) {
            Some(sandbox) => std::mem::replace(&mut sandbox.record.ready, false),
            None => false,
        };
        if was {
            self.announce(id, id, cri::ContainerEventType::ContainerStoppedEvent);
        }
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<(), Status> {
        let record = match self.find_sandbox(id) {
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(()),
            found => found?.0,
        };
        self.stop_sandbox(&record.id).await?;
        let containers: Vec<String> = {
            let tables = self.tables.lock();
            let of = tables.containers.values().filter(|c| c.record.sandbox == record.id);
            of.map(|c| c.record.id.clone()).collect()
        };
        for container in containers {
            self.remove_container(&container).await?;
        }
        let (dir, parent) = (self.sandbox_dir(&record.id), self.parent_of(&record));
        self.blocking(move |me| {
            me.cgroups.remove_if_empty(&parent);
            remove_dir(&dir)
        })
        .await?
        .map_err(internal("remove the sandbox"))?;
        self.announce(&record.id, &record.id, cri::ContainerEventType::ContainerDeletedEvent);
        self.tables.lock().sandboxes.remove(&record.id);
        self.usage.lock().remove(&record.id);
        Ok(())
    }
}

/// Removes a folder; one that is not there is fine.
pub(super) fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn check_sandbox(linux: &cri::LinuxPodSandboxConfig) -> Result<(), Status> {
    let security = linux.security_context.clone().unwrap_or_default();
    let options = security.namespace_options.unwrap_or_default();
    if options.userns_options.is_some_and(|u| u.mode == cri::NamespaceMode::Pod as i32) {
        return Err(Status::unimplemented("user namespaces are not supported by this runtime"));
    }
    let pod_network = options.network != cri::NamespaceMode::Node as i32;
    for name in linux.sysctls.keys() {
        let allowed = match name.split('.').next() {
            Some("net") => pod_network,
            Some("fs") => name.starts_with("fs.mqueue.") && options.ipc != cri::NamespaceMode::Node as i32,
            Some("kernel") => {
                let ipc =
                    name.starts_with("kernel.shm") || name.starts_with("kernel.msg") || name == "kernel.sem";
                ipc && options.ipc != cri::NamespaceMode::Node as i32
            }
            _ => false,
        };
        if !allowed {
            return Err(Status::invalid_argument(format!(
                "the sysctl {name:?} is not one of the pod's own namespaces"
            )));
        }
    }
    Ok(())
}

fn ports(mappings: &[cri::PortMapping]) -> Vec<(u16, u16, String, Option<IpAddr>)> {
    mappings
        .iter()
        .filter_map(|m| {
            let (host, inside) = (u16::try_from(m.host_port).ok()?, u16::try_from(m.container_port).ok()?);
            let protocol = match m.protocol() {
                cri::Protocol::Tcp => "TCP",
                cri::Protocol::Udp => "UDP",
                cri::Protocol::Sctp => "SCTP",
            };
            (host > 0).then(|| (host, inside, protocol.to_owned(), m.host_ip.parse().ok()))
        })
        .collect()
}

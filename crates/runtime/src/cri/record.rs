//! What is remembered of sandboxes and containers: a file each, a line of JSON for every change; the last whole line counts.
//!
//! A record survives the end of this program at any moment. It is not waited for on disk: after a power cut nothing runs
//! any more, and what is found then is only cleaned up. Lines are appended because replacing a file makes some file
//! systems write it out at once, which is time that a container's start would pay.

use std::{
    fs,
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

use k8s_cri::v1 as cri;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::plan::Identity;

/// A sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub id: String,
    pub config: cri::PodSandboxConfig,
    #[serde(default)]
    pub runtime_handler: String,
    /// Nanoseconds since 1970.
    pub created_at: i64,
    /// False once it was stopped.
    pub ready: bool,
    #[serde(default)]
    pub ips: Vec<IpAddr>,
    /// The boot in which its namespaces exist.
    pub boot: String,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    Created,
    /// The holder was asked to start it.
    Starting,
    Running,
    Exited,
}

/// A container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub id: String,
    pub sandbox: String,
    pub config: cri::ContainerConfig,
    /// ID of the image, `sha256:…`.
    pub image_id: String,
    /// A name of the image with a digest, or its ID.
    pub image_ref: String,
    /// Absolute; empty for none.
    #[serde(default)]
    pub log_path: String,
    /// Path of its cgroup.
    pub cgroup: String,
    pub phase: Phase,
    /// Nanoseconds since 1970.
    pub created_at: i64,
    #[serde(default)]
    pub started_at: i64,
    #[serde(default)]
    pub finished_at: i64,
    #[serde(default)]
    pub exit_code: i32,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub who: Identity,
    /// On the host.
    #[serde(default)]
    pub pid: i32,
    /// The signal that asks it to end.
    pub stop_signal: i32,
}

impl SandboxRecord {
    pub fn linux(&self) -> cri::LinuxPodSandboxConfig {
        self.config.linux.clone().unwrap_or_default()
    }

    pub fn namespaces(&self) -> cri::NamespaceOption {
        self.linux().security_context.and_then(|s| s.namespace_options).unwrap_or_default()
    }

    pub fn metadata(&self) -> cri::PodSandboxMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    pub fn host_network(&self) -> bool {
        self.namespaces().network == cri::NamespaceMode::Node as i32
    }

    pub fn host_ipc(&self) -> bool {
        self.namespaces().ipc == cri::NamespaceMode::Node as i32
    }

    pub fn shares_pids(&self) -> bool {
        self.namespaces().pid == cri::NamespaceMode::Pod as i32
    }

    pub fn state(&self) -> cri::PodSandboxState {
        if self.ready { cri::PodSandboxState::SandboxReady } else { cri::PodSandboxState::SandboxNotready }
    }

    pub fn status(&self) -> cri::PodSandboxStatus {
        let mut ips = self.ips.iter().map(ToString::to_string);
        let network = self.ready.then(|| cri::PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| cri::PodIp { ip }).collect(),
        });
        cri::PodSandboxStatus {
            id: self.id.clone(),
            metadata: Some(self.metadata()),
            state: self.state() as i32,
            created_at: self.created_at,
            network,
            linux: Some(cri::LinuxPodSandboxStatus {
                namespaces: Some(cri::Namespace { options: Some(self.namespaces()) }),
            }),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.runtime_handler.clone(),
        }
    }

    pub fn item(&self) -> cri::PodSandbox {
        cri::PodSandbox {
            id: self.id.clone(),
            metadata: Some(self.metadata()),
            state: self.state() as i32,
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.runtime_handler.clone(),
        }
    }
}

impl ContainerRecord {
    pub fn security(&self) -> cri::LinuxContainerSecurityContext {
        self.config.linux.as_ref().and_then(|l| l.security_context.clone()).unwrap_or_default()
    }

    pub fn resources(&self) -> cri::LinuxContainerResources {
        self.config.linux.as_ref().and_then(|l| l.resources.clone()).unwrap_or_default()
    }

    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running)
    }

    pub fn state(&self) -> cri::ContainerState {
        match self.phase {
            Phase::Created | Phase::Starting => cri::ContainerState::ContainerCreated,
            Phase::Running => cri::ContainerState::ContainerRunning,
            Phase::Exited => cri::ContainerState::ContainerExited,
        }
    }

    pub fn status(&self) -> cri::ContainerStatus {
        let user = cri::LinuxContainerUser {
            uid: self.who.uid.into(),
            gid: self.who.gid.into(),
            supplemental_groups: self.who.groups.iter().map(|g| i64::from(*g)).collect(),
        };
        cri::ContainerStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state() as i32,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            exit_code: self.exit_code,
            image: self.config.image.clone(),
            image_ref: self.image_ref.clone(),
            image_id: self.image_id.clone(),
            reason: self.reason.clone(),
            message: self.message.clone(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            mounts: self.config.mounts.clone(),
            log_path: self.log_path.clone(),
            resources: Some(cri::ContainerResources { linux: Some(self.resources()), windows: None }),
            user: (self.started_at > 0).then_some(cri::ContainerUser { linux: Some(user) }),
        }
    }

    pub fn item(&self) -> cri::Container {
        cri::Container {
            id: self.id.clone(),
            pod_sandbox_id: self.sandbox.clone(),
            metadata: self.config.metadata.clone(),
            image: self.config.image.clone(),
            image_ref: self.image_ref.clone(),
            image_id: self.image_id.clone(),
            state: self.state() as i32,
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
        }
    }
}

/// The file of a record in its folder.
const FILE: &str = "record.jsonl";
/// A file that has grown to this many bytes is written anew with one line.
const MAX_FILE: u64 = 256 << 10;

/// Writes the first record of a thing, or the next one; a reader sees the old one or the new one.
pub(crate) fn save(dir: &Path, record: &impl Serialize) -> io::Result<()> {
    fs::File::options().append(true).create(true).open(dir.join(FILE))?;
    append(dir, &line(record)?)
}

/// A record as it is written. The line break in front ends a line that was cut off.
pub(crate) fn line(record: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = b"\n".to_vec();
    serde_json::to_writer(&mut line, record)?;
    line.push(b'\n');
    Ok(line)
}

/// Writes what [`line`] gives, unless there is no record: then the thing is being removed.
pub(crate) fn append(dir: &Path, line: &[u8]) -> io::Result<()> {
    let path = dir.join(FILE);
    let mut file = fs::File::options().append(true).open(&path)?;
    if file.metadata()?.len() > MAX_FILE {
        let new = dir.join("record.new");
        fs::write(&new, line)?;
        return fs::rename(new, path);
    }
    file.write_all(line)
}

fn last<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    bytes.split(|b| *b == b'\n').rev().filter(|l| !l.is_empty()).find_map(|l| serde_json::from_slice(l).ok())
}

/// All records in the folders below `dir`. Folders without a whole one are given back as rubbish.
pub(crate) fn load<T: DeserializeOwned>(dir: &Path) -> io::Result<(Vec<T>, Vec<PathBuf>)> {
    let (mut records, mut rubbish) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match fs::read(path.join(FILE)).ok().and_then(|bytes| last(&bytes)) {
            Some(record) => records.push(record),
            None => rubbish.push(path),
        }
    }
    Ok((records, rubbish))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_line_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (one, half) = (dir.path().join("one"), dir.path().join("half"));
        fs::create_dir_all(&one).unwrap();
        fs::create_dir_all(&half).unwrap();
        save(&one, &1).unwrap();
        save(&one, &2).unwrap();
        let mut text = fs::read(one.join(FILE)).unwrap();
        text.extend(b"\n{\"torn");
        fs::write(one.join(FILE), &text).unwrap();
        fs::write(half.join(FILE), "{\"id\":").unwrap();
        let (records, rubbish) = load::<u32>(dir.path()).unwrap();
        assert_eq!((records, rubbish), (vec![2], vec![half]));
        save(&one, &3).unwrap();
        assert_eq!(load::<u32>(dir.path()).unwrap().0, [3]);
    }
}

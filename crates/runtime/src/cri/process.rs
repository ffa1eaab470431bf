//! From a container's config and its image to what the holder is told to start.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

use k8s_cri::v1 as cri;
use tonic::Status;

use super::{ContainerRecord, Runtime, SandboxRecord, sandbox};
use crate::{
    capability,
    cgroup::Resources,
    plan::{
        Capabilities, Device, Launch, Log, Mount, Namespace, Process, Propagation, Role, Root, Source, User,
    },
};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn invalid(text: impl Into<String>) -> Status {
    Status::invalid_argument(text.into())
}

/// `log_path` beneath the sandbox' folder of logs.
pub(super) fn log_path(directory: &str, path: &str) -> Result<String, Status> {
    let path = Path::new(path);
    if !path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(invalid(format!("the log path {path:?} leads out of the pod's folder of logs")));
    }
    Ok(Path::new(directory).join(path).display().to_string())
}

/// The signal that the image wants to be stopped by.
pub(super) fn stop_signal(image: &images::Image) -> Result<i32, Status> {
    let Some(name) =
        image.config.config().as_ref().and_then(|c| c.stop_signal().clone()).filter(|s| !s.is_empty())
    else {
        return Ok(libc::SIGTERM);
    };
    let upper = name.to_ascii_uppercase();
    let number = upper.parse().ok().or_else(|| {
        let plain = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(offset) = plain.strip_prefix("RTMIN+") {
            return Some(libc::SIGRTMIN() + offset.parse::<i32>().ok()?);
        }
        format!("SIG{plain}").parse::<nix::sys::signal::Signal>().ok().map(|s| s as i32)
    });
    match number {
        Some(number) if (1..=64).contains(&number) => Ok(number),
        _ => Err(invalid(format!("the image's stop signal {name:?} is none"))),
    }
}

/// What CRI asks for, as cgroups take it.
pub(super) fn resources(r: &cri::LinuxContainerResources, pids: i64) -> Resources {
    Resources {
        cpu_shares: r.cpu_shares,
        cpu_quota: r.cpu_quota,
        cpu_period: r.cpu_period,
        cpuset_cpus: r.cpuset_cpus.clone(),
        cpuset_mems: r.cpuset_mems.clone(),
        memory: r.memory_limit_in_bytes,
        memory_swap: r.memory_swap_limit_in_bytes,
        pids,
        hugepages: r.hugepage_limits.iter().map(|h| (h.page_size.clone(), h.limit)).collect(),
        unified: r.unified.clone().into_iter().collect(),
    }
}

/// An update leaves what it does not name.
pub(super) fn merged(
    old: &cri::LinuxContainerResources,
    new: &cri::LinuxContainerResources,
) -> cri::LinuxContainerResources {
    let number = |new: i64, old: i64| if new == 0 { old } else { new };
    let text = |new: &String, old: &String| if new.is_empty() { old.clone() } else { new.clone() };
    let mut unified = old.unified.clone();
    unified.extend(new.unified.clone());
    cri::LinuxContainerResources {
        cpu_period: number(new.cpu_period, old.cpu_period),
        cpu_quota: number(new.cpu_quota, old.cpu_quota),
        cpu_shares: number(new.cpu_shares, old.cpu_shares),
        memory_limit_in_bytes: number(new.memory_limit_in_bytes, old.memory_limit_in_bytes),
        oom_score_adj: number(new.oom_score_adj, old.oom_score_adj),
        cpuset_cpus: text(&new.cpuset_cpus, &old.cpuset_cpus),
        cpuset_mems: text(&new.cpuset_mems, &old.cpuset_mems),
        hugepage_limits: if new.hugepage_limits.is_empty() {
            old.hugepage_limits.clone()
        } else {
            new.hugepage_limits.clone()
        },
        unified,
        memory_swap_limit_in_bytes: number(new.memory_swap_limit_in_bytes, old.memory_swap_limit_in_bytes),
    }
}

/// Whoever may mount could mount without `nodev`: then the devices controller has to guard. (Where the pod was given
/// devices beyond the usual, it cannot: the list is not per device.)
pub(super) fn wants_device_guard(launch: &Launch) -> bool {
    let mounter = launch.process.capabilities.bounding & capability::bit("SYS_ADMIN").unwrap_or(0) != 0;
    mounter && launch.root.as_ref().is_some_and(|r| !r.all_devices && r.devices.is_empty())
}

impl Runtime {
    /// What a container is started with. Its cgroups are left to the start.
    pub(super) fn plan(
        &self,
        record: &ContainerRecord,
        sandbox: &SandboxRecord,
        image: &images::Image,
    ) -> Result<Launch, Status> {
        let (config, security) = (&record.config, record.security());
        let dir = self.container_dir(&record.id);
        if !config.cdi_devices.is_empty() {
            return Err(Status::unimplemented("CDI devices are not supported by this runtime"));
        }
        let mut namespaces = self.namespaces_of(sandbox);
        let options = security.namespace_options.clone().unwrap_or_default();
        namespaces.pid = match options.pid() {
            cri::NamespaceMode::Node => Namespace::Host,
            cri::NamespaceMode::Container => Namespace::New,
            cri::NamespaceMode::Pod if sandbox.shares_pids() => Namespace::Of(sandbox::init_id(&sandbox.id)),
            cri::NamespaceMode::Pod => Namespace::New,
            cri::NamespaceMode::Target => Namespace::Of(self.target(record, &options.target_id)?),
        };
        let lower: Vec<PathBuf> = image.layers.iter().rev().cloned().collect();
        let source = if lower.is_empty() {
            Source::Directory(dir.join("upper"))
        } else {
            Source::Overlay { lower, upper: dir.join("upper"), work: dir.join("work") }
        };
        let root = Root {
            source,
            staging: dir.join("rootfs"),
            read_only: security.readonly_rootfs,
            mounts: self.mounts(record, sandbox)?,
            devices: config.devices.iter().map(device).collect::<Result<_, _>>()?,
            all_devices: security.privileged,
            shm: (!sandbox.host_ipc())
                .then(|| self.sandbox_dir(&sandbox.id).join("shm"))
                .or(Some("/dev/shm".into())),
            writable_sys: security.privileged,
            cgroups: Vec::new(),
            cgroup2: self.cgroups.version() == 2,
            masked: security.masked_paths.clone(),
            read_only_paths: security.readonly_paths.clone(),
        };
        let log = (!record.log_path.is_empty()).then(|| Log {
            path: record.log_path.clone().into(),
            max_size: self.config.log_max_size,
            max_files: self.config.log_max_files,
        });
        Ok(Launch {
            id: record.id.clone(),
            role: Role::Container { log, stdin: config.stdin, stdin_once: config.stdin_once },
            cgroups: Vec::new(),
            namespaces,
            root: Some(root),
            process: self.process(record, sandbox, image)?,
        })
    }

    fn target(&self, record: &ContainerRecord, id: &str) -> Result<String, Status> {
        let (target, _) = self.find_container(id)?;
        if target.sandbox != record.sandbox {
            return Err(invalid(format!("the target container {id} is in another pod")));
        }
        Ok(target.id)
    }

    /// The process of a container, or with other arguments one beside it.
    pub(super) fn process(
        &self,
        record: &ContainerRecord,
        sandbox: &SandboxRecord,
        image: &images::Image,
    ) -> Result<Process, Status> {
        let (config, security) = (&record.config, record.security());
        let defaults = image.config.config().clone().unwrap_or_default();
        let (entrypoint, cmd) = (defaults.entrypoint().clone(), defaults.cmd().clone());
        let mut args = Vec::new();
        if config.command.is_empty() {
            args.extend(entrypoint.unwrap_or_default());
            args.extend(if config.args.is_empty() { cmd.unwrap_or_default() } else { config.args.clone() });
        } else {
            args.extend(config.command.iter().chain(&config.args).cloned());
        }
        if args.is_empty() {
            return Err(invalid("no command specified"));
        }
        let cwd = match (&config.working_dir, defaults.working_dir()) {
            (own, _) if !own.is_empty() => own.clone(),
            (_, Some(of_image)) if !of_image.is_empty() => of_image.clone(),
            _ => "/".into(),
        };
        if !cwd.starts_with('/') {
            return Err(invalid(format!("the working directory {cwd:?} is not absolute")));
        }
        let hostname = if sandbox.host_network() {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            sandbox.config.hostname.clone()
        };
        let oom_score_adj = record.resources().oom_score_adj.clamp(-1000, 1000) as i32;
        if oom_score_adj < 0 && !self.may_protect {
            tracing::warn!(
                container = record.id,
                oom_score_adj,
                "CAP_SYS_RESOURCE is missing: the container is not protected from the OOM killer"
            );
        }
        let capabilities = capabilities(&security)?;
        Ok(Process {
            args: args.into_iter().map(String::into_bytes).collect(),
            env: environment(defaults.env().as_deref().unwrap_or_default(), &config.envs, &hostname),
            cwd,
            terminal: config.tty,
            user: user(&security, defaults.user().as_deref().unwrap_or_default())?,
            no_new_privileges: security.no_new_privs,
            seccomp: self.seccomp(&security, capabilities.bounding)?,
            rlimits: Vec::new(),
            oom_score_adj,
            capabilities,
        })
    }

    fn seccomp(
        &self,
        security: &cri::LinuxContainerSecurityContext,
        capabilities: u64,
    ) -> Result<Option<String>, Status> {
        use cri::security_profile::ProfileType;
        if let Some(apparmor) = &security.apparmor
            && apparmor.profile_type() == ProfileType::Localhost
        {
            return Err(invalid(format!(
                "the AppArmor profile {:?} was asked for, and this runtime does not load AppArmor profiles",
                apparmor.localhost_ref
            )));
        }
        if security.privileged {
            return Ok(None);
        }
        let profile = security.seccomp.clone().unwrap_or_default();
        let filter = match profile.profile_type() {
            ProfileType::Unconfined => return Ok(None),
            ProfileType::RuntimeDefault => self.filters.default_for(capabilities),
            ProfileType::Localhost => {
                let name = profile.localhost_ref.strip_prefix("localhost/").unwrap_or(&profile.localhost_ref);
                // nothing is not "unconfined" (CVE-2023-2431)
                if name.is_empty() || name.split('/').any(|part| part == "..") {
                    return Err(invalid(format!("{name:?} is no name of a seccomp profile")));
                }
                self.filters.of_file(&self.config.seccomp_dir.join(name), capabilities)
            }
        };
        filter.map(|f| Some(f.to_string())).map_err(|e| invalid(e.to_string()))
    }

    fn mounts(&self, record: &ContainerRecord, sandbox: &SandboxRecord) -> Result<Vec<Mount>, Status> {
        let security = record.security();
        let mut mounts = Vec::new();
        for mount in &record.config.mounts {
            let mut mount = self.mount(mount, security.privileged)?;
            if let (true, [_]) = (mount.image, mount.source.as_slice()) {
                // overlayfs wants two folders; the mount point of the root is an empty one
                mount.source.push(self.container_dir(&record.id).join("rootfs"));
            }
            mounts.push(mount);
        }
        let dir = self.sandbox_dir(&sandbox.id);
        for name in ["resolv.conf", "hostname", "hosts"] {
            let target = format!("/etc/{name}");
            if !mounts.iter().any(|m| Path::new(&m.target) == Path::new(&target)) {
                mounts.push(Mount {
                    source: vec![dir.join(name)],
                    target,
                    read_only: security.readonly_rootfs,
                    ..Mount::default()
                });
            }
        }
        // what lies above comes first
        mounts.sort_by_key(|m| Path::new(&m.target).components().count());
        Ok(mounts)
    }

    fn mount(&self, m: &cri::Mount, privileged: bool) -> Result<Mount, Status> {
        let target = Path::new(&m.container_path);
        if !target.is_absolute()
            || target.components().any(|c| c == Component::ParentDir)
            || target == Path::new("/")
        {
            return Err(invalid(format!("{:?} cannot be mounted at", m.container_path)));
        }
        if !m.uid_mappings.is_empty() || !m.gid_mappings.is_empty() {
            return Err(Status::unimplemented("idmapped mounts are not supported by this runtime"));
        }
        let propagation = match m.propagation() {
            cri::MountPropagation::PropagationPrivate => Propagation::Private,
            cri::MountPropagation::PropagationHostToContainer => Propagation::Slave,
            cri::MountPropagation::PropagationBidirectional => Propagation::Shared,
        };
        if m.recursive_read_only && (!m.readonly || propagation != Propagation::Private) {
            return Err(invalid("recursive_read_only needs readonly and private propagation"));
        }
        let (source, image) = match m.image.as_ref().filter(|i| !i.image.is_empty()) {
            Some(spec) => {
                let image =
                    self.config.images.get(&spec.image).map_err(|e| Status::not_found(e.to_string()))?;
                (image.layers.into_iter().rev().collect(), true)
            }
            None if Path::new(&m.host_path).is_absolute() => (vec![PathBuf::from(&m.host_path)], false),
            None => return Err(invalid(format!("the host path {:?} is not absolute", m.host_path))),
        };
        Ok(Mount {
            source,
            image,
            sub_path: String::new(),
            target: m.container_path.clone(),
            read_only: m.readonly || image,
            recursive_read_only: m.recursive_read_only,
            propagation,
            devices: privileged,
        })
    }
}

fn device(device: &cri::Device) -> Result<Device, Status> {
    let absolute = |p: &str| Path::new(p).is_absolute();
    if !absolute(&device.host_path) || !absolute(&device.container_path) {
        return Err(invalid(format!("the device {:?} is not absolute", device.host_path)));
    }
    Ok(Device {
        host: device.host_path.clone().into(),
        target: device.container_path.clone(),
        read_only: !device.permissions.contains('w'),
    })
}

fn capabilities(security: &cri::LinuxContainerSecurityContext) -> Result<Capabilities, Status> {
    if security.privileged {
        return Ok(Capabilities { bounding: capability::ALL, ambient: 0 });
    }
    let asked = security.capabilities.clone().unwrap_or_default();
    let bounding =
        capability::adjusted(&asked.add_capabilities, &asked.drop_capabilities).map_err(invalid)?;
    let ambient =
        capability::set(asked.add_ambient_capabilities.iter().map(String::as_str)).map_err(invalid)?;
    Ok(Capabilities { bounding: bounding | ambient, ambient })
}

fn id(value: Option<&cri::Int64Value>, what: &str) -> Result<Option<u32>, Status> {
    value
        .map(|v| u32::try_from(v.value).map_err(|_| invalid(format!("{} is no {what}", v.value))))
        .transpose()
}

fn user(security: &cri::LinuxContainerSecurityContext, of_image: &str) -> Result<User, Status> {
    let name = match id(security.run_as_user.as_ref(), "user")? {
        Some(uid) => uid.to_string(),
        None if !security.run_as_username.is_empty() => security.run_as_username.clone(),
        None => of_image.to_owned(),
    };
    let groups = security
        .supplemental_groups
        .iter()
        .map(|g| u32::try_from(*g).map_err(|_| invalid(format!("{g} is no group"))))
        .collect::<Result<_, _>>()?;
    Ok(User {
        name,
        group: id(security.run_as_group.as_ref(), "group")?,
        groups,
        merge_groups: security.supplemental_groups_policy() == cri::SupplementalGroupsPolicy::Merge,
    })
}

/// The image's variables, then the pod's, which win; in the order in which names come first.
fn environment(of_image: &[String], own: &[cri::KeyValue], hostname: &str) -> Vec<Vec<u8>> {
    let (mut list, mut at) = (Vec::<String>::new(), HashMap::<String, usize>::new());
    let mut put = |entry: String| {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        match at.get(&name) {
            Some(i) => list[*i] = entry,
            None => {
                at.insert(name, list.len());
                list.push(entry);
            }
        }
    };
    put(PATH.into());
    if !hostname.is_empty() {
        put(format!("HOSTNAME={hostname}"));
    }
    of_image.iter().for_each(|e| put(e.clone()));
    own.iter().for_each(|e| put(format!("{}={}", e.key, e.value)));
    list.into_iter().map(String::into_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_s_variables_win_over_the_image_s() {
        let own = [cri::KeyValue { key: "A".into(), value: "2=3".into() }];
        let env = environment(&["PATH=/x".into(), "A=1".into()], &own, "web-0");
        let text: Vec<_> = env.iter().map(|e| String::from_utf8_lossy(e).into_owned()).collect();
        assert_eq!(text, ["PATH=/x", "HOSTNAME=web-0", "A=2=3"]);
    }

    #[test]
    fn a_log_stays_in_the_pod_s_folder() {
        assert_eq!(log_path("/var/log/pods/x", "web/0.log").unwrap(), "/var/log/pods/x/web/0.log");
        assert!(log_path("/var/log/pods/x", "../../passwd").is_err());
        assert!(log_path("/var/log/pods/x", "/etc/passwd").is_err());
    }

    #[test]
    fn numbers_that_are_no_users_are_refused() {
        let security = |uid| cri::LinuxContainerSecurityContext {
            run_as_user: Some(cri::Int64Value { value: uid }),
            ..Default::default()
        };
        assert!(user(&security(-1), "").is_err());
        assert!(user(&security(1 << 32), "").is_err());
        assert_eq!(user(&security(7), "web").unwrap().name, "7");
    }
}

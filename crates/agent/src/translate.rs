//! From a pod to what CRI is asked for: the sandbox's and the containers' configuration.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, SeccompProfile};

use crate::{
    config::Config,
    environment::expand,
    names, resources,
    spec::{self, identity},
    volumes::{Place, subpath},
};

/// Labels that carry a pod's identity on sandboxes and containers, as every CRI tool expects them.
pub mod labels {
    /// Name of the pod.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// Namespace of the pod.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// UID of the pod.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// Name of the container.
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    /// Annotation: hash of what the container was made from, hexadecimal.
    pub const HASH: &str = "io.kubernetes.container.hash";
    /// Annotation: restarts so far.
    pub const RESTARTS: &str = "io.kubernetes.container.restartCount";
    /// Annotation: host path of the termination message.
    pub const MESSAGE_FILE: &str = "io.plimsoll.container.terminationMessageFile";
}

fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    let (namespace, name, uid) = identity(pod);
    let mut map: HashMap<_, _> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    for (key, value) in [(labels::POD_NAME, name), (labels::POD_NAMESPACE, namespace), (labels::POD_UID, uid)]
    {
        map.insert(key.to_owned(), value.to_owned());
    }
    map
}

/// The cgroup of a pod: parent, QoS class, pod.
pub fn cgroup(config: &Config, pod: &Pod) -> String {
    let class = match resources::qos_class(&spec::spec(pod)) {
        "Guaranteed" => "",
        "Burstable" => "/burstable",
        _ => "/besteffort",
    };
    format!("{}/kubepods{class}/pod{}", config.cgroup_parent.trim_end_matches('/'), identity(pod).2)
}

fn namespaces(spec: &PodSpec, target: Option<&str>) -> cri::NamespaceOption {
    let of = |host: Option<bool>| {
        if host == Some(true) { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod }
    };
    let pid = match (spec.host_pid, spec.share_process_namespace, target) {
        (Some(true), _, _) => cri::NamespaceMode::Node,
        (_, _, Some(_)) => cri::NamespaceMode::Target,
        (_, Some(true), _) => cri::NamespaceMode::Pod,
        _ => cri::NamespaceMode::Container,
    };
    cri::NamespaceOption {
        network: of(spec.host_network) as i32,
        pid: pid as i32,
        ipc: of(spec.host_ipc) as i32,
        target_id: target.unwrap_or_default().to_owned(),
        userns_options: None,
    }
}

fn seccomp(profile: Option<&SeccompProfile>) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, local) = match profile.map(|p| (p.type_.as_str(), p.localhost_profile.clone())) {
        Some(("Unconfined", _)) => (ProfileType::Unconfined, String::new()),
        Some(("Localhost", local)) => (ProfileType::Localhost, local.unwrap_or_default()),
        // secure unless someone asks for less
        _ => (ProfileType::RuntimeDefault, String::new()),
    };
    cri::SecurityProfile { profile_type: kind as i32, localhost_ref: local }
}

fn int(value: Option<i64>) -> Option<cri::Int64Value> {
    value.map(|value| cri::Int64Value { value })
}

/// The sandbox of a pod.
pub fn sandbox(config: &Config, pod: &Pod, attempt: u32, host_dns: &cri::DnsConfig) -> cri::PodSandboxConfig {
    let spec = spec::spec(pod);
    let (namespace, name, uid) = identity(pod);
    let security = spec.security_context.clone().unwrap_or_default();
    let port_mappings = spec::parts(&spec)
        .iter()
        .flat_map(|p| p.container.ports.clone().unwrap_or_default())
        .filter(|p| p.host_port.is_some_and(|h| h > 0) && spec.host_network != Some(true))
        .map(|p| cri::PortMapping {
            protocol: match p.protocol.as_deref() {
                Some("UDP") => cri::Protocol::Udp,
                Some("SCTP") => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            } as i32,
            container_port: p.container_port,
            host_port: p.host_port.unwrap_or(0),
            host_ip: p.host_ip.unwrap_or_default(),
        })
        .collect();
    let privileged = spec::parts(&spec)
        .iter()
        .any(|p| p.container.security_context.as_ref().is_some_and(|s| s.privileged == Some(true)));
    let hostname = if spec.host_network == Some(true) {
        String::new()
    } else {
        names::hostname(pod, &config.cluster_domain).0
    };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            attempt,
        }),
        hostname,
        log_directory: config.log_dir(namespace, name, uid).display().to_string(),
        dns_config: Some(names::resolver(pod, config, host_dns)),
        port_mappings,
        labels: pod_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: cgroup(config, pod),
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(&spec, None)),
                run_as_user: int(security.run_as_user),
                run_as_group: int(security.run_as_group),
                supplemental_groups: groups(&spec),
                privileged,
                seccomp: Some(seccomp(security.seccomp_profile.as_ref())),
                ..cri::LinuxSandboxSecurityContext::default()
            }),
            sysctls: security
                .sysctls
                .into_iter()
                .flatten()
                .map(|s| (s.name.replace('/', "."), s.value))
                .collect(),
            overhead: None,
            resources: None,
        }),
        windows: None,
    }
}

fn groups(spec: &PodSpec) -> Vec<i64> {
    let security = spec.security_context.as_ref();
    let own = security.and_then(|s| s.supplemental_groups.clone()).unwrap_or_default();
    security.and_then(|s| s.fs_group).into_iter().chain(own).collect()
}

/// What a container is made from beside the pod.
pub struct Making<'a> {
    /// The agent's settings.
    pub config: &'a Config,
    /// The node's memory, bytes.
    pub memory: i64,
    /// How many were made before it.
    pub attempt: u32,
    /// What the runtime calls the image.
    pub image: &'a str,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// The pod's volumes.
    pub places: &'a BTreeMap<String, Place>,
    /// The pod's `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// The file of its termination message.
    pub message_file: PathBuf,
    /// For an ephemeral container: the container whose processes it sees.
    pub target: Option<&'a str>,
    /// Whether the image says that it runs as root (or by a name), for `runAsNonRoot`.
    pub image_user: Option<(Option<i64>, String)>,
}

/// Why a container cannot be made as its spec says: a `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unmakeable(pub String);

/// The configuration of a container. Binds subPaths on the way.
pub fn container(pod: &Pod, c: &Container, making: &Making<'_>) -> Result<cri::ContainerConfig, Unmakeable> {
    let spec = spec::spec(pod);
    let env: HashMap<&str, &str> = making.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let known = |name: &str| env.get(name).map(|v| (*v).to_owned());
    let expanded = |list: &Option<Vec<String>>| list.iter().flatten().map(|t| expand(t, known)).collect();
    verify_non_root(pod, &spec, c, making)?;
    let mut mounts = mounts(pod, c, making, known)?;
    let hosts_taken = mounts.iter().any(|m| m.container_path == "/etc/hosts");
    if let Some(hosts) = making.hosts.as_ref().filter(|_| !hosts_taken) {
        mounts.push(cri::Mount {
            container_path: "/etc/hosts".into(),
            host_path: hosts.display().to_string(),
            readonly: c.security_context.as_ref().is_some_and(|s| s.read_only_root_filesystem == Some(true)),
            ..cri::Mount::default()
        });
    }
    let message_path = c.termination_message_path.clone().filter(|p| !p.is_empty());
    mounts.push(cri::Mount {
        container_path: message_path.unwrap_or_else(|| "/dev/termination-log".into()),
        host_path: making.message_file.display().to_string(),
        ..cri::Mount::default()
    });
    let mut labels = pod_labels(pod);
    labels.retain(|k, _| k.starts_with("io.kubernetes."));
    labels.insert(labels::CONTAINER_NAME.into(), c.name.clone());
    let annotations = HashMap::from([
        (labels::HASH.to_owned(), format!("{:x}", spec::container_hash(c))),
        (labels::RESTARTS.to_owned(), making.attempt.to_string()),
        (labels::MESSAGE_FILE.to_owned(), making.message_file.display().to_string()),
    ]);
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: c.name.clone(), attempt: making.attempt }),
        image: Some(cri::ImageSpec {
            image: making.image.to_owned(),
            user_specified_image: c.image.clone().unwrap_or_default(),
            ..cri::ImageSpec::default()
        }),
        command: expanded(&c.command),
        args: expanded(&c.args),
        working_dir: c.working_dir.clone().unwrap_or_default(),
        envs: making
            .env
            .iter()
            .map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts,
        labels,
        annotations,
        log_path: format!("{}/{}.log", c.name, making.attempt),
        stdin: c.stdin == Some(true),
        stdin_once: c.stdin_once == Some(true),
        tty: c.tty == Some(true),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::linux(&spec, c, making.memory)),
            security_context: Some(security(&spec, c, making.target)),
        }),
        ..cri::ContainerConfig::default()
    })
}

fn verify_non_root(pod: &Pod, spec: &PodSpec, c: &Container, making: &Making<'_>) -> Result<(), Unmakeable> {
    let (own, all) = (c.security_context.as_ref(), spec.security_context.as_ref());
    let wanted = own.and_then(|s| s.run_as_non_root).or(all.and_then(|s| s.run_as_non_root));
    if wanted != Some(true) {
        return Ok(());
    }
    let asked = own.and_then(|s| s.run_as_user).or(all.and_then(|s| s.run_as_user));
    let whom = format!("(pod: \"{}\", container: {})", spec::long_name(pod), c.name);
    match (asked, &making.image_user) {
        (Some(0), _) => Err(Unmakeable(format!("container's runAsUser breaks non-root policy {whom}"))),
        (Some(_), _) => Ok(()),
        (None, Some((Some(uid), _))) if *uid != 0 => Ok(()),
        (None, Some((None, name))) if !name.is_empty() => Err(Unmakeable(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {whom}"
        ))),
        _ => Err(Unmakeable(format!("container has runAsNonRoot and image will run as root {whom}"))),
    }
}

fn mounts(
    pod: &Pod,
    c: &Container,
    making: &Making<'_>,
    known: impl Fn(&str) -> Option<String>,
) -> Result<Vec<cri::Mount>, Unmakeable> {
    let uid = identity(pod).2;
    let mut list = vec![];
    for (index, m) in c.volume_mounts.iter().flatten().enumerate() {
        let place = making.places.get(&m.name).ok_or_else(|| {
            Unmakeable(format!("cannot find volume {:?} to mount into container {:?}", m.name, c.name))
        })?;
        let sub = match (m.sub_path.as_deref(), m.sub_path_expr.as_deref()) {
            (Some(sub), _) if !sub.is_empty() => sub.to_owned(),
            (_, Some(expr)) if !expr.is_empty() => {
                let sub = expand(expr, &known);
                if sub.contains("$(") {
                    return Err(Unmakeable(format!("missing value for variable in subPathExpr {expr:?}")));
                }
                sub
            }
            _ => String::new(),
        };
        let propagation = match m.mount_propagation.as_deref() {
            Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
            _ => cri::MountPropagation::PropagationPrivate,
        };
        let container_path =
            if m.mount_path.starts_with('/') { m.mount_path.clone() } else { format!("/{}", m.mount_path) };
        let mut mount = cri::Mount {
            container_path,
            readonly: m.read_only == Some(true),
            recursive_read_only: matches!(m.recursive_read_only.as_deref(), Some("Enabled")),
            propagation: propagation as i32,
            ..cri::Mount::default()
        };
        match place {
            Place::Image(reference) => {
                mount.readonly = true;
                mount.image = Some(cri::ImageSpec { image: reference.clone(), ..cri::ImageSpec::default() });
            }
            Place::Path(path, read_only) => {
                mount.readonly |= *read_only;
                mount.host_path = if sub.is_empty() {
                    path.display().to_string()
                } else {
                    let target =
                        making.config.pod_dir(uid).join("subpaths").join(&c.name).join(index.to_string());
                    subpath::bind(path, &sub, &target).map_err(|e| {
                        Unmakeable(format!(
                            "failed to prepare subPath for volumeMount {:?} of container {:?}: {e}",
                            m.name, c.name
                        ))
                    })?;
                    target.display().to_string()
                };
            }
        }
        list.push(mount);
    }
    Ok(list)
}

/// Paths hidden from unprivileged containers, and those they may only read.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn security(spec: &PodSpec, c: &Container, target: Option<&str>) -> cri::LinuxContainerSecurityContext {
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = c.security_context.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let bare = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| if bare { vec![] } else { list.iter().map(|p| (*p).to_owned()).collect() };
    let capabilities = own.capabilities.unwrap_or_default();
    let strict = pod.supplemental_groups_policy.as_deref() == Some("Strict");
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            add_ambient_capabilities: vec![],
        }),
        privileged,
        namespace_options: Some(namespaces(spec, target)),
        run_as_user: int(own.run_as_user.or(pod.run_as_user)),
        run_as_group: int(own.run_as_group.or(pod.run_as_group)),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(spec),
        supplemental_groups_policy: i32::from(strict),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(if privileged {
            cri::SecurityProfile {
                profile_type: cri::security_profile::ProfileType::Unconfined as i32,
                ..cri::SecurityProfile::default()
            }
        } else {
            seccomp(own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref()))
        }),
        ..cri::LinuxContainerSecurityContext::default()
    }
}

//! How a pod's spec is read: its containers by role, and what the API leaves to defaults.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// What a container is within its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Runs to completion before anything after it starts.
    Init,
    /// An init container with `restartPolicy: Always`: it runs beside everything after it.
    Sidecar,
    /// One of `spec.containers`.
    Main,
    /// Added while the pod runs, to look into it; never restarted.
    Ephemeral,
}

/// A container and its role.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// The role.
    pub role: Role,
    /// The container; an ephemeral one is brought to the same shape.
    pub container: Cow<'a, Container>,
}

/// The spec, or an empty one.
pub fn spec(pod: &Pod) -> Cow<'_, PodSpec> {
    pod.spec.as_ref().map_or_else(|| Cow::Owned(PodSpec::default()), Cow::Borrowed)
}

/// Whether an init container is a sidecar.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// All containers: init and sidecars in order, then main, then ephemeral.
pub fn parts(spec: &PodSpec) -> Vec<Part<'_>> {
    let init = spec.init_containers.iter().flatten().map(|c| Part {
        role: if is_sidecar(c) { Role::Sidecar } else { Role::Init },
        container: Cow::Borrowed(c),
    });
    let main = spec.containers.iter().map(|c| Part { role: Role::Main, container: Cow::Borrowed(c) });
    let ephemeral = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|c| Part { role: Role::Ephemeral, container: Cow::Owned(from_ephemeral(c)) });
    init.chain(main).chain(ephemeral).collect()
}

/// The container called `name`, whatever its role.
pub fn part<'a>(spec: &'a PodSpec, name: &str) -> Option<Part<'a>> {
    parts(spec).into_iter().find(|p| p.container.name == name)
}

/// An ephemeral container in a container's shape.
pub fn from_ephemeral(e: &EphemeralContainer) -> Container {
    let e = e.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        name: e.name,
        resources: e.resources,
        security_context: e.security_context,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
        ..Container::default()
    }
}

/// `spec.terminationGracePeriodSeconds`, 30 by default.
pub fn grace_seconds(spec: &PodSpec) -> i64 {
    spec.termination_grace_period_seconds.unwrap_or(30).max(0)
}

/// `spec.restartPolicy`, `Always` by default.
pub fn restart_policy(spec: &PodSpec) -> &str {
    spec.restart_policy.as_deref().unwrap_or("Always")
}

/// Whether a container that ended with `exit_code` is started again: rules first, then the container's own policy, then
/// the pod's (KEP-5307). An init container under `Always` restarts on failure only.
pub fn restarts(spec: &PodSpec, part: &Part<'_>, exit_code: i32) -> bool {
    match part.role {
        Role::Ephemeral => return false,
        Role::Sidecar => return true,
        Role::Init | Role::Main => {}
    }
    for rule in part.container.restart_policy_rules.iter().flatten() {
        if let Some(on) = &rule.exit_codes {
            let listed = on.values.iter().flatten().any(|v| *v == exit_code);
            if listed == (on.operator == "In") && rule.action == "Restart" {
                return part.role == Role::Main || exit_code != 0;
            }
        }
    }
    let policy = part.container.restart_policy.as_deref().unwrap_or(restart_policy(spec));
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => part.role == Role::Main || exit_code != 0,
    }
}

/// FNV-1a over what makes a running container another one: its name and image. Stable over versions, since it is kept
/// as an annotation on the container.
pub fn container_hash(container: &Container) -> u32 {
    let image = container.image.as_deref().unwrap_or_default();
    container
        .name
        .bytes()
        .chain([0])
        .chain(image.bytes())
        .fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Namespace, name and UID of a pod, empty where missing.
pub fn identity(pod: &Pod) -> (&str, &str, &str) {
    let m = &pod.metadata;
    (
        m.namespace.as_deref().unwrap_or_default(),
        m.name.as_deref().unwrap_or_default(),
        m.uid.as_deref().unwrap_or_default(),
    )
}

/// `name_namespace(uid)`: how messages name a pod.
pub fn long_name(pod: &Pod) -> String {
    let (namespace, name, uid) = identity(pod);
    format!("{name}_{namespace}({uid})")
}

//! Who serves what: read once from the APIServices, asked by every request.

use std::{collections::HashMap, sync::Arc};

use apimachinery::{Object, meta};
use base64::Engine as _;

use super::{learned::Learned, priorities::Priority};
use crate::{
    config::ClientIdentity,
    extension::{Place, Target},
};

/// The port of a service that names none.
const PORT: u16 = 443;

/// The server behind an APIService, as its spec names it.
pub(crate) struct Backend {
    /// Of the APIService: `v1alpha1.wardle.example.com`.
    pub name: String,
    pub group: String,
    pub version: String,
    /// The Service it is behind.
    pub namespace: String,
    pub service: String,
    pub port: u16,
    /// How it is reached.
    pub target: Target,
    /// Changes when any of this does.
    pub mark: String,
}

impl Backend {
    /// What an APIService names; `None` if it is this server.
    pub fn of(object: &Object, identity: Option<ClientIdentity>) -> Result<Option<Self>, String> {
        let spec = &object["spec"];
        let reference = &spec["service"];
        if !reference.is_object() {
            return Ok(None);
        }
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, service) = (text(&reference["namespace"]), text(&reference["name"]));
        let port = match &reference["port"] {
            serde_json::Value::Null => PORT,
            port => port.as_u64().and_then(|p| u16::try_from(p).ok()).ok_or("the port is none")?,
        };
        let bundle = spec["caBundle"].as_str().unwrap_or_default();
        let authorities =
            base64::engine::general_purpose::STANDARD.decode(bundle).map_err(|e| e.to_string())?;
        let (group, version) = (text(&spec["group"]), text(&spec["version"]));
        if group.is_empty() || version.is_empty() {
            return Err("the core group is served by this server alone".to_owned());
        }
        let mark = format!(
            "{} {group}/{version} {namespace}/{service}:{port} {} {bundle}",
            meta::uid(object),
            spec["insecureSkipTLSVerify"],
        );
        Ok(Some(Self {
            name: meta::name(object).to_owned(),
            group,
            version,
            target: Target {
                place: Place::Service {
                    namespace: namespace.clone(),
                    name: service.clone(),
                    port,
                    path: String::new(),
                },
                authorities,
                identity,
                unverified: spec["insecureSkipTLSVerify"] == true,
            },
            namespace,
            service,
            port,
            mark,
        }))
    }

    /// `/apis/GROUP/VERSION`
    pub fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}

/// One group and version that another server serves.
pub(crate) struct Remote {
    pub backend: Arc<Backend>,
    pub learned: Arc<Learned>,
    /// The condition says that it answers.
    pub available: bool,
}

/// All APIServices of one moment.
#[derive(Default)]
pub(crate) struct Table {
    /// By group.
    remotes: HashMap<String, Vec<Arc<Remote>>>,
    /// What the objects say of groups and their versions, local ones too.
    priorities: HashMap<String, Vec<(String, Priority)>>,
}

impl Table {
    /// Notes the priorities that an APIService asks for.
    pub fn note(&mut self, object: &Object) {
        let spec = &object["spec"];
        let version = spec["version"].as_str().unwrap_or_default();
        let number = |field: &str| spec[field].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
        let priority = Priority { group: number("groupPriorityMinimum"), version: number("versionPriority") };
        let group = spec["group"].as_str().unwrap_or_default();
        self.priorities.entry(group.to_owned()).or_default().push((version.to_owned(), priority));
    }

    /// Adds a version that another server serves.
    pub fn remote(&mut self, remote: Remote) {
        self.remotes.entry(remote.backend.group.clone()).or_default().push(Arc::new(remote));
    }

    /// Nobody but this server serves anything: the usual case.
    pub fn is_local(&self) -> bool {
        self.remotes.is_empty()
    }

    /// All versions that others serve.
    pub fn remotes(&self) -> impl Iterator<Item = &Arc<Remote>> {
        self.remotes.values().flatten()
    }

    /// Who else serves this version.
    pub fn find(&self, group: &str, version: &str) -> Option<&Arc<Remote>> {
        self.remotes.get(group)?.iter().find(|r| r.backend.version == version)
    }

    /// Who else answers a decoded URL path: `/apis/GROUP/VERSION` and what is below it.
    pub fn of_path(&self, path: &str) -> Option<&Arc<Remote>> {
        if self.is_local() {
            return None;
        }
        let mut parts = path.trim_start_matches('/').split('/');
        if parts.next() != Some("apis") {
            return None;
        }
        self.find(parts.next()?, parts.next()?)
    }

    /// The place of a group: the highest that one of its versions asks for.
    pub fn group_priority(&self, group: &str) -> i32 {
        let asked = self.priorities.get(group).into_iter().flatten().map(|(_, p)| p.group);
        asked.max().unwrap_or_else(|| super::priorities::of_group(group))
    }

    /// The place of a version in its group.
    pub fn version_priority(&self, group: &str, version: &str) -> i32 {
        let asked = self.priorities.get(group).into_iter().flatten();
        let asked = asked.filter(|(name, _)| name == version).map(|(_, p)| p.version).max();
        asked.or_else(|| super::priorities::of(group, version).map(|p| p.version)).unwrap_or(0)
    }
}

//! Events about pods and the node, told to the API server beside the work and never in its way.
//!
//! An event that repeats within [`MEMORY`] becomes a series of the first one. When more wait than the queue holds, new
//! ones are dropped: they inform, they do not decide.

use std::{collections::HashMap, time::Duration};

use futures::StreamExt;
use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Pod},
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::spec::{self, Role};

/// How long an event is remembered after it was last seen.
const MEMORY: Duration = Duration::from_secs(360);
/// Events waiting at most.
const QUEUE: usize = 1024;
/// Events written at the same time.
const WRITERS: usize = 8;
/// Bytes of a note at most, as the API has it.
const NOTE_LIMIT: usize = 1024;
/// Different events remembered at most.
const REMEMBERED: usize = 4096;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Normal,
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Said {
    kind: Kind,
    reason: String,
    action: &'static str,
    note: String,
    uid: String,
    field: String,
}

struct Queued {
    said: Said,
    about: ObjectReference,
    at: Timestamp,
}

/// Takes events; cheap to clone.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<Queued>,
}

impl Events {
    /// The handle, and the writer that has to run for events to arrive.
    pub(crate) fn new(client: Client, node: &str) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Self { queue }, write(client, node.to_owned(), waiting))
    }

    /// About a pod.
    pub(crate) fn pod(&self, pod: &Pod, kind: Kind, reason: &str, action: &'static str, note: String) {
        self.say(reference(pod, None), kind, reason, action, note);
    }

    /// About a container of a pod.
    pub(crate) fn container(
        &self,
        pod: &Pod,
        container: &str,
        kind: Kind,
        reason: &str,
        action: &'static str,
        note: String,
    ) {
        self.say(reference(pod, Some(container)), kind, reason, action, note);
    }

    /// About any object.
    pub(crate) fn say(
        &self,
        about: ObjectReference,
        kind: Kind,
        reason: &str,
        action: &'static str,
        mut note: String,
    ) {
        if note.len() > NOTE_LIMIT {
            let mut cut = NOTE_LIMIT - 4;
            while !note.is_char_boundary(cut) {
                cut -= 1;
            }
            note.truncate(cut);
            note.push_str(" ...");
        }
        let said = Said {
            kind,
            reason: reason.to_owned(),
            action,
            note,
            uid: about.uid.clone().unwrap_or_default(),
            field: about.field_path.clone().unwrap_or_default(),
        };
        if self.queue.try_send(Queued { said, about, at: Timestamp::now() }).is_err() {
            tracing::debug!(reason, "an event was dropped");
        }
    }
}

fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let field = container.and_then(|name| {
        let spec = spec::spec(pod);
        let list = match spec::part(&spec, name)?.role {
            Role::Init | Role::Sidecar => "initContainers",
            Role::Main => "containers",
            Role::Ephemeral => "ephemeralContainers",
        };
        Some(format!("spec.{list}{{{name}}}"))
    });
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: field,
    }
}

/// What was said before: the event's name and how often it was seen.
struct Series {
    name: String,
    count: i32,
    last: Timestamp,
}

async fn write(client: Client, node: String, mut waiting: mpsc::Receiver<Queued>) {
    let mut remembered: HashMap<Said, Series> = HashMap::new();
    let mut serial = 0u32;
    let queue = futures::stream::poll_fn(move |cx| waiting.poll_recv(cx)).map(|event| {
        let fresh = |s: &Series| event.at.duration_since(s.last).unsigned_abs() < MEMORY;
        if remembered.len() >= REMEMBERED {
            remembered.retain(|_, s| fresh(s));
        }
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        let known = remembered.get_mut(&event.said).filter(|s| fresh(s));
        let (name, count) = match known {
            Some(series) => {
                (series.count, series.last) = (series.count.saturating_add(1), event.at);
                (series.name.clone(), series.count)
            }
            None => {
                serial = serial.wrapping_add(1);
                let about = event.about.name.as_deref().unwrap_or("node");
                let name = format!("{about}.{:x}{serial:x}", event.at.as_nanosecond());
                remembered
                    .insert(event.said.clone(), Series { name: name.clone(), count: 1, last: event.at });
                (name, 1)
            }
        };
        (event, name, count)
    });
    queue
        .for_each_concurrent(WRITERS, |(event, name, count)| {
            let (client, node) = (client.clone(), node.clone());
            async move {
                let reason = event.said.reason.clone();
                if let Err(error) = post(client, &node, event, name, count).await {
                    tracing::debug!(reason, %error, "an event was not written");
                }
            }
        })
        .await;
}

async fn post(client: Client, node: &str, event: Queued, name: String, count: i32) -> kube::Result<()> {
    let namespace = event.about.namespace.clone().unwrap_or_else(|| "default".into());
    let api = Api::<Event>::namespaced(client, &namespace);
    if count > 1 {
        let series = EventSeries { count, last_observed_time: MicroTime(event.at) };
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"series": series}))).await {
            // the first one has expired: begin anew
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => return result.map(drop),
        }
    }
    let kind = match event.said.kind {
        Kind::Normal => "Normal",
        Kind::Warning => "Warning",
    };
    let event = Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
        action: Some(event.said.action.to_owned()),
        reason: Some(event.said.reason),
        note: Some(event.said.note),
        type_: Some(kind.to_owned()),
        event_time: Some(MicroTime(event.at)),
        regarding: Some(event.about),
        reporting_controller: Some("kubelet".into()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    };
    api.create(&PostParams::default(), &event).await.map(drop)
}

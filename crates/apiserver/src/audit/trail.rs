//! What is told of one request, from when it comes until everything that works for it is gone.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use access::{Audit as _, Decision, UserInfo};
use apimachinery::{ApiError, names, time::format_micro_time};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::header;
use parking_lot::Mutex;
use serde_json::{Value, value::to_raw_value};

use super::{
    Audit,
    capture::Followed,
    event::{Event, ObjectReference, Status, User, without_managed_fields},
    policy::{Level, Stage, Verdict},
    sources,
};
use crate::{Response, body::Body, server::Call};

/// A longer user agent is cut, in bytes.
const LONGEST_AGENT: usize = 1024;
/// Says that an object was too large to be told.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// The trail of one request. Whoever works for the request holds it: when nobody does any more, the request is complete,
/// and that is told.
pub(crate) struct Trail {
    audit: Arc<Audit>,
    id: String,
    remote: Option<IpAddr>,
    received: DateTime<Utc>,
    now: fn() -> DateTime<Utc>,
    /// Set when it is known who asks for what, unless nothing is to be told.
    open: OnceLock<Open>,
}

struct Open {
    verdict: Verdict,
    /// The request is told when its answer begins, too.
    long_running: bool,
    /// It is told then and not again: see [`Trail::refused`].
    early: bool,
    state: Mutex<State>,
}

struct State {
    event: Event,
    /// That the answer has begun was told.
    started: bool,
    /// Nothing more is told.
    over: bool,
}

impl Trail {
    /// A trail of which nothing is told before it is known who asks.
    pub fn new(
        audit: Arc<Audit>,
        id: String,
        remote: Option<IpAddr>,
        now: fn() -> DateTime<Utc>,
    ) -> Arc<Self> {
        Arc::new(Self { audit, id, remote, received: now(), now, open: OnceLock::new() })
    }

    /// The request is read and its user known; waits until there is room for what will be told.
    pub async fn begin(&self, call: &Call) {
        let verdict = self.audit.judge(Some(&call.user), &call.info);
        if verdict.level == Level::None {
            return;
        }
        self.audit.log.room().await;
        self.set(call, verdict, Some(&call.user));
        self.tell(Stage::RequestReceived);
    }

    /// The request is refused before it is known who makes it: told once, when the answer begins.
    pub async fn refused(&self, call: &Call) {
        let verdict = self.audit.judge(None, &call.info);
        if verdict.level != Level::None {
            self.audit.log.room().await;
            self.set(call, verdict, None);
        }
    }

    fn set(&self, call: &Call, verdict: Verdict, user: Option<&UserInfo>) {
        let info = &call.info;
        let object_ref = info.is_resource.then(|| ObjectReference {
            resource: info.resource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            api_group: info.group.clone(),
            api_version: info.version.clone(),
            subresource: info.subresource.clone(),
            ..ObjectReference::default()
        });
        let agent = call.headers.get(header::USER_AGENT).map(|v| String::from_utf8_lossy(v.as_bytes()));
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: verdict.level.name(),
            audit_id: self.id.clone(),
            stage: "",
            request_uri: call.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            verb: info.verb,
            user: user.map(User::from).unwrap_or_default(),
            impersonated_user: None,
            source_ips: sources::of(&call.headers, self.remote),
            user_agent: cut(&agent.unwrap_or_default()),
            object_ref,
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: format_micro_time(self.received),
            stage_timestamp: String::new(),
            annotations: Default::default(),
        };
        let state = Mutex::new(State { event, started: false, over: false });
        // A request has one caller: nobody else opens it.
        let (long_running, early) = (info.is_long_running(), user.is_none());
        let _ = self.open.set(Open { verdict, long_running, early, state });
    }

    fn change(&self, level: Level, change: impl FnOnce(&mut Event, &Verdict)) {
        if let Some(open) = self.open.get().filter(|open| open.verdict.level >= level) {
            change(&mut open.state.lock().event, &open.verdict);
        }
    }

    fn tell(&self, stage: Stage) {
        let Some(open) = self.open.get() else { return };
        if open.verdict.omitted.contains(stage) {
            return;
        }
        let mut state = open.state.lock();
        state.event.stage = stage.name();
        state.event.stage_timestamp = match stage {
            Stage::RequestReceived => state.event.request_received_timestamp.clone(),
            _ => format_micro_time((self.now)()),
        };
        self.audit.tell(&state.event);
    }

    /// Whether anything is told.
    pub fn is_open(&self) -> bool {
        self.open.get().is_some()
    }

    /// The caller acts as somebody else.
    pub fn impersonated(&self, user: &UserInfo) {
        self.change(Level::Metadata, |event, _| event.impersonated_user = Some(user.into()));
    }

    /// What the authorizers have said.
    pub fn decided(&self, decision: &Decision) {
        let (word, reason) = match decision {
            Decision::Allow(reason) => ("allow", reason),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => ("forbid", reason),
        };
        self.annotate("authorization.k8s.io/decision", word.to_owned());
        self.annotate("authorization.k8s.io/reason", reason.clone());
    }

    /// The resource is served for a while only; `warning` says for how long, if that is known.
    pub fn deprecated(&self, warning: &str) {
        self.annotate("k8s.io/deprecated", "true".to_owned());
        let release = warning.split_once("unavailable in v").and_then(|(_, rest)| rest.split_once('+'));
        if let Some((release, _)) = release {
            self.annotate("k8s.io/removed-release", release.to_owned());
        }
    }

    /// The object that was sent, in its own version and with its defaults, as upstream tells it.
    pub fn sent(&self, object: &Value) {
        self.change(Level::Metadata, |event, verdict| {
            event.object_ref.get_or_insert_default().complete(object);
            if verdict.level < Level::Request {
                return;
            }
            event.request_object = if verdict.without_managed_fields {
                let mut object = object.clone();
                without_managed_fields(&mut object);
                to_raw_value(&object).ok()
            } else {
                to_raw_value(object).ok()
            };
        });
    }

    /// The patch that was sent. One that is neither JSON nor YAML is refused, and not told.
    pub fn patched(&self, patch: &Bytes, yaml: bool) {
        self.change(Level::Request, |event, _| {
            let read =
                if yaml { apimachinery::decode::yaml(patch) } else { apimachinery::decode::json(patch) };
            event.request_object = read.ok().and_then(|decoded| to_raw_value(&decoded.value).ok());
        });
    }

    /// What will be answered is this `Status`.
    pub fn status(&self, status: &Value) {
        self.change(Level::Metadata, |event, _| event.response_status = Some(Status::of(status)));
    }

    /// What was answered, as a document.
    pub(super) fn shown(&self, mut object: Value) {
        self.change(Level::RequestResponse, |event, verdict| {
            if verdict.without_managed_fields {
                without_managed_fields(&mut object);
            }
            event.response_object = to_raw_value(&object).ok();
        });
    }

    /// What was answered is too large to be told.
    pub(super) fn truncated(&self) {
        self.change(Level::Metadata, |event, _| {
            event.annotations.insert(TRUNCATED.to_owned(), "true".to_owned());
        });
    }

    /// Puts the handler's answer on the trail, which then lasts as long as its body. `whole`: the body is an object that
    /// may be told.
    pub fn answered(self: &Arc<Self>, response: Response, whole: bool) -> Response {
        let Some(open) = self.open.get() else { return response };
        let code = response.status().as_u16();
        self.change(Level::Metadata, |event, _| {
            // What became of a write whose client was told that it took too long counts.
            let status = event.response_status.take().filter(|s| (s.status == "Failure") == (code >= 400));
            event.response_status = Some(Status { code, ..status.unwrap_or_default() });
        });
        let kept = whole && open.verdict.level == Level::RequestResponse;
        let (head, body) = response.into_parts();
        let kept = kept.then(|| head.headers.get(header::CONTENT_TYPE).cloned()).flatten();
        let body = match body {
            Body::Full(None) => Body::Full(None),
            Body::Full(Some(bytes)) => {
                if let Some(kind) = kept {
                    super::capture::told(self, &kind, &bytes);
                }
                Body::Full(Some(bytes))
            }
            Body::Stream(stream) => Body::Stream(Box::pin(Followed::new(stream, self.clone(), kept))),
        };
        if open.early || open.long_running {
            self.begun(open);
        }
        Response::from_parts(head, body)
    }

    /// Tells that the answer begins, once.
    fn begun(&self, open: &Open) {
        let told = {
            let mut state = open.state.lock();
            let told = state.started || state.over;
            (state.started, state.over) = (true, state.over || open.early);
            told
        };
        if !told {
            self.tell(Stage::ResponseStarted);
        }
    }

    /// Puts an answer that is an error on the trail.
    pub fn failed(self: &Arc<Self>, error: &ApiError, response: Response) -> Response {
        self.status(&error.to_status());
        self.answered(response, true)
    }

    /// The handler has panicked, and nothing more is told.
    pub fn panicked(&self, what: &str) {
        let status = serde_json::json!({
            "status": "Failure", "reason": "InternalError", "code": 500, "message": format!("APIServer panic'd: {what}"),
        });
        self.status(&status);
        self.tell(Stage::Panic);
        if let Some(open) = self.open.get() {
            open.state.lock().over = true;
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        let Some(open) = self.open.get() else { return };
        {
            let mut state = open.state.lock();
            let nobody_left = || {
                let status = serde_json::json!({"status": "Success", "message": "Connection closed early"});
                Status { code: 200, ..Status::of(&status) }
            };
            state.event.response_status.get_or_insert_with(nobody_left);
        }
        if open.early || open.long_running {
            self.begun(open);
        }
        if !open.state.lock().over {
            self.tell(Stage::ResponseComplete);
        }
    }
}

impl access::Audit for Trail {
    fn annotate(&self, key: &str, value: String) {
        if !key.contains('/') || !names::is_qualified_name(key).is_empty() {
            return tracing::warn!(key, "an audit annotation has no proper name, and is ignored");
        }
        self.change(Level::Metadata, |event, _| match event.annotations.get(key) {
            Some(old) if *old != value => {
                tracing::warn!(key, "an audit annotation is set twice, which is ignored")
            }
            Some(_) => {}
            None => {
                event.annotations.insert(key.to_owned(), value);
            }
        });
    }

    fn keeps_bodies(&self) -> bool {
        self.open.get().is_some_and(|open| open.verdict.level >= Level::Request)
    }
}

fn cut(agent: &str) -> String {
    if agent.len() <= LONGEST_AGENT {
        return agent.to_owned();
    }
    format!("{}...TRUNCATED", &agent[..agent.floor_char_boundary(LONGEST_AGENT)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_user_agent_is_cut_at_a_character() {
        assert_eq!(cut("kubectl/v1.37"), "kubectl/v1.37");
        let long = format!("{}ü", "x".repeat(1023));
        assert_eq!(cut(&long), format!("{}...TRUNCATED", "x".repeat(1023)));
    }
}

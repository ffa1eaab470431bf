//! Priority and fairness: who may be worked for when there is more to do than can be done at once.
//!
//! FlowSchemas sort requests into flows and give each flow a priority level; a level has a share of the server's seats.
//! When they are taken, its requests wait in queues: a flow is dealt a few of them, so that one that floods the server
//! fills its own and leaves others to the rest, and the queues take turns by the work they have been given. What is
//! exempt, and what stays open for long, takes no seat; a watch takes some while it is set up.
//!
//! Reading order: [`schema`], [`level`] (the objects) → [`snapshot`] (all of them, replaced as a whole) → [`deal`],
//! [`queues`] (who is next) → [`width`] (how many seats a request takes) → [`demand`], [`allocate`], [`borrowing`],
//! [`adjusting`] (whose seats) → [`status`] → [`exposition`].
//!
//! Levels lend each other seats: every ten seconds their limits are adjusted to what was asked of them, within bounds. While
//! nothing is asked nothing is adjusted. A write takes one seat, whatever number of watches it wakes, because they share
//! its bytes; so does whatever is exempt.
//!
//! Source: `k8s.io/apiserver/pkg/util/flowcontrol`, `pkg/server/filters/priority-and-fairness.go`; KEP-1040.

mod adjusting;
mod allocate;
mod borrowing;
mod deal;
mod demand;
mod exposition;
mod level;
mod queues;
mod schema;
mod snapshot;
mod stats;
mod status;
mod width;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use apimachinery::ApiError;
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::Stream;
use http::{HeaderValue, header};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

pub(crate) use exposition::page;
pub(crate) use width::Counts;

use self::{
    adjusting::{Alarm, Last},
    level::{Level, Permit, Refusal},
    snapshot::Snapshot,
    stats::Stats,
};
use crate::{
    Response,
    body::{Body, BoxError},
    respond,
    server::{Call, Inner},
};

/// No request waits longer for a seat.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A watch, which has no deadline, waits so long for its seats.
const WATCH_WAIT: Duration = Duration::from_secs(15);
/// A client that takes a list this slowly does not hold its seats any longer.
const LONGEST_HOLD: Duration = Duration::from_secs(60);

const SCHEMA_UID: &str = "x-kubernetes-pf-flowschema-uid";
const LEVEL_UID: &str = "x-kubernetes-pf-prioritylevel-uid";

/// What all requests share of it.
pub(crate) struct Flow {
    snapshot: ArcSwap<Snapshot>,
    /// By level and schema. Counters outlive the objects they are named after.
    stats: Mutex<HashMap<(String, String), Arc<Stats>>>,
    /// How many objects there are.
    pub counts: Counts,
    /// Wakes whoever adjusts limits.
    alarm: Arc<Alarm>,
    last: Mutex<Last>,
}

impl Flow {
    /// As long as no objects are known: two levels, the one for everybody with all `seats`.
    pub fn new(seats: u32) -> Self {
        let flow = Self {
            snapshot: ArcSwap::new(Arc::new(Snapshot::default())),
            stats: Mutex::default(),
            counts: Counts::default(),
            alarm: Arc::default(),
            last: Mutex::new(Last { at: now(), fair: 0.0 }),
        };
        let first = Snapshot::new(&[], &[], seats, &flow, None);
        flow.snapshot.store(Arc::new(first));
        flow.rearranged();
        flow
    }

    /// The counters of a schema in a level.
    fn stats_of(&self, level: &str, schema: &str) -> Arc<Stats> {
        self.stats.lock().entry((level.to_owned(), schema.to_owned())).or_default().clone()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.alarm.end();
    }
}

/// Begins to follow the objects. Resolves when those that are there are in force; the rest ends with the server.
pub(crate) fn start(inner: &Arc<Inner>) -> Result<(), ApiError> {
    status::start(inner)
}

/// A request that may go on, and what it holds.
pub(crate) struct Place {
    permit: Option<Permit>,
    marks: Option<(HeaderValue, HeaderValue)>,
    watch: bool,
}

/// Lets the request through, after some waiting if it has to be; or the answer that refuses it. `patience`: how long the
/// whole request may take, `None` without a limit.
pub(crate) async fn admit(inner: &Inner, call: &Call, patience: Option<Duration>) -> Result<Place, Response> {
    let watch = call.info.verb == "watch";
    if !watch && call.info.is_long_running() {
        return Ok(Place { permit: None, marks: None, watch });
    }
    let (level, stats, hash, marks) = {
        let snapshot = inner.flow.snapshot.load();
        let Some(schema) = snapshot.classify(&call.user, &call.info) else {
            return Ok(Place { permit: None, marks: None, watch });
        };
        let mut hasher = DefaultHasher::new();
        schema.name.hash(&mut hasher);
        schema.distinguish(&call.user, &call.info).hash(&mut hasher);
        (
            schema.level.clone(),
            schema.stats.clone(),
            hasher.finish(),
            (schema.mark.clone(), schema.level.mark.clone()),
        )
    };
    let seats = if level.exempt { 1 } else { width::seats(inner, call, level.widest()) };
    let limit = patience.map_or(WATCH_WAIT, |whole| whole / 4).min(LONGEST_WAIT);
    match Level::enter(&level, &stats, seats, hash, limit).await {
        Ok(permit) => Ok(Place { permit: Some(permit), marks: Some(marks), watch }),
        Err(refusal) => Err(refuse(&refusal, marks)),
    }
}

fn refuse(refusal: &Refusal, marks: (HeaderValue, HeaderValue)) -> Response {
    let mut response = respond::text(429, "Too many requests, please try again later.\n");
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, refusal.retry_after.into());
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert(SCHEMA_UID, marks.0);
    headers.insert(LEVEL_UID, marks.1);
    response
}

impl Place {
    /// Tells where the request was, and gives its seats back: at once when the answer is whole, at its end when it is
    /// streamed, with its first piece when it is a watch.
    pub fn leave(self, mut response: Response) -> Response {
        if let Some((schema, level)) = self.marks {
            let headers = response.headers_mut();
            headers.insert(SCHEMA_UID, schema);
            headers.insert(LEVEL_UID, level);
        }
        let Some(permit) = self.permit.filter(|permit| permit.counts()) else { return response };
        response.map(|body| match body {
            Body::Full(bytes) => Body::Full(bytes),
            Body::Stream(stream) if self.watch => {
                Body::Stream(Box::pin(Held { stream, permit: Some(permit), until_end: None }))
            }
            Body::Stream(stream) => {
                let (until_end, end) = oneshot::channel::<()>();
                // Not held by the stream: a client that reads nothing would hold the seats with it.
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(LONGEST_HOLD, end).await;
                    drop(permit);
                });
                Body::Stream(Box::pin(Held { stream, permit: None, until_end: Some(until_end) }))
            }
        })
    }
}

/// An answer's body that holds seats.
struct Held {
    stream: Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>,
    /// Until the first piece was made.
    permit: Option<Permit>,
    /// Dropped with the stream, or when it ends.
    until_end: Option<oneshot::Sender<()>>,
}

impl Stream for Held {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let polled = self.stream.as_mut().poll_next(cx);
        // Initial events are read from memory: they are there, or nothing is to be waited for with seats.
        self.permit = None;
        if matches!(polled, std::task::Poll::Ready(None)) {
            self.until_end = None;
        }
        polled
    }
}

/// When it is.
fn now() -> Instant {
    Instant::now()
}

//! Publishes what the loops have to say as Events of `events.k8s.io/v1`.
//!
//! The same words about the same object become one Event with a series that counts. An object about which too much is said
//! is heard less: 25 Events at once, then one every five minutes, upstream's spam filter. Events are told once; one that
//! cannot be published is lost.

use std::collections::HashMap;

use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::plan::Note;

/// Notes that wait to be published; more are dropped.
const WAITING: usize = 1024;
/// Longest note of an event in bytes.
const NOTE_LIMIT: usize = 1024;
/// A series that has been silent for so long is over.
const SERIES: SignedDuration = SignedDuration::from_mins(6);
/// How many Events about one object may come at once.
const BURST: f64 = 25.0;
/// How long it takes until one more may come, in seconds.
const REFILL: f64 = 300.0;
/// How many series and objects are remembered; beyond, those that have been silent are forgotten at once.
const REMEMBERED: usize = 4096;

/// A note of a loop.
pub struct Said {
    /// Which loop.
    pub controller: &'static str,
    /// What it said.
    pub note: Note,
    /// When.
    pub at: Timestamp,
}

/// What makes two notes the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Same {
    controller: &'static str,
    uid: String,
    kind: String,
    namespace: String,
    name: String,
    reason: String,
    message: String,
}

/// Something said before.
struct Series {
    event: String,
    count: i32,
    last: Timestamp,
}

/// How much may still be said about an object.
struct Budget {
    left: f64,
    last: Timestamp,
}

/// What to do about a note.
#[derive(Debug, PartialEq)]
enum Act {
    Make(Box<Event>),
    Count { namespace: String, event: String, series: EventSeries },
    Nothing,
}

/// What was said before. Pure; the clock comes with the notes.
#[derive(Default)]
struct Memory {
    series: HashMap<Same, Series>,
    budgets: HashMap<String, Budget>,
}

impl Memory {
    fn hear(&mut self, said: &Said) -> Act {
        let about = &said.note.about;
        if self.series.len() > REMEMBERED || self.budgets.len() > REMEMBERED {
            self.forget(said.at);
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        if !self.may(&format!("{} {} {}", said.controller, text(&about.uid), text(&about.name)), said.at) {
            return Act::Nothing;
        }
        let same = Same {
            controller: said.controller,
            uid: text(&about.uid),
            kind: text(&about.kind),
            namespace: text(&about.namespace),
            name: text(&about.name),
            reason: said.note.reason.clone(),
            message: said.note.message.clone(),
        };
        if let Some(series) = self.series.get_mut(&same)
            && said.at.duration_since(series.last) < SERIES
        {
            series.count = series.count.saturating_add(1);
            series.last = said.at;
            let news = EventSeries { count: series.count, last_observed_time: MicroTime(said.at) };
            return Act::Count { namespace: namespace(about), event: series.event.clone(), series: news };
        }
        let event = event(said);
        let name = text(&event.metadata.name);
        self.series.insert(same, Series { event: name, count: 1, last: said.at });
        Act::Make(Box::new(event))
    }

    fn may(&mut self, object: &str, now: Timestamp) -> bool {
        let budget = self.budgets.entry(object.to_owned()).or_insert(Budget { left: BURST, last: now });
        let refilled = now.duration_since(budget.last).as_secs_f64().max(0.0) / REFILL;
        budget.left = (budget.left + refilled).min(BURST);
        budget.last = now;
        let may = budget.left >= 1.0;
        if may {
            budget.left -= 1.0;
        }
        may
    }

    fn forget(&mut self, now: Timestamp) {
        self.series.retain(|_, series| now.duration_since(series.last) < SERIES);
        self.budgets.retain(|_, budget| now.duration_since(budget.last).as_secs_f64() < BURST * REFILL);
        if self.series.len() > REMEMBERED {
            self.series.clear();
        }
        if self.budgets.len() > REMEMBERED {
            self.budgets.clear();
        }
    }
}

/// Events about objects without a namespace live in `default`.
fn namespace(about: &ObjectReference) -> String {
    about.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned())
}

fn event(said: &Said) -> Event {
    let about = &said.note.about;
    let mut note = said.note.message.clone();
    let mut end = note.len().min(NOTE_LIMIT);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note.truncate(end);
    let name = format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), said.at.as_nanosecond());
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace(about)), ..ObjectMeta::default() },
        action: Some(said.note.reason.clone()),
        reason: Some(said.note.reason.clone()),
        note: Some(note),
        type_: Some(if said.note.warning { "Warning" } else { "Normal" }.to_owned()),
        event_time: Some(MicroTime(said.at)),
        regarding: Some(about.clone()),
        reporting_controller: Some(said.controller.to_owned()),
        reporting_instance: Some(said.controller.to_owned()),
        ..Event::default()
    }
}

/// Where notes go.
#[derive(Clone)]
pub struct Events(mpsc::Sender<Said>);

impl Events {
    /// Where notes go, and the task that publishes them; it ends when the last of the former is dropped.
    pub fn new(client: Client) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), publish(client, receiver))
    }

    /// Publishes a note, if there is room.
    pub fn say(&self, controller: &'static str, note: Note, at: Timestamp) {
        if self.0.try_send(Said { controller, note, at }).is_err() {
            tracing::debug!(controller, "an event was dropped, too many are waiting");
        }
    }
}

async fn publish(client: Client, mut said: mpsc::Receiver<Said>) {
    let mut memory = Memory::default();
    while let Some(note) = said.recv().await {
        let done = match memory.hear(&note) {
            Act::Nothing => Ok(()),
            Act::Make(event) => {
                let events = Api::<Event>::namespaced(client.clone(), &namespace(&note.note.about));
                events.create(&PostParams::default(), &event).await.map(|_| ())
            }
            Act::Count { namespace, event, series } => {
                let events = Api::<Event>::namespaced(client.clone(), &namespace);
                let patch = Patch::Merge(json!({"series": series}));
                events.patch(&event, &PatchParams::default(), &patch).await.map(|_| ())
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, reason = note.note.reason, "an event could not be published");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn said(message: &str, seconds: i64) -> Said {
        let about = ObjectReference {
            kind: Some("Deployment".to_owned()),
            namespace: Some("n".to_owned()),
            name: Some("web".to_owned()),
            uid: Some("u".to_owned()),
            ..ObjectReference::default()
        };
        let note = Note { about, warning: false, reason: "Scaled".to_owned(), message: message.to_owned() };
        Said { controller: "c", note, at: at(seconds) }
    }

    #[test]
    fn the_same_words_are_counted_and_other_words_are_another_event() {
        let mut memory = Memory::default();
        let Act::Make(first) = memory.hear(&said("a", 1000)) else { panic!("no event") };
        assert_eq!(first.note.as_deref(), Some("a"));
        assert!(matches!(memory.hear(&said("b", 1001)), Act::Make(_)));
        let Act::Count { event, series, .. } = memory.hear(&said("a", 1002)) else { panic!("no series") };
        assert_eq!((Some(event), series.count), (first.metadata.name, 2));
        assert!(matches!(memory.hear(&said("a", 1002 + 360)), Act::Make(_)), "the series is over");
    }

    #[test]
    fn an_object_about_which_too_much_is_said_is_heard_less() {
        let mut memory = Memory::default();
        let heard = |memory: &mut Memory, seconds| memory.hear(&said("a", seconds)) != Act::Nothing;
        assert_eq!((0..40).filter(|_| heard(&mut memory, 1000)).count(), 25);
        assert!(!heard(&mut memory, 1299));
        assert!(heard(&mut memory, 1301));
    }

    #[test]
    fn a_long_note_is_cut_between_letters() {
        let event = event(&said(&"ä".repeat(600), 1));
        assert_eq!(event.note.map(|n| n.len()), Some(1024));
    }
}

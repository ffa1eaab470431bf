//! Carries out one plan.

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use serde_json::Value;

use crate::{
    ask::{Ask, Refusal, Told},
    plan::{BLANK, Failure, Note, Plan, Target, Write},
    world::Kind,
};

/// How many requests of one plan are under way at once.
const AT_ONCE: usize = 32;

/// What a request came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Nothing was written.
    Nothing,
    /// An object was written; the watch of its kind will tell at this resourceVersion.
    Written {
        /// Its kind.
        kind: Kind,
        /// Its new resourceVersion.
        revision: u64,
    },
    /// An object is gone, or was gone before.
    Gone(Target),
}

/// An answer, and the name of the object that it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// What it came to.
    pub answer: Answer,
    /// The name of the object, the generated one after a creation.
    pub name: String,
}

/// Something that takes writes: an API server, real or not.
pub trait Server: Send + Sync {
    /// Carries out one write as [`Write`] says it is meant.
    fn send<'a>(&'a self, write: &'a Write) -> BoxFuture<'a, Result<Answered, Box<Failure>>>;

    /// Answers one question.
    fn answer<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Value, Refusal>>;
}

/// What became of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The answers to the questions.
    pub told: Vec<Told>,
    /// Of the writes that succeeded.
    pub answers: Vec<Answer>,
    /// Of those that did not.
    pub failures: Vec<Failure>,
    /// The events of the writes, with their blanks filled.
    pub notes: Vec<Note>,
}

/// Puts the questions of a plan, or carries out its steps until one fails.
pub async fn execute(plan: &Plan, server: &dyn Server) -> Report {
    let mut report = Report::default();
    if !plan.asks.is_empty() {
        report.told = told(&plan.asks, server).await;
        return report;
    }
    for step in &plan.steps {
        let (creates, others): (Vec<&Write>, Vec<&Write>) =
            step.iter().partition(|write| matches!(write, Write::Create { .. }));
        let (first, second) = futures::join!(slowly(&creates, server), together(&others, server));
        report.add(first);
        report.add(second);
        if !report.failures.is_empty() {
            break;
        }
    }
    if report.failures.is_empty() {
        report.notes.extend(plan.success_notes.iter().cloned());
    }
    report
}

async fn told(asks: &[Ask], server: &dyn Server) -> Vec<Told> {
    let asked: Vec<_> = asks
        .iter()
        .map(|ask| server.answer(ask).map(move |answer| Told { ask: ask.clone(), answer }))
        .collect();
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

impl Report {
    fn add(&mut self, other: Self) {
        self.answers.extend(other.answers);
        self.failures.extend(other.failures);
        self.notes.extend(other.notes);
    }
}

/// One, then two, four, eight at once; ends after the first batch with a failure, so that a quota costs one request a try
/// and not one an object.
async fn slowly(creates: &[&Write], server: &dyn Server) -> Report {
    let mut report = Report::default();
    let mut rest = creates;
    let mut size = 1;
    while !rest.is_empty() && report.failures.is_empty() {
        let (batch, later) = rest.split_at(size.min(rest.len()));
        report.add(together(batch, server).await);
        rest = later;
        size *= 2;
    }
    report
}

async fn together(writes: &[&Write], server: &dyn Server) -> Report {
    let mut report = Report::default();
    let mut sent = Vec::with_capacity(writes.len());
    for &write in writes {
        sent.push(server.send(write).map(move |answer| (write, answer)));
    }
    // In the order of the writes, so that a plan has one history.
    let mut answers = stream::iter(sent).buffered(AT_ONCE);
    while let Some((write, answer)) = answers.next().await {
        match answer {
            Ok(Answered { answer, name }) => {
                report.answers.push(answer);
                report.notes.extend(note_of(write, true).map(|note| filled(note, &name)));
            }
            Err(failure) if silent(write, &failure) => {}
            Err(failure) => {
                // Somebody else was faster, or this loop itself before a restart: nothing to be told.
                let known = failure.reason == "AlreadyExists";
                let note = note_of(write, false).filter(|_| !known);
                report.notes.extend(note.map(|note| filled(note, &failure.message)));
                report.failures.push(*failure);
            }
        }
    }
    report
}

/// Nothing can be made in a namespace that is being deleted, and nobody needs to be told.
fn silent(write: &Write, failure: &Failure) -> bool {
    matches!(write, Write::Create { .. }) && failure.causes.iter().any(|c| c == "NamespaceTerminating")
}

fn note_of(write: &Write, success: bool) -> Option<&Note> {
    match write {
        Write::Create { on_success, on_failure, .. } | Write::Delete { on_success, on_failure, .. } => {
            if success {
                on_success.as_ref()
            } else {
                on_failure.as_ref()
            }
        }
        _ => None,
    }
}

fn filled(note: &Note, with: &str) -> Note {
    Note { message: note.message.replacen(BLANK, with, 1), ..note.clone() }
}

impl Write {
    /// The kind that is written or asked for; none when it is not about an object.
    #[must_use]
    pub fn kind(&self) -> Option<&Kind> {
        Some(match self {
            Self::Create { kind, .. }
            | Self::Update { kind, .. }
            | Self::DeleteCollection { kind, .. }
            | Self::RequireNone { kind, .. } => kind,
            Self::Patch { target, .. }
            | Self::Delete { target, .. }
            | Self::Require { target, .. }
            | Self::RequireAbsent { target }
            | Self::Post { target, .. } => &target.kind,
            Self::RequireUnused { .. } | Self::MakeDirectory { .. } | Self::RemoveDirectory { .. } => {
                return None;
            }
        })
    }

    /// The body of a patch with the UID that its target must have, as each sort of patch says so.
    #[must_use]
    pub fn guarded(patch: crate::PatchKind, body: &Value, uid: &str) -> Value {
        let mut body = body.clone();
        if uid.is_empty() {
            return body;
        }
        if patch == crate::PatchKind::Json {
            let test = serde_json::json!({"op": "test", "path": "/metadata/uid", "value": uid});
            if let Some(operations) = body.as_array_mut() {
                operations.insert(0, test);
            }
        } else if body.is_object() {
            body["metadata"]["uid"] = uid.into();
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8s_openapi::api::core::v1::{ObjectReference, Pod};

    use super::*;
    use crate::testing::object;

    /// Refuses everything from the nth request on.
    struct Refuses {
        from: usize,
        cause: &'static str,
        seen: Mutex<usize>,
    }

    impl Server for Refuses {
        fn send<'a>(&'a self, write: &'a Write) -> BoxFuture<'a, Result<Answered, Box<Failure>>> {
            let mut seen = self.seen.lock().unwrap();
            *seen += 1;
            let answer = if *seen <= self.from {
                Ok(Answered { answer: Answer::Nothing, name: format!("p{seen}") })
            } else {
                Err(Box::new(Failure {
                    write: write.clone(),
                    code: 403,
                    reason: "Forbidden".to_owned(),
                    message: "exceeded quota".to_owned(),
                    causes: vec![self.cause.to_owned()],
                }))
            };
            async { answer }.boxed()
        }

        fn answer<'a>(&'a self, _ask: &'a Ask) -> BoxFuture<'a, Result<Value, Refusal>> {
            async { Ok(Value::Null) }.boxed()
        }
    }

    fn refuses(from: usize, cause: &'static str) -> Refuses {
        Refuses { from, cause, seen: Mutex::new(0) }
    }

    fn pods(count: usize) -> Plan {
        let pod: Pod = object(serde_json::json!({"metadata": {"name": "p"}}));
        let note = |text: &str| {
            Some(Note {
                about: ObjectReference::default(),
                warning: false,
                reason: "R".to_owned(),
                message: text.to_owned(),
            })
        };
        let write = Write::create(&pod).noted(note("Created pod: {}"), note("Error creating: {}"));
        let mut plan = Plan::none();
        plan.all(vec![write; count]);
        plan
    }

    #[test]
    fn creations_end_after_the_first_batch_with_a_failure() {
        let server = refuses(3, "");
        let report = execute(&pods(100), &server).now_or_never().unwrap();
        assert_eq!(*server.seen.lock().unwrap(), 7, "batches of 1, 2 and 4");
        assert_eq!((report.answers.len(), report.failures.len()), (3, 4));
        assert_eq!(report.notes[0].message, "Created pod: p1");
        assert_eq!(report.notes[3].message, "Error creating: exceeded quota");
    }

    #[test]
    fn a_namespace_that_is_being_deleted_is_no_failure() {
        let report = execute(&pods(3), &refuses(0, "NamespaceTerminating")).now_or_never().unwrap();
        assert_eq!(report, Report::default());
    }

    #[test]
    fn a_step_that_failed_ends_the_plan() {
        let mut plan = pods(1);
        plan.steps.extend(pods(1).steps);
        let server = refuses(0, "");
        let report = execute(&plan, &server).now_or_never().unwrap();
        assert_eq!((*server.seen.lock().unwrap(), report.failures.len()), (1, 1));
    }

    #[test]
    fn a_patch_names_the_uid_it_is_meant_for() {
        use crate::PatchKind;
        let body = Write::guarded(PatchKind::Merge, &serde_json::json!({"spec": {}}), "u");
        assert_eq!(body, serde_json::json!({"spec": {}, "metadata": {"uid": "u"}}));
        let body = Write::guarded(PatchKind::Json, &serde_json::json!([]), "u");
        assert_eq!(body[0]["path"], "/metadata/uid");
    }
}

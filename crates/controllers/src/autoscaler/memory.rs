//! What the process remembers of an autoscaler between two looks.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A number and when it came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dated {
    /// Of pods.
    pub number: i32,
    /// In milliseconds since the epoch.
    milliseconds: i64,
}

/// A change of the scale that is being made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// How many there were.
    pub from: i32,
    /// How many there shall be.
    pub to: i32,
    /// Why, for the event.
    pub reason: String,
    /// In milliseconds since the epoch.
    pub milliseconds: i64,
    /// The status to write if it fails.
    pub status: Value,
}

/// All of it. Lost at a restart, as upstream's is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Of which object.
    pub uid: String,
    /// The generation that was looked at last.
    pub generation: i64,
    /// When it is to be looked at next, in milliseconds since the epoch.
    pub due: i64,
    /// What the metrics asked for.
    pub recommendations: Vec<Dated>,
    /// How many pods were added, and when.
    pub ups: Vec<Dated>,
    /// How many were taken away.
    pub downs: Vec<Dated>,
    /// What has been begun.
    pub attempt: Option<Attempt>,
}

impl Dated {
    /// At this time.
    #[must_use]
    pub fn new(number: i32, at: Timestamp) -> Self {
        Self { number, milliseconds: at.as_millisecond() }
    }

    /// When.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        Timestamp::from_millisecond(self.milliseconds).unwrap_or(Timestamp::MIN)
    }
}

impl Memory {
    /// Of the object of this UID: what was remembered, or nothing if that was of another one.
    #[must_use]
    pub fn read(value: &Value, uid: &str) -> Self {
        let found: Option<Self> = serde_json::from_value(value.clone()).ok();
        let fresh = || Self { uid: uid.to_owned(), ..Self::default() };
        found.filter(|memory| memory.uid == uid).unwrap_or_else(fresh)
    }

    /// To be remembered.
    #[must_use]
    pub fn written(&self) -> Value {
        // numbers, strings and a JSON value: serializing them cannot fail
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Puts an entry in the place of the last outdated one, or at the end: no list grows beyond one window.
    pub fn replace(list: &mut Vec<Dated>, new: Dated, outdated: impl Fn(&Dated) -> bool) {
        match list.iter_mut().rev().find(|entry| outdated(entry)) {
            Some(entry) => *entry = new,
            None => list.push(new),
        }
    }
}

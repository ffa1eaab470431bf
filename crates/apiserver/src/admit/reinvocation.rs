//! Mutation runs a second time when somebody that had its turn would have to see what a later one changed.
//!
//! Source: `k8s.io/apiserver/pkg/admission/reinvocation.go`, `…/plugin/webhook/mutating/reinvocationcontext.go`.

use std::collections::HashSet;

use apimachinery::Object;

/// The two rounds of one write's mutation.
#[derive(Default)]
pub(crate) struct Rounds {
    second: bool,
    wanted: bool,
    /// Of MutatingAdmissionPolicy.
    pub policies: Reinvocation,
    /// Of MutatingAdmissionWebhook.
    pub webhooks: Reinvocation,
}

impl Rounds {
    /// Whether this is the second round.
    pub fn is_second(&self) -> bool {
        self.second
    }

    /// An object was changed: everything runs once more.
    pub fn want_second(&mut self) {
        self.wanted = true;
    }

    /// Ends a round. Whether another one follows.
    pub fn again(&mut self) -> bool {
        let again = self.wanted && !self.second;
        self.second |= again;
        again
    }
}

/// Which of one sort of mutators run in the second round. They are known by an identity that lasts for the write.
#[derive(Default)]
pub(crate) struct Reinvocation {
    /// What the first round left behind.
    last: Option<Object>,
    /// Those that asked to be called again, and have seen everything so far.
    invoked: HashSet<String>,
    again: HashSet<String>,
}

impl Reinvocation {
    /// Notes that whoever has had a turn has not seen the newest change.
    pub fn changed(&mut self) {
        self.again.extend(self.invoked.drain());
    }

    /// Notes that one that wants to be called again had its turn.
    pub fn had_turn(&mut self, identity: &str) {
        self.invoked.insert(identity.to_owned());
    }

    /// Begins the second round, with an object that others may have changed since the first.
    pub fn begin_second(&mut self, object: &Object) {
        if self.last.as_ref() != Some(object) {
            self.changed();
        }
    }

    /// Ends the first round.
    pub fn end_first(&mut self, object: &Object) {
        if !self.invoked.is_empty() {
            self.last = Some(object.clone());
        }
    }

    /// Whether it runs in the second round.
    pub fn runs_again(&self, identity: &str) -> bool {
        self.again.contains(identity)
    }
}

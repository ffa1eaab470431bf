//! What is told while a build goes on.

use std::time::Duration;

/// A step of a build.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// The stage's name, or `stage-0` and so on.
    pub stage: String,
    /// From 1, within the stage.
    pub number: usize,
    /// Steps of the stage.
    pub total: usize,
    /// Line in the Dockerfile.
    pub line: usize,
    /// The instruction, shortened to one line.
    pub text: String,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} {}/{}] {}", self.stage, self.number, self.total, self.text)
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// Nothing had to be done: its result was there already, or it only changes the config.
    Cached,
    /// It failed; the error comes from the build.
    Failed,
}

/// Receives what happens. Methods are called from several threads and must return soon.
pub trait Progress: Send + Sync {
    /// A step begins.
    fn start(&self, step: &Step);
    /// A step writes a line, without its end.
    fn output(&self, step: &Step, line: &str);
    /// A step ended after so long.
    fn done(&self, step: &Step, outcome: Outcome, took: Duration);
    /// A base image is being fetched.
    fn pull(&self, image: &str, event: images::Event) {
        let _ = (image, event);
    }
    /// Something that is not as the author may think.
    fn warning(&self, text: &str) {
        let _ = text;
    }
}

/// Nobody wants to know.
impl Progress for () {
    fn start(&self, _: &Step) {}
    fn output(&self, _: &Step, _: &str) {}
    fn done(&self, _: &Step, _: Outcome, _: Duration) {}
}

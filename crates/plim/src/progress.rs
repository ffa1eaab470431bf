//! Steps of long work, each with its seconds.
//!
//! A background start passes its steps to the command in front through a pipe, a line a step.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Instant,
};

/// Where steps are told.
#[derive(Clone)]
pub struct Progress {
    out: Arc<Mutex<Box<dyn Write + Send>>>,
    started: Instant,
}

impl Progress {
    /// Tells steps on standard error.
    pub fn terminal() -> Self {
        Self::to(Box::new(std::io::stderr()))
    }

    /// Tells steps to a writer.
    pub fn to(out: Box<dyn Write + Send>) -> Self {
        Self { out: Arc::new(Mutex::new(out)), started: Instant::now() }
    }

    /// Begins a step; [`Step::done`] tells it.
    pub fn step(&self, what: impl Into<String>) -> Step {
        Step { progress: self.clone(), what: what.into(), started: Instant::now() }
    }

    /// A line as it is.
    pub fn line(&self, text: &str) {
        if let Ok(mut out) = self.out.lock() {
            // A reader that went away does not stop the work.
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        }
    }

    /// Seconds since the beginning.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

/// A step that is under way.
pub struct Step {
    progress: Progress,
    what: String,
    started: Instant,
}

impl Step {
    /// Tells that the step is done, and how long it took.
    pub fn done(self) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.progress.line(&format!("  ✔ {:<44} {seconds:>6.2} s", self.what));
    }
}

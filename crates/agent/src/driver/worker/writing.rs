//! The status: decided, shown, written when it is news. One write at a time; what changes meanwhile goes into the next.

use super::{resizing::resizing, *};

/// The status writer.
#[derive(Default)]
pub(super) struct Writing {
    /// What is being written.
    pub sent: Option<PodStatus>,
    /// The patch written last.
    last: Option<Value>,
    /// Writes that failed or changed nothing, in a row.
    failures: u32,
    /// Nothing is written any more.
    pub over: bool,
}

impl Worker {
    /// Makes `status` the pod's, shows it, and writes it if it is news.
    pub(super) fn decide(&mut self, mut status: PodStatus) {
        status::complete(&self.pod, &mut status, &self.cx.host_ips());
        let before = self.pod.status.as_ref();
        if before != Some(&status) {
            for name in newly_backing_off(before, &status) {
                let note = format!(
                    "Back-off restarting failed container {name} in pod {}",
                    spec::long_name(&self.pod)
                );
                self.cx.events.container(&self.pod, &name, Kind::Warning, "BackOff", "Restarting", note);
            }
            let (was_over, was_resizing) = (over(&self.pod), resizing(before));
            let is_resizing = resizing(Some(&status));
            Arc::make_mut(&mut self.pod).status = Some(status);
            if over(&self.pod) && !was_over {
                self.cx.room_made();
            }
            if was_resizing && !is_resizing {
                let note = "Pod resize completed".to_owned();
                self.cx.events.pod(&self.pod, Kind::Normal, "ResizeCompleted", "Resizing", note);
            }
        }
        self.show();
        self.write();
    }

    /// Writes the status, unless it is written already or being written.
    fn write(&mut self) {
        if self.writing.sent.is_some() || self.writing.over {
            return;
        }
        let want = self.pod.status.clone().unwrap_or_default();
        let Some(patch) = status::patch(&self.base, &want) else {
            self.writing.failures = 0;
            return;
        };
        // what was not taken the last time is not sent again at once
        let repeated = self.writing.last.as_ref() == Some(&patch);
        self.writing.failures = if repeated { self.writing.failures.saturating_add(1) } else { 0 };
        self.writing.sent = Some(want);
        self.writing.last = Some(patch.clone());
        let (job, wait) = (self.job(), retry::wait(self.writing.failures));
        self.jobs.spawn(async move {
            tokio::time::sleep(wait).await;
            Done::Written(object::write_status(&job, patch).await)
        });
    }

    pub(super) fn written(&mut self, written: object::Written) {
        let sent = self.writing.sent.take().unwrap_or_default();
        match written {
            object::Written::Done(pod) => {
                self.base = sent;
                if !older(&pod, &self.pod) {
                    let pod = Arc::new(*pod);
                    let base = std::mem::take(&mut self.base);
                    self.update(pod, Timestamp::now());
                    self.base = base;
                }
            }
            object::Written::Refused => self.base = sent,
            object::Written::Failed => self.writing.failures = self.writing.failures.max(1),
            object::Written::Gone => self.writing.over = true,
        }
    }
}

/// Containers that wait for their next start in `now` and did not in `before`.
fn newly_backing_off(before: Option<&PodStatus>, now: &PodStatus) -> Vec<String> {
    let waiting = |status: &PodStatus| -> Vec<String> {
        [&status.init_container_statuses, &status.container_statuses]
            .into_iter()
            .flatten()
            .flatten()
            .filter(|c| {
                let reason = c.state.as_ref().and_then(|s| s.waiting.as_ref()?.reason.as_deref());
                reason == Some("CrashLoopBackOff")
            })
            .map(|c| c.name.clone())
            .collect()
    };
    let old = before.map(waiting).unwrap_or_default();
    waiting(now).into_iter().filter(|name| !old.contains(name)).collect()
}

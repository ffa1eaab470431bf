//! Resources that change while the pod runs: what it asks for, what the node gives, what its containers have.

use super::*;

impl Worker {
    /// A pod that ran before this agent has the resources it runs with, until others are given to it.
    pub(super) fn with_running_resources(mut self) -> Self {
        let mut allocated = spec::spec(&self.pod).into_owned();
        for container in allocated.init_containers.iter_mut().flatten().chain(&mut allocated.containers) {
            let running = self.seen.seen(&container.name).and_then(|s| s.current.as_ref());
            if let Some(instance) = running.filter(|i| i.running() && i.resources.is_some()) {
                container.resources.clone_from(&instance.resources);
            }
        }
        if !resize::same_resources(&allocated, &spec::spec(&self.pod)) {
            self.wanted = Some(Arc::clone(&self.pod));
            resize::with_resources_of(Arc::make_mut(&mut self.pod), &allocated);
            self.show();
        }
        self
    }

    /// Gives the pod the resources it asks for, if there is room for them now.
    pub(super) fn try_resize(&mut self) {
        let Some(wanted) = self.wanted.take() else { return };
        if over(&self.pod) {
            return;
        }
        let cx = Arc::clone(&self.cx);
        let _counted = cx.room.lock();
        let all = cx.registry.list();
        let others: Vec<&Pod> = all
            .iter()
            .map(|p| &**p)
            .filter(|p| p.metadata.uid != self.pod.metadata.uid && !over(p))
            .collect();
        match admission::resize(&wanted, &others, &cx.allocatable.read()) {
            Ok(()) => {
                self.seen.resize_pending = None;
                resize::with_resources_of(Arc::make_mut(&mut self.pod), &spec::spec(&wanted));
                self.show();
                cx.events.pod(
                    &self.pod,
                    Kind::Normal,
                    "ResizeStarted",
                    "Resizing",
                    "Pod resize started".into(),
                );
                cx.room_made();
            }
            Err((reason, message)) => {
                if self.seen.resize_pending.as_ref().map(|(r, _)| r) != Some(&reason) {
                    let note = format!("Pod resize {reason}: {message}");
                    let event = format!("Resize{reason}");
                    cx.events.pod(&self.pod, Kind::Warning, &event, "Resizing", note);
                }
                self.seen.resize_pending = Some((reason, message));
                self.wanted = Some(wanted);
            }
        }
    }

    /// What the running containers run with.
    pub(super) fn running_resources(&self) -> BTreeMap<String, ResourceRequirements> {
        let running = self.seen.containers.iter().filter_map(|(name, s)| {
            let instance = s.current.as_ref().filter(|i| i.running())?;
            Some((name.clone(), instance.resources.clone().unwrap_or_default()))
        });
        running.collect()
    }
}

/// Whether a status says that resources are being changed.
pub(super) fn resizing(status: Option<&PodStatus>) -> bool {
    let conditions = status.and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "PodResizeInProgress"))
}

//! Memory that runs out: the kernel's pressure stall information wakes this, which ends one pod at a time until there is
//! enough again. Nothing is looked at while nobody waits for memory.

use std::{fs, io::Write, os::fd::AsFd, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, watch},
};

use super::{cgroup, context::Context, hardware, node::Pressure};
use crate::{machine::Verdict, resources, spec, view::Pods as _};

/// Bytes that have to be available, upstream's `memory.available<100Mi`.
const THRESHOLD: i64 = 100 << 20;
/// Waking: some task waited for memory for 0.3 s within 2 s (kernel documentation, accounting/psi). Without
/// CAP_SYS_RESOURCE the window has to be a multiple of 2 s.
const TRIGGER: &[u8] = b"some 300000 2000000\0";
/// How long the node is said to be under pressure after it was last seen to be: upstream's transition period.
const CALM: Duration = Duration::from_secs(300);
/// How long a pod that was told to end is given to make room before another one is.
const RELIEF: Duration = Duration::from_secs(2);

/// A pod as eviction sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Load {
    uid: String,
    used: i64,
    requested: i64,
    priority: i32,
}

/// The pod to end: one that uses more than it asked for before one that does not, the less important before the more
/// important, then the one that is furthest above its request.
fn choose(loads: Vec<Load>) -> Option<Load> {
    loads.into_iter().min_by_key(|l| {
        (l.used <= l.requested, l.priority, std::cmp::Reverse(l.used.saturating_sub(l.requested)))
    })
}

fn verdict(load: &Load, available: i64) -> Verdict {
    let ki = |bytes: i64| format!("{}Ki", bytes / 1024);
    Verdict {
        reason: "Evicted".into(),
        message: format!(
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: {}. \
             The pod was using {}, request is {}, has larger consumption of memory. ",
            ki(available),
            ki(load.used),
            if load.requested == 0 { "0".to_owned() } else { ki(load.requested) },
        ),
        // memory is gone now: there is no time for goodbyes
        grace: 1,
        disruption: true,
    }
}

/// Memory that can be had without hurting anyone.
fn available() -> i64 {
    hardware::meminfo("MemAvailable").unwrap_or(i64::MAX)
}

/// Watches over memory. Never ends; does nothing on a kernel without pressure stall information.
pub(super) async fn run(
    cx: Arc<Context>,
    pressure: Arc<watch::Sender<Pressure>>,
    evictions: mpsc::Sender<(String, Verdict)>,
) {
    let stalled = match register() {
        Ok(stalled) => stalled,
        Err(error) => {
            tracing::info!(%error, "the kernel does not tell of memory pressure: pods are not evicted for it");
            return std::future::pending().await;
        }
    };
    loop {
        let woken = async {
            if let Ok(mut ready) = stalled.ready(Interest::PRIORITY).await {
                ready.clear_ready();
            }
        };
        let under = pressure.borrow().memory;
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(CALM), if under => {
                pressure.send_if_modified(|p| std::mem::take(&mut p.memory));
                continue;
            }
        }
        let left = available();
        if left >= THRESHOLD {
            continue;
        }
        pressure.send_if_modified(|p| !std::mem::replace(&mut p.memory, true));
        let Some(load) = choose(loads(&cx)) else { continue };
        tracing::warn!(uid = load.uid, left, "the node is short of memory: ending a pod");
        if evictions.send((load.uid.clone(), verdict(&load, left))).await.is_err() {
            return;
        }
        tokio::time::sleep(RELIEF).await;
    }
}

/// Asks the kernel to be woken.
fn register() -> std::io::Result<AsyncFd<fs::File>> {
    let mut file = fs::File::options().read(true).write(true).open("/proc/pressure/memory")?;
    rustix::fs::fcntl_setfl(file.as_fd(), rustix::fs::OFlags::NONBLOCK)?;
    file.write_all(TRIGGER)?;
    // SAFETY: the file is open, owned by what is made of it, and a File never changes its descriptor.
    unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }.map_err(Into::into)
}

/// The pods that may be ended, with what they use.
fn loads(cx: &Context) -> Vec<Load> {
    let ended =
        |p: &Pod| matches!(p.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
    let pods = cx.registry.list();
    let candidates = pods.iter().filter(|p| !ended(p) && p.metadata.deletion_timestamp.is_none());
    candidates
        .filter_map(|pod| {
            let spec = spec::spec(pod);
            if resources::critical(&spec) {
                return None;
            }
            Some(Load {
                uid: spec::identity(pod).2.to_owned(),
                used: cgroup::memory(&cx.config, pod)?,
                requested: resources::pod_total(&spec, "memory", |r| r.requests.as_ref()),
                priority: spec.priority.unwrap_or(0),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(uid: &str, used: i64, requested: i64, priority: i32) -> Load {
        Load { uid: uid.into(), used, requested, priority }
    }

    fn chosen(loads: &[Load]) -> String {
        choose(loads.to_vec()).map(|l| l.uid).unwrap_or_default()
    }

    #[test]
    fn who_uses_more_than_asked_for_goes_first_then_the_least_important_then_the_largest() {
        let modest = load("modest", 900, 1000, 0);
        let greedy = load("greedy", 300, 100, 10);
        let minor = load("minor", 150, 100, 1);
        let larger = load("larger", 500, 100, 1);
        assert_eq!(chosen(&[modest.clone(), greedy.clone()]), "greedy");
        assert_eq!(chosen(&[greedy.clone(), minor.clone()]), "minor");
        assert_eq!(chosen(&[minor, larger, greedy]), "larger");
        assert_eq!(chosen(&[modest]), "modest");
        assert_eq!(chosen(&[]), "");
    }

    #[test]
    fn the_message_names_the_figures() {
        let v = verdict(&load("x", 300 << 20, 100 << 20, 0), 50 << 20);
        assert_eq!(
            v.message,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51200Ki. \
             The pod was using 307200Ki, request is 102400Ki, has larger consumption of memory. "
        );
        assert!(v.disruption);
    }
}

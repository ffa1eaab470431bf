//! Room on the disk: when the images' disk is fuller than it should be, unused images go, the longest unused first; when
//! the node's disk is short, the node says so and takes no pods. Looked at when an image came or a container ended, and
//! at upstream's pace besides, since others fill and clear the disk too.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_cri::v1 as cri;
use tokio::sync::watch;
use tonic::Request;

use super::{context::Context, hardware, node::Pressure};

/// Below this much room images are removed, until there is that much.
const HIGH: Room = Room { percent: 15, most: 10 << 30 };
const LOW: Room = Room { percent: 20, most: 15 << 30 };
/// Below this much room the node is under disk pressure.
const SHORT: Room = Room { percent: 10, most: 5 << 30 };
/// How often the disk is looked at when nothing has happened: upstream's monitoring interval.
const PACE: Duration = Duration::from_secs(10);
/// An image that was pulled just now belongs to a pod that is about to use it.
const YOUNGEST: Duration = Duration::from_secs(120);

/// Room to be left on a disk: upstream's default percentage of it, but no more bytes than `most`. A tenth of a large disk
/// is room that a small team pays for.
struct Room {
    percent: i64,
    most: i64,
}

impl Room {
    /// Bytes to be left of `usable` bytes.
    fn of(&self, usable: i64) -> i64 {
        let share = i128::from(usable.max(0)) * i128::from(self.percent) / 100;
        i64::try_from(share).unwrap_or(i64::MAX).min(self.most)
    }
}

/// Why a node that keeps its state at `root` takes no pods: the disk there is short. `None`: there is room.
pub fn shortage(root: &Path) -> Option<Shortage> {
    let disk = hardware::disk(root)?;
    let needed = SHORT.of(disk.usable);
    (disk.available < needed).then_some(Shortage { available: disk.available, needed })
}

/// A disk without enough room, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What is left.
    pub available: i64,
    /// Below which nodes take no pods.
    pub needed: i64,
}

/// An image that may be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    id: String,
    size: i64,
    last_used: Instant,
}

/// Bytes to free with this much `available` of `usable`; 0 while there is room.
fn excess(usable: i64, available: i64) -> i64 {
    if available >= HIGH.of(usable) { 0 } else { LOW.of(usable) - available }
}

/// Which images go, to free `bytes`.
fn choose(mut candidates: Vec<Candidate>, bytes: i64) -> Vec<Candidate> {
    candidates.sort_by_key(|c| c.last_used);
    let mut freed = 0;
    candidates
        .into_iter()
        .take_while(|c| {
            let more = freed < bytes;
            freed += c.size;
            more
        })
        .collect()
}

/// Collects whenever disk may have filled; tells whether the node is short of disk. Never ends.
pub(super) async fn run(cx: Arc<Context>, pressure: Arc<watch::Sender<Pressure>>) {
    let mut used: HashMap<String, Instant> = HashMap::new();
    let mut place: Option<PathBuf> = None;
    loop {
        if place.is_none() {
            place = image_place(&cx).await;
        }
        let disk = hardware::disk(place.as_ref().unwrap_or(&cx.config.root)).unwrap_or_default();
        let bytes = excess(disk.usable, disk.available);
        if bytes > 0
            && let Err(error) = collect(&cx, bytes, &mut used).await
        {
            tracing::warn!(%error, "unused images were not removed");
        }
        let short = shortage(&cx.config.root).is_some();
        pressure.send_if_modified(|p| std::mem::replace(&mut p.disk, short) != short);
        let _ = tokio::time::timeout(PACE, cx.disk.notified()).await;
    }
}

/// Where the runtime keeps images.
async fn image_place(cx: &Context) -> Option<PathBuf> {
    let info = cx.config.images.image_fs_info(Request::new(cri::ImageFsInfoRequest {})).await.ok()?;
    let place = info.into_inner().image_filesystems.into_iter().find_map(|f| f.fs_id)?.mountpoint;
    (!place.is_empty()).then(|| place.into())
}

async fn collect(cx: &Context, bytes: i64, used: &mut HashMap<String, Instant>) -> Result<(), tonic::Status> {
    let (runtime, images) = (&cx.config.runtime, &cx.config.images);
    let containers = runtime.list_containers(Request::new(cri::ListContainersRequest::default())).await?;
    let mut in_use: HashSet<String> = HashSet::new();
    for container in containers.into_inner().containers {
        in_use.extend([container.image_ref, container.image_id]);
        in_use.extend(container.image.map(|i| i.image));
    }
    let now = Instant::now();
    let list = images.list_images(Request::new(cri::ListImagesRequest::default())).await?.into_inner().images;
    used.retain(|id, _| list.iter().any(|i| i.id == *id));
    let mut candidates = vec![];
    for image in list {
        let names = std::iter::once(&image.id).chain(&image.repo_tags).chain(&image.repo_digests);
        let seen = used.entry(image.id.clone()).or_insert(now);
        if image.pinned || names.into_iter().any(|n| in_use.contains(n)) {
            *seen = now;
        } else if now.duration_since(*seen) >= YOUNGEST {
            let size = i64::try_from(image.size).unwrap_or(i64::MAX);
            candidates.push(Candidate { id: image.id, size, last_used: *seen });
        }
    }
    let chosen = choose(candidates, bytes);
    let found: i64 = chosen.iter().map(|c| c.size).fold(0, i64::saturating_add);
    for candidate in &chosen {
        tracing::info!(image = candidate.id, bytes = candidate.size, "removing an unused image");
        let spec = cri::ImageSpec { image: candidate.id.clone(), ..cri::ImageSpec::default() };
        images.remove_image(Request::new(cri::RemoveImageRequest { image: Some(spec) })).await?;
        used.remove(&candidate.id);
    }
    if !chosen.is_empty() {
        cx.news.notify_one();
    }
    if found < bytes {
        tracing::info!(wanted = bytes, found, "not enough unused images to free the disk");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_go_below_the_high_mark_and_until_the_low_one() {
        assert_eq!(excess(1000, 150), 0);
        assert_eq!(excess(1000, 149), 51);
        assert_eq!(excess(1000, 0), 200);
        assert_eq!(excess(0, 0), 0);
    }

    #[test]
    fn a_large_disk_keeps_bytes_not_percents() {
        const GIB: i64 = 1 << 30;
        assert_eq!(SHORT.of(10 * GIB), GIB);
        assert_eq!(SHORT.of(1000 * GIB), 5 * GIB);
        assert_eq!(excess(1000 * GIB, 11 * GIB), 0);
        assert_eq!(excess(1000 * GIB, 9 * GIB), 6 * GIB);
        assert_eq!(SHORT.of(i64::MAX), 5 * GIB);
    }

    #[test]
    fn the_longest_unused_go_first_and_no_more_than_needed() {
        let start = Instant::now();
        let image = |id: &str, size, age| Candidate {
            id: id.into(),
            size,
            last_used: start + Duration::from_secs(age),
        };
        let all = vec![image("new", 100, 9), image("old", 10, 1), image("middle", 50, 5)];
        let ids = |bytes| choose(all.clone(), bytes).into_iter().map(|c| c.id).collect::<Vec<_>>();
        assert_eq!(ids(0), [""; 0]);
        assert_eq!(ids(10), ["old"]);
        assert_eq!(ids(11), ["old", "middle"]);
        assert_eq!(ids(1000), ["old", "middle", "new"]);
    }
}

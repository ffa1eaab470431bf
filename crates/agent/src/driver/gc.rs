//! Image garbage collection: when the images' disk is fuller than it should be, unused images go, the longest unused
//! first. Looked at when an image came or a container ended, never by a clock.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_cri::v1 as cri;
use tokio::sync::watch;
use tonic::Request;

use super::{context::Context, hardware, node::Pressure};

/// Percent of disk in use at which images are removed, and down to which.
const HIGH: i64 = 85;
const LOW: i64 = 80;
/// An image that was pulled just now belongs to a pod that is about to use it.
const YOUNGEST: Duration = Duration::from_secs(120);
/// Percent of disk that has to be available, or the node is under disk pressure.
const SHORT: i64 = 10;

/// An image that may be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    id: String,
    size: i64,
    last_used: Instant,
}

/// Bytes to free at this state of the disk (all, available); 0 below the high mark.
fn excess(total: i64, available: i64) -> i64 {
    let percent = |part: i64| i128::from(part) * 100;
    if total <= 0 || percent(total - available) < i128::from(total) * i128::from(HIGH) {
        return 0;
    }
    let wanted = i128::from(total) * i128::from(100 - LOW) / 100;
    i64::try_from(wanted - i128::from(available)).unwrap_or(0).max(0)
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
        let short = hardware::disk(&cx.config.root)
            .is_some_and(|d| i128::from(d.available) * 100 < i128::from(d.usable) * i128::from(SHORT));
        pressure.send_if_modified(|p| std::mem::replace(&mut p.disk, short) != short);
        cx.disk.notified().await;
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
    fn nothing_goes_below_the_high_mark_and_above_it_down_to_the_low_one() {
        assert_eq!(excess(1000, 151), 0);
        assert_eq!(excess(1000, 150), 50);
        assert_eq!(excess(1000, 0), 200);
        assert_eq!(excess(0, 0), 0);
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

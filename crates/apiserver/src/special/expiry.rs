//! Objects with a lifetime (Events) go when it is over.

use std::{sync::Arc, time::Duration};

use apimachinery::{meta, time};
use chrono::TimeDelta;

use crate::{server::Inner, verbs::delete};

/// How often the oldest objects are looked at.
const EVERY: Duration = Duration::from_secs(60);

/// Runs until the server is dropped.
pub(crate) async fn run(inner: std::sync::Weak<Inner>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        sweep(&inner).await;
    }
}

/// Deletes what is past its lifetime now.
pub(crate) async fn sweep(inner: &Arc<Inner>) {
    let now = (inner.config.now)();
    for resource in &inner.config.resources {
        let Some(seconds) = resource.behaviour.ttl_seconds else { continue };
        let Some(served) = inner.served(&resource.group, &resource.version, &resource.plural) else {
            continue;
        };
        if !matches!(served.view, crate::catalogue::View::Direct) {
            continue;
        }
        let Ok(page) = inner.config.store.list(&served.prefix, None, 0, None) else { continue };
        for entry in page.entries {
            let Ok(object) = served.object(&entry) else { continue };
            let made = time::parse_rfc3339(meta::creation_timestamp(&object));
            let over = made.is_ok_and(|made| made + TimeDelta::seconds(seconds.into()) < now);
            if over && let Err(error) = delete::expire(inner, &entry).await {
                tracing::warn!(%error, key = &*entry.key, "an expired object could not be deleted");
            }
        }
    }
}

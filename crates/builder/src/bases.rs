//! Images that a build is based on or copies from: found in the store or pulled, and held as they are until it ends.

use std::{collections::HashMap, sync::Arc};

use images::{Images, Layer, Lease, PullPolicy, Reference};
use serde_json::Value;

use crate::{Build, Error, Progress, Result, typo::nearest};

/// An image in use.
#[derive(Debug)]
pub(crate) struct Base {
    /// Its config as it was written.
    pub(crate) config: Value,
    /// Base first.
    pub(crate) layers: Vec<Layer>,
    _lease: Lease,
}

/// The images in use, by the names that the Dockerfile gives them.
#[derive(Default)]
pub(crate) struct Bases {
    loaded: tokio::sync::Mutex<HashMap<String, Arc<Base>>>,
}

impl Bases {
    /// The image of this name; the same throughout the build, even if the name moves on.
    pub(crate) async fn load(
        &self,
        name: &str,
        build: &Build,
        images: &Images,
        progress: &dyn Progress,
    ) -> Result<Arc<Base>> {
        let mut loaded = self.loaded.lock().await;
        if let Some(base) = loaded.get(name) {
            return Ok(base.clone());
        }
        let base = Arc::new(load(name, build, images, progress).await?);
        loaded.insert(name.to_owned(), base.clone());
        Ok(base)
    }
}

async fn load(name: &str, build: &Build, images: &Images, progress: &dyn Progress) -> Result<Base> {
    let lease = match images.lease(name) {
        Ok(lease) if build.pull != PullPolicy::Always => lease,
        Err(error @ images::Error::InvalidReference { .. }) => return Err(error.into()),
        _ => {
            let credentials = Reference::parse(name).ok().and_then(|r| build.credentials.get(r.domain()));
            let tell = |event| progress.pull(name, event);
            images.pull(name, credentials, build.pull, &tell).await?;
            images.lease(name)?
        }
    };
    let base = Base { config: images.raw_config(name)?, layers: images.layers(name)?, _lease: lease };
    if let Some(lost) = base.layers.iter().find(|l| !l.path.is_dir()) {
        return Err(Error::Invalid(format!(
            "the image \"{name}\" is incomplete: its layer {} is not unpacked; pull or import it again",
            lost.diff_id
        )));
    }
    Ok(base)
}

/// The name of an image in the store that is much like this one.
pub(crate) fn suggest(images: &Images, name: &str) -> Option<String> {
    let short = |tag: &str| -> String {
        let tag =
            tag.strip_prefix("docker.io/library/").or_else(|| tag.strip_prefix("docker.io/")).unwrap_or(tag);
        if name.contains(':') {
            tag.to_owned()
        } else {
            tag.strip_suffix(":latest").unwrap_or(tag).to_owned()
        }
    };
    let tags: Vec<String> = images.list().ok()?.iter().flat_map(|i| &i.tags).map(|t| short(t)).collect();
    nearest(name, tags.iter().map(String::as_str)).map(str::to_owned)
}

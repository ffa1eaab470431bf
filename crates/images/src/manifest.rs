//! Manifests and indexes: parsed strictly, because two readings of one document have been an attack (CVE-2021-41190).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, Error, Result};

/// Largest manifest or index that is accepted, in bytes.
pub(crate) const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// Most layers of an image; overlayfs stacks no more than 500.
const MAX_LAYERS: usize = 500;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Names a blob.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<serde_json::Map<String, Value>>,
}

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// `amd64`, `arm64`, …
    #[serde(default)]
    pub architecture: String,
    /// `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Platform { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// Parses `linux/arm64` or `linux/arm/v7`.
    pub fn parse(text: &str) -> Option<Platform> {
        let mut parts = text.split('/');
        let (os, architecture) = (parts.next()?, parts.next()?);
        let variant = parts.next().map(str::to_owned);
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        (parts.next().is_none() && !os.is_empty() && !architecture.is_empty()).then(|| Platform {
            os: os.into(),
            architecture: architecture.into(),
            variant,
        })
    }

    fn runs(&self, offered: &Platform) -> bool {
        let variant_ok = match (&self.variant, &offered.variant) {
            (Some(wanted), Some(offered)) => wanted == offered,
            _ => true,
        };
        self.os == offered.os && self.architecture == offered.architecture && variant_ok
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|v| write!(f, "/{v}"))
    }
}

/// An image manifest.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What a reference leads to.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

/// Parses a manifest or index; `served` is the media type it came with, if any.
pub(crate) fn parse(bytes: &[u8], served: Option<&str>, what: &str) -> Result<Document> {
    let fail = |why: String| Error::invalid(what, why);
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| fail(format!("the manifest is not JSON: {e}")))?;
    let has = |key| value.get(key).is_some_and(|v| !v.is_null());
    if has("manifests") && (has("layers") || has("config") || has("fsLayers")) {
        return Err(fail("the manifest is ambiguous: it claims to be an image and an index at once".into()));
    }
    if value.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
        return Err(fail(
            "the manifest is not of schema version 2; push the image again with a current tool".into(),
        ));
    }
    let own = value.get("mediaType").and_then(Value::as_str);
    let index = has("manifests");
    for media_type in own.into_iter().chain(served.filter(|s| s.starts_with("application/vnd."))) {
        let says_index = [OCI_INDEX, DOCKER_LIST].contains(&media_type);
        if !says_index && ![OCI_MANIFEST, DOCKER_MANIFEST].contains(&media_type) {
            return Err(fail(format!("the manifest has the unknown media type {media_type}")));
        }
        if says_index != index {
            return Err(fail(format!(
                "the manifest is ambiguous: it is called {media_type}, and its content is something else"
            )));
        }
    }
    let part = |key: &str| value.get(key).cloned().unwrap_or(Value::Null);
    let parse =
        |key: &str| serde_json::from_value(part(key)).map_err(|e| fail(format!("the manifest's {key}: {e}")));
    if index {
        return Ok(Document::Index(parse("manifests")?));
    }
    let layers: Vec<Descriptor> = parse("layers")?;
    if layers.len() > MAX_LAYERS {
        return Err(Error::Limit {
            what: format!("{what} has too many layers"),
            limit: format!("{MAX_LAYERS} layers"),
        });
    }
    let config: Descriptor =
        serde_json::from_value(part("config")).map_err(|e| fail(format!("the manifest's config: {e}")))?;
    Ok(Document::Manifest(Manifest { config, layers }))
}

/// The entry of an index that runs on `platform`.
pub(crate) fn choose<'a>(
    entries: &'a [Descriptor],
    platform: &Platform,
    what: &str,
) -> Result<&'a Descriptor> {
    let images = || entries.iter().filter(|d| d.platform.as_ref().is_none_or(|p| p.os != "unknown"));
    images()
        .find(|d| d.platform.as_ref().is_some_and(|p| platform.runs(p)))
        .or_else(|| match images().collect::<Vec<_>>().as_slice() {
            [only] if only.platform.is_none() => Some(only),
            _ => None,
        })
        .ok_or_else(|| {
            let offered: Vec<_> =
                images().filter_map(|d| d.platform.as_ref()).map(Platform::to_string).collect();
            Error::invalid(what, format!("there is no image for {platform}, only for {}", offered.join(", ")))
        })
}

/// A manifest's bytes for this config and these layers.
pub(crate) fn encode(config: &Descriptor, layers: &[Descriptor]) -> Result<Vec<u8>> {
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
    }))
    .map_err(|e| Error::invalid("manifest", e.to_string()))
}

/// The config in `oci_spec`'s types, and its diffIDs. Docker writes `null` where the specification wants absence.
pub(crate) fn parse_config(
    bytes: &[u8],
    what: &str,
) -> Result<(oci_spec::image::ImageConfiguration, Vec<Digest>)> {
    let fail = |e: serde_json::Error| Error::invalid(what, format!("the image config: {e}"));
    let mut value: Value = serde_json::from_slice(bytes).map_err(fail)?;
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, v| !v.is_null());
        object.entry("architecture").or_insert_with(|| Platform::host().architecture.into());
        object.entry("os").or_insert_with(|| "linux".into());
        object.entry("rootfs").or_insert_with(|| serde_json::json!({"type": "layers", "diff_ids": []}));
        if let Some(diff_ids) = object["rootfs"].get_mut("diff_ids")
            && diff_ids.is_null()
        {
            *diff_ids = Value::Array(Vec::new());
        }
    }
    let config: oci_spec::image::ImageConfiguration = serde_json::from_value(value).map_err(fail)?;
    let diff_ids = config.rootfs().diff_ids().iter().map(|d| Digest::parse(d)).collect::<Result<_>>()?;
    Ok((config, diff_ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Document> {
        parse(text.as_bytes(), None, "x")
    }

    #[test]
    fn a_manifest_that_is_also_an_index_is_refused() {
        let error = parsed(r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#).unwrap_err();
        assert!(error.to_string().contains("ambiguous"), "{error}");
    }

    #[test]
    fn a_media_type_that_contradicts_the_content_is_refused() {
        let text = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","manifests":[]}}"#);
        assert!(parsed(&text).unwrap_err().to_string().contains("ambiguous"));
        let error = parse(br#"{"schemaVersion":2,"manifests":[]}"#, Some(DOCKER_MANIFEST), "x").unwrap_err();
        assert!(error.to_string().contains("ambiguous"));
    }

    #[test]
    fn the_entry_for_the_platform_is_chosen() {
        let digest = |c: &str| format!("sha256:{}", c.repeat(64));
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[
            {{"digest":"{}","size":1,"platform":{{"os":"linux","architecture":"arm64"}}}},
            {{"digest":"{}","size":1,"platform":{{"os":"linux","architecture":"amd64"}}}},
            {{"digest":"{}","size":1,"platform":{{"os":"unknown","architecture":"unknown"}}}}]}}"#,
            digest("a"),
            digest("b"),
            digest("c")
        );
        let Document::Index(entries) = parsed(&text).unwrap() else { panic!("an index") };
        let amd64 = Platform::parse("linux/amd64").unwrap();
        assert_eq!(choose(&entries, &amd64, "x").unwrap().digest.as_str(), digest("b"));
        let s390x = Platform::parse("linux/s390x").unwrap();
        let error = choose(&entries, &s390x, "x").unwrap_err().to_string();
        assert!(error.contains("only for linux/arm64, linux/amd64"), "{error}");
    }

    #[test]
    fn sizes_and_digests_that_are_none_are_refused() {
        for bad in [r#""size":-1"#, r#""size":1.5"#, r#""size":"1""#] {
            let text = format!(
                r#"{{"schemaVersion":2,"config":{{"digest":"sha256:{}",{bad}}},"layers":[]}}"#,
                "a".repeat(64)
            );
            assert!(parsed(&text).is_err());
        }
        assert!(
            parsed(r#"{"schemaVersion":2,"config":{"digest":"sha256:../../x","size":1},"layers":[]}"#)
                .is_err()
        );
        assert!(parsed(r#"{"schemaVersion":1}"#).unwrap_err().to_string().contains("push the image again"));
    }
}

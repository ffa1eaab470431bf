//! Warnings for files of one volume that lie over each other.

use serde_json::Value;

use crate::object::{at, has, list, text};

/// A file of a volume and what it comes from, empty where the volume has one source only.
#[derive(Clone, PartialEq)]
struct Place {
    path: String,
    source: String,
}

impl Place {
    fn new(path: &str, source: &str) -> Self {
        Self { path: path.trim_end_matches('/').to_owned(), source: source.to_owned() }
    }

    fn shown(&self) -> String {
        if self.source.is_empty() {
            format!("{:?}", self.path)
        } else {
            format!("{:?} ({})", self.path, self.source)
        }
    }

    /// The same file, or one inside the other.
    fn meets(&self, other: &Self) -> bool {
        let within =
            |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let (a, b) = (&*self.path, &*other.path);
        !a.is_empty() && !b.is_empty() && (within(a, b) || within(b, a))
    }
}

fn items(source: &Value, from: &str) -> Vec<Place> {
    list(source, "items").iter().map(|item| Place::new(text(item, "path"), from)).collect()
}

/// Adds what the volumes are warned for.
pub fn warn(found: &mut Vec<String>, volumes: &[Value]) {
    for volume in volumes {
        if has(volume, "configMap") {
            let words = format!("ConfigMap {:?}", text(volume, "configMap.name"));
            check(found, volume, &words, items(at(volume, "configMap"), ""));
        }
        if has(volume, "secret") {
            let words = format!("Secret {:?}", text(volume, "secret.secretName"));
            check(found, volume, &words, items(at(volume, "secret"), ""));
        }
        check(found, volume, "DownwardAPI", items(at(volume, "downwardAPI"), ""));
        let mut places = Vec::new();
        for source in list(volume, "projected.sources") {
            if source.as_object().is_none_or(serde_json::Map::is_empty) {
                let name = text(volume, "name");
                found.push(format!("volume {name:?} (Projected) has no sources provided"));
            }
            places.extend(projected(source));
        }
        check(found, volume, "Projected", places);
    }
}

/// The files of one source of a projected volume.
fn projected(source: &Value) -> Vec<Place> {
    let of = |field: &str| at(source, field);
    if has(source, "configMap.items") {
        items(of("configMap"), &format!("ConfigMap {:?}", text(source, "configMap.name")))
    } else if has(source, "secret.items") {
        items(of("secret"), &format!("Secret {:?}", text(source, "secret.name")))
    } else if has(source, "downwardAPI.items") {
        items(of("downwardAPI"), "DownwardAPI")
    } else if has(source, "serviceAccountToken") {
        vec![Place::new(text(source, "serviceAccountToken.path"), "ServiceAccountToken")]
    } else if has(source, "clusterTrustBundle") {
        let bundle = of("clusterTrustBundle");
        let name = if has(bundle, "name") { text(bundle, "name") } else { text(bundle, "signerName") };
        vec![Place::new(text(bundle, "path"), &format!("ClusterTrustBundle {name:?}"))]
    } else {
        let certificate = of("podCertificate");
        [
            ("certificateChainPath", "PodCertificate chain"),
            ("keyPath", "PodCertificate key"),
            ("credentialBundlePath", "PodCertificate credential bundle"),
        ]
        .iter()
        .filter(|(field, _)| !text(certificate, field).is_empty())
        .map(|(field, words)| Place::new(text(certificate, field), words))
        .collect()
    }
}

/// Every place against the ones before it. The work is quadratic, so only that many are looked at.
fn check(found: &mut Vec<String>, volume: &Value, words: &str, mut places: Vec<Place>) {
    places.truncate(super::warnings::MOST);
    for (index, place) in places.iter().enumerate() {
        for other in places.iter().take(index).filter(|other| place.meets(other)) {
            let name = text(volume, "name");
            let (place, other) = (place.shown(), other.shown());
            found.push(format!("volume {name:?} ({words}): overlapping paths: {place} with {other}"));
            if found.len() >= super::warnings::MOST {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_inside_another_file_is_warned_for() {
        let volumes = [json!({"name": "v", "configMap": {"name": "m", "items": [
            {"key": "a", "path": "x"}, {"key": "b", "path": "x/y"}, {"key": "c", "path": "xy"}]}})];
        let mut found = Vec::new();
        warn(&mut found, &volumes);
        assert_eq!(found, [r#"volume "v" (ConfigMap "m"): overlapping paths: "x/y" with "x""#]);
    }
}

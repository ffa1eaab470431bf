//! Trust anchors in projected volumes: the certificates of ClusterTrustBundles, by name or by signer and labels.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{certificates::v1::ClusterTrustBundle, core::v1::ClusterTrustBundleProjection};
use kube::core::{Selector, SelectorExt as _};

/// ClusterTrustBundles by name.
pub type Bundles = BTreeMap<String, ClusterTrustBundle>;

/// The PEM file that a projection asks for: each certificate once, in an order that does not depend on the bundles'.
/// Empty if there are none and the projection is optional.
///
/// # Errors
/// When nothing is found for a projection that is not optional, or the projection names neither bundle nor signer.
pub fn anchors(projection: &ClusterTrustBundleProjection, bundles: &Bundles) -> Result<String, String> {
    let optional = projection.optional.unwrap_or(false);
    let found: Vec<&ClusterTrustBundle> = if let Some(name) = &projection.name {
        match bundles.get(name) {
            Some(bundle) => vec![bundle],
            None if optional => Vec::new(),
            None => return Err(format!("clustertrustbundle {name:?} not found")),
        }
    } else if let Some(signer) = &projection.signer_name {
        // No selector selects nothing, an empty one everything.
        let selector = match &projection.label_selector {
            None => None,
            Some(selector) => Some(Selector::try_from(selector.clone()).map_err(|e| e.to_string())?),
        };
        let none = BTreeMap::new();
        let wanted = |bundle: &&ClusterTrustBundle| {
            let labels = bundle.metadata.labels.as_ref().unwrap_or(&none);
            bundle.spec.signer_name.as_ref() == Some(signer)
                && selector.as_ref().is_some_and(|s| s.matches(labels))
        };
        bundles.values().filter(wanted).collect()
    } else {
        return Err("ClusterTrustBundle projection requires either name or signerName to be set".to_owned());
    };
    let certificates: BTreeSet<Vec<u8>> =
        found.iter().flat_map(|bundle| certificates(&bundle.spec.trust_bundle)).collect();
    if certificates.is_empty() && !optional {
        return Err("combination of signerName and labelSelector matched zero ClusterTrustBundles".to_owned());
    }
    Ok(certificates.iter().map(|der| pem(der)).collect())
}

/// The certificates of a PEM text, DER. What is between them does not count.
pub(crate) fn certificates(text: &str) -> impl Iterator<Item = Vec<u8>> {
    x509_parser::pem::Pem::iter_from_buffer(text.as_bytes())
        .filter_map(Result::ok)
        .filter(|block| block.label == "CERTIFICATE")
        .map(|block| block.contents)
}

/// A certificate as PEM, lines of 64.
pub(crate) fn pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::certificates::v1::ClusterTrustBundleSpec,
        apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
    };

    use super::*;

    fn bundle(name: &str, signer: Option<&str>, color: &str, ders: &[&[u8]]) -> (String, ClusterTrustBundle) {
        let trust_bundle = ders.iter().map(|d| format!("a note\n{}", pem(d))).collect();
        let labels = BTreeMap::from([("color".to_owned(), color.to_owned())]);
        let bundle = ClusterTrustBundle {
            metadata: ObjectMeta { labels: Some(labels), ..ObjectMeta::default() },
            spec: ClusterTrustBundleSpec { signer_name: signer.map(Into::into), trust_bundle },
        };
        (name.to_owned(), bundle)
    }

    fn by_signer(color: Option<&str>) -> ClusterTrustBundleProjection {
        let labels = color.map(|c| BTreeMap::from([("color".to_owned(), c.to_owned())]));
        ClusterTrustBundleProjection {
            signer_name: Some("a.test/s".to_owned()),
            label_selector: Some(LabelSelector { match_labels: labels, match_expressions: None }),
            ..ClusterTrustBundleProjection::default()
        }
    }

    #[test]
    fn anchors_come_by_name_or_by_signer_and_labels_each_once() {
        let (long, short): (&[u8], &[u8]) = (&[7; 100], b"b");
        let bundles: Bundles = [
            bundle("plain", None, "red", &[short, long, short]),
            bundle("a.test:s:1", Some("a.test/s"), "red", &[short]),
            bundle("a.test:s:2", Some("a.test/s"), "blue", &[long, short]),
        ]
        .into();
        let both = format!("{}{}", pem(long), pem(short));
        let by_name =
            |name: &str| ClusterTrustBundleProjection { name: Some(name.to_owned()), ..Default::default() };
        assert_eq!(anchors(&by_name("plain"), &bundles).unwrap(), both);
        assert!(anchors(&by_name("other"), &bundles).is_err());
        assert_eq!(
            anchors(&ClusterTrustBundleProjection { optional: Some(true), ..by_name("other") }, &bundles)
                .unwrap(),
            ""
        );
        assert_eq!(anchors(&by_signer(None), &bundles).unwrap(), both);
        assert_eq!(anchors(&by_signer(Some("red")), &bundles).unwrap(), pem(short));
        assert!(anchors(&by_signer(Some("green")), &bundles).is_err());
        let no_selector = ClusterTrustBundleProjection { label_selector: None, ..by_signer(None) };
        assert!(anchors(&no_selector, &bundles).is_err());
        assert_eq!(pem(long).lines().map(str::len).max(), Some(64));
    }
}

//! What the audit log is told of webhooks: what they say, what they change, and that one could not be asked.

use access::Audit;
use serde::Serialize;
use serde_json::value::RawValue;

use super::registry::Webhook;

/// The sort of webhooks that may change an object.
pub(super) const MUTATION: &str = "mutation";

/// Takes notes of one webhook's part in a write.
#[derive(Clone, Copy)]
pub(super) struct Notes<'a> {
    pub audit: Option<&'a dyn Audit>,
    pub webhook: &'a Webhook,
    /// [`MUTATION`], or `validating`.
    pub sort: &'static str,
    /// 0, or 1 when it is asked again.
    pub round: usize,
    /// Where it stands among all of its sort.
    pub index: usize,
}

/// Of a webhook's answer; fields in upstream's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Note<'a> {
    configuration: &'a str,
    webhook: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
}

impl Notes<'_> {
    fn note(&self, audit: &dyn Audit, prefix: &str, mutated: Option<bool>, patch: Option<&RawValue>) {
        let note = Note {
            configuration: &self.webhook.configuration,
            webhook: &self.webhook.name,
            mutated,
            patch,
            patch_type: patch.map(|_| "JSONPatch"),
        };
        if let Ok(note) = serde_json::to_string(&note) {
            audit.annotate(&self.key(prefix), note);
        }
    }

    fn key(&self, prefix: &str) -> String {
        format!("{prefix}.webhook.admission.k8s.io/round_{}_index_{}", self.round, self.index)
    }

    /// Its own annotations.
    pub fn said<'s>(&self, annotations: impl IntoIterator<Item = (&'s String, &'s String)>) {
        for (key, value) in annotations {
            if let Some(audit) = self.audit {
                audit.annotate(&format!("{}/{key}", self.webhook.name), value.clone());
            }
        }
    }

    /// It was asked for changes, and made some or none.
    pub fn mutated(&self, mutated: bool) {
        if let Some(audit) = self.audit {
            self.note(audit, MUTATION, Some(mutated), None);
        }
    }

    /// The changes it wants.
    pub fn patched(&self, patch: &[u8]) {
        if let Some(audit) = self.audit.filter(|audit| audit.keeps_bodies())
            && let Ok(patch) = serde_json::from_slice::<serde_json::Value>(patch)
            && let Ok(patch) = serde_json::value::to_raw_value(&patch)
        {
            self.note(audit, "patch", None, Some(&patch));
        }
    }

    /// It could not be asked, which is ignored.
    pub fn ignored(&self) {
        if let Some(audit) = self.audit {
            audit.annotate(&self.key(&format!("failed-open.{}", self.sort)), self.webhook.name.clone());
        }
    }
}

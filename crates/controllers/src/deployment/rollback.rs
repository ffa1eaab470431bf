//! Going back to an earlier revision, asked for by an annotation (what `extensions/v1beta1` had as a field).

use k8s_openapi::api::apps::v1::Deployment;

use super::sets::{ROLLBACK_TO, Set, Sets, is_own_annotation, is_same_template};
use crate::{Note, Plan, Write, pod_template::TEMPLATE_HASH};

/// The revision to go back to; 0 is the one before.
pub fn wanted(deployment: &Deployment) -> Option<i64> {
    deployment.metadata.annotations.as_ref()?.get(ROLLBACK_TO)?.parse().ok()
}

/// Puts the template of that revision into the Deployment and takes the annotation away.
pub fn plan(deployment: &Deployment, sets: &Sets, revision: i64) -> Plan {
    let mut changed = deployment.clone();
    changed.metadata.annotations.get_or_insert_default().remove(ROLLBACK_TO);
    let mut revisions: Vec<i64> = sets.all().map(Set::revision).collect();
    revisions.sort_unstable();
    let last = revisions.iter().rev().nth(1).copied();
    let revision = if revision == 0 { last.unwrap_or(0) } else { revision };
    let found = sets.all().find(|set| revision != 0 && set.revision() == revision);
    let template = found.and_then(|set| set.seen.spec.template.as_ref());
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let note = match (found, template) {
        (Some(_), Some(template)) if is_same_template(template, &deployment.spec.template) => {
            let text =
                format!("The rollback revision contains the same template as current deployment {name:?}");
            Note::warning(deployment, "DeploymentRollbackTemplateUnchanged", text)
        }
        (Some(set), Some(template)) => {
            changed.spec.template = template.clone();
            if let Some(labels) = changed.spec.template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
                labels.remove(TEMPLATE_HASH);
            }
            let annotations = changed.metadata.annotations.get_or_insert_default();
            annotations.retain(|key, _| is_own_annotation(key));
            for (key, value) in set.seen.metadata.annotations.iter().flatten() {
                if !is_own_annotation(key) {
                    annotations.insert(key.clone(), value.clone());
                }
            }
            let text = format!("Rolled back deployment {name:?} to revision {revision}");
            Note::normal(deployment, "DeploymentRollback", text)
        }
        _ if revision == 0 => {
            Note::warning(deployment, "DeploymentRollbackRevisionNotFound", "Unable to find last revision.")
        }
        _ => Note::warning(
            deployment,
            "DeploymentRollbackRevisionNotFound",
            "Unable to find the revision to rollback to.",
        ),
    };
    let mut plan = Plan { notes: vec![note], ..Plan::none() };
    plan.then(Write::update(&changed));
    plan
}

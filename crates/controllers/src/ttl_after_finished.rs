//! ttl-after-finished-controller: deletes Jobs some time after they have ended.

use k8s_openapi::{
    api::batch::v1::Job,
    jiff::{SignedDuration, Timestamp},
};

use crate::{Change, Controller, Key, Kind, Outcome, Plan, Target, World, Write};

/// The loop; its keys are Jobs.
pub struct TtlAfterFinished;

impl Controller for TtlAfterFinished {
    fn name(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Job>()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        let due = change.after::<Job>().filter(|job| expires(job).is_some());
        due.map(|job| Key::of(&job.metadata)).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        let Some(job) = world.get::<Job>(&key.namespace, &key.name) else { return plan };
        let Some(at) = expires(&job) else { return plan };
        if at > now {
            plan.wake(at);
            return plan;
        }
        // the version that was read: somebody may just have given it more time
        plan.then(Write::Delete {
            target: Target::of(&*job),
            resource_version: job.metadata.resource_version.clone(),
            grace: None,
            propagation: Some("Foreground"),
            on_success: None,
            on_failure: None,
        });
        plan
    }
}

/// When a Job that has ended is to go; nothing when it has not ended, has no limit, or is being deleted.
fn expires(job: &Job) -> Option<Timestamp> {
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut conditions = job.status.as_ref()?.conditions.iter().flatten();
    let end = conditions.find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    end.last_transition_time.as_ref()?.0.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{at, key, world};

    fn job(condition: Value) -> Value {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "shop", "name": "j"},
            "spec": {"ttlSecondsAfterFinished": 60, "template": {}}, "status": {"conditions": [condition]}})
    }

    fn look(condition: Value, now: i64) -> Plan {
        TtlAfterFinished.reconcile(&key("shop", "j"), &world([job(condition)]), &Outcome::default(), at(now))
    }

    #[test]
    fn a_job_goes_in_the_foreground_when_its_time_after_the_end_is_over() {
        let ended = json!({"type": "Failed", "status": "True", "lastTransitionTime": at(0).to_string()});
        assert_eq!(look(ended.clone(), 59).again, Some(at(60)));
        let plan = look(ended, 60);
        assert!(matches!(
            &plan.steps[0][..],
            [Write::Delete { propagation: Some("Foreground"), resource_version: Some(_), .. }]
        ));
    }

    #[test]
    fn a_job_that_is_about_to_fail_has_not_ended() {
        let interim =
            json!({"type": "FailureTarget", "status": "True", "lastTransitionTime": at(0).to_string()});
        assert_eq!(look(interim, 100), Plan::none());
    }
}

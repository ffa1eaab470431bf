//! CronJob: Jobs at times.
//!
//! Source: `pkg/controller/cronjob`. A Job's name holds its time, so that no time is run twice. A time is looked for between
//! the last one that was run and now; only the most recent one that was missed is run.

mod schedule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use chrono_tz::Tz;
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::{SignedDuration, Timestamp},
};
use kube::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::schedule::Schedule;
use crate::{Change, Controller, Key, Kind, Note, Outcome, Plan, World, Write, ownership};

/// On Jobs: the time they are for, in the zone of the schedule.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Clocks differ a little: the next look is this much after the next time.
const SKEW: SignedDuration = SignedDuration::from_millis(100);
/// More missed times than this are a reason to warn.
const MANY: i64 = 100;

/// The loop.
pub struct CronJobs;

impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<CronJob>(), Kind::of::<Job>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        match change.object::<CronJob>() {
            Some(cron) => vec![Key::of(&cron.metadata)],
            None => ownership::owners::<CronJob, Job>(change, world, |_| {
                apimachinery::selector::LabelSelector::nothing()
            }),
        }
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        match world.get::<CronJob>(&key.namespace, &key.name) {
            Some(cron) => Sync::new(&cron, world, last, now).plan(),
            None => Plan { memory: (!last.memory.is_null()).then_some(Value::Null), ..Plan::none() },
        }
    }
}

/// What is remembered between two looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Memory {
    uid: Option<String>,
    schedule: String,
    zone: Option<String>,
    /// When the schedule was changed; what would have been due before by the new one is not made up for.
    since: Option<Timestamp>,
    /// The time for which a Job was made last.
    made: Option<Timestamp>,
}

impl Memory {
    fn of(cron: &CronJob, remembered: &Value, now: Timestamp) -> Self {
        let new = Self {
            uid: cron.metadata.uid.clone(),
            schedule: cron.spec.schedule.clone(),
            zone: cron.spec.time_zone.clone(),
            ..Self::default()
        };
        match serde_json::from_value::<Self>(remembered.clone()) {
            Ok(old) if old.uid != new.uid => new,
            Ok(old) if old.schedule == new.schedule && old.zone == new.zone => old,
            Ok(old) => Self { since: Some(now), made: old.made, ..new },
            Err(_) => new,
        }
    }
}

fn is_finished(job: &Job) -> Option<&'static str> {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let is = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
    ["Complete", "Failed"].into_iter().find(|kind| is(kind))
}

/// The time that a Job is for, if it was made for one.
fn time_of(job: &Job) -> Option<Timestamp> {
    job.metadata.annotations.as_ref()?.get(SCHEDULED)?.parse().ok()
}

/// One look at a CronJob.
struct Sync<'a> {
    cron: &'a CronJob,
    now: Timestamp,
    world: &'a World,
    last: &'a Outcome,
    jobs: Vec<Arc<Job>>,
    status: CronJobStatus,
    active: Vec<ObjectReference>,
    memory: Memory,
    plan: Plan,
}

impl<'a> Sync<'a> {
    fn new(cron: &'a CronJob, world: &'a World, last: &'a Outcome, now: Timestamp) -> Self {
        let status = cron.status.clone().unwrap_or_default();
        Self {
            jobs: world.owned::<Job>(cron.metadata.uid.as_deref().unwrap_or_default()),
            active: status.active.clone().unwrap_or_default(),
            memory: Memory::of(cron, &last.memory, now),
            cron,
            now,
            world,
            last,
            status,
            plan: Plan::none(),
        }
    }

    fn plan(mut self) -> Plan {
        let mut doomed = self.forget_old();
        self.follow_jobs();
        let mut made = None;
        if !ownership::deleting(&self.cron.metadata)
            && let Some(schedule) = self.schedule()
        {
            made = self.start(&schedule, &mut doomed);
        }
        self.plan.all(doomed);
        self.status.active = (!self.active.is_empty()).then_some(self.active);
        let told = CronJob { status: Some(self.status), ..self.cron.clone() };
        if told.status != self.cron.status
            && (told.status != Some(CronJobStatus::default()) || self.cron.status.is_some())
        {
            self.plan.then(Write::status(&told));
        }
        self.plan.all(made.into_iter().collect());
        let memory = serde_json::to_value(&self.memory).unwrap_or_default();
        self.plan.memory = (memory != self.last.memory).then_some(memory);
        self.plan
    }

    fn warn(&mut self, reason: &str, message: impl Into<String>) {
        self.plan.notes.push(Note::warning(self.cron, reason, message));
    }

    fn say(&mut self, reason: &str, message: impl Into<String>) {
        self.plan.notes.push(Note::normal(self.cron, reason, message));
    }

    fn delete(&mut self, job: &Job) -> Write {
        self.active.retain(|active| active.uid != job.metadata.uid);
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let delete = Write::Delete {
            target: crate::Target::of(job),
            resource_version: None,
            grace: None,
            propagation: Some("Background"),
            on_success: None,
            on_failure: None,
        };
        delete.noted(
            Some(Note::normal(self.cron, "SuccessfulDelete", format!("Deleted job {name}"))),
            Some(Note::warning(self.cron, "FailedDelete", "Deleted job: {}")),
        )
    }

    /// Deletes finished Jobs beyond the limits, those that began first.
    fn forget_old(&mut self) -> Vec<Write> {
        let spec = &self.cron.spec;
        let limits =
            [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)];
        let mut doomed = Vec::new();
        for (kind, limit) in limits {
            let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else { continue };
            let finished =
                |job: &&Arc<Job>| is_finished(job) == Some(kind) && !ownership::deleting(&job.metadata);
            let mut jobs: Vec<Arc<Job>> = self.jobs.iter().filter(finished).cloned().collect();
            jobs.sort_by_key(|job| {
                let start = job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
                (start.is_none(), start, job.metadata.name.clone())
            });
            let spare = jobs.len().saturating_sub(limit);
            for job in jobs.into_iter().take(spare) {
                doomed.push(self.delete(&job));
            }
        }
        doomed
    }

    /// Brings the list of active Jobs up to date.
    fn follow_jobs(&mut self) {
        for job in self.jobs.clone() {
            let name = job.metadata.name.clone().unwrap_or_default();
            let listed = self.active.iter().any(|active| active.uid == job.metadata.uid);
            let time = time_of(&job).filter(|time| self.name_at(*time) == name);
            let news =
                time.filter(|time| self.status.last_schedule_time.as_ref().is_none_or(|t| t.0 < *time));
            match is_finished(&job) {
                None if listed || ownership::deleting(&job.metadata) => {}
                None if time.is_some() => self.active.push(job.object_ref(&())),
                None => {
                    let text = format!("Saw a job that the controller did not create or forgot: {name}");
                    self.warn("UnexpectedJob", text);
                }
                Some(condition) => {
                    if listed || news.is_some() {
                        self.active.retain(|active| active.uid != job.metadata.uid);
                        let text = format!("Saw completed job: {name}, condition: {condition}");
                        self.say("SawCompletedJob", text);
                    }
                    let end = job.status.as_ref().and_then(|s| s.completion_time.clone());
                    if condition == "Complete" {
                        self.status.last_successful_time = self.status.last_successful_time.take().max(end);
                    }
                }
            }
            if let Some(time) = news {
                self.status.last_schedule_time = Some(Time(time));
            }
        }
        let there = |active: &ObjectReference| self.jobs.iter().any(|job| job.metadata.uid == active.uid);
        let (kept, missing): (Vec<_>, Vec<_>) = self.active.drain(..).partition(there);
        self.active = kept;
        for job in missing {
            let name = job.name.unwrap_or_default();
            self.say("MissingJob", format!("Active job went missing: {name}"));
        }
    }

    /// The schedule, if Jobs are to be made by it.
    fn schedule(&mut self) -> Option<Schedule> {
        let spec = &self.cron.spec;
        let zone = match spec.time_zone.as_deref() {
            None => Tz::UTC,
            Some(name) => match name.parse::<Tz>() {
                Ok(zone) => zone,
                Err(_) => {
                    self.warn(
                        "UnknownTimeZone",
                        format!("invalid timeZone: {name:?}: unknown time zone {name}"),
                    );
                    return None;
                }
            },
        };
        if spec.suspend == Some(true) {
            return None;
        }
        if spec.schedule.contains("TZ") {
            let text = format!(
                "CRON_TZ or TZ used in schedule {:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                spec.schedule
            );
            self.warn("UnsupportedSchedule", text);
        }
        match Schedule::parse(&spec.schedule, zone) {
            Ok(schedule) => Some(schedule),
            Err(why) => {
                let text = format!("unparseable schedule: {:?} : {why}", spec.schedule);
                self.warn("UnparseableSchedule", text);
                None
            }
        }
    }

    fn name_at(&self, time: Timestamp) -> String {
        let minutes = time.as_second().div_euclid(60);
        format!("{}-{minutes}", self.cron.metadata.name.as_deref().unwrap_or_default())
    }

    /// The time after which a Job may be due.
    fn earliest(&self) -> Timestamp {
        let created = self.cron.metadata.creation_timestamp.as_ref().map(|t| t.0);
        let run = self.status.last_schedule_time.as_ref().map(|t| t.0);
        run.or(created).unwrap_or(self.now).max(self.memory.since.unwrap_or(Timestamp::MIN))
    }

    fn wake_at_next(&mut self, schedule: &Schedule) {
        let from = schedule.last(self.earliest(), self.now).unwrap_or(self.now);
        if let Some(at) = schedule.next(from.max(self.now)).and_then(|at| at.checked_add(SKEW).ok()) {
            self.plan.wake(at);
        }
    }

    /// The creation of the Job that is due, if one is; before it, the deletion of those that it replaces.
    fn start(&mut self, schedule: &Schedule, doomed: &mut Vec<Write>) -> Option<Write> {
        self.wake_at_next(schedule);
        let spec = &self.cron.spec;
        let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        let oldest = deadline.and_then(|d| self.now.checked_sub(d).ok()).unwrap_or(Timestamp::MIN);
        let earliest = self.earliest().max(oldest);
        let Some(first) = schedule.next(earliest) else {
            let text = format!(
                "invalid schedule: {} : time difference between two schedules is less than 1 second",
                spec.schedule
            );
            self.warn("InvalidSchedule", text);
            return None;
        };
        let time = schedule.last(earliest, self.now)?;
        if self.missed(schedule, first) > MANY {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", text);
        }
        if deadline.is_some_and(|d| time.checked_add(d).is_ok_and(|end| end < self.now)) {
            let text = time.strftime("Missed scheduled time to start a job: %a, %d %b %Y %H:%M:%S +0000");
            self.warn("MissSchedule", text.to_string());
            return None;
        }
        let name = self.name_at(time);
        let namespace = self.cron.metadata.namespace.as_deref().unwrap_or_default();
        let run = self.status.last_schedule_time.as_ref().is_some_and(|t| t.0 == time);
        if run || self.active.iter().any(|active| active.name.as_ref() == Some(&name)) {
            return None;
        }
        let made = self.memory.made == Some(time) && self.last.failed_create(&Kind::of::<Job>()).is_none();
        if made {
            // It was made and is gone already.
            self.status.last_schedule_time = Some(Time(time));
            return None;
        }
        if self.world.get::<Job>(namespace, &name).is_some() {
            // Somebody else's, under our name: they will have told what there is to tell.
            return None;
        }
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !self.active.is_empty() => {
                let text =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.say("JobAlreadyActive", text);
                return None;
            }
            Some("Replace") => {
                for active in self.active.clone() {
                    let job = self.jobs.iter().find(|job| job.metadata.uid == active.uid).cloned();
                    doomed.extend(job.map(|job| self.delete(&job)));
                }
            }
            _ => {}
        }
        self.memory.made = Some(time);
        let job = self.job_for(time, name);
        let created = Note::normal(self.cron, "SuccessfulCreate", "Created job {}");
        let failed = Note::warning(self.cron, "FailedCreate", "Error creating job: {}");
        Some(Write::create(&job).noted(Some(created), Some(failed)))
    }

    /// About how many times were missed since the first one.
    fn missed(&self, schedule: &Schedule, first: Timestamp) -> i64 {
        let second = schedule.next(first).unwrap_or(first);
        let between = second.duration_since(first).as_secs();
        let passed = self.now.duration_since(first).as_secs();
        passed.checked_div(between).map_or(0, |count| count + 1)
    }

    fn job_for(&self, time: Timestamp, name: String) -> Job {
        let template = &self.cron.spec.job_template;
        let from = template.metadata.clone().unwrap_or_default();
        let zone = self.cron.spec.time_zone.as_deref().and_then(|z| z.parse::<Tz>().ok()).unwrap_or(Tz::UTC);
        let local = chrono::DateTime::from_timestamp(time.as_second(), 0).map(|t| t.with_timezone(&zone));
        let text = local.map(|t| t.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)).unwrap_or_default();
        let mut annotations = from.annotations.unwrap_or_default();
        annotations.insert(SCHEDULED.to_owned(), text);
        Job {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: self.cron.metadata.namespace.clone(),
                labels: from.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![ownership::controller_reference(self.cron)]),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    }
}

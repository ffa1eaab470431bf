//! Actions handed to those who do them.

use super::*;

/// What an action needs to know beside its job.
pub(super) struct Surroundings {
    pub seen: machine::Seen,
    pub target: Option<String>,
    pub replace: bool,
    pub running: BTreeMap<String, ResourceRequirements>,
}

/// Does an action.
pub(super) async fn perform(job: Job, action: Action, around: Surroundings) -> Done {
    match action {
        Action::PrepareVolumes => Done::Volumes(volumes::prepare(&job).await),
        Action::RunSandbox { attempt } => {
            Done::Happened(Happening::SandboxStarted(sandbox::run(&job, attempt).await))
        }
        Action::EnsureImage { container } => {
            let again = around.seen.failure.is_some();
            let image = image::ensure(&job, &container, again).await;
            Done::Happened(Happening::Image(container, image))
        }
        Action::Start { container, attempt, image } => {
            // the instance before the one that is replaced now goes
            let outdated = around.seen.current.and(around.seen.previous).map(|i| (i.id, i.attempt));
            let start = container::Start { container, attempt, image, target: around.target, outdated };
            let started = container::start(&job, &start).await.map(Box::new);
            Done::Happened(Happening::Started(start.container, started))
        }
        Action::PostStart { container, id } => {
            let result = hooks::post_start(&job, &container, &id).await;
            Done::Happened(Happening::PostStart(container, result))
        }
        Action::PreStop { container, id, grace, since, .. } => {
            let spent = Timestamp::now().duration_since(since).as_secs_f64();
            let left = Duration::from_secs_f64((grace as f64 - spent).clamp(0.0, 1e9));
            let result = hooks::pre_stop(&job, &container, &id, left).await;
            Done::Happened(Happening::PreStop(container, result))
        }
        Action::Resize { container, id } => {
            let resized = container::resize(&job, &container, &id, &around.running).await;
            Done::Happened(Happening::Resized(container, id, resized))
        }
        Action::Probe { container, id, kind } => {
            let answer = probes::run(&job, &container, &id, kind).await;
            Done::Happened(Happening::Probed(container, id, kind, answer))
        }
        Action::Kill { container, id, until, .. } => {
            Done::Happened(container::kill(&job, &container, &id, until).await)
        }
        Action::StopSandbox { id } => {
            sandbox::stop(&job, &id, around.replace).await;
            Done::SandboxStopped { replace: around.replace }
        }
        Action::TearDownVolumes => {
            volumes::tear_down(&job).await;
            Done::Happened(Happening::VolumesGone)
        }
        Action::Clean => {
            sandbox::clean(&job).await;
            Done::Happened(Happening::Cleaned)
        }
        Action::DeleteObject => {
            object::delete(&job).await;
            Done::Nothing
        }
    }
}

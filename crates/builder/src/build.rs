//! A build from beginning to end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use images::{Compression, Credentials, Image, Images, NewImage, PullPolicy};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Executor, Host, Progress, Result, Secret,
    bases::Bases,
    dockerfile::{self, Dockerfile},
    error::IoContext,
    host,
    ignore::Ignore,
    overlay,
    plan::Stages,
    root::Root,
    session::{Cache, Session},
    stage::{State, run_stage},
};

/// What to build, and how.
#[derive(Clone, Debug)]
pub struct Build {
    /// The folder that COPY copies from.
    pub context: PathBuf,
    /// The Dockerfile; if none, `Dockerfile` or `dockerfile` in the context.
    pub dockerfile: Option<PathBuf>,
    /// Names for the image.
    pub tags: Vec<String>,
    /// `--build-arg`
    pub args: BTreeMap<String, String>,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// The stage to build; the last if none.
    pub target: Option<String>,
    /// Do every step, whatever is remembered.
    pub no_cache: bool,
    /// `--secret`
    pub secrets: Vec<Secret>,
    /// Variables that RUN steps see while they run; neither the image nor the cache knows of them.
    pub build_env: Vec<(String, String)>,
    /// When registries are asked for base images.
    pub pull: PullPolicy,
    /// Credentials by registry (`docker.io`).
    pub credentials: BTreeMap<String, Credentials>,
    /// `SOURCE_DATE_EPOCH`: the time of all that the build makes, seconds since 1970.
    pub epoch: Option<i64>,
    /// Compression of new layers.
    pub compression: Compression,
    /// Folder for `--mount=type=cache`, private to its owner.
    pub caches: PathBuf,
    /// What RUN steps see of the machine.
    pub host: Host,
    /// Steps that may work at once.
    pub jobs: usize,
}

impl Build {
    /// A build of this context with everything as usual; `caches` is where `--mount=type=cache` keeps its folders.
    pub fn new(context: impl Into<PathBuf>, caches: impl Into<PathBuf>) -> Build {
        Build {
            context: context.into(),
            dockerfile: None,
            tags: Vec::new(),
            args: BTreeMap::new(),
            labels: BTreeMap::new(),
            target: None,
            no_cache: false,
            secrets: Vec::new(),
            build_env: Vec::new(),
            pull: PullPolicy::IfNotPresent,
            credentials: BTreeMap::new(),
            epoch: None,
            compression: Compression::default(),
            caches: caches.into(),
            host: Host::none(),
            jobs: 2,
        }
    }
}

/// Builds an image and gives it its tags. When this fails, no tag has moved; what was built is remembered.
///
/// # Errors
/// With the place in the Dockerfile wherever there is one.
pub async fn build(
    build: &Build,
    images: &Images,
    executor: Arc<dyn Executor>,
    progress: Arc<dyn Progress>,
    cancel: CancellationToken,
) -> Result<Image> {
    for tag in &build.tags {
        let reference = images::Reference::parse(tag)?;
        if reference.digest().is_some() {
            return Err(Error::Invalid(format!("the tag \"{tag}\" cannot have a digest")));
        }
    }
    let mut build = build.clone();
    build.epoch = epoch(&build)?;
    if let Some(epoch) = build.epoch {
        build.args.entry("SOURCE_DATE_EPOCH".into()).or_insert_with(|| epoch.to_string());
    }
    let context = Root::open(&build.context).at("opening the context", &build.context)?;
    let (file, ignore, ignore_name) = read_files(&build, &context)?;
    let platform = images::Platform::host();
    let mut plan = Stages::new(&file, &build.args, &platform)?;
    let target = plan.target(build.target.as_deref())?;
    warn_of_unused(&build, &plan.declared(&file), &*progress);
    let bases = Bases::default();
    let source = plan.clone();
    let order = plan
        .needed(target, async |stage| {
            let crate::plan::Base::Image(name) = &stage.base else { return Ok(Vec::new()) };
            let base = bases.load(name, &build, images, &*progress).await;
            let base = base.map_err(|error| no_base(error, name, &source, stage, images))?;
            Ok(crate::config::Config::of_base(base.config.clone(), base.layers.len()).take_triggers())
        })
        .await?;
    overlay::sweep(images);
    let cancel = cancel.child_token();
    // Who drops the build wants its steps to end.
    let _guard = cancel.clone().drop_guard();
    let session = Arc::new(Session {
        permits: Semaphore::new(build.jobs.max(1)),
        outputs: plan.stages.iter().map(|_| watch::Sender::new(None)).collect(),
        lease: images.new_lease()?,
        images: images.clone(),
        handle: Handle::current(),
        cache: Cache::default(),
        started: Instant::now(),
        cancel: cancel.clone(),
        build,
        executor,
        progress,
        plan,
        bases,
        context,
        ignore,
        ignore_name,
    });
    run_stages(&session, &order).await?;
    let state = session.outputs[target].borrow().clone().ok_or(Error::Cancelled)?;
    tokio::task::spawn_blocking(move || finish(&session, &state))
        .await
        .map_err(|e| Error::Invalid(format!("the build broke down: {e}")))?
}

/// Runs the stages, each as soon as what it needs is there; the first error ends them all.
async fn run_stages(session: &Arc<Session>, order: &[usize]) -> Result<()> {
    let mut tasks = JoinSet::new();
    for at in order.iter().copied() {
        let session = session.clone();
        tasks.spawn_blocking(move || run_stage(&session, at));
    }
    let mut failure = None;
    while let Some(done) = tasks.join_next().await {
        let result = done.unwrap_or_else(|e| Err(Error::Invalid(format!("the build broke down: {e}"))));
        if let Err(error) = result {
            session.cancel.cancel();
            if matches!(failure, None | Some(Error::Cancelled)) {
                failure = Some(error);
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

fn finish(session: &Session, state: &State) -> Result<Image> {
    session.check_cancelled()?;
    let mut config = state.config.clone();
    for (name, value) in &session.build.labels {
        config.set_label(name, value);
    }
    let new = NewImage {
        config: config.document(session.build.epoch.or(state.created)),
        layers: state.layers.clone(),
        tags: session.build.tags.clone(),
    };
    let image = session.images.create(new, &session.lease)?;
    session.touch()?;
    tracing::debug!(id = image.id, seconds = session.elapsed().as_secs_f64(), "built");
    Ok(image)
}

fn epoch(build: &Build) -> Result<Option<i64>> {
    match (build.args.get("SOURCE_DATE_EPOCH"), build.epoch) {
        (Some(text), _) => match text.parse() {
            Ok(epoch) if epoch >= 0 => Ok(Some(epoch)),
            _ => {
                Err(Error::Invalid(format!("SOURCE_DATE_EPOCH={text} is not a number of seconds since 1970")))
            }
        },
        (None, epoch) => Ok(epoch),
    }
}

/// The Dockerfile and its ignore file.
fn read_files(build: &Build, context: &Root) -> Result<(Dockerfile, Ignore, String)> {
    let most = dockerfile::MAX_BYTES as u64;
    let (path, bytes) = match &build.dockerfile {
        Some(path) => (path.clone(), read(path, most)?),
        None => {
            let names = ["Dockerfile", "dockerfile", "Containerfile"];
            let found = names.into_iter().find_map(|name| match context.read(Path::new(name), most) {
                Ok(None) => None,
                Ok(Some(bytes)) => Some(Ok((PathBuf::from(name), bytes))),
                Err(e) => Some(Err(e).at("reading", &build.context.join(name))),
            });
            found.unwrap_or_else(|| {
                Err(Error::Invalid(format!(
                    "there is no Dockerfile in {}; name one with -f, or write one",
                    build.context.display()
                )))
            })?
        }
    };
    let shown = path.display().to_string();
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::Invalid(format!("{shown} is not UTF-8 text; is it a Dockerfile?")))?;
    let file = dockerfile::parse(&shown, &text)?;
    // An ignore file of this Dockerfile alone goes before that of the context.
    let own = PathBuf::from(format!("{shown}.dockerignore"));
    let own_bytes = match &build.dockerfile {
        Some(_) => fs::exists(&own).unwrap_or(false).then(|| read(&own, most)).transpose()?,
        None => context.read(&own, most).at("reading", &own)?,
    };
    let (name, bytes) = match own_bytes {
        Some(bytes) => (own.display().to_string(), bytes),
        None => {
            let name = Path::new(".dockerignore");
            (".dockerignore".to_owned(), context.read(name, most).at("reading", name)?.unwrap_or_default())
        }
    };
    Ok((file, Ignore::parse(&name, &bytes)?, name))
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = fs::File::open(path).at("opening", path)?;
    file.take(most + 1).read_to_end(&mut bytes).at("reading", path)?;
    match bytes.len() as u64 > most {
        true => Err(Error::Invalid(format!("{} is larger than {most} bytes", path.display()))),
        false => Ok(bytes),
    }
}

fn warn_of_unused(build: &Build, declared: &BTreeSet<String>, progress: &dyn Progress) {
    for name in build.args.keys() {
        if !declared.contains(name) && !host::is_proxy(name) && name != "SOURCE_DATE_EPOCH" {
            let meant = crate::typo::nearest(name, declared.iter().map(String::as_str));
            let meant = meant.map(|m| format!(" (is it {m}?)")).unwrap_or_default();
            progress.warning(&format!("no ARG takes the build argument {name}{meant}"));
        }
    }
}

/// The error when a base image cannot be had, with what may have been meant.
fn no_base(error: Error, name: &str, plan: &Stages, stage: &crate::plan::Stage, images: &Images) -> Error {
    let meant = plan.suggest(name).map(str::to_owned).or_else(|| crate::bases::suggest(images, name));
    match meant {
        Some(meant) => plan.fail(&stage.from, error.to_string(), Some(format!("Did you mean {meant}?"))),
        None => error.within(&plan.place(&stage.from)),
    }
}

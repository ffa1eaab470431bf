//! `plim build`: an image from a Dockerfile, into the cluster's own store.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, IsTerminal},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use builder::{Build, Outcome, Progress, Secret, Step};
use clap::Args;
use images::PullPolicy;
use runtime::oneshot::Holder;
use tokio_util::sync::CancellationToken;

use crate::{cluster::node::HOLDER, commands::image, data::Data, output::Form};

/// Shown by `plim build --help`.
pub const EXAMPLES: &str = "Examples:\n  plim build -t shop/web:1 .\n  plim build -t api:2 -f docker/Dockerfile --target release --build-arg VERSION=2 .\n  plim build -t api:2 --secret id=npmrc,src=$HOME/.npmrc .\n\nThe image is in the cluster's store when the command ends: no push, no pull.";

/// Build an image from a Dockerfile.
#[derive(Args, Debug)]
pub struct BuildCommand {
    /// The folder that COPY copies from.
    #[arg(default_value = ".")]
    context: PathBuf,
    /// The Dockerfile; `Dockerfile` in the context when left out.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A name for the image; may be given several times.
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// A value for an ARG.
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    build_args: Vec<String>,
    /// A label of the image.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// The stage to build; the last when left out.
    #[arg(long)]
    target: Option<String>,
    /// Do every step, whatever is remembered.
    #[arg(long)]
    no_cache: bool,
    /// Ask registries for newer base images.
    #[arg(long)]
    pull: bool,
    /// A secret for `RUN --mount=type=secret`: id=NAME,src=FILE or id=NAME,env=VARIABLE.
    #[arg(long = "secret", value_name = "SECRET")]
    secrets: Vec<String>,
    /// A variable of this command's environment that RUN steps see; neither image nor cache know of it.
    #[arg(long = "build-env", value_name = "NAME")]
    build_env: Vec<String>,
    /// Steps that may work at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// How to print the result; progress goes to standard error.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

impl BuildCommand {
    /// Builds it.
    pub fn run(self, data: &Data) -> Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a build needs root (overlay mounts, namespaces): use sudo"
        );
        let build = self.build(data)?;
        let images = image::open(data)?;
        // One provider is linked; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let begun = Instant::now();
        let built = runtime.block_on(async {
            let cancel = CancellationToken::new();
            let folder = tempfile::Builder::new().prefix("build-").tempdir_in(data.folder("run")?)?;
            let command: Vec<OsString> = vec!["/proc/self/exe".into(), HOLDER.into()];
            let holder = Holder::private(&command, folder.path()).await?;
            let interrupted = cancel.clone();
            tokio::spawn(async move {
                if tokio::signal::ctrl_c().await.is_ok() {
                    interrupted.cancel();
                }
            });
            let built =
                builder::build(&build, &images, Arc::new(holder), Arc::new(Told::new()), cancel).await;
            built.map_err(anyhow::Error::from)
        })?;
        match self.output {
            Form::Json | Form::Yaml => {
                let value = serde_json::json!({ "id": built.id, "tags": built.tags, "manifest": built.manifest, "size": built.size });
                if self.output == Form::Json {
                    println!("{}", serde_json::to_string_pretty(&value)?);
                } else {
                    print!("{}", serde_yaml_ng::to_string(&value)?);
                }
            }
            _ => println!("{} {}  ({:.1} s)", built.id, self.tags.join(" "), begun.elapsed().as_secs_f64()),
        }
        Ok(())
    }

    fn build(&self, data: &Data) -> Result<Build> {
        let mut build = Build::new(&self.context, data.folder("build-caches")?);
        build.dockerfile.clone_from(&self.file);
        build.tags.clone_from(&self.tags);
        build.args = pairs(&self.build_args, true)?;
        build.labels = pairs(&self.labels, false)?;
        build.target.clone_from(&self.target);
        build.no_cache = self.no_cache;
        build.jobs = self.jobs.max(1);
        build.host = builder::Host::read(std::env::vars());
        build.pull = if self.pull { PullPolicy::Always } else { PullPolicy::IfNotPresent };
        build.secrets = self
            .secrets
            .iter()
            .map(|s| Secret::parse(s).map_err(anyhow::Error::msg))
            .collect::<Result<_>>()?;
        for name in &self.build_env {
            let value =
                std::env::var(name).with_context(|| format!("--build-env {name}: no such variable"))?;
            build.build_env.push((name.clone(), value));
        }
        if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
            build.epoch = Some(epoch.parse().context("SOURCE_DATE_EPOCH is not a number of seconds")?);
        }
        Ok(build)
    }
}

/// `NAME=VALUE` pairs; a name alone takes its value from the environment, where that is allowed.
fn pairs(list: &[String], from_environment: bool) -> Result<BTreeMap<String, String>> {
    let one = |pair: &String| match pair.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None if from_environment => {
            let value = std::env::var(pair)
                .with_context(|| format!("{pair}: write it as NAME=VALUE, or set the variable"))?;
            Ok((pair.clone(), value))
        }
        None => anyhow::bail!("{pair}: write it as NAME=VALUE"),
    };
    list.iter().map(one).collect()
}

/// Shows steps on standard error: a line each when it ends; on a terminal, the last line a step wrote while it goes on.
struct Told {
    live: bool,
}

impl Told {
    fn new() -> Self {
        Self { live: io::stderr().is_terminal() }
    }
}

/// As many characters of a line as fit in a terminal's width.
fn shortened(line: &str, width: usize) -> String {
    line.chars().filter(|c| !c.is_control()).take(width).collect()
}

impl Progress for Told {
    fn start(&self, step: &Step) {
        if self.live {
            eprint!("\r\x1b[K  … {}", shortened(&step.to_string(), 90));
        }
    }

    fn output(&self, step: &Step, line: &str) {
        if self.live {
            eprint!("\r\x1b[K  … [{} {}/{}] {}", step.stage, step.number, step.total, shortened(line, 70));
        } else {
            eprintln!("    {}", shortened(line, 200));
        }
    }

    fn done(&self, step: &Step, outcome: Outcome, took: Duration) {
        let (mark, how) = match outcome {
            Outcome::Done => ('✔', format!("{:.2} s", took.as_secs_f64())),
            Outcome::Cached => ('✔', "cached".to_owned()),
            Outcome::Failed => ('✘', format!("{:.2} s", took.as_secs_f64())),
        };
        let clear = if self.live { "\r\x1b[K" } else { "" };
        eprintln!("{clear}  {mark} {:<70} {how:>9}", shortened(&step.to_string(), 70));
    }

    fn pull(&self, image: &str, event: images::Event) {
        if let images::Event::Resolved { layers, .. } = event {
            let bytes: u64 = layers.iter().map(|(_, size)| size).sum();
            eprintln!("  pulling {image}: {} layers, {}", layers.len(), crate::output::bytes(bytes as f64));
        }
    }

    fn warning(&self, text: &str) {
        let clear = if self.live { "\r\x1b[K" } else { "" };
        eprintln!("{clear}  warning: {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_pairs() {
        let list = ["A=1".to_owned(), "B=x=y".to_owned()];
        let map = pairs(&list, false).unwrap();
        assert_eq!(map["B"], "x=y");
        assert!(pairs(&["C".to_owned()], false).is_err());
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(shortened("a\x1b[31mb", 10), "a[31mb");
    }
}

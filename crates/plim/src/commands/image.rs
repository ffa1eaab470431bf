//! `plim image`: the cluster's own image store. Works with the cluster up or down.

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use images::{Credentials, Event, ExportFormat, Image, Images, ImportOptions, PullPolicy, Registries};
use serde::Serialize;
use serde_json::json;

use crate::{
    data::Data,
    output::{Output, Table, bytes},
};

/// Shown by `plim image --help`.
pub const EXAMPLES: &str = "Examples:\n  plim image ls\n  plim image pull docker.io/library/busybox:1.36\n  plim image import base.tar --rootfs --tag debian:bookworm-slim --cmd /bin/sh\n  plim image push shop/web:1 registry.example.com/shop/web:1\n  plim image export shop/web:1 -o web.tar";

/// Where images lie in the state folder.
pub const FOLDER: &str = "images";

/// How registries are reached, in the state folder: `mirrors: {docker.io: [https://mirror.example]}` and
/// `insecure: [registry.example:5000]`, both optional.
const REGISTRIES: &str = "registries.yaml";

/// Opens the image store of a state folder.
pub fn open(data: &Data) -> Result<Images> {
    let registries = match data.read(REGISTRIES)? {
        None => Registries::default(),
        Some(text) => serde_yaml_ng::from_str(&text)
            .with_context(|| format!("{} is wrong", data.path(REGISTRIES).display()))?,
    };
    let options = images::Options { registries, ..images::Options::default() };
    Ok(Images::open_with(data.folder(FOLDER)?, options)?)
}

/// Images in the cluster's store.
#[derive(Subcommand, Debug)]
pub enum ImageCommand {
    /// List images.
    #[command(after_help = "Example:\n  plim image ls -o wide")]
    Ls {
        #[command(flatten)]
        output: Output,
    },
    /// Get an image from its registry.
    #[command(after_help = "Example:\n  plim image pull registry.example.com/team/api:7")]
    Pull {
        /// The image.
        name: String,
        /// A docker config file with credentials.
        #[arg(long, value_name = "FILE")]
        auth: Option<PathBuf>,
    },
    /// Send an image to a registry.
    #[command(after_help = "Example:\n  plim image push shop/web:1 registry.example.com/shop/web:1")]
    Push {
        /// The image.
        name: String,
        /// Its name there; the same when left out.
        target: Option<String>,
        /// A docker config file with credentials.
        #[arg(long, value_name = "FILE")]
        auth: Option<PathBuf>,
    },
    /// Import an OCI layout, a docker archive, or a root file system.
    #[command(
        after_help = "Examples:\n  plim image import saved.tar\n  plim image import rootfs.tar --rootfs --tag debian:bookworm-slim --cmd /bin/sh"
    )]
    Import(Import),
    /// Write images to an archive.
    #[command(after_help = "Example:\n  plim image export shop/web:1 -f web.tar --format docker")]
    Export {
        /// The images.
        #[arg(required = true)]
        names: Vec<String>,
        /// Where to; standard output when left out.
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// What to write.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Remove images.
    #[command(after_help = "Example:\n  plim image rm shop/web:1")]
    Rm {
        /// The images.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Give an image another name.
    #[command(after_help = "Example:\n  plim image tag shop/web:1 shop/web:stable")]
    Tag {
        /// The image.
        name: String,
        /// Its other name.
        new: String,
    },
    /// Remove what nothing uses.
    #[command(after_help = "Example:\n  plim image prune --cache-unused-days 7")]
    Prune {
        /// Build results that were of no use for so many days go too.
        #[arg(long, value_name = "DAYS")]
        cache_unused_days: Option<u64>,
    },
}

/// Import a file.
#[derive(Args, Debug)]
pub struct Import {
    /// The file or folder.
    path: PathBuf,
    /// Names to give, instead of those in the archive.
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// The file is a root file system (tar, also compressed).
    #[arg(long)]
    rootfs: bool,
    /// With --rootfs: the default command, a word each.
    #[arg(long, num_args = 1.., value_name = "WORD", requires = "rootfs")]
    cmd: Vec<String>,
    /// With --rootfs: an environment variable.
    #[arg(short, long = "env", value_name = "NAME=VALUE", requires = "rootfs")]
    env: Vec<String>,
}

/// An archive format.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Format {
    /// OCI image layout.
    #[default]
    Oci,
    /// What `docker load` reads.
    Docker,
}

/// An image as it is listed.
#[derive(Serialize)]
struct Listed {
    id: String,
    tags: Vec<String>,
    digests: Vec<String>,
    size: u64,
    layers: usize,
}

impl From<Image> for Listed {
    fn from(image: Image) -> Self {
        Self {
            layers: image.layers.len(),
            id: image.id,
            tags: image.tags,
            digests: image.digests,
            size: image.size,
        }
    }
}

impl ImageCommand {
    /// Does it.
    pub fn run(self, data: &Data) -> Result<()> {
        let images = open(data)?;
        match self {
            Self::Ls { output } => list(&images, output),
            Self::Pull { name, auth } => {
                let image = transfer(&images, async |progress| {
                    let credentials = credentials(auth, &name)?;
                    Ok(images.pull(&name, credentials.as_ref(), PullPolicy::Always, progress).await?)
                })?;
                println!("{} {}", image.id, image.tags.join(" "));
                Ok(())
            }
            Self::Push { name, target, auth } => {
                let target = target.unwrap_or_else(|| name.clone());
                let digest = transfer(&images, async |progress| {
                    let credentials = credentials(auth, &target)?;
                    Ok(images.push(&name, &target, credentials.as_ref(), progress).await?)
                })?;
                println!("{target}@{digest}");
                Ok(())
            }
            Self::Import(import) => import.run(&images),
            Self::Export { names, file, format } => export(&images, &names, file, format),
            Self::Rm { names } => names.iter().try_for_each(|name| {
                let removed = images.remove(name)?;
                removed.untagged.iter().for_each(|n| println!("untagged {n}"));
                removed.deleted.iter().for_each(|id| println!("deleted {id}"));
                Ok(())
            }),
            Self::Tag { name, new } => Ok(images.tag(&name, &new)?),
            Self::Prune { cache_unused_days } => {
                let unused = cache_unused_days.map(|d| std::time::Duration::from_secs(d * 86_400));
                let pruned = images.prune(unused)?;
                println!(
                    "removed {} blobs ({}), {} unpacked layers, {} build results",
                    pruned.blobs,
                    bytes(pruned.bytes as f64),
                    pruned.layers,
                    pruned.cache
                );
                Ok(())
            }
        }
    }
}

fn list(images: &Images, output: Output) -> Result<()> {
    let list: Vec<Listed> = images.list()?.into_iter().map(Listed::from).collect();
    output.print(
        &list,
        |list| {
            list.iter()
                .flat_map(|i| if i.tags.is_empty() { vec![i.id.clone()] } else { i.tags.clone() })
                .collect()
        },
        |list, wide| {
            let mut rows: Vec<Vec<String>> = Vec::new();
            for image in list {
                let id = image.id.trim_start_matches("sha256:");
                let names =
                    if image.tags.is_empty() { vec!["<none>".to_owned()] } else { image.tags.clone() };
                for name in names {
                    let mut row = vec![name, id[..id.len().min(12)].to_owned(), bytes(image.size as f64)];
                    if wide {
                        row.push(image.layers.to_string());
                        row.push(image.digests.join(","));
                    }
                    rows.push(row);
                }
            }
            rows.sort();
            let mut headings = vec!["IMAGE", "ID", "SIZE"];
            if wide {
                headings.extend(["LAYERS", "DIGESTS"]);
            }
            let mut table = Table::new(&headings);
            rows.into_iter().for_each(|row| table.row(row));
            if table.is_empty() {
                return "no images: build, pull or import one\n".to_owned();
            }
            table.to_string()
        },
    )
}

impl Import {
    fn run(self, images: &Images) -> Result<()> {
        let rootfs = self.rootfs.then(|| {
            let mut config = serde_json::Map::new();
            if !self.cmd.is_empty() {
                config.insert("Cmd".to_owned(), json!(self.cmd));
            }
            let mut env = self.env.clone();
            if !env.iter().any(|e| e.starts_with("PATH=")) {
                env.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
            }
            config.insert("Env".to_owned(), json!(env));
            json!({ "config": config })
        });
        let imported = images.import(&self.path, &ImportOptions { tags: self.tags, rootfs })?;
        for image in imported {
            println!("{} {}", image.id, image.tags.join(" "));
        }
        Ok(())
    }
}

fn export(images: &Images, names: &[String], file: Option<PathBuf>, format: Format) -> Result<()> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let format = match format {
        Format::Oci => ExportFormat::Oci,
        Format::Docker => ExportFormat::Docker,
    };
    let Some(path) = file else {
        return Ok(images.export(&names, format, std::io::stdout().lock())?);
    };
    let partial = path.with_extension("partial");
    let out =
        std::fs::File::create(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
    images.export(&names, format, std::io::BufWriter::new(out))?;
    std::fs::rename(&partial, &path).with_context(|| format!("cannot write {}", path.display()))
}

/// Credentials for the registry of an image: those of the file given, else of docker's own configuration.
fn credentials(file: Option<PathBuf>, image: &str) -> Result<Option<Credentials>> {
    let own = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker/config.json"));
    let given = file.is_some();
    let Some(path) = file.or_else(own) else { return Ok(None) };
    match std::fs::read(&path) {
        Ok(json) => {
            let domain = images::Reference::parse(image)?.domain().to_owned();
            Ok(Credentials::from_docker_config(&json, &domain))
        }
        Err(_) if !given => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Runs a transfer and shows on standard error how far it is.
fn transfer<T>(images: &Images, work: impl AsyncFnOnce(&dyn images::Progress) -> Result<T>) -> Result<T> {
    let _ = images;
    // One provider is linked; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let sink = Arc::new(Mutex::new(Shown::default()));
    let told = sink.clone();
    let progress = move |event: Event| {
        if let Ok(mut shown) = told.lock() {
            shown.take(&event);
        }
    };
    let result = runtime.block_on(work(&progress));
    if let Ok(shown) = sink.lock() {
        shown.end();
    }
    result
}

/// Bytes of every blob on its way.
#[derive(Default)]
struct Shown {
    blobs: BTreeMap<String, (u64, u64)>,
    printed: String,
}

impl Shown {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Resolved { layers, .. } => {
                self.blobs.extend(layers.iter().map(|(digest, size)| (digest.to_string(), (0, *size))));
            }
            Event::Present(blob) | Event::Done(blob) => {
                if let Some(entry) = self.blobs.get_mut(blob.as_str()) {
                    entry.0 = entry.1;
                }
            }
            Event::Bytes { blob, done, total } => {
                self.blobs.insert(blob.to_string(), (*done, *total));
            }
            Event::Retrying { blob, why } => eprintln!("\r{blob}: {why}; trying again"),
            _ => {}
        }
        let (done, total) = self.blobs.values().fold((0, 0), |sum, b| (sum.0 + b.0, sum.1 + b.1));
        let line = format!("{} of {}", bytes(done as f64), bytes(total as f64));
        if line != self.printed {
            eprint!("\r{line}   ");
            let _ = std::io::stderr().flush();
            self.printed = line;
        }
    }

    fn end(&self) {
        if !self.printed.is_empty() {
            eprintln!();
        }
    }
}

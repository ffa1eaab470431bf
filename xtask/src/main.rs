//! Developer commands that are not part of the product.
//!
//! Reading order: [`upstream`] (build and start the reference servers) → [`table`] (what they publish, as text).

mod table;
mod upstream;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

/// Developer commands.
#[derive(Parser)]
enum Command {
    /// Read what Kubernetes publishes about its kinds and write the table that `kinds` is built from.
    ///
    /// Builds etcd, kube-apiserver and a program that reflects over k8s.io/api from the Go module `conformance/`
    /// (minutes the first time), starts both servers on the loopback device, reads OpenAPI, discovery and the
    /// columns of every list, and ends them again.
    Facts {
        /// A folder that already holds `etcd` and `kube-apiserver`; they are not built then.
        #[arg(long)]
        upstream: Option<PathBuf>,
        /// Where built programs are kept.
        #[arg(long, env = "PLIMSOLL_CACHE")]
        cache: Option<PathBuf>,
        /// The table to write; default `crates/kinds/facts/VERSION.txt`.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Command::Facts { upstream, cache, out } = Command::parse();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let cache = match cache {
        Some(dir) => dir,
        None => PathBuf::from(std::env::var("HOME").context("HOME is not set; give --cache")?)
            .join(".cache/plimsoll"),
    };
    let conformance = root.join("conformance");
    let go = upstream::reflect(&conformance, &cache)?;
    let programs = match upstream {
        Some(dir) => dir,
        None => upstream::build_servers(&conformance, &cache)?,
    };
    let published = upstream::read(&programs, upstream::version(&conformance)?).await?;
    let out = out.unwrap_or_else(|| root.join(format!("crates/kinds/facts/{}.txt", published.version)));
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let text = table::write(&published, &go)?;
    std::fs::write(&out, &text).with_context(|| format!("cannot write {}", out.display()))?;
    println!("{}: {} lines", out.display(), text.lines().count());
    Ok(())
}

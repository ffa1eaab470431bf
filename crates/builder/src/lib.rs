//! Images from Dockerfiles, without a daemon.
//!
//! [`build`] reads a Dockerfile and its context, carries out the steps whose results are not remembered, and leaves the
//! image in the [`images::Images`] store under its tags: nothing is copied, pushed or pulled afterwards. Processes of
//! RUN steps are run by an [`Executor`]; what happens is told to a [`Progress`]. This crate never lets a Dockerfile, a
//! context or an image reach anything of the host but what [`Build`] says.
//!
//! In reading order: `dockerfile/` is the language; `plan` makes stages of instructions; `build` is a build from
//! beginning to end, `session` what its stages share (the layer cache too), `stage` one stage; `steps/` are the steps
//! that make layers (RUN with its mounts and certificates, COPY, ADD); `config` is the image's config. Below them:
//! `overlay` and `upper` stack layers and tidy what a step changed; `root` confines paths; `tree` finds files and
//! `copy` writes them; `ignore` and `pattern` are `.dockerignore`; `host` is what steps see of the machine.

mod bases;
mod build;
mod chmod;
mod config;
mod copy;
pub mod dockerfile;
mod error;
mod executor;
mod host;
mod ignore;
mod key;
mod overlay;
mod pattern;
mod plan;
mod progress;
mod root;
mod session;
mod stage;
mod steps;
mod tree;
mod typo;
mod upper;
mod user;

pub use build::{Build, build};
pub use error::{Error, Failure, Place, Result};
pub use executor::Executor;
pub use host::{Host, Secret, SecretSource};
pub use progress::{Outcome, Progress, Step};

//! The steps that make layers.

mod archive;
mod caches;
mod certificates;
mod copy;
mod mounts;
mod run;

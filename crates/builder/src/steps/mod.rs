//! The steps that make layers.

mod archive;
mod caches;
mod certificates;
mod copy;
mod fetch;
mod mounts;
mod order;
mod run;

//! The server as a whole, called in process.

mod apply;
mod cluster;
mod custom;
mod metrics;
mod quota;

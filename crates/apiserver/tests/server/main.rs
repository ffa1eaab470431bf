//! The server as a whole, called in process.

mod apply;
mod cluster;
mod custom;
mod forms;
mod kinds;
mod metrics;
mod openapi;
mod quota;
mod recorded;

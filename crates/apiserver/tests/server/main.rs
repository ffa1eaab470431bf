//! The server as a whole, called in process.

mod apply;
mod certificates;
mod cluster;
mod custom;
mod extending;
mod forms;
mod kinds;
mod metrics;
mod openapi;
mod quota;

//! The server as a whole, called in process.

mod aggregation;
mod apply;
mod certificates;
mod cluster;
mod custom;
mod extending;
mod flow;
mod forms;
mod health;
mod kinds;
mod metrics;
mod openapi;
mod policies;
mod quota;
mod webhooks;

//! The server as a whole, called in process.

mod aggregation;
mod apply;
mod certificates;
mod cluster;
mod conversion;
mod custom;
mod definitions;
mod extending;
mod field_validation;
mod flow;
mod forms;
mod health;
mod hostile;
mod kinds;
mod metrics;
mod nodes;
mod openapi;
mod policies;
mod proxies;
mod published;
mod quota;
mod recorded;
mod restart;
mod rules;
mod sick;
mod webhooks;

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
mod kinds;
mod metrics;
mod openapi;
mod policies;
mod published;
mod quota;
mod recorded;
mod rules;
mod webhooks;

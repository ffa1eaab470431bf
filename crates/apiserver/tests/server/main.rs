//! The server as a whole, called in process.

mod apply;
mod cluster;
mod conversion;
mod custom;
mod definitions;
mod field_validation;
mod forms;
mod kinds;
mod metrics;
mod openapi;
mod published;
mod quota;
mod rules;

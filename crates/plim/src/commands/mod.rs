//! The commands, a file each.

pub mod build;
pub mod cost;
pub mod exec;
pub mod image;
pub mod logs;
pub mod metrics;
pub mod ps;
pub mod run;
pub mod status;
pub mod top;
pub mod why;

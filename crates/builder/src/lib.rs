//! Images from Dockerfiles, without a daemon.

pub mod dockerfile;
mod error;
mod pattern;
mod typo;

pub use error::{Error, Failure, Place, Result};

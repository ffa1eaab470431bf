//! The client side of the OCI distribution protocol.

mod auth;
mod endpoint;
mod session;

pub use auth::Credentials;
pub(crate) use endpoint::Client;
pub(crate) use session::{Body, Request, Session, way};

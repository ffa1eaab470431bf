//! Cluster DNS, in the agent: answers from memory, on the node the question comes from.
//!
//! [`zone`] knows the cluster's names, [`wire`] the format, [`upstream`] asks for everybody else's names, and
//! [`Server`] (in [`server`]) joins them on the cluster DNS address of its node: UDP on a thread of its own that
//! takes and sends packets by the batch, TCP and forwarded questions on the runtime.

pub mod server;
pub mod upstream;
pub mod wire;
pub mod zone;

pub use server::{Config, Server};
pub use upstream::Upstream;
pub use zone::Zone;

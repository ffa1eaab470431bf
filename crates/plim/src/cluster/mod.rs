//! A cluster on this machine: the control plane, its loops, and the nodes, put together in one place.
//!
//! [`control`] is the API server with what works beside it; [`node`] is one node: pod network, runtime, DNS, services,
//! agent; [`machine`] lays out the nodes of one machine and takes them away again.

mod configs;
pub mod connector;
pub mod control;
pub mod layout;
pub mod machine;
pub mod node;
pub mod pods;
mod trust;

//! A cluster on this machine: the control plane, its loops, and the nodes, put together in one place.
//!
//! [`control`] is the API server with what works beside it; [`node`] is one node: pod network, runtime, DNS, services,
//! agent; [`machine`] lays out the nodes of one machine and takes them away again, [`layout`] when a start ends early;
//! [`connector`] is how the server reaches nodes and what extends it, [`trust`] whom it believes there, [`configs`] what of
//! that is kept from call to call.

mod configs;
pub mod connector;
pub mod control;
pub mod layout;
pub mod machine;
pub mod node;
pub mod pods;
mod trust;

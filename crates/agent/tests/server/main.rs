//! The kubelet's API over TLS, with a runtime, an API server and pods that are made up.

mod access;
mod client;
mod containers;
mod fakes;
mod node;
mod streams;

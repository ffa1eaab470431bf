//! The driver against a real API server in this process and a container runtime in memory.

mod cluster;
mod fake;

mod adoption;
mod life;
mod node;
mod probes;
mod socket;
mod volumes;

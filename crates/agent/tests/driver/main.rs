//! The driver against a real API server in this process and a container runtime in memory.

mod cluster;
mod fake;
mod life;

//! Real containers, through CRI. They need root and busybox, and say so when they are skipped.

mod lab;
mod life;
mod oneshot;
mod resources;
mod restart;
mod security;
mod streams;
mod volumes;

//! The streaming server as clients see it: over TCP, with processes and ports that are made of pipes.

mod backend;
mod client;
mod kubectl;
mod port_forward;
mod server;
mod spdy;
mod websocket;

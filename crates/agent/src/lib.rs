//! The node agent, Kubernetes' kubelet: it makes the pods bound to its node run, and tells how they are.
//!
//! It talks to the API server through a [`kube::Client`] and to a container runtime through CRI ([`cri`]), and knows
//! nothing of what lies behind either. Nothing here polls: watches, runtime events, probe results and exact deadlines
//! drive it.
//!
//! Reading order: [`spec`] and [`quantity`] (how a pod is read) → [`machine`] (a pod's life, pure) → [`resources`],
//! [`environment`], [`names`], [`volumes`], [`translate`] (what a pod becomes) → [`config`] → [`driver`]
//! (what makes it act) → [`view`], [`server`], [`logs`] (the kubelet's HTTPS API).

pub mod config;
pub mod cri;
pub mod driver;
pub mod environment;
pub mod logs;
pub mod machine;
pub mod names;
pub mod quantity;
pub mod resources;
pub mod server;
pub mod spec;
pub mod translate;
pub mod view;
pub mod volumes;

pub use config::Config;
pub use driver::{Agent, Error, run};

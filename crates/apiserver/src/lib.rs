//! HTTP in, objects out: the Kubernetes API over a [`store::Store`].
//!
//! One generic engine serves every kind, built-in or custom: a [`kinds::Resource`] says what differs. Nothing here knows a
//! controller, a node or a network; what lies outside comes in through [`Config`].
//!
//! Reading order: [`server`] (the way of a request, top to bottom) → `request`, `negotiate`, `options` (how it is read) →
//! `route` → `verbs/` (the generic engine) → `special/` (what single kinds do beyond it) → `custom/`
//! (definitions of custom resources) → `admit`, `admission_match`, `webhooks/`, `policies/` (who may change or refuse a
//! write) → `proxy` (log, exec and the like, passed on to nodes) → `aggregation` (other API servers behind this one) →
//! `flow` (whose request is worked at first) → `audit/` (what is told of requests) → `discovery`, `openapi`, `health` (what is told about all of it) → `listen`.

mod admission_match;
mod admit;
mod aggregation;
mod audit;
mod body;
mod body_kind;
mod catalogue;
mod companions;
mod config;
mod containment;
mod custom;
mod discovery;
mod encoding;
mod extension;
mod fields;
mod flow;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod impersonation;
mod listen;
mod metrics;
mod negotiate;
mod openapi;
mod options;
mod owners;
mod policies;
mod proxy;
mod reader;
mod recent;
mod request;
mod respond;
mod route;
mod selection;
pub mod server;
mod shape;
mod sparse;
mod special;
mod table;
mod verbs;
mod webhooks;

pub use audit::{Audit, Log, Policy, Rotation};
pub use body::{Body, RequestBody};
pub use config::{ClientIdentity, Component, Config, NodeConnector, Tls};
pub use containment::contained;
pub use reader::StoreReader;
pub use server::{ApiService, ClientCertificates, Server, extract};

/// What the server answers with.
pub type Response = http::Response<Body>;

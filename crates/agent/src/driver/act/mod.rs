//! What the state machine asks for, done: one file per group of actions.

mod certificates;
pub(super) mod container;
pub(super) mod hooks;
pub(super) mod image;
mod keys;
pub(super) mod object;
pub(super) mod sandbox;
pub(super) mod volumes;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;

use super::{context::Context, objects::Inputs};
use crate::volumes::Place;

/// What an action works with: the pod and its surroundings as they were when it was asked for.
#[derive(Clone)]
pub(super) struct Job {
    pub cx: Arc<Context>,
    pub pod: Arc<Pod>,
    pub inputs: Arc<Inputs>,
    /// Where the volumes are.
    pub places: Arc<BTreeMap<String, Place>>,
    /// What is kept of volumes from one action to the next.
    pub kept: Arc<volumes::Kept>,
    /// The sandbox: the runtime's id and how many were made before it.
    pub sandbox: (String, u32),
    /// Addresses of the pod.
    pub ips: Vec<String>,
}

/// What a gRPC error says, for people.
pub(super) fn words(status: &tonic::Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

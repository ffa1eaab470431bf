//! The PodSpec, as a pod has it and as every template has it: defaults and rules, once.
//!
//! Reading order: [`defaults`] → [`rules`] (the spec as a whole) → [`containers`], [`volumes`], [`scheduling`],
//! [`security`] (its parts) → [`resources`] (requests and limits) → [`update`] (what may change in a pod) →
//! [`warnings`] (what is allowed and odd).

pub mod attached;
mod containers;
mod defaults;
mod handlers;
mod overlaps;
mod projected;
mod resources;
mod rules;
mod scheduling;
mod security;
mod trust;
mod update;
pub mod volumes;
mod warnings;
mod windows;

pub use containers::check_image_space;
pub use defaults::{default_pod, default_template};
pub use resources::{
    check_container_name, check_name, check_overhead, is_overcommitted, quality_of_service, quantity_value,
};
pub use rules::{Place, check_pod_annotations, check_spec, check_template};
pub use scheduling::{check_node_selector, check_tolerations};
pub use update::{check_ephemeral_update, check_resize, check_update};
pub use warnings::{changed_template_warnings, job_warnings, name_warnings, pod_warnings};

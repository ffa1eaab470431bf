//! The PodSpec, as a pod has it and as every template has it: defaults and rules, once.

mod defaults;

pub use defaults::{default_pod, default_template};

//! What objects use of a ResourceQuota's keys, and which objects a quota is about: admission charges by it, the control
//! loop counts by it.

mod pod;
pub mod scopes;
pub mod usage;

pub use pod::declared;

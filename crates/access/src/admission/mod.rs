//! The admission plugins that are on by default, in upstream's order, one file each.

mod lifecycle;
mod node_restriction;
mod pods;
mod rbac_escalation;
mod service_account;
mod storage;

use std::sync::Arc;

pub use lifecycle::NamespaceLifecycle;
pub use node_restriction::NodeRestriction;
pub use pods::{DefaultTolerationSeconds, Priority, TaintNodesByCondition};
pub use rbac_escalation::RbacEscalation;
pub use service_account::ServiceAccount;
pub use storage::{DefaultStorageClass, StorageObjectInUseProtection};

use crate::{Admission, rbac::Rbac};

/// The chain of a cluster.
#[must_use]
pub fn chain(rbac: Arc<Rbac>) -> Vec<Arc<dyn Admission>> {
    vec![
        Arc::new(NamespaceLifecycle),
        Arc::new(ServiceAccount),
        Arc::new(NodeRestriction),
        Arc::new(TaintNodesByCondition),
        Arc::new(Priority),
        Arc::new(DefaultTolerationSeconds),
        Arc::new(DefaultStorageClass),
        Arc::new(StorageObjectInUseProtection),
        Arc::new(RbacEscalation { rbac }),
    ]
}

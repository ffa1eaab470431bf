//! The admission plugins that are on by default, in upstream's order, one file each.

mod certificates;
mod lifecycle;
mod limit_ranger;
mod mountable_secrets;
mod node_certificates;
mod node_pods;
mod node_restriction;
mod pods;
mod rbac_escalation;
mod resource_quota;
mod service_account;
mod storage;

use std::sync::Arc;

use apimachinery::ApiError;
pub use certificates::{
    CertificateApproval, CertificateSigning, CertificateSubjectRestriction, ClusterTrustBundleAttest,
    PodCertificateSigning,
};
pub use lifecycle::NamespaceLifecycle;
pub use limit_ranger::LimitRanger;
pub use node_restriction::NodeRestriction;
pub use pods::{DefaultTolerationSeconds, Priority, TaintNodesByCondition};
pub use rbac_escalation::RbacEscalation;
pub use resource_quota::ResourceQuota;
pub use service_account::ServiceAccount;
pub use storage::{DefaultStorageClass, StorageObjectInUseProtection};

use crate::{Admission, AdmissionRequest, Authorizer, rbac::Rbac};

/// The chain of a cluster. `authorizer` is everybody who is asked whether a request may be made.
#[must_use]
pub fn chain(rbac: Arc<Rbac>, authorizer: &Arc<dyn Authorizer>) -> Vec<Arc<dyn Admission>> {
    let authorizer = || Arc::clone(authorizer);
    vec![
        Arc::new(NamespaceLifecycle),
        Arc::new(LimitRanger),
        Arc::new(ServiceAccount),
        Arc::new(NodeRestriction { authorizer: authorizer() }),
        Arc::new(TaintNodesByCondition),
        Arc::new(Priority),
        Arc::new(DefaultTolerationSeconds),
        Arc::new(DefaultStorageClass),
        Arc::new(StorageObjectInUseProtection),
        Arc::new(CertificateApproval { authorizer: authorizer() }),
        Arc::new(CertificateSigning { authorizer: authorizer() }),
        Arc::new(PodCertificateSigning { authorizer: authorizer() }),
        Arc::new(ClusterTrustBundleAttest { authorizer: authorizer() }),
        Arc::new(CertificateSubjectRestriction),
        Arc::new(RbacEscalation { rbac }),
        Arc::new(ResourceQuota),
    ]
}

/// 403 for the object of a write: by its name, by what its name will begin with, or `Unknown`.
fn forbidden(request: &AdmissionRequest<'_>, why: &str) -> ApiError {
    let at = request.attributes;
    let text = |field: &str| request.object["metadata"][field].as_str().unwrap_or_default();
    let names = [at.name.as_str(), text("name"), text("generateName"), "Unknown"];
    let name = names.into_iter().find(|n| !n.is_empty()).unwrap_or_default();
    ApiError::forbidden(&at.group, &at.resource, name, why)
}

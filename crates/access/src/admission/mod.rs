//! The admission plugins that are on by default, in upstream's order, one file each.

mod certificates;
mod devices;
mod ingress;
mod lifecycle;
mod limit_ranger;
mod mountable_secrets;
mod node_certificates;
mod node_pods;
mod node_restriction;
mod pod_resize;
mod pod_security;
mod pods;
mod policy_parameters;
mod rbac_escalation;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage;
mod topology_labels;

use std::{cmp::Reverse, sync::Arc};

use apimachinery::{ApiError, Object};
pub use certificates::{
    CertificateApproval, CertificateSigning, CertificateSubjectRestriction, ClusterTrustBundleAttest,
    PodCertificateSigning,
};
pub use devices::DeviceAdminAccess;
pub use ingress::DefaultIngressClass;
pub use lifecycle::NamespaceLifecycle;
pub use limit_ranger::LimitRanger;
pub use node_restriction::NodeRestriction;
pub use pod_resize::PodResizeValidator;
pub use pod_security::PodSecurity;
pub use pods::{DefaultTolerationSeconds, Priority, TaintNodesByCondition};
pub use policy_parameters::PolicyParameters;
pub use rbac_escalation::RbacEscalation;
pub use resource_quota::ResourceQuota;
pub use runtime_class::RuntimeClass;
pub use service_account::ServiceAccount;
pub use storage::{DefaultStorageClass, PersistentVolumeClaimResize, StorageObjectInUseProtection};
pub use topology_labels::PodTopologyLabels;

use crate::{Admission, AdmissionRequest, Authorizer, Reader, rbac::Rbac};

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
        Arc::new(PodSecurity),
        Arc::new(Priority),
        Arc::new(DefaultTolerationSeconds),
        Arc::new(DefaultStorageClass),
        Arc::new(StorageObjectInUseProtection),
        Arc::new(PersistentVolumeClaimResize),
        Arc::new(RuntimeClass),
        Arc::new(CertificateApproval { authorizer: authorizer() }),
        Arc::new(CertificateSigning { authorizer: authorizer() }),
        Arc::new(PodCertificateSigning { authorizer: authorizer() }),
        Arc::new(ClusterTrustBundleAttest { authorizer: authorizer() }),
        Arc::new(CertificateSubjectRestriction),
        Arc::new(PolicyParameters { authorizer: authorizer() }),
        Arc::new(DefaultIngressClass),
        Arc::new(PodTopologyLabels),
        Arc::new(PodResizeValidator),
        Arc::new(DeviceAdminAccess),
        Arc::new(RbacEscalation { rbac }),
        Arc::new(ResourceQuota),
    ]
}

/// The class that an annotation makes the default one: of several the newest, then the first by name.
fn newest_default(reader: &dyn Reader, group: &str, resource: &str, annotation: &str) -> Option<Arc<Object>> {
    let text = |class: &Object, field: &str| class["metadata"][field].as_str().unwrap_or_default().to_owned();
    reader
        .list(group, resource, "")
        .into_iter()
        .filter(|class| class["metadata"]["annotations"][annotation] == "true")
        .min_by_key(|class| (Reverse(text(class, "creationTimestamp")), text(class, "name")))
}

/// 403 for the object of a write: by its name, by what its name will begin with, or `Unknown`.
fn forbidden(request: &AdmissionRequest<'_>, why: &str) -> ApiError {
    let at = request.attributes;
    let text = |field: &str| request.object["metadata"][field].as_str().unwrap_or_default();
    let names = [at.name.as_str(), text("name"), text("generateName"), "Unknown"];
    let name = names.into_iter().find(|n| !n.is_empty()).unwrap_or_default();
    ApiError::forbidden(&at.group, &at.resource, name, why)
}

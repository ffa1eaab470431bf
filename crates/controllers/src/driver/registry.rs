//! The types of the kinds that loops may read.

use std::sync::Arc;

use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    slim::seen,
    watches::{Watch, Watches},
};
use crate::world::{Kind, Seen};

/// A type: how to read an object of it, and how to watch it.
pub struct Typed {
    /// Its kind.
    pub kind: Kind,
    /// From JSON.
    pub decode: fn(Value) -> Result<Arc<dyn Seen>, serde_json::Error>,
    /// Watches them for ever.
    pub watch: Watch,
}

fn decode<K>(value: Value) -> Result<Arc<dyn Seen>, serde_json::Error>
where
    K: Resource<DynamicType = ()> + Seen + DeserializeOwned,
{
    Ok(seen(serde_json::from_value::<K>(value)?))
}

macro_rules! types {
    ($($type:ty),* $(,)?) => {
        /// Every kind that a loop may name in [`crate::Controller::watches`].
        #[must_use]
        pub fn types() -> Vec<Typed> {
            vec![$(Typed { kind: Kind::of::<$type>(), decode: decode::<$type>, watch: Watches::typed::<$type> }),*]
        }
    };
}

types!(
    core::Pod,
    core::Node,
    core::Namespace,
    core::Service,
    core::Endpoints,
    core::ServiceAccount,
    core::Secret,
    core::ConfigMap,
    core::PersistentVolume,
    core::PersistentVolumeClaim,
    core::ResourceQuota,
    core::LimitRange,
    core::ReplicationController,
    core::Event,
    core::PodTemplate,
    apps::Deployment,
    apps::ReplicaSet,
    apps::StatefulSet,
    apps::DaemonSet,
    apps::ControllerRevision,
    batch::Job,
    batch::CronJob,
    k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler,
    k8s_openapi::api::certificates::v1::CertificateSigningRequest,
    k8s_openapi::api::certificates::v1::ClusterTrustBundle,
    k8s_openapi::api::certificates::v1::PodCertificateRequest,
    k8s_openapi::api::coordination::v1::Lease,
    k8s_openapi::api::discovery::v1::EndpointSlice,
    k8s_openapi::api::networking::v1::Ingress,
    k8s_openapi::api::networking::v1::IngressClass,
    k8s_openapi::api::networking::v1::IPAddress,
    k8s_openapi::api::networking::v1::NetworkPolicy,
    k8s_openapi::api::networking::v1::ServiceCIDR,
    k8s_openapi::api::policy::v1::PodDisruptionBudget,
    k8s_openapi::api::rbac::v1::ClusterRole,
    k8s_openapi::api::resource::v1::DeviceTaintRule,
    k8s_openapi::api::resource::v1::ResourceClaim,
    k8s_openapi::api::resource::v1::ResourceClaimTemplate,
    k8s_openapi::api::resource::v1::ResourceSlice,
    k8s_openapi::api::scheduling::v1::PriorityClass,
    k8s_openapi::api::storage::v1::CSIDriver,
    k8s_openapi::api::storage::v1::CSINode,
    k8s_openapi::api::storage::v1::StorageClass,
    k8s_openapi::api::storage::v1::VolumeAttachment,
    k8s_openapi::api::storage::v1::VolumeAttributesClass,
    k8s_openapi::api::storagemigration::v1::StorageVersionMigration,
    k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService,
);

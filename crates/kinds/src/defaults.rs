//! Defaults that upstream has in code and does not publish, as far as they depend on nothing else. The rest stands in
//! the kinds' `Strategy::default`.
//!
//! Source: `SetDefaults_*` of `k8s.io/kubernetes/pkg/apis/*/v1/defaults.go`.

/// Type, field, JSON. Sorted by type, then field.
const CONSTANTS: [(&str, &str, &str); 101] = [
    ("apiextensions.v1.ServiceReference", "port", "443"),
    ("apps.v1.DaemonSetSpec", "revisionHistoryLimit", "10"),
    ("apps.v1.DaemonSetUpdateStrategy", "type", "\"RollingUpdate\""),
    ("apps.v1.DeploymentSpec", "progressDeadlineSeconds", "600"),
    ("apps.v1.DeploymentSpec", "replicas", "1"),
    ("apps.v1.DeploymentSpec", "revisionHistoryLimit", "10"),
    ("apps.v1.DeploymentStrategy", "type", "\"RollingUpdate\""),
    ("apps.v1.ReplicaSetSpec", "replicas", "1"),
    ("apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy", "whenDeleted", "\"Retain\""),
    ("apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy", "whenScaled", "\"Retain\""),
    (
        "apps.v1.StatefulSetSpec",
        "persistentVolumeClaimRetentionPolicy",
        r#"{"whenDeleted":"Retain","whenScaled":"Retain"}"#,
    ),
    ("apps.v1.StatefulSetSpec", "podManagementPolicy", "\"OrderedReady\""),
    ("apps.v1.StatefulSetSpec", "replicas", "1"),
    ("apps.v1.StatefulSetSpec", "revisionHistoryLimit", "10"),
    ("batch.v1.CronJobSpec", "concurrencyPolicy", "\"Allow\""),
    ("batch.v1.CronJobSpec", "failedJobsHistoryLimit", "1"),
    ("batch.v1.CronJobSpec", "successfulJobsHistoryLimit", "3"),
    ("batch.v1.CronJobSpec", "suspend", "false"),
    ("batch.v1.PodFailurePolicyOnPodConditionsPattern", "status", "\"True\""),
    ("core.v1.ConfigMapVolumeSource", "defaultMode", "420"),
    ("core.v1.Container", "terminationMessagePath", "\"/dev/termination-log\""),
    ("core.v1.Container", "terminationMessagePolicy", "\"File\""),
    ("core.v1.DownwardAPIVolumeSource", "defaultMode", "420"),
    ("core.v1.EndpointPort", "protocol", "\"TCP\""),
    ("core.v1.EphemeralContainer", "terminationMessagePath", "\"/dev/termination-log\""),
    ("core.v1.EphemeralContainer", "terminationMessagePolicy", "\"File\""),
    ("core.v1.HTTPGetAction", "path", "\"/\""),
    ("core.v1.HTTPGetAction", "scheme", "\"HTTP\""),
    ("core.v1.HostPathVolumeSource", "type", "\"\""),
    ("core.v1.NamespaceStatus", "phase", "\"Active\""),
    ("core.v1.ObjectFieldSelector", "apiVersion", "\"v1\""),
    ("core.v1.PersistentVolumeClaimSpec", "volumeMode", "\"Filesystem\""),
    ("core.v1.PersistentVolumeClaimStatus", "phase", "\"Pending\""),
    ("core.v1.PersistentVolumeSpec", "persistentVolumeReclaimPolicy", "\"Retain\""),
    ("core.v1.PersistentVolumeSpec", "volumeMode", "\"Filesystem\""),
    ("core.v1.PersistentVolumeStatus", "phase", "\"Pending\""),
    ("core.v1.PodLogOptions", "stream", "\"All\""),
    ("core.v1.PodSpec", "dnsPolicy", "\"ClusterFirst\""),
    ("core.v1.PodSpec", "restartPolicy", "\"Always\""),
    ("core.v1.PodSpec", "schedulerName", "\"default-scheduler\""),
    ("core.v1.PodSpec", "securityContext", "{}"),
    ("core.v1.PodSpec", "terminationGracePeriodSeconds", "30"),
    ("core.v1.Probe", "failureThreshold", "3"),
    ("core.v1.Probe", "periodSeconds", "10"),
    ("core.v1.Probe", "successThreshold", "1"),
    ("core.v1.Probe", "timeoutSeconds", "1"),
    ("core.v1.ProjectedVolumeSource", "defaultMode", "420"),
    ("core.v1.Secret", "type", "\"Opaque\""),
    ("core.v1.SecretVolumeSource", "defaultMode", "420"),
    ("core.v1.ServiceAccountTokenProjection", "expirationSeconds", "3600"),
    ("core.v1.ServiceSpec", "sessionAffinity", "\"None\""),
    ("core.v1.ServiceSpec", "type", "\"ClusterIP\""),
    ("discovery.v1.EndpointPort", "name", "\"\""),
    ("discovery.v1.EndpointPort", "protocol", "\"TCP\""),
    ("networking.v1.IngressClassParametersReference", "scope", "\"Cluster\""),
    ("networking.v1.NetworkPolicyPort", "protocol", "\"TCP\""),
    ("rbac.v1.RoleRef", "apiGroup", "\"rbac.authorization.k8s.io\""),
    ("scheduling.v1.PriorityClass", "preemptionPolicy", "\"PreemptLowerPriority\""),
    ("storage.v1.CSIDriverSpec", "attachRequired", "true"),
    ("storage.v1.CSIDriverSpec", "fsGroupPolicy", "\"ReadWriteOnceWithFSType\""),
    ("storage.v1.CSIDriverSpec", "podInfoOnMount", "false"),
    ("storage.v1.CSIDriverSpec", "preventPodSchedulingIfMissing", "false"),
    ("storage.v1.CSIDriverSpec", "requiresRepublish", "false"),
    ("storage.v1.CSIDriverSpec", "seLinuxMount", "false"),
    ("storage.v1.CSIDriverSpec", "storageCapacity", "false"),
    ("storage.v1.CSIDriverSpec", "volumeLifecycleModes", r#"["Persistent"]"#),
    ("storage.v1.StorageClass", "reclaimPolicy", "\"Delete\""),
    ("storage.v1.StorageClass", "volumeBindingMode", "\"Immediate\""),
    ("admissionregistration.v1.MutatingWebhook", "failurePolicy", "\"Fail\""),
    ("admissionregistration.v1.MutatingWebhook", "matchPolicy", "\"Equivalent\""),
    ("admissionregistration.v1.MutatingWebhook", "namespaceSelector", "{}"),
    ("admissionregistration.v1.MutatingWebhook", "objectSelector", "{}"),
    ("admissionregistration.v1.MutatingWebhook", "timeoutSeconds", "10"),
    ("admissionregistration.v1.ValidatingWebhook", "failurePolicy", "\"Fail\""),
    ("admissionregistration.v1.ValidatingWebhook", "matchPolicy", "\"Equivalent\""),
    ("admissionregistration.v1.ValidatingWebhook", "namespaceSelector", "{}"),
    ("admissionregistration.v1.ValidatingWebhook", "objectSelector", "{}"),
    ("admissionregistration.v1.ValidatingWebhook", "timeoutSeconds", "10"),
    ("admissionregistration.v1.MutatingWebhook", "reinvocationPolicy", "\"Never\""),
    ("admissionregistration.v1.MatchResources", "matchPolicy", "\"Equivalent\""),
    ("admissionregistration.v1.MatchResources", "namespaceSelector", "{}"),
    ("admissionregistration.v1.MatchResources", "objectSelector", "{}"),
    ("admissionregistration.v1.RuleWithOperations", "scope", "\"*\""),
    ("admissionregistration.v1.NamedRuleWithOperations", "scope", "\"*\""),
    ("admissionregistration.v1.ServiceReference", "port", "443"),
    ("admissionregistration.v1.MutatingAdmissionPolicySpec", "failurePolicy", "\"Fail\""),
    ("admissionregistration.v1.ValidatingAdmissionPolicySpec", "failurePolicy", "\"Fail\""),
    ("apiregistration.v1.ServiceReference", "port", "443"),
    ("flowcontrol.v1.ExemptPriorityLevelConfiguration", "nominalConcurrencyShares", "0"),
    ("flowcontrol.v1.ExemptPriorityLevelConfiguration", "lendablePercent", "0"),
    ("flowcontrol.v1.LimitedPriorityLevelConfiguration", "nominalConcurrencyShares", "30"),
    ("flowcontrol.v1.LimitedPriorityLevelConfiguration", "lendablePercent", "0"),
    ("flowcontrol.v1.FlowSchemaSpec", "matchingPrecedence", "1000"),
    ("flowcontrol.v1.QueuingConfiguration", "handSize", "8"),
    ("flowcontrol.v1.QueuingConfiguration", "queueLengthLimit", "50"),
    ("flowcontrol.v1.QueuingConfiguration", "queues", "64"),
    ("authentication.v1.TokenRequestSpec", "expirationSeconds", "3600"),
    ("apps.v1.RollingUpdateDaemonSet", "maxSurge", "0"),
    ("apps.v1.RollingUpdateDaemonSet", "maxUnavailable", "1"),
    ("autoscaling.v1.HorizontalPodAutoscalerSpec", "minReplicas", "1"),
    ("autoscaling.v2.HorizontalPodAutoscalerSpec", "minReplicas", "1"),
];

/// The default of a field, JSON.
#[must_use]
pub fn constant(type_name: &str, field: &str) -> Option<&'static str> {
    CONSTANTS.iter().find(|(t, f, _)| *t == type_name && *f == field).map(|(_, _, json)| *json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{TABLE, Table};

    #[test]
    fn every_constant_is_json_of_a_field_that_exists() {
        let table = Table::parse(TABLE);
        for (type_name, field, text) in CONSTANTS {
            let facts = table.type_of(type_name).unwrap_or_else(|| panic!("no type {type_name}"));
            assert!(facts.fields.iter().any(|f| f.name == field), "no field {type_name}.{field}");
            serde_json::from_str::<serde_json::Value>(text).unwrap();
        }
    }
}

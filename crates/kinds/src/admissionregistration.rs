//! `admissionregistration.k8s.io/v1`: webhook configurations, admission policies and their bindings.

use crate::{declare::Declarer, resource::Plain};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations")
        .tracks_content()
        .needs_resource_version()
        .strategy(Plain);
    to.resource("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations")
        .tracks_content()
        .needs_resource_version()
        .strategy(Plain);
    to.resource("admissionregistration.k8s.io/v1", "mutatingadmissionpolicies")
        .tracks_spec()
        .needs_resource_version()
        .strategy(Plain);
    to.resource("admissionregistration.k8s.io/v1", "mutatingadmissionpolicybindings")
        .tracks_spec()
        .needs_resource_version()
        .strategy(Plain);
    to.resource("admissionregistration.k8s.io/v1", "validatingadmissionpolicies")
        .tracks_spec()
        .needs_resource_version()
        .strategy(Plain);
    to.resource("admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings")
        .tracks_spec()
        .needs_resource_version()
        .strategy(Plain);
}

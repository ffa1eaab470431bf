//! `certificates.k8s.io/v1`: CertificateSigningRequest, ClusterTrustBundle, PodCertificateRequest.

use crate::{declare::Declarer, resource::Plain};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("certificates.k8s.io/v1", "certificatesigningrequests").strategy(Plain);
    to.resource("certificates.k8s.io/v1", "clustertrustbundles").needs_resource_version().strategy(Plain);
    to.resource("certificates.k8s.io/v1", "podcertificaterequests").needs_resource_version().strategy(Plain);
}

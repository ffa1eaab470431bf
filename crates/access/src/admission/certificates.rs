//! Who may approve, sign and attest: CertificateApproval, CertificateSigning, CertificateSubjectRestriction and
//! ClusterTrustBundleAttest. Each asks the cluster's authorizers about the signer that an object names.
//!
//! Upstream asks for signed PodCertificateRequests in the storage of the kind; as a plugin the question sits at the same
//! place of the chain as the others, and its answer is the same.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/certificates`, `pkg/certauthorization`.

use std::sync::Arc;

use apimachinery::{ApiError, FieldError, FieldPath, Object};
use async_trait::async_trait;
use kinds::certificates::{GROUP, request_of};
use serde_json::Value;

use super::forbidden;
use crate::{Admission, AdmissionRequest, Attributes, Authorizer, Decision, Reader, UserInfo};

/// The signer of client certificates that the API server itself trusts.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// Whoever is a member may do everything.
const MASTERS: &str = "system:masters";

/// The user may do this with the signer, or with every signer of its domain.
fn may(authorizer: &dyn Authorizer, user: &Arc<UserInfo>, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    [signer.to_owned(), format!("{domain}/*")].into_iter().any(|name| {
        let request = Attributes {
            user: Arc::clone(user),
            verb: verb.to_owned(),
            resource_request: true,
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
            name,
            ..Attributes::default()
        };
        matches!(authorizer.authorize(&request), Decision::Allow(_))
    })
}

fn concerns(request: &AdmissionRequest<'_>, resource: &str, subresource: &str) -> bool {
    let at = request.attributes;
    at.group == GROUP && at.resource == resource && at.subresource == subresource
}

fn signer_of(object: &Object) -> &str {
    object["spec"]["signerName"].as_str().unwrap_or_default()
}

/// Approving and denying needs the verb `approve` on the signer.
pub struct CertificateApproval {
    /// Everybody who is asked whether a request may be made.
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Admission for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, _: &dyn Reader) -> Result<(), ApiError> {
        let Some(old) = request.old else { return Ok(()) };
        if !concerns(request, "certificatesigningrequests", "approval") || request.operation != "UPDATE" {
            return Ok(());
        }
        let signer = signer_of(old);
        if may(&*self.authorizer, &request.attributes.user, "approve", signer) {
            return Ok(());
        }
        Err(forbidden(request, &format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

/// Writing a certificate, or a condition, into the status needs the verb `sign` on the signer.
pub struct CertificateSigning {
    /// Everybody who is asked whether a request may be made.
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Admission for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, _: &dyn Reader) -> Result<(), ApiError> {
        let Some(old) = request.old else { return Ok(()) };
        if !concerns(request, "certificatesigningrequests", "status") || request.operation != "UPDATE" {
            return Ok(());
        }
        let (before, after) = (&old["status"], &request.object["status"]);
        if ["certificate", "conditions"].iter().all(|field| equal(&before[*field], &after[*field])) {
            return Ok(());
        }
        let signer = signer_of(old);
        if may(&*self.authorizer, &request.attributes.user, "sign", signer) {
            return Ok(());
        }
        Err(forbidden(request, &format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

/// The status of a PodCertificateRequest is for whoever has the verb `sign` on its signer.
pub struct PodCertificateSigning {
    /// Everybody who is asked whether a request may be made.
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Admission for PodCertificateSigning {
    fn name(&self) -> &'static str {
        "PodCertificateSigning"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, _: &dyn Reader) -> Result<(), ApiError> {
        let Some(old) = request.old else { return Ok(()) };
        if !concerns(request, "podcertificaterequests", "status")
            || equal(&old["status"], &request.object["status"])
        {
            return Ok(());
        }
        let (signer, user) = (signer_of(old), &request.attributes.user);
        if may(&*self.authorizer, user, "sign", signer) {
            return Ok(());
        }
        let path = FieldPath::root().child("spec").child("signerName");
        let detail = format!("User {:?} is not permitted to \"sign\" for signer {signer:?}", user.name);
        let error = FieldError::forbidden(&path, detail);
        Err(ApiError::invalid(GROUP, "PodCertificateRequest", &request.attributes.name, &[error]))
    }
}

/// Nobody becomes a member of `system:masters` by a certificate that the server itself would trust.
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Admission for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, _: &dyn Reader) -> Result<(), ApiError> {
        if !concerns(request, "certificatesigningrequests", "")
            || request.operation != "CREATE"
            || signer_of(request.object) != CLIENT_SIGNER
        {
            return Ok(());
        }
        match request_of(request.object) {
            Err(why) => Err(forbidden(request, &format!("failed to parse CSR: {why}"))),
            Ok(wanted) if wanted.organizations.iter().any(|group| group == MASTERS) => {
                let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
                Err(forbidden(request, &why))
            }
            Ok(_) => Ok(()),
        }
    }
}

/// A bundle in a signer's name needs the verb `attest` on the signer.
pub struct ClusterTrustBundleAttest {
    /// Everybody who is asked whether a request may be made.
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Admission for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, _: &dyn Reader) -> Result<(), ApiError> {
        if !concerns(request, "clustertrustbundles", "")
            || !matches!(request.operation, "CREATE" | "UPDATE")
            || signer_of(request.object).is_empty()
            || request.old.is_some_and(|old| only_collected(request.object, old))
        {
            return Ok(());
        }
        let signer = signer_of(request.object);
        if may(&*self.authorizer, &request.attributes.user, "attest", signer) {
            return Ok(());
        }
        Err(forbidden(request, &format!("user not permitted to attest for signerName {signer:?}")))
    }
}

/// Equal, where nothing and an empty list are one.
fn equal(a: &Value, b: &Value) -> bool {
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    a == b || (empty(a) && empty(b))
}

/// Nothing changed but what the garbage collector writes, and the notes of who wrote it.
fn only_collected(new: &Object, old: &Object) -> bool {
    let rest = |object: &Object| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in ["ownerReferences", "finalizers", "managedFields"] {
                metadata.remove(field);
            }
        }
        object
    };
    rest(new) == rest(old)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use chrono::Utc;
    use rcgen::{CertificateParams, DnType, KeyPair};
    use serde_json::json;

    use super::*;
    use crate::memory::Memory;

    /// Allows one verb on one signer, or on all of a domain.
    struct Only(&'static str, &'static str);

    impl Authorizer for Only {
        fn authorize(&self, request: &Attributes) -> Decision {
            let fits = request.resource == "signers" && request.verb == self.0 && request.name == self.1;
            if fits { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) }
        }
    }

    async fn judge(
        plugin: &dyn Admission,
        resource: &str,
        subresource: &str,
        old: Option<&Value>,
        mut object: Value,
    ) -> Result<(), ApiError> {
        let attributes = Attributes {
            user: Arc::new(UserInfo { name: "jane".to_owned(), ..UserInfo::default() }),
            group: GROUP.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            name: "a".to_owned(),
            ..Attributes::default()
        };
        let mut request = AdmissionRequest {
            attributes: &attributes,
            resource: kinds::find(GROUP, "v1", resource).unwrap(),
            operation: if old.is_some() { "UPDATE" } else { "CREATE" },
            object: &mut object,
            old,
            dry_run: false,
            now: Utc::now(),
            warnings: &mut Vec::new(),
            audit: None,
            companions: &mut Vec::new(),
        };
        plugin.validate(&mut request, &Memory::default()).await
    }

    fn signed(status: Value) -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"signerName": "example.com/x"}, "status": status})
    }

    #[tokio::test]
    async fn approving_and_signing_need_their_verbs_on_the_signer_or_its_domain() {
        let old = signed(json!({}));
        let new = signed(json!({"conditions": [{"type": "Approved", "status": "True"}]}));
        for (signer, allowed) in [("example.com/x", true), ("example.com/*", true), ("example.com/y", false)]
        {
            let approval = CertificateApproval { authorizer: Arc::new(Only("approve", signer)) };
            let signing = CertificateSigning { authorizer: Arc::new(Only("sign", signer)) };
            let csrs = "certificatesigningrequests";
            let approved = judge(&approval, csrs, "approval", Some(&old), new.clone()).await;
            assert_eq!(approved.is_ok(), allowed, "{signer}");
            assert_eq!(judge(&signing, csrs, "status", Some(&old), new.clone()).await.is_ok(), allowed);
            assert!(judge(&signing, csrs, "status", Some(&old), old.clone()).await.is_ok(), "no change");
        }
        let nobody = CertificateApproval { authorizer: Arc::new(Only("sign", "example.com/x")) };
        let refused =
            judge(&nobody, "certificatesigningrequests", "approval", Some(&old), new).await.unwrap_err();
        let words = "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: user not permitted to approve requests with signerName \"example.com/x\"";
        assert_eq!((refused.code, refused.message.as_str()), (403, words));
    }

    #[tokio::test]
    async fn the_status_of_a_pods_request_is_for_its_signer() {
        let (old, new) = (signed(json!({})), signed(json!({"certificateChain": "x"})));
        let right = PodCertificateSigning { authorizer: Arc::new(Only("sign", "example.com/x")) };
        let wrong = PodCertificateSigning { authorizer: Arc::new(Only("sign", "example.com/y")) };
        assert!(judge(&right, "podcertificaterequests", "status", Some(&old), new.clone()).await.is_ok());
        let refused = judge(&wrong, "podcertificaterequests", "status", Some(&old), new).await.unwrap_err();
        assert_eq!(refused.code, 422);
        assert!(
            refused.message.contains("User \"jane\" is not permitted to \"sign\""),
            "{}",
            refused.message
        );
    }

    #[tokio::test]
    async fn bundles_of_a_signer_need_attest_and_collection_does_not() {
        let plugin = ClusterTrustBundleAttest { authorizer: Arc::new(Only("attest", "example.com/y")) };
        let bundle = signed(json!(null));
        assert!(judge(&plugin, "clustertrustbundles", "", None, bundle.clone()).await.is_err());
        let mut collected = bundle.clone();
        collected["metadata"]["finalizers"] = json!(["example.com/x"]);
        assert!(judge(&plugin, "clustertrustbundles", "", Some(&bundle), collected).await.is_ok());
        let unsigned = json!({"metadata": {"name": "a"}, "spec": {"trustBundle": "x"}});
        assert!(judge(&plugin, "clustertrustbundles", "", None, unsigned).await.is_ok());
    }

    #[tokio::test]
    async fn nobody_asks_for_membership_of_masters() {
        for (group, signer, allowed) in [
            ("system:masters", CLIENT_SIGNER, false),
            ("system:masters", "example.com/x", true),
            ("dev", CLIENT_SIGNER, true),
        ] {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::OrganizationName, group);
            let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
            let request = base64::engine::general_purpose::STANDARD.encode(request);
            let object =
                json!({"metadata": {"name": "a"}, "spec": {"signerName": signer, "request": request}});
            let plugin = CertificateSubjectRestriction;
            let judged = judge(&plugin, "certificatesigningrequests", "", None, object).await;
            assert_eq!(judged.is_ok(), allowed, "{group} {signer}");
        }
    }
}

//! The part of NodeRestriction that is about certificates: a node asks for its own, and for those of its pods.

use apimachinery::{ApiError, Object};
use kinds::certificates::request_of;
use serde_json::Value;

use super::forbidden;
use crate::{AdmissionRequest, Attributes, Authorizer, Decision, Reader};

/// Signers of a kubelet's own certificates.
const KUBELET_SIGNERS: [&str; 2] =
    ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

/// The virtual verb of a node that may ask for certificates of a signer that none of the pod's volumes names.
const ANY_SIGNER_VERB: &str = "request-serviceaccounts-podcertificate-signer";

/// A kubelet's certificate is in the name of its own node.
pub(super) fn signing_request(request: &AdmissionRequest<'_>, node: &str) -> Result<(), String> {
    let signer = text(&request.object["spec"]["signerName"]);
    if request.operation != "CREATE" || !KUBELET_SIGNERS.contains(&signer) {
        return Ok(());
    }
    let wanted = request_of(request.object).map_err(|why| format!("unable to parse csr: {why}"))?;
    let name = format!("system:node:{node}");
    if wanted.common_name == name {
        Ok(())
    } else {
        Err(format!("can only create a node CSR with CN={name}"))
    }
}

/// Why a PodCertificateRequest of a node is refused.
enum Refusal {
    /// It may not be.
    Forbidden(String),
    /// It names something that this server has not, or has otherwise: it may be right a moment later.
    Early(String),
}

/// A node asks for certificates of pods that run on it, each in the name of the pod's service account.
pub(super) fn pod_request(
    request: &AdmissionRequest<'_>,
    node: &str,
    reader: &dyn Reader,
    authorizer: &dyn Authorizer,
) -> Result<(), ApiError> {
    check(request, node, reader, authorizer).map_err(|refusal| match refusal {
        Refusal::Forbidden(why) => forbidden(request, &why),
        Refusal::Early(why) => ApiError::other(500, "", why),
    })
}

fn check(
    request: &AdmissionRequest<'_>,
    node: &str,
    reader: &dyn Reader,
    authorizer: &dyn Authorizer,
) -> Result<(), Refusal> {
    let at = request.attributes;
    if request.operation != "CREATE" {
        return Err(Refusal::Forbidden(format!("unexpected operation {}", request.operation)));
    }
    if !at.subresource.is_empty() {
        return Err(Refusal::Forbidden(format!("unexpected subresource {}", at.subresource)));
    }
    let spec = &request.object["spec"];
    let named = text(&spec["nodeName"]);
    if named != node {
        return Err(Refusal::Forbidden(format!(
            "PodCertificateRequest.Spec.NodeName={named:?}, which is not the requesting node {node:?}"
        )));
    }
    let pod_name = format!("{}/{}", at.namespace, text(&spec["podName"]));
    let named_node = find(reader, "nodes", "", named, &format!("node {named:?}"))?;
    same_uid(spec, "nodeUID", &named_node, |asked, is| {
        format!(
            "PodCertificateRequest for pod {pod_name:?} names node UID {asked:?}, inconsistent with the running node ({is:?})"
        )
    })?;
    let pod = find(reader, "pods", &at.namespace, text(&spec["podName"]), &format!("pod {pod_name:?}"))?;
    same_uid(spec, "podUID", &pod, |asked, is| {
        format!(
            "PodCertificateRequest for pod {pod_name:?} contains pod UID ({asked:?}) which differs from running pod {is:?}"
        )
    })?;
    check_pod(spec, &pod, &pod_name).map_err(Refusal::Forbidden)?;
    let account = text(&spec["serviceAccountName"]);
    let whole = format!("service account {:?}", format!("{}/{account}", at.namespace));
    let account_object = find(reader, "serviceaccounts", &at.namespace, account, &whole)?;
    same_uid(spec, "serviceAccountUID", &account_object, |asked, is| {
        format!(
            "PodCertificateRequest for pod {pod_name:?} names service account UID {asked:?}, which differs from the running service account ({is:?})"
        )
    })?;
    check_signer(request, spec, &pod, &pod_name, authorizer).map_err(Refusal::Forbidden)
}

fn check_pod(spec: &Value, pod: &Object, pod_name: &str) -> Result<(), String> {
    let node = text(&spec["nodeName"]);
    if text(&pod["spec"]["nodeName"]) != node {
        return Err(format!(
            "pod {pod_name:?} is not running on node {node:?} named in the PodCertificateRequest"
        ));
    }
    if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return Err(format!("pod {pod_name:?} is a mirror pod"));
    }
    let (asked, runs) = (text(&spec["serviceAccountName"]), text(&pod["spec"]["serviceAccountName"]));
    if asked != runs {
        return Err(format!(
            "PodCertificateRequest for pod {pod_name:?} contains serviceAccountName ({asked:?}) that differs from running pod ({runs:?})"
        ));
    }
    Ok(())
}

/// The pod mounts a certificate of the signer, or the node may ask for any.
fn check_signer(
    request: &AdmissionRequest<'_>,
    spec: &Value,
    pod: &Object,
    pod_name: &str,
    authorizer: &dyn Authorizer,
) -> Result<(), String> {
    let signer = text(&spec["signerName"]);
    let sources = list(&pod["spec"]["volumes"]).flat_map(|volume| list(&volume["projected"]["sources"]));
    if sources.into_iter().any(|source| source["podCertificate"]["signerName"] == *signer) {
        return Ok(());
    }
    let at = request.attributes;
    let asked = Attributes {
        user: at.user.clone(),
        verb: ANY_SIGNER_VERB.to_owned(),
        resource_request: true,
        group: at.group.clone(),
        version: at.version.clone(),
        // As in names of trust bundles: rules of roles know no slash here.
        resource: signer.replace('/', ":"),
        namespace: at.namespace.clone(),
        name: text(&spec["serviceAccountName"]).to_owned(),
        ..Attributes::default()
    };
    if matches!(authorizer.authorize(&asked), Decision::Allow(_)) {
        return Ok(());
    }
    Err(format!("pod {pod_name:?} does not mount a podCertificate projected volume for signer {signer:?}"))
}

fn find(
    reader: &dyn Reader,
    resource: &str,
    namespace: &str,
    name: &str,
    words: &str,
) -> Result<std::sync::Arc<Object>, Refusal> {
    reader.get("", resource, namespace, name).ok_or_else(|| {
        let kind = words.split(" \"").next().unwrap_or_default().replace(' ', "");
        Refusal::Early(format!(
            "while retrieving {words} named in the PodCertificateRequest: {kind} {name:?} not found"
        ))
    })
}

fn same_uid(
    spec: &Value,
    field: &str,
    object: &Object,
    words: impl Fn(&str, &str) -> String,
) -> Result<(), Refusal> {
    let (asked, is) = (text(&spec[field]), text(&object["metadata"]["uid"]));
    if asked == is { Ok(()) } else { Err(Refusal::Early(words(asked, is))) }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

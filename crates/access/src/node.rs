//! What a node may do: the Node authorizer (which objects it may read) and the facts NodeRestriction uses.
//!
//! A node may read the Secrets, ConfigMaps, volume claims, volumes and service accounts of the pods bound to it, and its
//! own objects, those pods among them. Source: KEP-279 and `plugin/pkg/auth/authorizer/node` in upstream for the list of edges.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use apimachinery::{Object, selector::FieldSelector};
use parking_lot::RwLock;
use serde_json::Value;

use crate::{Attributes, Authorizer, Decision, Reader, UserInfo};

const NODES: &str = "system:nodes";
const PREFIX: &str = "system:node:";

/// The name of the node that the user is, if it is one.
#[must_use]
pub fn node_name(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(PREFIX)?;
    user.groups.iter().any(|g| g == NODES).then_some(name)
}

/// Resource, namespace and name of something that a pod needs.
type Place = (&'static str, String, String);

#[derive(Default)]
struct Graph {
    seen: [u64; 3],
    needs: HashMap<String, HashSet<Place>>,
}

impl Graph {
    fn build(reader: &dyn Reader, seen: [u64; 3]) -> Self {
        let mut needs: HashMap<String, HashSet<Place>> = HashMap::new();
        for pod in reader.list("", "pods", "") {
            if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
                let own = [("pods", text(&pod, "namespace"), text(&pod, "name"))];
                needs
                    .entry(node.to_owned())
                    .or_default()
                    .extend(needed_by(&pod, reader).into_iter().chain(own));
            }
        }
        Self { seen, needs }
    }
}

fn text(object: &Object, field: &str) -> String {
    object["metadata"][field].as_str().unwrap_or_default().to_owned()
}

/// Everything that a pod names and its node has to read.
fn needed_by(pod: &Object, reader: &dyn Reader) -> Vec<Place> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let mut places = Vec::new();
    let mut need = |resource: &'static str, name: &Value| {
        if let Some(name) = name.as_str().filter(|n| !n.is_empty()) {
            places.push((resource, namespace.to_owned(), name.to_owned()));
        }
    };
    let spec = &pod["spec"];
    need("serviceaccounts", &spec["serviceAccountName"]);
    for secret in list(&spec["imagePullSecrets"]) {
        need("secrets", &secret["name"]);
    }
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(&spec[field]) {
            for source in list(&container["envFrom"]) {
                need("configmaps", &source["configMapRef"]["name"]);
                need("secrets", &source["secretRef"]["name"]);
            }
            for variable in list(&container["env"]) {
                need("configmaps", &variable["valueFrom"]["configMapKeyRef"]["name"]);
                need("secrets", &variable["valueFrom"]["secretKeyRef"]["name"]);
            }
        }
    }
    let mut claims = Vec::new();
    for volume in list(&spec["volumes"]) {
        need("secrets", &volume["secret"]["secretName"]);
        need("configmaps", &volume["configMap"]["name"]);
        need("secrets", &volume["csi"]["nodePublishSecretRef"]["name"]);
        for source in list(&volume["projected"]["sources"]) {
            need("secrets", &source["secret"]["name"]);
            need("configmaps", &source["configMap"]["name"]);
        }
        if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
            claims.push(claim.to_owned());
        }
        if volume["ephemeral"].is_object() {
            let (pod, name) = (pod["metadata"]["name"].as_str(), volume["name"].as_str());
            claims.push(format!("{}-{}", pod.unwrap_or_default(), name.unwrap_or_default()));
        }
    }
    for claim in claims {
        if let Some(object) = reader.get("", "persistentvolumeclaims", namespace, &claim)
            && let Some(volume) = object["spec"]["volumeName"].as_str()
        {
            places.push(("persistentvolumes", String::new(), volume.to_owned()));
        }
        places.push(("persistentvolumeclaims", namespace.to_owned(), claim));
    }
    places
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The authorizer. Without an edge it has no opinion: RBAC may still allow.
pub struct NodeAuthorizer {
    reader: Arc<dyn Reader>,
    graph: RwLock<Arc<Graph>>,
}

impl NodeAuthorizer {
    /// Reads pods, claims and volumes through `reader`, again when one of them changes.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader, graph: RwLock::new(Arc::new(Graph { seen: [u64::MAX; 3], ..Graph::default() })) }
    }

    fn graph(&self) -> Arc<Graph> {
        let seen = ["pods", "persistentvolumeclaims", "persistentvolumes"]
            .map(|resource| self.reader.changed("", resource));
        let current = Arc::clone(&self.graph.read());
        if current.seen == seen {
            return current;
        }
        let fresh = Arc::new(Graph::build(&*self.reader, seen));
        *self.graph.write() = Arc::clone(&fresh);
        fresh
    }

    fn needs(&self, node: &str, resource: &'static str, request: &Attributes) -> bool {
        let place = (resource, request.namespace.clone(), request.name.clone());
        !request.name.is_empty() && self.graph().needs.get(node).is_some_and(|needs| needs.contains(&place))
    }

    /// Upstream's reasons, with the name that its union of authorizers puts before them.
    fn decide(&self, node: &str, request: &Attributes) -> Result<(), String> {
        self.judge(node, request).map_err(|why| if why.is_empty() { why } else { format!("node: {why}") })
    }

    fn judge(&self, node: &str, request: &Attributes) -> Result<(), String> {
        let (verb, sub) = (request.verb.as_str(), request.subresource.as_str());
        let only = |may: bool, why: &str| if may { Ok(()) } else { Err(why.to_owned()) };
        let reads = matches!(verb, "get" | "list" | "watch");
        let related = |resource: &'static str| {
            only(!request.name.is_empty(), "No Object name found")?;
            let why = format!("no relationship found between node '{node}' and this object");
            only(self.needs(node, resource, request), &why)
        };
        let read_related = |resource: &'static str| {
            only(reads, "can only read resources of this type")?;
            only(sub.is_empty(), "cannot read subresource")?;
            only(!request.namespace.is_empty(), "can only read namespaced object of this type")?;
            related(resource)
        };
        let get_related = |resource: &'static str| {
            only(verb == "get", "can only get individual resources of this type")?;
            only(sub.is_empty(), "cannot get subresource")?;
            related(resource)
        };
        match (request.group.as_str(), request.resource.as_str()) {
            ("", "secrets") => read_related("secrets"),
            ("", "configmaps") => read_related("configmaps"),
            ("", "persistentvolumeclaims") if sub == "status" => {
                only(matches!(verb, "update" | "patch"), "can only get/update/patch this type")?;
                related("persistentvolumeclaims")
            }
            ("", "persistentvolumeclaims") => get_related("persistentvolumeclaims"),
            ("", "persistentvolumes") => get_related("persistentvolumes"),
            // To name its uid in a request for a pod's certificate.
            ("", "serviceaccounts") if verb == "get" && sub.is_empty() => read_related("serviceaccounts"),
            ("", "serviceaccounts") => {
                let one = verb == "create" && !request.name.is_empty();
                only(one, "can only create tokens for individual service accounts")?;
                only(sub == "token", "can only create token subresource of serviceaccount")?;
                related("serviceaccounts")
            }
            ("certificates.k8s.io", "podcertificaterequests") => certificates(node, request),
            ("", "nodes") if reads && sub.is_empty() => match request.name.as_str() {
                "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
                name => {
                    let why = format!("node '{node}' cannot read '{name}', only its own Node object");
                    only(name == node, &why)
                }
            },
            ("", "pods") if reads && sub.is_empty() => {
                if verb != "get" && selects(request, node) {
                    return Ok(());
                }
                let one = verb == "get" || !request.name.is_empty();
                only(one, "can only list/watch pods with spec.nodeName field selector")?;
                related("pods")
            }
            // On create the name is not known yet: admission checks it.
            ("storage.k8s.io", "csinodes") => {
                only(sub != "status", "CSINode status access requires CSIVolumeHealth feature")?;
                only(sub.is_empty(), "cannot authorize CSINode subresources")?;
                let may = matches!(verb, "get" | "create" | "update" | "patch" | "delete");
                only(may, "can only get, create, update, patch, or delete a CSINode")?;
                let own = verb == "create" || request.name == node;
                only(own, "can only access CSINode with the same name as the requesting node")
            }
            ("coordination.k8s.io", "leases") => {
                let may = matches!(verb, "get" | "create" | "update" | "patch" | "delete");
                only(may, "can only get, create, update, patch, or delete a node lease")?;
                let there = request.namespace == "kube-node-lease";
                only(there, "can only access leases in the \"kube-node-lease\" system namespace")?;
                let own = verb == "create" || request.name == node;
                only(own, "can only access node lease with the same name as the requesting node")
            }
            _ => Err(String::new()),
        }
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, request: &Attributes) -> Decision {
        if !request.resource_request {
            return Decision::NoOpinion(String::new());
        }
        let Some(node) = node_name(&request.user) else { return Decision::NoOpinion(String::new()) };
        match self.decide(node, request) {
            Ok(()) => Decision::Allow(String::new()),
            Err(_) if node_rules(request) => Decision::Allow(String::new()),
            Err(why) => Decision::NoOpinion(why),
        }
    }
}

/// Whether the field selector, read as the request will be, leaves only what is bound to the node.
fn selects(request: &Attributes, node: &str) -> bool {
    let selector = FieldSelector::parse(&request.field_selector).unwrap_or_default();
    selector.exact("spec.nodeName") == Some(node)
}

/// A node asks for certificates for its pods and reads what comes of it. Whose they are is checked by admission.
fn certificates(node: &str, request: &Attributes) -> Result<(), String> {
    if !request.subresource.is_empty() {
        return Err("nodes may not access the status subresource of PodCertificateRequests".to_owned());
    }
    match request.verb.as_str() {
        "create" => Ok(()),
        "list" | "watch" if selects(request, node) => Ok(()),
        "list" | "watch" => {
            Err("can only list/watch podcertificaterequests with nodeName field selector".to_owned())
        }
        verb => Err(format!("nodes may not {verb} podcertificaterequests")),
    }
}

/// What every node may do, whatever is bound to it (upstream's `system:node` rules for the kinds not decided by the
/// graph above).
fn node_rules(request: &Attributes) -> bool {
    let (verb, sub) = (request.verb.as_str(), request.subresource.as_str());
    let reading = matches!(verb, "get" | "list" | "watch");
    match (request.group.as_str(), request.resource.as_str()) {
        ("authentication.k8s.io", "tokenreviews")
        | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews") => verb == "create",
        ("", "services") => reading,
        ("", "nodes") => {
            matches!(verb, "create") || (matches!(verb, "update" | "patch") && matches!(sub, "" | "status"))
        }
        ("", "events") | ("events.k8s.io", "events") => matches!(verb, "create" | "update" | "patch"),
        ("", "pods") => match sub {
            "" => matches!(verb, "create" | "delete"),
            "status" => matches!(verb, "update" | "patch"),
            "eviction" => verb == "create",
            _ => false,
        },
        ("certificates.k8s.io", "certificatesigningrequests") => verb == "create" || reading,
        ("certificates.k8s.io", "clustertrustbundles") => reading,
        ("node.k8s.io", "runtimeclasses") | ("storage.k8s.io", "csidrivers") => reading,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::memory::Memory;

    fn ask(node: &str, verb: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
        Attributes {
            user: Arc::new(UserInfo {
                name: format!("system:node:{node}"),
                groups: vec![NODES.to_owned()],
                ..UserInfo::default()
            }),
            verb: verb.to_owned(),
            resource_request: true,
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        }
    }

    fn authorizer() -> NodeAuthorizer {
        let memory = Memory::default();
        memory.put(
            "",
            "pods",
            json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"nodeName": "one",
            "serviceAccountName": "default",
            "containers": [{"envFrom": [{"secretRef": {"name": "db"}}]}],
            "volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}}),
        );
        memory.put(
            "",
            "persistentvolumeclaims",
            json!({"metadata": {"namespace": "shop", "name": "data"},
            "spec": {"volumeName": "pv-1"}}),
        );
        NodeAuthorizer::new(Arc::new(memory))
    }

    fn allowed(request: &Attributes) -> bool {
        matches!(authorizer().authorize(request), Decision::Allow(_))
    }

    #[test]
    fn a_node_reads_the_secrets_of_its_own_pods_only() {
        assert!(allowed(&ask("one", "get", "secrets", "shop", "db")));
        assert!(!allowed(&ask("two", "get", "secrets", "shop", "db")));
        assert!(!allowed(&ask("one", "get", "secrets", "shop", "other")));
        assert!(!allowed(&ask("one", "list", "secrets", "shop", "")));
        assert!(!allowed(&ask("one", "delete", "secrets", "shop", "db")));
    }

    #[test]
    fn a_volume_is_reached_through_the_claim_of_a_pod() {
        assert!(allowed(&ask("one", "get", "persistentvolumes", "", "pv-1")));
        assert!(!allowed(&ask("two", "get", "persistentvolumes", "", "pv-1")));
    }

    #[test]
    fn pods_are_listed_by_node_name_only() {
        assert!(allowed(&ask("one", "get", "serviceaccounts", "shop", "default")));
        assert!(!allowed(&ask("two", "get", "serviceaccounts", "shop", "default")));
        let mut request = ask("one", "list", "pods", "", "");
        assert!(!allowed(&request));
        request.field_selector = "spec.nodeName=one".to_owned();
        assert!(allowed(&request));
        for other in [
            "spec.nodeName=two",
            "spec.nodeName!=one",
            // One term: a name that nothing has.
            r"metadata.name!=x\,spec.nodeName=one",
            r"metadata.name!=\,spec.nodeName=one",
            "spec.nodeName=one,broken",
        ] {
            request.field_selector = other.to_owned();
            assert!(!allowed(&request), "{other}");
            let certificates = Attributes {
                group: "certificates.k8s.io".to_owned(),
                resource: "podcertificaterequests".to_owned(),
                ..request.clone()
            };
            assert!(!allowed(&certificates), "{other}");
        }
    }

    #[test]
    fn a_node_reads_its_own_pods_one_by_one_and_no_others() {
        for verb in ["get", "list", "watch"] {
            assert!(allowed(&ask("one", verb, "pods", "shop", "web")), "{verb}");
            assert!(!allowed(&ask("two", verb, "pods", "shop", "web")), "{verb}");
            assert!(!allowed(&ask("one", verb, "pods", "shop", "absent")), "{verb}");
        }
        let mut log = ask("one", "get", "pods", "shop", "web");
        log.subresource = "log".to_owned();
        assert!(!allowed(&log));
    }

    #[test]
    fn a_node_watches_its_own_object_and_no_other() {
        assert!(allowed(&ask("one", "watch", "nodes", "", "one")));
        assert!(!allowed(&ask("one", "watch", "nodes", "", "two")));
        assert!(!allowed(&ask("one", "list", "nodes", "", "")));
    }

    #[test]
    fn a_node_keeps_its_own_csi_node_and_reads_no_other() {
        let csi = |verb: &str, name: &str| Attributes {
            group: "storage.k8s.io".to_owned(),
            ..ask("one", verb, "csinodes", "", name)
        };
        assert!(allowed(&csi("create", "")));
        assert!(allowed(&csi("get", "one")) && allowed(&csi("update", "one")));
        assert!(!allowed(&csi("get", "two")) && !allowed(&csi("delete", "two")));
        assert!(!allowed(&csi("list", "")));
        assert!(!allowed(&Attributes { subresource: "status".to_owned(), ..csi("update", "one") }));
    }

    #[test]
    fn somebody_with_the_name_but_not_the_group_is_no_node() {
        let mut request = ask("one", "get", "secrets", "shop", "db");
        request.user = Arc::new(UserInfo { name: "system:node:one".to_owned(), ..UserInfo::default() });
        assert!(!allowed(&request));
    }
}

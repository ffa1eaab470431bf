//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy, as clients see them.

use serde_json::{Value, json};

use crate::cluster::{Answer, Cluster};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shop/deployments";

fn rules(group: &str, version: &str, resource: &str) -> Value {
    json!([{
        "apiGroups": [group], "apiVersions": [version], "resources": [resource],
        "operations": ["CREATE", "UPDATE"], "scope": "*",
    }])
}

/// A policy of a kind (`Validating`, `Mutating`) for deployments, with `spec` on top.
fn policy(kind: &str, name: &str, spec: Value) -> Value {
    let mut policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}AdmissionPolicy"),
        "metadata": {"name": name},
        "spec": {"matchConstraints": {"resourceRules": rules("apps", "v1", "deployments")}},
    });
    for (field, value) in spec.as_object().unwrap() {
        policy["spec"][field] = value.clone();
    }
    policy
}

fn binding(kind: &str, policy: &str, spec: Value) -> Value {
    let mut binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}AdmissionPolicyBinding"),
        "metadata": {"name": "b"}, "spec": {"policyName": policy},
    });
    if kind == "Validating" {
        binding["spec"]["validationActions"] = json!(["Deny"]);
    }
    for (field, value) in spec.as_object().unwrap() {
        binding["spec"][field] = value.clone();
    }
    binding
}

fn deployment(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "nginx"}},
            "template": {
                "metadata": {"labels": {"app": "nginx"}},
                "spec": {"containers": [{"name": "nginx", "image": "nginx:latest"}]},
            },
        },
    })
}

/// A cluster with the namespace `shop`, labelled `team: a`, and one bound policy.
async fn cluster(kind: &str, spec: Value, bound: Value) -> Cluster {
    let cluster = Cluster::new().await;
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "a"}},
    });
    cluster.create("/api/v1/namespaces", &namespace).await.ok();
    let small = kind.to_lowercase();
    cluster.create(&format!("{GROUP}/{small}admissionpolicies"), &policy(kind, "p", spec)).await.ok();
    cluster.create(&format!("{GROUP}/{small}admissionpolicybindings"), &binding(kind, "p", bound)).await.ok();
    cluster
}

async fn make(cluster: &Cluster, name: &str, replicas: u32) -> Answer {
    cluster.create(DEPLOYMENTS, &deployment(name, replicas)).await
}

#[tokio::test]
async fn a_deployment_that_a_policy_does_not_want_is_refused() {
    let validations = json!({"validations": [
        {"expression": "object.spec.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas"},
        {"expression": "namespaceObject.metadata.name == 'shop'", "message": "another namespace"},
    ]});
    let selected = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"team": "a"}}}});
    let cluster = cluster("Validating", validations, selected).await;
    let refused = make(&cluster, "one", 1).await.json();
    let message = "deployments.apps \"one\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied \
                   request: failed expression: object.spec.replicas > 1";
    assert_eq!(refused["code"], 422);
    assert_eq!(refused["reason"], "Invalid");
    assert_eq!(refused["message"], message);
    let cause = message.split_once("forbidden: ").unwrap().1;
    assert_eq!(
        refused["details"],
        json!({"name": "one", "group": "apps", "kind": "deployments", "causes": [{"message": cause}]})
    );
    make(&cluster, "two", 2).await.ok();
    let smaller = cluster.merge(&format!("{DEPLOYMENTS}/two"), &json!({"spec": {"replicas": 1}})).await;
    assert_eq!(smaller.refused().0, 422);
    let mut other = deployment("other", 1);
    other["kind"] = "ReplicaSet".into();
    cluster.create("/apis/apps/v1/namespaces/shop/replicasets", &other).await.ok();
    cluster.create("/apis/apps/v1/namespaces/default/deployments", &deployment("far", 1)).await.ok();
    cluster.delete(&format!("{GROUP}/validatingadmissionpolicybindings/b")).await.ok();
    make(&cluster, "one", 1).await.ok();
}

#[tokio::test]
async fn expressions_use_variables_and_the_request() {
    let spec = json!({
        "variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "odd", "expression": "variables.replicas % 2 == 1"},
        ],
        "matchConditions": [{"name": "not-free", "expression": "request.name != 'free'"}],
        "validations": [
            {"expression": "variables.replicas > 1", "reason": "Forbidden", "message": " too few "},
            {"expression": "variables.odd", "messageExpression": "'even: ' + string(variables.replicas)"},
            {"expression": "authorizer.requestResource.check('create').allowed() && request.userInfo.username == 'admin'"},
        ],
    });
    let cluster = cluster("Validating", spec, json!({})).await;
    let (code, message) = make(&cluster, "x", 1).await.refused();
    assert_eq!(code, 403);
    assert!(message.ends_with("denied request: too few"), "{message}");
    let (code, message) = make(&cluster, "x", 2).await.refused();
    assert_eq!(code, 422);
    assert!(message.ends_with("denied request: even: 2"), "{message}");
    make(&cluster, "x", 3).await.ok();
    make(&cluster, "free", 1).await.ok();
}

#[tokio::test]
async fn a_failure_counts_unless_the_policy_ignores_it() {
    let spec = json!({"validations": [{"expression": "object.spec.missing > 1"}]});
    let strict = cluster("Validating", spec.clone(), json!({})).await;
    let (code, message) = make(&strict, "x", 1).await.refused();
    assert_eq!(code, 422);
    assert!(
        message.ends_with("expression 'object.spec.missing > 1' resulted in error: no such key: missing"),
        "{message}"
    );
    let mut lenient = spec;
    lenient["failurePolicy"] = "Ignore".into();
    let lenient = cluster("Validating", lenient, json!({})).await;
    make(&lenient, "x", 1).await.ok();
}

#[tokio::test]
async fn a_binding_may_only_warn() {
    let spec = json!({"validations": [{"expression": "object.spec.replicas > 1", "message": "few"}]});
    let cluster = cluster("Validating", spec, json!({"validationActions": ["Warn", "Audit"]})).await;
    let answer = make(&cluster, "x", 1).await;
    assert_eq!(
        answer.headers["warning"].to_str().unwrap(),
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': few\""
    );
    answer.ok();
}

#[tokio::test]
async fn parameters_come_from_objects_that_the_binding_names() {
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{
            "expression": "object.spec.replicas <= int(params.data.most)",
            "messageExpression": "'at most ' + params.data.most",
        }],
    });
    let reference = json!({"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}});
    let cluster = cluster("Validating", spec, reference).await;
    let (code, message) = make(&cluster, "x", 1).await.refused();
    assert_eq!(code, 422);
    assert!(
        message.ends_with(
            "'p' with binding 'b' denied request: failed to configure binding: no params found for policy binding \
             with `Deny` parameterNotFoundAction"
        ),
        "{message}"
    );
    let limits = |name: &str, most: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"limit": "yes"}},
            "data": {"most": most},
        })
    };
    let maps = "/api/v1/namespaces/shop/configmaps";
    cluster.create(maps, &limits("limits", "2")).await.ok();
    make(&cluster, "x", 2).await.ok();
    assert!(make(&cluster, "y", 3).await.refused().1.ends_with("denied request: at most 2"));
    cluster.create(maps, &limits("stricter", "1")).await.ok();
    let selector =
        json!({"spec": {"paramRef": {"name": null, "selector": {"matchLabels": {"limit": "yes"}}}}});
    cluster.merge(&format!("{GROUP}/validatingadmissionpolicybindings/b"), &selector).await.ok();
    assert!(make(&cluster, "y", 2).await.refused().1.ends_with("denied request: at most 1"));
}

/// The warnings of a policy once they are there.
async fn warnings(cluster: &Cluster, name: &str) -> Vec<Value> {
    let path = format!("{GROUP}/validatingadmissionpolicies/{name}");
    let policy =
        cluster.until(&path, |answer| answer.json()["status"]["typeChecking"].is_object()).await.ok();
    assert_eq!(policy["status"]["observedGeneration"], policy["metadata"]["generation"]);
    policy["status"]["typeChecking"]["expressionWarnings"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn types_that_cannot_be_right_are_told_in_the_status() {
    let right = json!({"validations": [{"expression": "object.spec.replicas > 1"}]});
    let cluster = cluster("Validating", right, json!({})).await;
    assert_eq!(warnings(&cluster, "p").await, Vec::<Value>::new());
    let confused = json!({"validations": [{
        "expression": "object.spec.replicas > '1'",
        "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas",
    }]});
    let policies = format!("{GROUP}/validatingadmissionpolicies");
    cluster.create(&policies, &policy("Validating", "confused", confused)).await.ok();
    assert_eq!(
        warnings(&cluster, "confused").await,
        [
            json!({
                "fieldRef": "spec.validations[0].expression",
                "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied \
                            to '(int, string)'\n | object.spec.replicas > '1'\n | .....................^\n",
            }),
            json!({
                "fieldRef": "spec.validations[0].messageExpression",
                "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:28: found no matching overload for '_+_' applied \
                            to '(string, int)'\n | 'wants replicas > 1, got ' + object.spec.replicas\n \
                            | ...........................^\n",
            }),
        ]
    );
}

#[tokio::test]
async fn types_of_custom_resources_are_checked_too() {
    let cluster = Cluster::new().await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "properties": {
                    "cronSpec": {"type": "string"}, "replicas": {"type": "integer"},
                }}},
            }}}],
        },
    });
    cluster.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await.ok();
    let crontabs = "/apis/stable.example.com/v1/namespaces/default/crontabs";
    cluster.until(crontabs, |answer| answer.code == 200).await;
    let spec = json!({
        "matchConstraints": {"resourceRules": rules("stable.example.com", "v1", "crontabs")},
        "validations": [{"expression": "object.spec.replicas > '1'"}, {"expression": "object.spec.maxRetries < 10"}],
    });
    let policies = format!("{GROUP}/validatingadmissionpolicies");
    cluster.create(&policies, &policy("Validating", "p", spec)).await.ok();
    let found = warnings(&cluster, "p").await;
    let texts: Vec<&str> = found.iter().map(|warning| warning["warning"].as_str().unwrap()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[0].contains("found no matching overload for '_>_' applied to '(int, string)'"),
        "{texts:?}"
    );
    assert!(texts[1].contains("undefined field 'maxRetries'"), "{texts:?}");
}

fn applied(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patched(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

#[tokio::test]
async fn a_deployment_becomes_what_policies_make_of_it() {
    let spec = json!({
        "reinvocationPolicy": "Never",
        "variables": [{"name": "name", "expression": "object.metadata.name"}],
        "mutations": [
            applied("Object{metadata: Object.metadata{annotations: {\"mutated-by\": \"admission-policy\"}}}"),
            applied("Object{spec: Object.spec{replicas: 1337}}"),
            applied(
                "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: \
                 [Object.spec.template.spec.containers{name: 'side-' + variables.name, image: 'i'}]}}}}",
            ),
            patched(
                "[JSONPatch{op: 'test', path: '/spec/replicas', value: 1337}, \
                 JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('a/b'), value: 'c'}]",
            ),
            patched("[JSONPatch{op: 'test', path: '/spec/replicas', value: 1}, JSONPatch{op: 'remove', path: '/spec'}]"),
        ],
    });
    let cluster = cluster("Mutating", spec, json!({})).await;
    let made = make(&cluster, "x", 1).await.ok();
    assert_eq!(made["metadata"]["annotations"], json!({"mutated-by": "admission-policy", "a/b": "c"}));
    assert_eq!(made["spec"]["replicas"], 1337);
    let containers = made["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let names: Vec<&Value> = containers.iter().map(|container| &container["name"]).collect();
    assert_eq!(names, ["nginx", "side-x"]);
    assert_eq!(containers[1]["imagePullPolicy"], "Always", "what a policy adds is defaulted");
    assert_eq!(made["spec"]["selector"]["matchLabels"], json!({"app": "nginx"}));
}

#[tokio::test]
async fn what_a_mutation_cannot_do_refuses_the_write() {
    let refused = async |mutation: Value| {
        let spec = json!({"reinvocationPolicy": "Never", "mutations": [mutation]});
        let cluster = cluster("Mutating", spec, json!({})).await;
        let answer = make(&cluster, "x", 1).await.json();
        assert_eq!((&answer["code"], &answer["reason"]), (&json!(403), &json!("Invalid")), "{answer}");
        let message = answer["message"].as_str().unwrap().to_owned();
        assert_eq!(answer["details"]["causes"], json!([{"message": message}]));
        message.strip_prefix("policy 'p' with binding 'b' denied request: ").expect(&message).to_owned()
    };
    let atomic = "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}";
    assert_eq!(
        refused(applied(atomic)).await,
        "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector"
    );
    let unknown = "Object{spec: Object.spec{nonsense: 1}}";
    assert!(refused(applied(unknown)).await.contains(".spec.nonsense: field not declared in schema"));
    let misnamed = "Object{spec: Object.wrong{replicas: 1}}";
    assert!(
        refused(applied(misnamed))
            .await
            .contains("unexpected type name \"Object.wrong\", expected \"Object.spec\"")
    );
    assert!(
        refused(patched("[JSONPatch{op: 'remove', path: '/nothing'}]")).await.starts_with("JSON Patch: ")
    );
    assert_eq!(
        refused(patched("[JSONPatch{op: 'add', path: '/x', value: object.none}]")).await,
        "expression '[JSONPatch{op: 'add', path: '/x', value: object.none}]' resulted in error: no such key: none"
    );
}

#[tokio::test]
async fn a_policy_sees_what_a_later_one_changed_if_it_wants_to() {
    let counts = |reinvocation: &str| {
        json!({
            "reinvocationPolicy": reinvocation,
            "mutations": [applied(
                "Object{metadata: Object.metadata{labels: {'seen': has(object.metadata.annotations) ? 'yes' : 'no'}}}",
            )],
        })
    };
    for (reinvocation, seen) in [("IfNeeded", "yes"), ("Never", "no")] {
        let cluster = cluster("Mutating", counts(reinvocation), json!({})).await;
        let later = json!({
            "reinvocationPolicy": "Never",
            "mutations": [applied("Object{metadata: Object.metadata{annotations: {'a': 'b'}}}")],
        });
        cluster
            .create(&format!("{GROUP}/mutatingadmissionpolicies"), &policy("Mutating", "q", later))
            .await
            .ok();
        let mut bound = binding("Mutating", "q", json!({}));
        bound["metadata"]["name"] = "c".into();
        cluster.create(&format!("{GROUP}/mutatingadmissionpolicybindings"), &bound).await.ok();
        assert_eq!(make(&cluster, "x", 1).await.ok()["metadata"]["labels"]["seen"], seen, "{reinvocation}");
    }
}

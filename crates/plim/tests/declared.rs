//! Server-side apply, custom resources and quota with the real program and the real kubectl.

mod cluster;

use cluster::Cluster;

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "nginx:1.27", ports: [{containerPort: 80}]}]}
"#;

#[test]
fn server_side_apply_keeps_owners_apart() {
    let Some(cluster) = Cluster::new() else { return };
    let apply = |args: &[&str], input: &str| {
        let all = [&["apply", "--server-side", "-f", "-"], args].concat();
        cluster.run(&all, input)
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();

    // Applied twice, the object stays as it is.
    let first = apply(&[], WEB);
    assert!(
        text(&first.stdout).contains("deployment.apps/web serverside-applied"),
        "{}",
        text(&first.stderr)
    );
    let revision = || cluster.ok(&["get", "deploy", "web", "-o", "jsonpath={.metadata.resourceVersion}"], "");
    let before = revision();
    assert!(apply(&[], WEB).status.success());
    assert_eq!(revision(), before);

    // Another manager's value is a conflict, the same value is shared, force takes it.
    cluster.ok(&["scale", "deploy", "web", "--replicas", "5"], "");
    let conflict = apply(&[], WEB);
    let words = text(&conflict.stderr);
    assert!(!conflict.status.success());
    assert!(
        words.contains(
            r#"Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas"#
        ),
        "{words}"
    );
    let shared = apply(&["--field-manager", "other"], &WEB.replace("replicas: 2", "replicas: 5"));
    assert!(shared.status.success(), "{}", text(&shared.stderr));
    let forced = apply(&["--force-conflicts"], WEB);
    assert!(forced.status.success(), "{}", text(&forced.stderr));
    let replicas = || cluster.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"], "");
    assert_eq!(replicas(), "2");

    // A field that its manager leaves out and nobody else owns goes back to its default.
    assert!(apply(&["--field-manager", "other"], &WEB.replace("  replicas: 2\n", "")).status.success());
    assert!(apply(&[], &WEB.replace("  replicas: 2\n", "")).status.success());
    assert_eq!(replicas(), "1");

    // A dry run shows and stores nothing; a field that does not exist is told with its path.
    let before = revision();
    let dry = apply(
        &["--dry-run=server", "-o", "jsonpath={.spec.replicas}"],
        &WEB.replace("replicas: 2", "replicas: 9"),
    );
    assert_eq!(text(&dry.stdout), "9", "{}", text(&dry.stderr));
    assert_eq!(revision(), before);
    let unknown = text(&apply(&[], &WEB.replace("replicas: 2", "replicsa: 2")).stderr);
    assert!(unknown.contains(".spec.replicsa: field not declared in schema"), "{unknown}");
}

#[test]
fn kubectl_goes_over_from_client_side_to_server_side_apply() {
    let Some(cluster) = Cluster::new() else { return };
    cluster.ok(&["apply", "-f", "-"], WEB);
    let managers = "jsonpath={range .metadata.managedFields[*]}{.manager} {.operation};{end}";
    let shown = cluster.ok(&["get", "deploy", "web", "--show-managed-fields", "-o", managers], "");
    assert_eq!(shown, "kubectl-client-side-apply Update;");
    cluster.ok(&["apply", "--server-side", "-f", "-"], &WEB.replace("replicas: 2", "replicas: 3"));
    let shown = cluster.ok(&["get", "deploy", "web", "--show-managed-fields", "-o", managers], "");
    assert!(shown.contains("kubectl Apply;"), "{shown}");
    assert_eq!(cluster.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"], ""), "3");
    // And back.
    cluster.ok(&["apply", "-f", "-"], &WEB.replace("replicas: 2", "replicas: 4"));
    assert_eq!(cluster.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"], ""), "4");
}

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    additionalPrinterColumns:
    - {name: Size, type: string, jsonPath: .spec.size}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas, priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    selectableFields: [{jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: string, enum: [small, large], description: How large the widget is.}
              replicas: {type: integer, minimum: 0, default: 1}
              ports:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string}, port: {x-kubernetes-int-or-string: true}}}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
            x-kubernetes-validations:
            - {rule: "self.size != 'small' || self.replicas <= 3", message: small widgets have at most 3 replicas}
            - {rule: "self.size == oldSelf.size", message: the size stays}
          status:
            type: object
            properties: {replicas: {type: integer}, selector: {type: string}}
"#;

const WIDGET: &str = r#"
apiVersion: example.com/v1
kind: Widget
metadata: {name: one}
spec: {size: small, ports: [{name: web, port: http}], free: {any: {thing: 1}}}
"#;

#[test]
fn a_custom_resource_is_served_as_a_built_in_kind_is() {
    let Some(cluster) = Cluster::new() else { return };
    cluster.ok(&["apply", "-f", "-"], DEFINITION);
    cluster.ok(&["wait", "crd/widgets.example.com", "--for=condition=Established", "--timeout=30s"], "");

    // Created, defaulted, shown by its columns, found by its short name and category, chosen by its fields.
    cluster.ok(&["create", "-f", "-"], WIDGET);
    let wide = cluster.ok(&["get", "wd", "-o", "wide"], "");
    assert!(wide.contains("NAME   SIZE    REPLICAS   AGE") && wide.contains("one    small   1 "), "{wide}");
    assert!(cluster.ok(&["get", "all"], "").contains("widget.example.com/one"));
    let chosen = |size: &str| {
        cluster.ok(&["get", "wd", "-o", "name", "--field-selector", &format!("spec.size={size}")], "")
    };
    assert_eq!((chosen("small").trim(), chosen("large").trim()), ("widget.example.com/one", ""));
    let kept =
        cluster.ok(&["get", "wd", "one", "-o", "jsonpath={.spec.free.any.thing} {.metadata.generation}"], "");
    assert_eq!(kept, "1 1");

    // Mistakes are told; what CEL forbids, too.
    let unknown =
        cluster.refused(&["apply", "-f", "-"], &WIDGET.replace("size: small", "size: small, colour: red"));
    assert!(unknown.contains(r#"unknown field "spec.colour""#), "{unknown}");
    let value = cluster.refused(&["apply", "-f", "-"], &WIDGET.replace("small", "tiny"));
    assert!(
        value.contains(r#"spec.size: Unsupported value: "tiny": supported values: "small", "large""#),
        "{value}"
    );
    let rule =
        cluster.refused(&["patch", "wd", "one", "--type=merge", "-p", r#"{"spec":{"replicas":9}}"#], "");
    assert!(rule.contains("small widgets have at most 3 replicas"), "{rule}");
    let transition =
        cluster.refused(&["patch", "wd", "one", "--type=merge", "-p", r#"{"spec":{"size":"large"}}"#], "");
    assert!(transition.contains("the size stays"), "{transition}");

    // Scale and status are subresources; a write of the one leaves the other.
    cluster.ok(&["scale", "wd", "one", "--replicas=3"], "");
    cluster.ok(
        &[
            "patch",
            "wd",
            "one",
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"replicas":2},"spec":{"size":"large"}}"#,
        ],
        "",
    );
    let shown = cluster.ok(
        &[
            "get",
            "wd",
            "one",
            "-o",
            "jsonpath={.spec.replicas} {.status.replicas} {.spec.size} {.metadata.generation}",
        ],
        "",
    );
    assert_eq!(shown, "3 2 small 2");

    // Explained from the published schema, and applied from the server's side.
    let explained = cluster.ok(&["explain", "widgets.spec"], "");
    assert!(explained.contains("How large the widget is.") && explained.contains("replicas"), "{explained}");
    let port = WIDGET.replace("{name: web, port: http}", "{name: admin, port: 9}");
    cluster.ok(&["apply", "--server-side", "--field-manager=other", "-f", "-"], &port);
    let ports = cluster.ok(&["get", "wd", "one", "-o", "jsonpath={.spec.ports[*].name}"], "");
    assert!(ports.contains("web") && ports.contains("admin"), "{ports}");

    // It is served after a restart, and gone with its definition.
    cluster.plim(&["down"]);
    cluster.start();
    assert!(cluster.ok(&["get", "wd", "one"], "").contains("small"));
    cluster.ok(&["delete", "crd", "widgets.example.com", "--timeout=30s"], "");
    let gone = cluster.refused(&["get", "widgets"], "");
    // kubectl may still believe that there are widgets.
    let words = ["the server doesn't have a resource type", "could not find the requested resource"];
    assert!(words.iter().any(|w| gone.contains(w)), "{gone}");
    cluster.ok(&["apply", "-f", "-"], DEFINITION);
    cluster.ok(&["wait", "crd/widgets.example.com", "--for=condition=Established", "--timeout=30s"], "");
    assert_eq!(cluster.ok(&["get", "widgets", "-o", "name"], ""), "");
}

#[test]
fn a_definition_that_makes_no_sense_is_refused() {
    let Some(cluster) = Cluster::new() else { return };
    for (from, to, words) in [
        (
            "name: widgets.example.com",
            "name: wigdets.example.com",
            "metadata.name: Invalid value: \"wigdets.example.com\": must be spec.names.plural+\".\"+spec.group",
        ),
        ("storage: true", "storage: false", "must have exactly one version marked as storage version"),
        (
            "{type: integer, minimum: 0, default: 1}",
            "{minimum: 0}",
            "properties[replicas].type: Required value: must not be empty for specified object fields",
        ),
        (
            "{type: integer, minimum: 0, default: 1}",
            "{type: integer, default: many}",
            "properties[replicas].default: Invalid value: \"string\"",
        ),
        (
            ".spec.size}]",
            ".spec.nothing}]",
            "spec.selectableFields[0].jsonPath: Invalid value: \".spec.nothing\": is an invalid path",
        ),
        ("self.size == oldSelf.size", "self.size ==", "compilation failed"),
        (
            "specReplicasPath: .spec",
            "specReplicasPath: .status",
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.replicas\": should be a json path under .spec",
        ),
        (
            "x-kubernetes-list-map-keys: [name]",
            "x-kubernetes-list-map-keys: [port]",
            "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
    ] {
        let refused = cluster.refused(&["create", "-f", "-"], &DEFINITION.replace(from, to));
        assert!(refused.contains(words), "{to}: {refused}");
    }
}

#[test]
fn a_quota_and_a_limit_range_are_kept() {
    let Some(cluster) = Cluster::new() else { return };
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default}\n";
    cluster.ok(&["create", "-f", "-"], account);
    cluster.ok(&["create", "quota", "q", "--hard=pods=1,requests.cpu=1"], "");
    let counted = r#"{"status": {"hard": {"pods": "1", "requests.cpu": "1"}, "used": {"pods": "0", "requests.cpu": "0"}}}"#;
    cluster.ok(&["patch", "quota", "q", "--subresource=status", "--type=merge", "-p", counted], "");
    let silent = cluster.refused(&["run", "a", "--image=nginx"], "");
    assert!(silent.contains("failed quota: q: must specify requests.cpu for: a"), "{silent}");
    let range = "apiVersion: v1\nkind: LimitRange\nmetadata: {name: l}\nspec: {limits: [{type: Container, defaultRequest: {cpu: 200m}, max: {cpu: 500m}}]}\n";
    cluster.ok(&["create", "-f", "-"], range);
    cluster.ok(&["run", "a", "--image=nginx"], "");
    let note = cluster.ok(&["get", "pod", "a", "-o", "jsonpath={.metadata.annotations}"], "");
    assert!(
        note.contains("LimitRanger plugin set: cpu request for container a; cpu limit for container a"),
        "{note}"
    );
    let used = cluster.ok(&["get", "quota", "q", "-o", "jsonpath={.status.used}"], "");
    assert_eq!(used, r#"{"pods":"1","requests.cpu":"200m"}"#);
    let over = cluster.refused(&["run", "b", "--image=nginx"], "");
    assert!(
        over.contains(
            r#"pods "b" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"#
        ),
        "{over}"
    );
    let greedy =
        r#"{"spec":{"containers":[{"name":"c","image":"nginx","resources":{"limits":{"cpu":"2"}}}]}}"#;
    let more = cluster.refused(&["run", "c", "--image=nginx", "--overrides", greedy], "");
    assert!(more.contains("maximum cpu usage per Container is 500m, but limit is 2"), "{more}");
}

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

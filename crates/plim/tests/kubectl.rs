//! The real program with the real kubectl: the server is started in the background, used, killed, and started again.

mod cluster;

use std::process::Command;

use cluster::Cluster;

const WEB: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: default}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "nginx:1.27", ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}
"#;

const NODE: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: one}
"#;

#[test]
fn kubectl_works_with_the_control_plane() {
    let Some(cluster) = Cluster::new() else { return };

    // Objects are applied, shown, changed and found again.
    let applied = cluster.ok(&["apply", "-f", "-"], WEB);
    assert!(applied.contains("deployment.apps/web created"), "{applied}");
    let again = cluster.ok(&["apply", "-f", "-"], WEB);
    assert!(again.contains("deployment.apps/web unchanged"), "{again}");
    let shown = cluster.ok(&["get", "deploy", "web", "-o", "wide"], "");
    assert!(shown.contains("0/2") && shown.contains("nginx:1.27"), "{shown}");
    cluster.ok(&["scale", "deploy", "web", "--replicas", "3"], "");
    let spec = "jsonpath={.spec.replicas} {.metadata.generation} {.spec.strategy.rollingUpdate.maxSurge}";
    assert_eq!(cluster.ok(&["get", "deploy", "web", "-o", spec], ""), "3 2 25%");
    let service =
        cluster.ok(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP} {.spec.ports[0].nodePort}"], "");
    assert!(service.starts_with("10.96."), "{service}");

    // Typed creates come as protobuf.
    cluster.ok(&["create", "namespace", "shop"], "");
    cluster.ok(&["create", "configmap", "settings", "-n", "shop", "--from-literal=a=b"], "");
    assert_eq!(
        cluster.ok(&["get", "cm", "settings", "-n", "shop", "-o", "jsonpath={.data}"], ""),
        r#"{"a":"b"}"#
    );
    cluster.ok(&["create", "deployment", "api", "-n", "shop", "--image=nginx", "--port=80"], "");
    let container =
        "jsonpath={.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].ports}";
    let shown = cluster.ok(&["get", "deploy", "api", "-n", "shop", "-o", container], "");
    assert_eq!(shown, r#"nginx [{"containerPort":80,"protocol":"TCP"}]"#);

    // The scheduler binds a pod to a node that fits, and says why another waits.
    cluster.ok(&["run", "early", "--image=nginx"], "");
    let waiting = cluster.ok(
        &[
            "wait",
            "pod/early",
            "--for=jsonpath={.status.conditions[0].reason}=Unschedulable",
            "--timeout=30s",
        ],
        "",
    );
    assert!(waiting.contains("condition met"), "{waiting}");
    cluster.ok(&["apply", "-f", "-"], NODE);
    let status = r#"{"status": {"capacity": {"cpu": "2", "memory": "4Gi", "pods": "10"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": ""}]}}"#;
    cluster.ok(&["patch", "node", "one", "--subresource=status", "--type=merge", "-p", status], "");
    cluster.ok(&["taint", "node", "one", "node.kubernetes.io/not-ready-"], "");
    cluster.ok(&["wait", "pod/early", "--for=jsonpath={.spec.nodeName}=one", "--timeout=30s"], "");

    // Mistakes are told in upstream's words.
    let unknown = cluster.refused(&["apply", "-f", "-"], &WEB.replace("replicas: 2", "replicsa: 2"));
    assert!(unknown.contains(r#"unknown field "spec.replicsa""#), "{unknown}");
    let invalid =
        cluster.refused(&["patch", "svc", "web", "-p", r#"{"spec":{"ports":[{"port":99999}]}}"#], "");
    assert!(
        invalid.contains("spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535"),
        "{invalid}"
    );
    let missing = cluster.refused(&["get", "cm", "nothing"], "");
    assert!(missing.contains(r#"configmaps "nothing" not found"#), "{missing}");
    let forbidden = cluster.refused(&["get", "pods", "--as", "jane"], "");
    assert!(forbidden.contains(r#"User "jane" cannot list resource "pods""#), "{forbidden}");

    // After kill -9 everything is there.
    let pid = std::fs::read_to_string(cluster.folder.path().join("run/plim.pid")).unwrap();
    let killed = Command::new("kill").args(["-9", pid.trim()]).status().unwrap();
    assert!(killed.success());
    wait_until_gone(pid.trim());
    cluster.start();
    assert_eq!(cluster.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"], ""), "3");
    let deleted = cluster.ok(&["delete", "deploy", "web"], "");
    assert!(deleted.contains("deleted"), "{deleted}");
}

/// A killed process is gone when its entry under /proc is, or is only a zombie's.
fn wait_until_gone(pid: &str) {
    let status = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    for _ in 0..1000 {
        let stat = status();
        if stat.is_empty() || stat.contains(") Z ") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("process {pid} does not end");
}

#[test]
fn a_second_server_on_one_folder_is_told_of_the_first() {
    let Some(cluster) = Cluster::new() else { return };
    let output = cluster.plim(&["server", "-d", "--listen", "127.0.0.1", "--port", "0"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("already running"));
    let output = cluster.plim(&["server", "--listen", "127.0.0.1", "--port", "0"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("plim down"));
}

#[test]
fn a_port_in_use_is_told_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_plim"))
        .args(["server", "-d", "--listen", "127.0.0.1", "--port", &port, "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(&port) && told.contains("Choose another port with --port"), "{told}");
}

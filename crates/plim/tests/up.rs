//! The real program, the real kernel, the real kubectl: pods that run.

mod lab;

use std::io::{BufRead, BufReader, Read, Write};

use lab::{Cluster, IMAGE};

fn web(replicas: u32) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: httpd
        image: {IMAGE}
        command: [sh, -c, 'mkdir -p /tmp/www && hostname > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www']
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
        resources: {{requests: {{cpu: 10m, memory: 16Mi}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{type: LoadBalancer, selector: {{app: web}}, ports: [{{port: 80, targetPort: http}}]}}
"#
    )
}

const IP: &str = "jsonpath={.status.loadBalancer.ingress[0].ip}";

#[test]
fn a_pod_runs_and_kubectl_reads_its_log_enters_it_and_ends_it() {
    let Some(cluster) = Cluster::up(1) else { return };
    let script = "echo begin; echo oops >&2; sleep 3600 & wait";
    cluster.ok(&["run", "one", "--image", IMAGE, "--", "sh", "-c", script], "");
    cluster.ok(&["wait", "pod/one", "--for=condition=Ready", "--timeout=60s"], "");
    cluster.until("the log has both lines", &["logs", "one"], |log| {
        log.contains("begin") && log.contains("oops")
    });

    // A follower sees what is said after it came.
    let mut follower = cluster.spawn(&["logs", "-f", "one"]);
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line == "begin"));
    cluster.ok(&["exec", "one", "--", "sh", "-c", "echo later > /proc/1/fd/1"], "");
    assert!(lines.any(|line| line == "later"));
    follower.kill().unwrap();
    follower.wait().unwrap();

    let inside = cluster.ok(&["exec", "one", "--", "sh", "-c", "hostname; cat /proc/1/comm; id -u"], "");
    assert_eq!(inside, "one\nsh\n0\n");
    let passed = cluster.ok(&["exec", "-i", "one", "--", "cat"], "through and back");
    assert_eq!(passed, "through and back");
    let output = cluster.kubectl(&["exec", "one", "--", "sh", "-c", "exit 7"], "");
    assert_eq!(output.status.code(), Some(7));

    // kubectl cp is tar over exec, both ways.
    let file = cluster.folder.path().join("file");
    std::fs::write(&file, "copied").unwrap();
    cluster.ok(&["cp", file.to_str().unwrap(), "one:/tmp/file"], "");
    let back = cluster.folder.path().join("back");
    cluster.ok(&["cp", "one:/tmp/file", back.to_str().unwrap()], "");
    assert_eq!(std::fs::read_to_string(back).unwrap(), "copied");

    let described = cluster.ok(&["describe", "pod", "one"], "");
    for part in ["Scheduled", "Started", "QoS Class:", "Node:", "Ready"] {
        assert!(described.contains(part), "{part} is missing in {described}");
    }
    cluster.ok(&["delete", "pod", "one", "--grace-period=1", "--timeout=60s"], "");
    assert!(cluster.refused(&["get", "pod", "one"], "").contains("not found"));
}

#[test]
fn a_deployment_serves_rolls_and_rolls_back_behind_its_addresses() {
    let Some(cluster) = Cluster::up(1) else { return };
    cluster.ok(&["apply", "-f", "-"], &web(2));
    cluster.ok(&["rollout", "status", "deployment/web", "--timeout=90s"], "");
    let wide = cluster.ok(&["get", "deployment,pods,service", "-o", "wide"], "");
    assert!(wide.contains("2/2") && wide.contains("LoadBalancer"), "{wide}");

    // From the machine through the load balancer's address, from a pod through the cluster's names.
    let ip = cluster
        .until("the service has an address", &["get", "service", "web", "-o", IP], |ip| !ip.is_empty());
    let fetch = |ip: &str| {
        let output = cluster.inside("busybox").args(["wget", "-qO-", &format!("http://{ip}/")]).output();
        String::from_utf8_lossy(&output.unwrap().stdout).trim().to_owned()
    };
    assert!(fetch(&ip).starts_with("web-"), "{}", fetch(&ip));
    let script = "for name in web web.default web.default.svc.cluster.local; do wget -qO- http://$name/ || exit 1; done";
    let said = cluster.plim_ok(&["run", "--rm", "--name", "ask", IMAGE, "--", "sh", "-c", script]);
    assert_eq!(said.lines().filter(|l| l.starts_with("web-")).count(), 3, "{said}");

    // Port-forward, both the pod's own port and through the service.
    let mut forward = cluster.spawn(&["port-forward", "service/web", ":80"]);
    let mut line = String::new();
    BufReader::new(forward.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let port = line.split(':').nth(1).and_then(|l| l.split(' ').next()).unwrap_or_default().to_owned();
    let forwarded = fetch(&format!("127.0.0.1:{port}"));
    forward.kill().unwrap();
    forward.wait().unwrap();
    assert!(forwarded.starts_with("web-"), "{line}{forwarded}");

    // A new version that never gets ready does not take the old one down, and is rolled back.
    cluster.ok(&["set", "image", "deployment/web", "httpd=test/missing:1"], "");
    cluster.until("the new pod's image is missed", &["get", "pods"], |pods| {
        pods.contains("ErrImage") || pods.contains("ImagePull")
    });
    assert!(fetch(&ip).starts_with("web-"));
    let why = cluster.plim(&["why", "web"]);
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(why.contains("test/missing:1"), "{why}");
    cluster.ok(&["rollout", "undo", "deployment/web"], "");
    cluster.ok(&["rollout", "status", "deployment/web", "--timeout=90s"], "");

    cluster.ok(&["scale", "deployment/web", "--replicas=1"], "");
    cluster.until("one pod is left", &["get", "pods", "-l", "app=web", "-o", "name"], |pods| {
        pods.lines().count() == 1
    });
    let top = cluster.ok(&["top", "pods"], "");
    assert!(top.contains("web-"), "{top}");
    let ours = cluster.plim_ok(&["top", "-o", "json"]);
    assert!(ours.contains("\"deployment\""), "{ours}");
    cluster.ok(&["delete", "deployment,service", "web", "--timeout=60s"], "");
    cluster.until(
        "the pods go with their owner",
        &["get", "pods", "-l", "app=web", "-o", "name"],
        str::is_empty,
    );
}

#[test]
fn pods_run_on_when_the_program_is_killed_and_are_taken_over() {
    let Some(cluster) = Cluster::up(1) else { return };
    let pod = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: lasting}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {{name: once, image: {IMAGE}, command: [sh, -c, 'echo x >> /data/inits'], volumeMounts: [{{name: data, mountPath: /data}}]}}
  containers:
  - name: main
    image: {IMAGE}
    command: [sh, -c, 'i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done']
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, emptyDir: {{}}}}]
"#
    );
    cluster.ok(&["apply", "-f", "-"], &pod);
    cluster.ok(&["wait", "pod/lasting", "--for=condition=Ready", "--timeout=60s"], "");
    let id =
        "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";
    let before = cluster.ok(&["get", "pod", "lasting", "-o", id], "");
    cluster.kill();
    cluster.start();
    cluster.ok(&["wait", "pod/lasting", "--for=condition=Ready", "--timeout=60s"], "");
    assert_eq!(cluster.ok(&["get", "pod", "lasting", "-o", id], ""), before);
    assert_eq!(cluster.ok(&["exec", "lasting", "--", "cat", "/data/inits"], ""), "x\n");

    // Not a line of its log is missing.
    let log = cluster.ok(&["logs", "lasting"], "");
    for (i, line) in log.lines().enumerate() {
        assert_eq!(line, format!("line {i}"));
    }
    cluster.ok(&["delete", "pod", "lasting", "--timeout=60s"], "");

    // `plim down` ends pods and leaves nothing in the kernel; the state stays.
    cluster.ok(&["apply", "-f", "-"], &pod);
    cluster.ok(&["wait", "pod/lasting", "--for=condition=Ready", "--timeout=60s"], "");
    cluster.plim_ok(&["down"]);
    assert_eq!(cluster.leftovers(), Vec::<String>::new());
    cluster.start();
    cluster.ok(&["wait", "pod/lasting", "--for=condition=Ready", "--timeout=60s"], "");
}

#[test]
fn three_nodes_on_one_machine_share_pods_names_and_addresses() {
    let Some(cluster) = Cluster::up(3) else { return };
    let nodes = cluster
        .until("three nodes are ready", &["get", "nodes"], |nodes| nodes.matches(" Ready").count() == 3);
    assert!(nodes.contains("node-3"), "{nodes}");
    let spread = web(3).replace(
        "      terminationGracePeriodSeconds: 1\n",
        "      terminationGracePeriodSeconds: 1\n      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]\n",
    );
    cluster.ok(&["apply", "-f", "-"], &spread);
    cluster.ok(&["rollout", "status", "deployment/web", "--timeout=90s"], "");
    let on = cluster.ok(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}"], "");
    let mut on: Vec<&str> = on.split(' ').collect();
    on.sort_unstable();
    assert_eq!(on, ["node-1", "node-2", "node-3"]);

    // A pod reaches all three through the service, whichever node they lie on.
    let script = "for i in $(seq 40); do wget -qO- http://web/; done | sort -u | wc -l";
    let said = cluster.plim_ok(&["run", "--rm", "--name", "ask", IMAGE, "--", "sh", "-c", script]);
    assert_eq!(said.trim(), "3");
    let ip = cluster
        .until("the service has an address", &["get", "service", "web", "-o", IP], |ip| !ip.is_empty());
    let output = cluster.inside("busybox").args(["wget", "-qO-", &format!("http://{ip}/")]).output().unwrap();
    assert!(output.stdout.starts_with(b"web-"), "{}", String::from_utf8_lossy(&output.stderr));
    cluster.plim_ok(&["down"]);
    assert_eq!(cluster.leftovers(), Vec::<String>::new());
}

#[test]
fn a_volume_claim_keeps_its_data_over_pods_and_goes_when_it_is_deleted() {
    let Some(cluster) = Cluster::up(1) else { return };
    let set = format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: db}}
spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{port: 5432}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  serviceName: db
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: db, image: {IMAGE}, command: [sleep, '3600'], volumeMounts: [{{name: data, mountPath: /data}}]}}
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
"#
    );
    cluster.ok(&["apply", "-f", "-"], &set);
    cluster.ok(&["rollout", "status", "statefulset/db", "--timeout=90s"], "");
    cluster.ok(&["exec", "db-0", "--", "sh", "-c", "echo kept > /data/file"], "");
    cluster.ok(&["delete", "pod", "db-0", "--timeout=60s"], "");
    cluster.ok(&["rollout", "status", "statefulset/db", "--timeout=90s"], "");
    cluster.until("the data is there again", &["exec", "db-0", "--", "cat", "/data/file"], |data| {
        data == "kept\n"
    });
    let said =
        cluster.plim_ok(&["run", "--rm", IMAGE, "--", "nslookup", "db-0.db.default.svc.cluster.local"]);
    assert!(said.contains("10.244."), "{said}");
    cluster.ok(&["delete", "statefulset", "db", "--timeout=60s"], "");
    cluster.ok(&["delete", "pvc", "--all", "--timeout=60s"], "");
    cluster.until("the volume goes with its claim", &["get", "pv", "-o", "name"], str::is_empty);
}

#[test]
fn a_terminal_of_docker_s_kind_runs_shows_and_ends() {
    let Some(cluster) = Cluster::up(1) else { return };
    let output = cluster.plim(&["run", "--rm", IMAGE, "--", "sh", "-c", "echo hello; exit 3"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");
    assert_eq!(output.status.code(), Some(3));
    let mut child = cluster
        .inside(env!("CARGO_BIN_EXE_plim"))
        .arg("--data")
        .arg(cluster.folder.path())
        .args(["run", "-i", "--rm", IMAGE, "--", "cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let mut typed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut typed).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(typed, "typed\n");
    let status = cluster.plim_ok(&["status"]);
    assert!(status.contains("one") && status.contains("yes"), "{status}");
}

#[test]
fn a_full_disk_is_told_and_pods_run_once_there_is_room() {
    let Some(cluster) = Cluster::prepared(1, Some(256 << 20)) else { return };
    let ballast = cluster.folder.path().join("ballast");
    let free = rustix::fs::statvfs(cluster.folder.path()).map(|s| s.f_bavail * s.f_frsize).unwrap();
    let file = std::fs::File::create(&ballast).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free - (16 << 20)).unwrap();
    drop(file);
    let said = cluster.start();
    assert!(said.contains("warning") && said.contains("the nodes take no pods below 25.6Mi"), "{said}");

    cluster.ok(&["run", "one", "--image", IMAGE, "--", "sleep", "3600"], "");
    cluster.until("the pod is told why it waits", &["describe", "pod", "one"], |text| {
        text.contains("The disk of node one is nearly full")
    });

    std::fs::remove_file(ballast).unwrap();
    cluster.ok(&["wait", "pod/one", "--for=condition=Ready", "--timeout=60s"], "");
    cluster.ok(&["delete", "pod", "one", "--grace-period=1"], "");
}

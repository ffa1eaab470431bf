//! A process that is told to end while it starts: it ends, and leaves nothing behind.

mod lab;

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use lab::Cluster;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// Longer than any end takes, shorter than any start that waits for somebody who does not answer.
const SOON: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 20, tv_nsec: 0 };

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

/// Sends the signal and waits for the end.
fn end(child: &mut Child, signal: Signal) -> ExitStatus {
    let gone = pidfd_open(pid(child), PidfdFlags::empty()).unwrap();
    kill_process(pid(child), signal).unwrap();
    let mut fds = [rustix::event::PollFd::new(&gone, rustix::event::PollFlags::IN)];
    let ended = rustix::event::poll(&mut fds, Some(&SOON)).unwrap() > 0;
    if !ended {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    assert!(ended, "{signal:?} was not heeded");
    status
}

/// An API server in a network namespace that takes connections and says nothing, and its kubeconfig.
fn silent(folder: &Path, netns: Option<&Path>) -> (TcpListener, String) {
    let listener = network::netns::within(netns, || TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
    let authority = rcgen::generate_simple_self_signed(vec!["silent".to_owned()]).unwrap().cert.pem();
    std::fs::write(folder.join("ca.crt"), authority).unwrap();
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("https://{}", listener.local_addr().unwrap()),
            "certificate-authority": folder.join("ca.crt")}}],
        "users": [{"name": "c", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]});
    let path = folder.join("silent.json");
    std::fs::write(&path, config.to_string()).unwrap();
    (listener, path.to_str().unwrap().to_owned())
}

#[test]
fn loops_and_scheduler_end_while_they_wait_for_their_server() {
    for (part, signal) in [("controllers", Signal::TERM), ("scheduler", Signal::INT)] {
        let folder = tempfile::tempdir().unwrap();
        let (server, kubeconfig) = silent(folder.path(), None);
        let mut child = Command::new(env!("CARGO_BIN_EXE_plim"))
            .args([part, "--kubeconfig", &kubeconfig])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        // It has begun to ask, and will get no answer.
        let _asked = server.accept().unwrap();
        assert!(end(&mut child, signal).success(), "{part}");
    }
}

/// The program in the cluster's network, with its steps to be read.
fn begin(cluster: &Cluster, args: &[&str]) -> (Child, std::io::Lines<BufReader<impl Read + use<>>>) {
    let mut command = cluster.inside(env!("CARGO_BIN_EXE_plim"));
    let stdio =
        if args.contains(&"-d") { (Stdio::piped(), Stdio::null()) } else { (Stdio::null(), Stdio::piped()) };
    command
        .arg("--data")
        .arg(cluster.folder.path())
        .args(args)
        .stdin(Stdio::null())
        .stdout(stdio.0)
        .stderr(stdio.1);
    let mut child = command.spawn().unwrap();
    let steps: Box<dyn Read + Send> = match (child.stdout.take(), child.stderr.take()) {
        (Some(out), _) => Box::new(out),
        (None, Some(err)) => Box::new(err),
        (None, None) => unreachable!("one of them is piped"),
    };
    (child, BufReader::new(steps).lines())
}

/// Cgroups and nftables of this cluster, beside what [`Cluster::leftovers`] finds.
fn leftovers(cluster: &Cluster) -> Vec<String> {
    let mut left = cluster.leftovers();
    let tables = cluster.inside("nft").args(["list", "tables"]).output();
    if let Ok(tables) = tables {
        left.extend(String::from_utf8_lossy(&tables.stdout).lines().map(str::to_owned));
    }
    let links = cluster.inside("ip").args(["-brief", "link"]).output().unwrap();
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    let ours = |line: &&str| !["lo", "uplink", "outside"].iter().any(|known| line.starts_with(known));
    left.extend(links.lines().filter(ours).map(str::to_owned));
    left
}

#[test]
fn a_node_whose_server_does_not_answer_ends_and_leaves_nothing() {
    let Some(cluster) = Cluster::prepared(1, None) else { return };
    let (_server, kubeconfig) = silent(cluster.folder.path(), Some(&cluster.netns()));
    let args = ["agent", "--kubeconfig", &kubeconfig, "--node-name", "one"];
    let (mut child, mut steps) = begin(&cluster, &args);
    assert!(steps.any(|line| line.unwrap().contains("node one")), "{}", cluster.log());
    assert!(end(&mut child, Signal::TERM).success());
    assert_eq!(leftovers(&cluster), Vec::<String>::new());
}

#[test]
fn a_cluster_that_is_interrupted_while_it_starts_leaves_nothing() {
    for nodes in [1, 2] {
        let Some(cluster) = Cluster::prepared(nodes, None) else { return };
        let mut args = vec!["up", "--port", "0"];
        args.extend(cluster.flags());
        let (mut child, mut steps) = begin(&cluster, &args);
        assert!(steps.any(|line| line.unwrap().contains("store")));
        assert!(end(&mut child, Signal::INT).success());
        let rest: Vec<String> = steps.map_while(Result::ok).collect();
        assert!(!rest.iter().any(|line| line.contains("Ready after")), "{rest:?}");
        assert_eq!(leftovers(&cluster), Vec::<String>::new());
    }
}

#[test]
fn pods_that_were_there_before_run_on_when_the_next_start_is_interrupted() {
    let Some(cluster) = Cluster::up(1) else { return };
    cluster.ok(&["run", "one", "--image", lab::IMAGE, "--", "sleep", "3600"], "");
    cluster.ok(&["wait", "pod/one", "--for=condition=Ready", "--timeout=60s"], "");
    let id = "jsonpath={.status.containerStatuses[0].containerID}";
    let before = cluster.ok(&["get", "pod", "one", "-o", id], "");
    cluster.kill();
    let mut args = vec!["up", "--port", "0"];
    args.extend(cluster.flags());
    let (mut child, mut steps) = begin(&cluster, &args);
    assert!(steps.any(|line| line.unwrap().contains("store")));
    assert!(end(&mut child, Signal::TERM).success());
    cluster.start();
    cluster.ok(&["wait", "pod/one", "--for=condition=Ready", "--timeout=60s"], "");
    assert_eq!(cluster.ok(&["get", "pod", "one", "-o", id], ""), before);
}

#[test]
fn a_start_in_the_background_ends_with_the_command_that_waits_for_it() {
    let Some(cluster) = Cluster::prepared(1, None) else { return };
    let mut args = vec!["up", "-d", "--port", "0"];
    args.extend(cluster.flags());
    let (mut child, mut steps) = begin(&cluster, &args);
    assert!(steps.any(|line| line.unwrap().contains("certificates")));
    let behind = Pid::from_raw(cluster.pid().parse().unwrap()).unwrap();
    let gone = pidfd_open(behind, PidfdFlags::empty()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    drop(steps);
    let mut fds = [rustix::event::PollFd::new(&gone, rustix::event::PollFlags::IN)];
    assert!(rustix::event::poll(&mut fds, Some(&SOON)).unwrap() > 0, "{}", cluster.log());
    assert_eq!(leftovers(&cluster), Vec::<String>::new());
}

//! The program ends and comes back; so may the holder.

use k8s_cri::v1 as cri;

use crate::lab::Lab;

#[tokio::test(flavor = "multi_thread")]
async fn containers_run_on_and_are_taken_over() {
    let Some(mut lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let script = "i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 9";
    let id = lab.run(&pod, lab.container_config("count", &["sh", "-c", script])).await;
    let made = lab.create(&pod, lab.container_config("later", &["echo", "made before"])).await.unwrap();
    lab.wait_for_output("count", "2").await;
    let pid = lab.pid(&id).await;
    lab.restart().await;
    assert_eq!(lab.status(&id).await.state, cri::ContainerState::ContainerRunning as i32);
    assert_eq!(lab.pid(&id).await, pid);
    let next = lab.output("count").lines().count() + 2;
    lab.wait_for_output("count", &next.to_string()).await;
    // no line was lost or doubled
    let lines: Vec<usize> = lab.output("count").lines().map(|l| l.parse().unwrap()).collect();
    assert!(lines.iter().enumerate().all(|(i, n)| *n == i + 1), "{lines:?}");
    assert_eq!(lab.exec(&id, &["touch", "/tmp/stop"], 10).await.unwrap().exit_code, 0);
    assert_eq!(lab.ended(&id).await.exit_code, 9);
    // what was only created can be started
    lab.start(&made).await.unwrap();
    assert_eq!(lab.ended(&made).await.exit_code, 0);
    assert_eq!(lab.output("later"), "made before\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_code_from_the_time_of_absence_is_known() {
    let Some(mut lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let file = lab.dir.path().join("go");
    let mut config = lab.container_config("brief", &["sh", "-c", "read line < /go; echo $line; exit 42"]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &file,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    config.mounts.push(cri::Mount {
        container_path: "/go".into(),
        host_path: file.display().to_string(),
        ..Default::default()
    });
    let id = lab.run(&pod, config).await;
    let pid = lab.pid(&id).await;
    lab.close().await;
    let watched = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::PidfdFlags::empty(),
    )
    .unwrap();
    std::fs::write(&file, "words\n").unwrap();
    let mut poll = [rustix::event::PollFd::new(&watched, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut poll, None).unwrap();
    lab.open().await;
    let status = lab.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (42, "Error"));
    assert_eq!(lab.output("brief"), "words\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_holder_means_ended_containers_and_a_new_holder() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let id = lab.run(&pod, lab.container_config("sleep", &["sleep", "1000"])).await;
    let (holder, pid) = (lab.runtime().holder_pid(), lab.pid(&id).await);
    // SAFETY: numbers only; it is this test's own holder.
    unsafe { libc::kill(holder, libc::SIGKILL) };
    let status = lab.ended(&id).await;
    assert_eq!(status.exit_code, 137);
    assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists(), "the process is still there");
    let (code, output) = lab.script(&pod, "after", "echo again").await;
    assert_eq!((code, output.as_str()), (0, "again\n"));
    assert_ne!(lab.runtime().holder_pid(), holder);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_made_things_are_cleaned_up_at_the_next_start() {
    let Some(mut lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    lab.close().await;
    let node = lab.dir.path().join("node");
    for part in ["sandboxes/half", "containers/half"] {
        std::fs::create_dir_all(node.join(part)).unwrap();
        std::fs::write(node.join(part).join("record.jsonl"), "{\"id\":").unwrap();
    }
    std::fs::create_dir(node.join("sandboxes/half/shm")).unwrap();
    rustix::mount::mount(
        "shm",
        node.join("sandboxes/half/shm"),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        c"",
    )
    .unwrap();
    lab.open().await;
    assert!(!node.join("sandboxes/half").exists() && !node.join("containers/half").exists());
    let (code, _) = lab.script(&pod, "x", "true").await;
    assert_eq!(code, 0);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_runtime() {
    let Some(lab) = Lab::new().await else { return };
    let error = runtime::Runtime::open(lab.config()).await.err().unwrap();
    assert!(error.to_string().contains("in use by another runtime"), "{error}");
    lab.end().await;
}

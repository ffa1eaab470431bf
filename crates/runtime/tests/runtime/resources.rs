//! Limits, and what is used.

use k8s_cri::v1::{self as cri, runtime_service_server::RuntimeService};
use tonic::Request;

use crate::lab::Lab;

fn limited(
    lab: &Lab,
    name: &str,
    script: &str,
    resources: cri::LinuxContainerResources,
) -> cri::ContainerConfig {
    let mut config = lab.container_config(name, &["sh", "-c", script]);
    config.linux.as_mut().unwrap().resources = Some(resources);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_memory_is_reported() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let resources = cri::LinuxContainerResources {
        memory_limit_in_bytes: 16 << 20,
        memory_swap_limit_in_bytes: 16 << 20,
        ..Default::default()
    };
    let id = lab.run(&pod, limited(&lab, "hungry", "exec tail -c 100000000 /dev/zero", resources)).await;
    let status = lab.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_stops_at_the_limit() {
    let Some(mut lab) = Lab::new().await else { return };
    lab.close().await;
    let mut config = lab.config();
    config.pids_limit = 10;
    lab.open_with(config).await;
    let pod = lab.sandbox("web").await;
    let script = "for i in $(seq 30); do sleep 1000 & done 2>/dev/null; true";
    let id = lab.run(&pod, lab.container_config("bomb", &["sh", "-c", script])).await;
    // busybox' shell ends when it cannot fork
    assert_ne!(lab.ended(&id).await.exit_code, 0);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_seen_inside_and_can_be_changed() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let resources = cri::LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpu_shares: 512,
        oom_score_adj: 500,
        ..Default::default()
    };
    let id = lab.run(&pod, limited(&lab, "a", "sleep 1000", resources)).await;
    let v1 = "cd /sys/fs/cgroup && cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares";
    let v2 = "cd /sys/fs/cgroup && cat memory.max cpu.max cpu.weight";
    let is_v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let read = ["sh", "-c", if is_v2 { v2 } else { v1 }];
    let text = |got: cri::ExecSyncResponse| String::from_utf8(got.stdout).unwrap().replace('\n', " ");
    let expected = if is_v2 { "67108864 50000 100000 20 " } else { "67108864 50000 512 " };
    assert_eq!(text(lab.exec(&id, &read, 10).await.unwrap()), expected);
    assert_eq!(text(lab.exec(&id, &["cat", "/proc/1/oom_score_adj"], 10).await.unwrap()), "500 ");
    let request = cri::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(cri::LinuxContainerResources { memory_limit_in_bytes: 128 << 20, ..Default::default() }),
        ..Default::default()
    };
    lab.runtime().update_container_resources(Request::new(request)).await.unwrap();
    let expected = expected.replace("67108864", "134217728");
    assert_eq!(text(lab.exec(&id, &read, 10).await.unwrap()), expected);
    let resources = lab.status(&id).await.resources.unwrap().linux.unwrap();
    assert_eq!((resources.memory_limit_in_bytes, resources.cpu_shares), (128 << 20, 512));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn use_is_reported_for_containers_and_pods() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let script = "head -c 3000000 /dev/zero > /tmp/file; echo ready; sleep 1000";
    let id = lab.run(&pod, lab.container_config("a", &["sh", "-c", script])).await;
    lab.wait_for_output("a", "ready").await;
    let request = cri::ContainerStatsRequest { container_id: id.clone() };
    let stats =
        lab.runtime().container_stats(Request::new(request)).await.unwrap().into_inner().stats.unwrap();
    let value = |v: Option<cri::UInt64Value>| v.map_or(0, |v| v.value);
    assert!(value(stats.cpu.unwrap().usage_core_nano_seconds) > 0);
    assert!(value(stats.memory.unwrap().usage_bytes) > 0);
    assert!(value(stats.writable_layer.unwrap().used_bytes) >= 3_000_000);
    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: pod };
    let stats =
        lab.runtime().pod_sandbox_stats(Request::new(request)).await.unwrap().into_inner().stats.unwrap();
    let linux = stats.linux.unwrap();
    assert_eq!(linux.containers.len(), 1);
    assert!(value(linux.process.unwrap().process_count) >= 1);
    lab.end().await;
}

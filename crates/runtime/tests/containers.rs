//! Real containers through CRI.

mod lab;

use k8s_cri::v1 as cri;
use lab::Lab;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_and_its_output_and_exit_code_are_kept() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let (code, output) =
        lab.script(&pod, "hello", "echo hello; echo $FROM_IMAGE $HOSTNAME; pwd; echo bad >&2; exit 7").await;
    assert_eq!(output, "hello\n1 web\n/tmp\nbad\n");
    assert_eq!(code, 7);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_an_exit_code_above_128() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let id = lab.run(&pod, lab.container_config("sleep", &["sleep", "1000"])).await;
    assert_eq!(lab.status(&id).await.state, cri::ContainerState::ContainerRunning as i32);
    lab.stop(&id, 0).await;
    let status = lab.status(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    lab.stop(&id, 0).await;
    lab.remove(&id).await;
    lab.remove(&id).await;
    lab.end().await;
}

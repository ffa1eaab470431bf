//! Single processes, as a build runs them.

use std::{fs, path::Path};

use runtime::oneshot::{Bind, Holder, Oneshot};
use tokio_util::sync::CancellationToken;

use crate::lab::Lab;

async fn holder(lab: &Lab) -> Holder {
    let dir = lab.dir.path().join("build");
    fs::create_dir(&dir).unwrap();
    Holder::private(&[env!("CARGO_BIN_EXE_plim-holder").into()], &dir).await.unwrap()
}

fn root(lab: &Lab) -> std::path::PathBuf {
    let image = lab.images().get(crate::lab::IMAGE).unwrap();
    let root = lab.dir.path().join("root");
    let status =
        std::process::Command::new("cp").arg("-a").arg(&image.layers[0]).arg(&root).status().unwrap();
    assert!(status.success());
    root
}

fn shell(root: &Path, script: &str) -> Oneshot {
    Oneshot {
        root: root.to_owned(),
        args: ["/bin/sh", "-c", script].map(Into::into).into(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        hostname: "build".into(),
        ..Oneshot::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_changes_the_root_and_leaves_no_mount_point_in_it() {
    let Some(lab) = Lab::new().await else { return };
    let (holder, root) = (holder(&lab).await, root(&lab));
    fs::write(lab.dir.path().join("secret"), "hidden\n").unwrap();
    let mut step = shell(&root, "cat /run/secrets/it - ; hostname; echo made > /made; sleep 1000 & exit 3");
    step.stdin = b"input\n".into();
    step.binds = vec![Bind {
        source: lab.dir.path().join("secret"),
        target: "/run/secrets/it".into(),
        writable: false,
    }];
    let mut output = Vec::new();
    let mut take = |bytes: &[u8]| output.extend_from_slice(bytes);
    let code = holder.run(&step, &mut take, &CancellationToken::new()).await.unwrap();
    assert_eq!((code, String::from_utf8(output).unwrap().as_str()), (3, "hidden\ninput\nbuild\n"));
    assert_eq!(fs::read_to_string(root.join("made")).unwrap(), "made\n");
    assert!(!root.join("run").exists());
    drop(holder);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_step_is_killed() {
    let Some(lab) = Lab::new().await else { return };
    let (holder, root) = (holder(&lab).await, root(&lab));
    let cancel = CancellationToken::new();
    let mut take = |bytes: &[u8]| {
        if bytes.starts_with(b"running") {
            cancel.cancel();
        }
    };
    let code = holder.run(&shell(&root, "echo running; sleep 1000"), &mut take, &cancel).await.unwrap();
    assert_eq!(code, 137);
    let nowhere = shell(Path::new("/nonexistent"), "true");
    assert!(holder.run(&nowhere, &mut |_| {}, &CancellationToken::new()).await.is_err());
    drop(holder);
    lab.end().await;
}

//! Builds with the runtime's own executor: real namespaces, users, seccomp and cgroups.

mod lab;

use std::{path::PathBuf, sync::Arc};

use builder::{Build, Error, Host, Secret, SecretSource};
use images::Image;
use lab::Lab;
use runtime::oneshot::Holder;

/// The holder's program, which belongs to the runtime: built by `cargo build -p runtime`.
fn program() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.parent()?.parent()?.join("plim-holder");
    if !path.exists() {
        eprintln!("skipped: {} is not built (cargo build -p runtime)", path.display());
        return None;
    }
    Some(path)
}

fn build(lab: &Lab, dockerfile: &str, change: impl FnOnce(&mut Build)) -> Option<Result<Image, Error>> {
    let command = program()?;
    lab.write("Dockerfile", dockerfile);
    let mut build = Build::new(lab.context(), lab.path().join("caches"));
    build.pull = images::PullPolicy::Never;
    change(&mut build);
    // Each its own: the holder before may still be ending.
    let dir = tempfile::tempdir_in(lab.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
    let built = runtime.block_on(async {
        let holder = match Holder::private(&[command.into()], dir.path()).await {
            Ok(holder) => Arc::new(holder),
            Err(error) => panic!("{error}"),
        };
        let (seen, cancel) = (lab.seen.clone(), lab.cancel.clone());
        builder::build(&build, &lab.images, holder, seen, cancel).await
    });
    Some(built)
}

#[test]
fn steps_run_in_containers_and_leave_only_their_changes() {
    let Some(lab) = Lab::new() else { return };
    lab.write("in/f", "from the context\n");
    std::fs::write(lab.path().join("token"), "s3cret").unwrap();
    std::fs::write(lab.path().join("bundle"), "HOST\n").unwrap();
    let text = "FROM base\nUSER app\nWORKDIR /home/app\n\
        RUN --mount=type=cache,target=/c,uid=1000 --mount=type=bind,source=in,target=/in --mount=type=secret,id=t,uid=1000 --mount=type=tmpfs,target=/mem \
        id -u > who; id -g >> who; cat /in/f /run/secrets/t >> who; echo x > /c/x; echo y > /mem/y; grep -c HOST /etc/ssl/certs/ca-certificates.crt >> who; test -w /etc/passwd || echo safe >> who; echo gone > /dev/null\n\
        USER root\nRUN --network=none ls /sys/class/net > /net; mv /etc/group /etc/gruppe; rm -rf /tmp\n";
    let (token, bundle) = (lab.path().join("token"), lab.path().join("bundle"));
    let built = build(&lab, text, |b| {
        b.secrets = vec![Secret { id: "t".into(), source: SecretSource::File(token) }];
        b.host = Host { certificates: Some(bundle), ..Host::read([]) };
    });
    let Some(built) = built else { return };
    let image = built.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(lab.read(&image, "home/app/who").unwrap(), "1000\n100\nfrom the context\ns3cret1\nsafe\n");
    assert_eq!(lab.read(&image, "net").unwrap(), "lo\n");
    let base = lab.images.get("base").unwrap();
    let mut expected: Vec<String> =
        lab.files(&base).into_keys().filter(|f| f != "tmp" && f != "etc/group").collect();
    expected.extend(["home", "home/app", "home/app/who", "net", "etc/gruppe"].map(String::from));
    expected.sort();
    assert_eq!(lab.files(&image).into_keys().collect::<Vec<_>>(), expected);
    assert_eq!(lab.files(&image)["home/app/who"], "file 39 644 1000:100");
    lab.assert_clean();
}

#[test]
fn a_failing_step_is_told_with_its_output() {
    let Some(lab) = Lab::new() else { return };
    let Some(built) = build(&lab, "FROM base\nRUN echo to the end >&2; exit 3\n", |_| {}) else { return };
    let error = built.unwrap_err().to_string();
    assert!(error.contains("ended with exit code 3") && error.ends_with("\n  to the end"), "{error}");
    let Some(built) = build(&lab, "FROM base\nRUN [\"/no/such\"]\n", |_| {}) else { return };
    let error = built.unwrap_err().to_string();
    assert!(error.starts_with("Dockerfile:2: ") && error.contains("/no/such"), "{error}");
    lab.assert_clean();
}

#[test]
fn cancelling_kills_the_step() {
    let Some(lab) = Lab::new() else { return };
    let (cancel, seen) = (lab.cancel.clone(), lab.seen.clone());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let watcher = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            if seen.all().iter().any(|s| s.ends_with(": running")) {
                cancel.cancel();
            }
            std::thread::yield_now();
        }
    });
    let built = build(&lab, "FROM base\nRUN echo running; sleep 1000\n", |_| {});
    drop(stop);
    watcher.join().unwrap();
    let Some(built) = built else { return };
    assert_eq!(built.unwrap_err().to_string(), "the build was cancelled");
    lab.assert_clean();
}

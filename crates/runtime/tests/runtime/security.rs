//! What a container may not do.

use std::{fs, os::unix::fs::symlink};

use k8s_cri::v1 as cri;
use tonic::Code;

use crate::lab::{Lab, make_image};

fn security(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

async fn run_with(
    lab: &Lab,
    pod: &str,
    name: &str,
    script: &str,
    change: impl FnOnce(&mut cri::LinuxContainerSecurityContext),
) -> (i32, String) {
    let mut config = lab.container_config(name, &["sh", "-c", script]);
    change(security(&mut config));
    let id = lab.run(pod, config).await;
    (lab.ended(&id).await.exit_code, lab.output(name))
}

const RIGHTS: &str =
    "grep -E '^(CapPrm|CapEff|CapBnd|CapInh|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '";

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_the_default_ones_unless_asked_otherwise() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let (_, output) = run_with(&lab, &pod, "default", RIGHTS, |_| {}).await;
    for line in [
        "CapEff: 00000000a80425fb",
        "CapBnd: 00000000a80425fb",
        "CapInh: 0000000000000000",
        "NoNewPrivs: 0",
        "Seccomp: 2",
    ] {
        assert!(output.contains(line), "{line} in {output}");
    }
    let (_, output) = run_with(&lab, &pod, "less", RIGHTS, |s| {
        s.no_new_privs = true;
        s.capabilities = Some(cri::Capability {
            drop_capabilities: vec!["ALL".into()],
            add_capabilities: vec!["NET_BIND_SERVICE".into()],
            ..Default::default()
        });
    })
    .await;
    for line in ["CapEff: 0000000000000400", "CapBnd: 0000000000000400", "NoNewPrivs: 1", "Seccomp: 2"] {
        assert!(output.contains(line), "{line} in {output}");
    }
    let (_, output) = run_with(&lab, &pod, "user", RIGHTS, |s| {
        s.run_as_user = Some(cri::Int64Value { value: 1000 });
    })
    .await;
    assert!(output.contains("CapEff: 0000000000000000"), "{output}");
    let (_, output) = run_with(&lab, &pod, "privileged", RIGHTS, |s| s.privileged = true).await;
    assert!(output.contains("Seccomp: 0"), "{output}");
    // all that this machine has, which may be less than there is
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|l| l.starts_with("CapPrm")).unwrap().replace('\t', " ");
    assert!(output.contains(&own), "{own} in {output}");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn system_calls_outside_of_the_profile_fail() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let script = "mount -t tmpfs x /tmp; echo $?; unshare -U true; echo $?; chroot / true; echo $?";
    let (_, output) = lab.script(&pod, "a", &format!("({script}) 2>/dev/null")).await;
    assert_eq!(output, "1\n1\n0\n");

    fs::create_dir_all(lab.dir.path().join("seccomp")).unwrap();
    let put = |name: &str, text: &str| fs::write(lab.dir.path().join("seccomp").join(name), text).unwrap();
    put(
        "nochroot.json",
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chroot"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#,
    );
    put("empty.json", "");
    let local = |name: &str| cri::SecurityProfile {
        profile_type: cri::security_profile::ProfileType::Localhost as i32,
        localhost_ref: name.into(),
    };
    let (_, output) = run_with(&lab, &pod, "b", "chroot / true 2>/dev/null; echo $?", |s| {
        s.seccomp = Some(local("nochroot.json"));
    })
    .await;
    assert_eq!(output, "1\n");
    for name in ["empty.json", "", "../etc/passwd", "missing.json"] {
        let mut config = lab.container_config("c", &["true"]);
        security(&mut config).seccomp = Some(local(name));
        assert_eq!(lab.create(&pod, config).await.unwrap_err().code(), Code::InvalidArgument, "{name}");
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_s_files_are_hidden_or_read_only() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let script = "cat /proc/kcore /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l
        for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/mm/ksm/run /sys/fs/cgroup/memory/cgroup.procs; do
            [ -e $f ] && { echo x > $f && echo written $f; }
        done; mkdir /sys/fs/cgroup/memory/x && echo made; true";
    let (code, output) = lab.script(&pod, "a", &format!("({script}) 2>/dev/null")).await;
    assert_eq!((code, output.as_str()), (0, "0\n0\n"));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_the_usual_ones_and_none_can_be_added() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let script = "ls /dev | tr '\\n' ' '; echo; echo x > /dev/null && head -c 4 /dev/zero | wc -c
        mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk | wc -c; mknod /dev/disk b 254 0 && head -c 1 /dev/disk | wc -c
        mknod /dev/shm/null c 1 3 && cat /dev/shm/null && echo open";
    let (_, output) = lab.script(&pod, "a", &format!("({script}) 2>/dev/null; true")).await;
    let mut lines = output.lines();
    assert_eq!(
        lines.next().unwrap().trim(),
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    assert_eq!(lines.collect::<Vec<_>>(), ["4", "0", "0"]);

    // one that may mount is kept from devices by its cgroup
    let script = "mkdir /tmp/t && mount -t tmpfs x /tmp/t && mknod /tmp/t/d b 254 0 && echo made && head -c 1 /tmp/t/d | wc -c";
    let (_, output) = run_with(&lab, &pod, "b", &format!("({script}) 2>/dev/null; true"), |s| {
        s.capabilities =
            Some(cri::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
    })
    .await;
    assert_eq!(output, "made\n0\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_host_is_left_open() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let id = lab.run(&pod, lab.container_config("sleep", &["sleep", "1000"])).await;
    let script = "ls /proc/1/fd | tr '\\n' ' '; ls /proc/self/fd | tr '\\n' ' '";
    let got = lab.exec(&id, &["sh", "-c", script], 10).await.unwrap();
    // 3 is the folder that ls itself reads
    assert_eq!(String::from_utf8(got.stdout).unwrap().trim(), "0 1 2 0 1 2 3");
    let got = lab.exec(&id, &["sh", "-c", "cut -d' ' -f5 /proc/self/mountinfo | sort"], 10).await.unwrap();
    let text = String::from_utf8(got.stdout).unwrap();
    let here = lab.dir.path().display().to_string();
    assert!(!text.contains(&here), "{text}");
    // a working directory through a descriptor of the runtime (CVE-2024-21626)
    for n in 3..12 {
        let mut config = lab.container_config(&format!("wd{n}"), &["pwd"]);
        config.working_dir = format!("/proc/self/fd/{n}");
        let id = lab.create(&pod, config).await.unwrap();
        assert!(lab.start(&id).await.is_err(), "/proc/self/fd/{n}");
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_s_program_cannot_be_overwritten() {
    use std::os::fd::AsRawFd;
    let Some(mut lab) = Lab::new().await else { return };
    lab.close().await;
    // a program of its own: others that run from the same file would hide what is tested
    let program = lab.dir.path().join("holder");
    fs::copy(env!("CARGO_BIN_EXE_plim-holder"), &program).unwrap();
    let mut config = lab.config();
    config.dir = lab.dir.path().join("other");
    config.holder_command = vec![program.clone().into()];
    lab.open_with(config).await;
    let pod = lab.sandbox("web").await;
    // Executing /proc/self/exe runs the runtime's own program inside, with a linker of the image's (CVE-2019-5736).
    make_image(&lab.images(), "plimsoll.test/evil:1", "", |root| {
        symlink("/proc/self/exe", root.join("bin/evil")).unwrap();
        for linker in ["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"] {
            fs::create_dir(root.join(linker).parent().unwrap()).unwrap();
            fs::copy("/bin/busybox", root.join(linker)).unwrap();
        }
    });
    let mut config = lab.container_config("evil", &["/bin/evil"]);
    config.image.as_mut().unwrap().image = "plimsoll.test/evil:1".into();
    let id = lab.run(&pod, config).await;
    lab.ended(&id).await;
    // What it can keep is a descriptor of the program; once nobody executes it, it tries to write to that.
    let holder = lab.runtime().holder_pid();
    let kept = fs::File::open(format!("/proc/{holder}/exe")).unwrap();
    let pidfd = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(holder).unwrap(),
        rustix::process::PidfdFlags::empty(),
    )
    .unwrap();
    lab.remove_sandbox(&pod).await;
    lab.runtime().end().await.unwrap();
    lab.close().await;
    rustix::event::poll(&mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)], None)
        .unwrap();
    let again = format!("/proc/self/fd/{}", kept.as_raw_fd());
    let error = fs::OpenOptions::new().write(true).open(again).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
    fs::OpenOptions::new().write(true).open(&program).expect("by its own name it could be written");
    lab.open().await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_cannot_redirect_the_kernel_s_mounts() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let outside = lab.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for name in ["proc", "dev", "sys"] {
        let tag = format!("plimsoll.test/{name}:1");
        make_image(&lab.images(), &tag, "", |root| {
            let _ = fs::remove_dir(root.join(name));
            symlink(&outside, root.join(name)).unwrap();
        });
        let mut config = lab.container_config(name, &["true"]);
        config.image.as_mut().unwrap().image = tag;
        let id = lab.create(&pod, config).await.unwrap();
        let error = lab.start(&id).await.unwrap_err();
        assert!(error.message().contains(&format!("/{name} in the image is not a directory")), "{error}");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_found_in_the_container_and_reported() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    make_image(&lab.images(), "plimsoll.test/user:1", "web", |_| {});
    let mut config = lab.container_config("a", &["sh", "-c", "id; echo $HOME; echo x > /dev/stdout"]);
    config.image.as_mut().unwrap().image = "plimsoll.test/user:1".into();
    security(&mut config).supplemental_groups = vec![2000];
    let id = lab.run(&pod, config).await;
    let status = lab.ended(&id).await;
    assert_eq!(lab.output("a"), "uid=33(web) gid=34(web) groups=40(log),2000\n/srv/web\nx\n");
    let user = status.user.unwrap().linux.unwrap();
    assert_eq!((user.uid, user.gid, user.supplemental_groups), (33, 34, vec![2000, 40]));
    let (_, output) = run_with(&lab, &pod, "b", "id", |s| {
        s.run_as_user = Some(cri::Int64Value { value: 4_000 });
        s.run_as_group = Some(cri::Int64Value { value: 5_000 });
    })
    .await;
    assert_eq!(output, "uid=4000 gid=5000\n");
    // beyond what a user can be
    let mut config = lab.container_config("c", &["id"]);
    security(&mut config).run_as_username = "4294967295".into();
    let id = lab.create(&pod, config).await.unwrap();
    assert!(lab.start(&id).await.unwrap_err().message().contains("numbers end at"));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_sets_only_sysctls_of_its_own() {
    let Some(lab) = Lab::new().await else { return };
    let mut config = lab.sandbox_config("web");
    let sysctls = |config: &mut cri::PodSandboxConfig, name: &str, value: &str| {
        config.linux.as_mut().unwrap().sysctls.insert(name.into(), value.into());
    };
    sysctls(&mut config, "net.ipv4.ip_local_port_range", "2000 3000");
    sysctls(&mut config, "kernel.shm_rmid_forced", "1");
    let pod = lab.sandbox_with(config).await.unwrap();
    let script = "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let (_, output) = lab.script(&pod, "a", script).await;
    assert_eq!(output.split_whitespace().collect::<Vec<_>>(), ["2000", "3000", "1", "0"]);
    for name in ["kernel.panic", "vm.swappiness", "fs.file-max", "net/../kernel/panic"] {
        let mut config = lab.sandbox_config("bad");
        sysctls(&mut config, name, "1");
        assert!(lab.sandbox_with(config).await.is_err(), "{name}");
    }
    lab.end().await;
}

//! Mounts.

use std::{fs, os::unix::fs::symlink};

use k8s_cri::v1 as cri;
use tonic::Code;

use crate::lab::{IMAGE, Lab, make_image};

fn bind(from: &std::path::Path, to: &str) -> cri::Mount {
    cri::Mount { container_path: to.into(), host_path: from.display().to_string(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_and_files_of_the_host_are_mounted_where_asked() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let data = lab.dir.path().join("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("file"), "from the host\n").unwrap();
    let script = "cat /new/deep/file /etc/one /etc/resolv.conf /etc/hostname; echo in > /new/deep/written
        echo x > /ro/x; echo y > /etc/one; ls /ro; mount | grep -c ' /ro '";
    let mut config = lab.container_config("a", &["sh", "-c", &format!("({script}) 2>/dev/null")]);
    config.mounts.push(bind(&data, "/new/deep"));
    config.mounts.push(cri::Mount { readonly: true, ..bind(&data.join("sub"), "/ro") });
    config.mounts.push(cri::Mount { readonly: true, ..bind(&data.join("file"), "/etc/one") });
    let id = lab.run(&pod, config).await;
    lab.ended(&id).await;
    assert_eq!(lab.output("a"), "from the host\nfrom the host\nnameserver 10.0.0.10\nweb\n1\n");
    assert_eq!(fs::read_to_string(data.join("written")).unwrap(), "in\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symlink_in_the_image_does_not_lead_a_mount_outside() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let (data, outside) = (lab.dir.path().join("data"), lab.dir.path().join("outside"));
    fs::create_dir_all(&data).unwrap();
    fs::create_dir_all(outside.join("etc")).unwrap();
    fs::write(data.join("f"), "volume\n").unwrap();
    make_image(&lab.images(), "plimsoll.test/links:1", "", |root| {
        symlink(&outside, root.join("abs")).unwrap();
        symlink("../../../../../../tmp", root.join("up")).unwrap();
    });
    let start = async |name: &str, at: &str| {
        let mut config = lab.container_config(name, &["sh", "-c", "cat /tmp/here/f; ls /tmp"]);
        config.image.as_mut().unwrap().image = "plimsoll.test/links:1".into();
        config.mounts.push(bind(&data, at));
        let id = lab.create(&pod, config).await.unwrap();
        lab.start(&id).await.map(|()| id)
    };
    // up and out is the container's own /tmp
    let id = start("a", "/up/here").await.unwrap();
    lab.ended(&id).await;
    assert_eq!(lab.output("a"), "volume\nhere\n");
    // where it leads is made inside, and nothing appears outside
    lab.ended(&start("b", "/abs/etc").await.unwrap()).await;
    assert_eq!(fs::read_dir(outside.join("etc")).unwrap().count(), 0);
    // over the kernel's files nothing is mounted
    assert!(start("c", "/proc/sys").await.unwrap_err().message().contains("/proc"));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_that_cannot_be_are_refused() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let create = async |mount: cri::Mount| {
        let mut config = lab.container_config("a", &["true"]);
        config.mounts.push(mount);
        lab.create(&pod, config).await
    };
    let data = lab.dir.path();
    for at in ["/", "relative", "/a/../b"] {
        assert_eq!(create(bind(data, at)).await.unwrap_err().code(), Code::InvalidArgument, "{at}");
    }
    let id = create(bind(&data.join("missing"), "/x")).await.unwrap();
    let error = lab.start(&id).await.unwrap_err();
    assert!(error.message().contains("missing"), "{error}");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn later_mounts_pass_as_propagation_says() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let data = lab.dir.path().join("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    rustix::mount::mount("t", &data, "tmpfs", rustix::mount::MountFlags::empty(), c"").unwrap();
    rustix::mount::mount_change(&data, rustix::mount::MountPropagationFlags::SHARED).unwrap();
    fs::create_dir(data.join("sub")).unwrap();
    let run = async |name: &str, propagation: cri::MountPropagation| {
        let mut config = lab.container_config(name, &["sleep", "1000"]);
        config.mounts.push(cri::Mount { propagation: propagation as i32, ..bind(&data, "/vol") });
        lab.run(&pod, config).await
    };
    let private = run("private", cri::MountPropagation::PropagationPrivate).await;
    let slave = run("slave", cri::MountPropagation::PropagationHostToContainer).await;
    rustix::mount::mount("late", data.join("sub"), "tmpfs", rustix::mount::MountFlags::empty(), c"").unwrap();
    fs::write(data.join("sub/seen"), "").unwrap();
    let list = async |id: &str| {
        String::from_utf8(lab.exec(id, &["ls", "/vol/sub"], 10).await.unwrap().stdout).unwrap()
    };
    assert_eq!((list(&private).await.as_str(), list(&slave).await.as_str()), ("", "seen\n"));
    for id in [private, slave] {
        lab.stop(&id, 0).await;
    }
    rustix::mount::unmount(data.join("sub"), rustix::mount::UnmountFlags::DETACH).unwrap();
    rustix::mount::unmount(&data, rustix::mount::UnmountFlags::DETACH).unwrap();
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_root_still_has_its_volumes() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let data = lab.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let script = "echo x > /tmp/x || echo no; echo x > /vol/x && echo yes; echo x > /dev/shm/x && echo yes";
    let mut config = lab.container_config("a", &["sh", "-c", &format!("({script}) 2>/dev/null")]);
    config.mounts.push(bind(&data, "/vol"));
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().readonly_rootfs = true;
    let id = lab.run(&pod, config).await;
    lab.ended(&id).await;
    assert_eq!(lab.output("a"), "no\nyes\nyes\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_can_be_a_volume() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let script = "cat /img/etc/group | head -n 1; (echo x > /img/x) 2>/dev/null || echo no";
    let mut config = lab.container_config("a", &["sh", "-c", script]);
    config.mounts.push(cri::Mount {
        container_path: "/img".into(),
        image: Some(cri::ImageSpec { image: IMAGE.into(), ..Default::default() }),
        readonly: true,
        ..Default::default()
    });
    let id = lab.run(&pod, config).await;
    lab.ended(&id).await;
    assert_eq!(lab.output("a"), "root:x:0:\nno\n");
    lab.end().await;
}

//! Contexts, images and Dockerfiles that mean ill, or that were mistyped.

mod lab;

use std::os::unix::fs::symlink;

use lab::{Lab, archive};
use serde_json::json;

#[test]
fn sources_cannot_leave_the_context() {
    let Some(lab) = Lab::new() else { return };
    std::fs::write(lab.path().join("secret"), "outside").unwrap();
    symlink(lab.path().join("secret"), lab.context().join("absolute")).unwrap();
    symlink("../secret", lab.context().join("up")).unwrap();
    symlink("/", lab.context().join("root")).unwrap();
    symlink("/proc/self/root", lab.context().join("magic")).unwrap();
    lab.write("dir/file", "x");
    symlink("../../secret", lab.context().join("dir/link")).unwrap();
    for source in ["absolute", "up", "magic", "root/etc/hostname", "../secret"] {
        let error = lab.refused(&format!("FROM scratch\nCOPY {source} /x\n"));
        assert!(error.starts_with("Dockerfile:2: \""), "{source}: {error}");
        let named = error.contains("is not in the context") || error.contains("lies outside of the context");
        assert!(named, "{source}: {error}");
    }
    let image = lab.good("FROM scratch\nCOPY dir /dir\nCOPY root/dir/file /through\n");
    assert_eq!(lab.files(&image)["dir/link"], "-> ../../secret 777 0:0", "a link is copied as a link");
    assert_eq!(lab.read(&image, "through").unwrap(), "x");
    let error = lab.refused("FROM base\nRUN --mount=type=bind,source=absolute,target=/x cat /x\n");
    assert!(error.contains("is not in the context"), "{error}");
}

#[test]
fn targets_cannot_leave_the_root() {
    let Some(lab) = Lab::new() else { return };
    lab.write("file", "x");
    let outside = lab.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "untouched").unwrap();
    let link = format!("->{}", outside.display());
    let tar = archive(&[
        ("evil", 0o777, link.as_bytes()),
        ("up", 0o777, b"->../../../../../../../../../../"),
        ("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n"),
        ("proc", 0o777, b"->/evil"),
    ]);
    lab.import("evil", &tar, json!({}));
    let error = lab.refused("FROM evil\nCOPY file /evil/\n");
    assert!(error.contains("a link to nowhere"), "{error}");
    let image = lab.good("FROM evil\nCOPY file /up/here/\nCOPY file ../../../there\nWORKDIR /up/wd\n");
    let files = lab.files(&image);
    assert!(
        files.contains_key("here/file") && files.contains_key("there") && files.contains_key("wd"),
        "{files:?}"
    );
    assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"untouched");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    lab.write("evil.tar", archive(&[("a", 0o777, link.as_bytes()), ("a/file", 0o644, b"overwritten")]));
    let error = lab.refused("FROM scratch\nADD evil.tar /\n");
    assert!(error.contains("evil.tar"), "{error}");
    assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"untouched");
    lab.assert_clean();
}

#[test]
fn a_step_cannot_lead_the_clean_up_astray() {
    let Some(lab) = Lab::new() else { return };
    let outside = lab.path().join("outside");
    std::fs::create_dir_all(outside.join("certs")).unwrap();
    for name in ["certs/ca-certificates.crt", "hosts", "resolv.conf"] {
        std::fs::write(outside.join(name), "").unwrap();
    }
    std::fs::write(lab.path().join("bundle"), "").unwrap();
    let text = format!(
        "FROM base\nRUN mv /etc/ssl /etc/old && ln -s {0} /etc/ssl\nRUN rm -rf /run; ln -s {0} /run\n",
        outside.display()
    );
    let bundle = lab.path().join("bundle");
    let resolver = lab.path().join("bundle");
    lab.build(&text, |b| {
        b.host.certificates = Some(bundle);
        b.host.resolver = Some(resolver);
    })
    .unwrap_or_else(|e| panic!("{e}"));
    assert!(outside.join("certs/ca-certificates.crt").exists() && outside.join("hosts").exists());
}

#[test]
fn what_cannot_be_in_an_image_is_refused() {
    let Some(lab) = Lab::new() else { return };
    lab.write("d/.wh.x", "");
    let error = lab.refused("FROM scratch\nCOPY d /d\n");
    assert!(error.contains(".wh. mean deleted files"), "{error}");
    lab.write("e/f", "");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        lab.context().join("e/fifo"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let error = lab.refused("FROM scratch\nCOPY e /e\n");
    assert!(error.contains("e/fifo: is a FIFO") && error.contains(".dockerignore"), "{error}");
    lab.write(".dockerignore", "e/fifo\n");
    lab.good("FROM scratch\nCOPY e /e\n");
}

#[test]
fn mistakes_are_answered_with_the_place_and_a_way_out() {
    let Some(lab) = Lab::new() else { return };
    lab.write("package.json", "{}");
    for (text, expected) in [
        (
            "FROM base\nCOPY pakage.json /\n",
            "Dockerfile:2: \"pakage.json\" is not in the context\n     2 | COPY pakage.json /\nDid you mean package.json?",
        ),
        (
            "FROM bsae\nRUN x\n",
            "Dockerfile:1: no image \"docker.io/library/bsae:latest\" in the store; pull, build or import it first\n     1 | FROM bsae\nDid you mean base?",
        ),
        ("FROM base AS builder\nFROM base\nCOPY --from=bulider /x /\n", "Did you mean builder?"),
        ("FROM base\nCOPY --from=base /nope /\n", "Dockerfile:2: \"/nope\" is not in image base"),
        (
            "FROM base\nCOPY a b c\n",
            "Dockerfile:2: several sources go into a folder, whose name ends with /\n     2 | COPY a b c\nWrite c/ if it is a folder.",
        ),
        ("FROM base\nENV A=\"${B:?is needed}\"\n", "Dockerfile:2: B: is needed"),
        ("FROM base\nEXPOSE 8080:80\n", "EXPOSE takes the port of the container alone: EXPOSE 80"),
        ("FROM base\nEXPOSE 99999\n", "a number from 1 to 65535"),
        ("FROM base\nWORKDIR $NOWHERE\n", "\"$NOWHERE\" is empty when its variables are replaced"),
        ("FROM Base\n", "must be lower case"),
    ] {
        let error = lab.refused(text);
        assert!(error.contains(expected), "{text}\n{error}");
    }
    let error = lab.build("FROM base\n", |b| b.tags = vec!["Bad Tag".into()]).unwrap_err().to_string();
    assert!(error.contains("\"Bad Tag\" is not an image reference"), "{error}");
    let error = lab.build("FROM base\n", |b| b.target = Some("x".into())).unwrap_err().to_string();
    assert!(error.contains("has no stage \"x\""), "{error}");
    std::fs::remove_file(lab.context().join("Dockerfile")).unwrap();
    let build = builder::Build::new(lab.context(), lab.path().join("caches"));
    let error = lab.run(&build).unwrap_err().to_string();
    assert!(error.contains("there is no Dockerfile in"), "{error}");
    let build = builder::Build::new(lab.path().join("none"), lab.path().join("caches"));
    let error = lab.run(&build).unwrap_err().to_string();
    assert!(error.contains("opening the context"), "{error}");
}

#[test]
fn a_dockerfile_that_is_a_link_out_of_the_context_is_not_followed() {
    let Some(lab) = Lab::new() else { return };
    std::fs::write(lab.path().join("secret"), "outside").unwrap();
    let _ = std::fs::remove_file(lab.context().join("Dockerfile"));
    symlink("../secret", lab.context().join("Dockerfile")).unwrap();
    let error =
        lab.run(&builder::Build::new(lab.context(), lab.path().join("caches"))).unwrap_err().to_string();
    assert!(error.contains("there is no Dockerfile"), "{error}");
}

#[test]
fn variables_cannot_grow_without_end() {
    let Some(lab) = Lab::new() else { return };
    let doubled = |keyword: &str| {
        let head = "FROM scratch\nARG a0=0123456789abcdef\n".to_owned();
        (1..40).fold(head, |text, n| text + &format!("{keyword} a{n}=$a{0}$a{0}\n", n - 1))
    };
    for keyword in ["ARG", "ENV"] {
        let error = lab.refused(&doubled(keyword));
        assert!(error.contains("longer than 131072 bytes"), "{error}");
    }
    let many =
        (0..20).fold("FROM scratch\n".to_owned(), |t, n| t + &format!("LABEL l{n}={}\n", "x".repeat(50_000)));
    let many = many + "LABEL last=" + &"x".repeat(60_000) + "\n";
    let error = lab.refused(&many);
    assert!(error.contains("larger than"), "{error}");
}

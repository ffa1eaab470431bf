//! What single instructions do.

mod lab;

use std::os::unix::fs::{PermissionsExt, symlink};

use builder::{Host, Secret, SecretSource};
use lab::{Lab, archive};
use serde_json::json;

fn list(lab: &Lab, image: &images::Image, under: &str) -> Vec<(String, String)> {
    lab.files(image).into_iter().filter(|(path, _)| path.starts_with(under)).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn copy_puts_files_where_docker_would() {
    let Some(lab) = Lab::new() else { return };
    lab.write("dir/sub/x", "x");
    lab.write("dir/y", "y");
    lab.write("one.txt", "1");
    lab.write("two.txt", "2");
    symlink("dir", lab.context().join("link")).unwrap();
    symlink("/dir/y", lab.context().join("dir/absolute")).unwrap();
    std::fs::set_permissions(lab.context().join("one.txt"), PermissionsExt::from_mode(0o600)).unwrap();
    let text = "FROM base\nWORKDIR /w\n\
        COPY dir /w/a\n\
        COPY link/ b\n\
        COPY *.txt c/\n\
        COPY one.txt d\n\
        COPY one.txt a\n\
        COPY --chown=app --chmod=u=rwX,go=rX dir/sub one.txt nothing* e/\n\
        COPY [\"two.txt\", \"with blank\"]\n\
        COPY --exclude=sub --exclude=abs* dir f\n";
    let image = lab.good(text);
    assert_eq!(
        list(&lab, &image, "w/"),
        pairs(&[
            ("w/a", "dir 755 0:0"),
            ("w/a/absolute", "-> /dir/y 777 0:0"),
            ("w/a/one.txt", "file 1 600 0:0"),
            ("w/a/sub", "dir 755 0:0"),
            ("w/a/sub/x", "file 1 644 0:0"),
            ("w/a/y", "file 1 644 0:0"),
            ("w/b", "dir 755 0:0"),
            ("w/b/absolute", "-> /dir/y 777 0:0"),
            ("w/b/sub", "dir 755 0:0"),
            ("w/b/sub/x", "file 1 644 0:0"),
            ("w/b/y", "file 1 644 0:0"),
            ("w/c", "dir 755 0:0"),
            ("w/c/one.txt", "file 1 600 0:0"),
            ("w/c/two.txt", "file 1 644 0:0"),
            ("w/d", "file 1 600 0:0"),
            ("w/e", "dir 755 1000:100"),
            ("w/e/one.txt", "file 1 644 1000:100"),
            ("w/e/x", "file 1 644 1000:100"),
            ("w/f", "dir 755 0:0"),
            ("w/f/y", "file 1 644 0:0"),
            ("w/with blank", "file 1 644 0:0"),
        ])
    );
}

#[test]
fn copy_goes_through_links_of_the_image_and_replaces_files() {
    let Some(lab) = Lab::new() else { return };
    lab.write("bin/tool", "new");
    lab.write("etc/group", "mine");
    let image = lab.good("FROM base\nRUN ln -s /etc/group /g && ln -s /etc /e && echo old > /bin/tool\nCOPY bin /sbin/\nCOPY bin/tool /g\nCOPY . /\n");
    assert_eq!(lab.read(&image, "bin/tool").unwrap(), "new");
    assert_eq!(lab.read(&image, "etc/group").unwrap(), "mine");
    let files = lab.files(&image);
    assert_eq!((files["sbin"].as_str(), files["g"].as_str()), ("-> bin 777 0:0", "-> /etc/group 777 0:0"));
    assert!(files.contains_key("bin/busybox"), "the folder is merged");
    let error = lab.refused("FROM base\nCOPY etc/group /bin\nCOPY bin /bin/group\n");
    assert!(error.contains("Dockerfile:3: /bin/group in the image is no folder"), "{error}");
    lab.write("tmp", "a file");
    let error = lab.refused("FROM base\nCOPY . /\n");
    assert!(error.contains("/tmp: there is a folder of that name already"), "{error}");
}

#[test]
fn what_is_ignored_does_not_exist() {
    let Some(lab) = Lab::new() else { return };
    for path in ["src/main.rs", "src/secret.key", "node_modules/x/y", "keep.md", "drop.md", ".git/config"] {
        lab.write(path, "x");
    }
    lab.write(
        ".dockerignore",
        "# comment\n.git\nnode_modules\n**/*.key\n*.md\n!keep.md\nDockerfile\n.dockerignore\n",
    );
    let image = lab.good("FROM scratch\nCOPY . /c\n");
    let names: Vec<String> = lab.files(&image).into_keys().collect();
    assert_eq!(names, ["c", "c/keep.md", "c/src", "c/src/main.rs"]);
    let error = lab.refused("FROM scratch\nCOPY src/secret.key /\n");
    assert!(
        error.contains(
            "\"src/secret.key\" does not exist for the build: .dockerignore, line 4, leaves it out"
        ),
        "{error}"
    );
    let error = lab.refused("FROM scratch\nCOPY drop.m* /\n");
    assert!(error.contains("no file matches what COPY names"), "{error}");
    let image =
        lab.build("FROM base\nRUN --mount=target=/c find /c -type f | sort > /found\n", |_| {}).unwrap();
    assert_eq!(lab.read(&image, "found").unwrap(), "/c/keep.md\n/c/src/main.rs\n");

    lab.write("other/My.Dockerfile", "FROM scratch\nCOPY . /c\n");
    lab.write("other/My.Dockerfile.dockerignore", "**\n!drop.md\n");
    let file = lab.context().join("other/My.Dockerfile");
    let image = lab.build("unused", |b| b.dockerfile = Some(file)).unwrap();
    let names: Vec<String> = lab.files(&image).into_keys().collect();
    assert_eq!(names, ["c", "c/drop.md"]);
}

#[test]
fn here_documents_are_scripts_and_files() {
    let Some(lab) = Lab::new() else { return };
    let text = "FROM base\nARG WHO=you\n\
        RUN <<EOF\nset -e\necho \"a $WHO\" > /a\nEOF\n\
        RUN <<-'X' cat > /b && cat <<Y >> /b\n\t$WHO\n\tX\n$WHO\nY\n\
        RUN <<EOF\n#!/bin/cat\nscript\nEOF\n\
        COPY <<one <<'two' /files/\nfor $WHO \"q\" \\$x \\n\none\nfor $WHO\ntwo\n\
        COPY --chmod=755 <<EOF /run.sh\n#!/bin/sh\nEOF\n";
    let image = lab.good(text);
    assert_eq!(lab.read(&image, "a").unwrap(), "a you\n");
    assert_eq!(lab.read(&image, "b").unwrap(), "$WHO\nyou\n");
    assert_eq!(lab.read(&image, "files/one").unwrap(), "for you \"q\" $x \\n\n");
    assert_eq!(lab.read(&image, "files/two").unwrap(), "for $WHO\n");
    assert_eq!(lab.files(&image)["run.sh"], "file 10 755 0:0");
    assert!(lab.seen.all().contains(&"line 12: script".to_owned()), "{:?}", lab.seen.all());
}

#[test]
fn add_unpacks_archives_and_copies_the_rest() {
    let Some(lab) = Lab::new() else { return };
    let tar = archive(&[("d/", 0o750, b""), ("d/f", 0o640, b"f"), ("l", 0o777, b"->d/f")]);
    lab.write("a.tar", &tar);
    lab.write("b.tar.zst", zstd::encode_all(&*tar, 1).unwrap());
    lab.write("c.txt", "c");
    lab.write("e.tar.xz", b"\xfd7zXZ\0rest");
    let image = lab.good("FROM scratch\nADD a.tar /a/\nADD b.tar.zst c.txt /b/\nCOPY a.tar /copied\n");
    let files = lab.files(&image);
    assert_eq!((files["a/d/f"].as_str(), files["b/l"].as_str()), ("file 1 640 0:0", "-> d/f 777 0:0"));
    assert_eq!(
        (files["b/c.txt"].as_str(), files["copied"].as_str()),
        ("file 1 644 0:0", &*format!("file {} 644 0:0", tar.len()))
    );
    let error = lab.refused("FROM scratch\nADD e.tar.xz /\n");
    assert!(error.contains("compressed with xz"), "{error}");
    let error = lab.refused("FROM scratch\nADD --chown=1 a.tar /\n");
    assert!(error.contains("--chown and --chmod do not go with a.tar"), "{error}");
}

#[test]
fn mounts_show_what_they_say_and_leave_nothing() {
    let Some(lab) = Lab::new() else { return };
    lab.write("in/file", "from the context");
    std::fs::write(lab.path().join("token"), "s3cret").unwrap();
    let text = "FROM base AS other\nRUN echo other > /o\n\
        FROM base\nWORKDIR /w\n\
        RUN --mount=type=cache,target=/cache,id=c,uid=7,mode=0770 echo $(stat -c '%a %u' /cache) >> /cache/seen; cat /cache/seen > /seen\n\
        RUN --mount=type=bind,source=in,target=/in --mount=from=other,source=/o,target=/o,rw cat /in/file /o > /both && echo x > /in/file && echo y > /o\n\
        RUN --mount=type=secret,id=t --mount=type=secret,id=t,target=s/here,mode=0444 --mount=type=secret,id=t,env=TOKEN cat /run/secrets/t s/here > /dev/null && echo ${#TOKEN} $(stat -c %a /run/secrets/t /w/s/here) > /length\n\
        RUN --mount=type=tmpfs,target=/mem/x echo y > /mem/x/y && touch /only\n";
    let build = |change: &dyn Fn(&mut builder::Build)| {
        let file = lab.path().join("token");
        lab.build(text, |b| {
            b.secrets = vec![Secret { id: "t".into(), source: SecretSource::File(file) }];
            change(b);
        })
    };
    let image = build(&|_| {}).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(lab.read(&image, "seen").unwrap(), "770 7\n");
    assert_eq!(lab.read(&image, "both").unwrap(), "from the contextother\n");
    assert_eq!(lab.read(&image, "length").unwrap(), "6 400 444\n");
    let files = lab.files(&image);
    for absent in
        ["cache", "in", "o", "run", "w/s", "mem", "proc", "dev", "sys", "etc/resolv.conf", "etc/hosts"]
    {
        assert!(!files.contains_key(absent), "{absent} is in {files:?}");
    }
    assert!(files.contains_key("only"));
    assert_eq!(std::fs::read(lab.context().join("in/file")).unwrap(), b"from the context");

    build(&|_| {}).unwrap();
    assert!(!lab.seen.worked());
    let image = build(&|b| b.no_cache = true).unwrap();
    assert_eq!(lab.read(&image, "seen").unwrap(), "770 7\n770 7\n", "the cache stays from build to build");
    lab.write("in/file", "changed");
    build(&|_| {}).unwrap();
    assert_eq!(lab.seen.outcomes("RUN --mount=type=bind"), ["Done"], "what a bind shows matters");

    let error = lab.refused("FROM base\nRUN --mount=type=secret,id=x,required true\n");
    assert!(error.contains("the secret \"x\" is required"), "{error}");
    let error = lab.refused("FROM base\nRUN --mount=type=bind,source=inn,target=/in true\n");
    assert!(
        error.contains("\"inn\" is not in the context") && error.ends_with("Did you mean in?"),
        "{error}"
    );
    lab.assert_clean();
}

#[test]
fn steps_see_the_machine_and_no_layer_keeps_it() {
    let Some(lab) = Lab::new() else { return };
    let host = lab.path().join("host");
    std::fs::create_dir(&host).unwrap();
    for (name, content) in [
        ("resolv", "nameserver 192.0.2.1\n"),
        ("hosts", "192.0.2.2 mirror\n"),
        ("bundle", "HOST\n"),
        ("java", "JKS\n"),
    ] {
        std::fs::write(host.join(name), content).unwrap();
    }
    let change = |b: &mut builder::Build| {
        b.host = Host {
            resolver: Some(host.join("resolv")),
            hosts: Some(host.join("hosts")),
            certificates: Some(host.join("bundle")),
            java_certificates: Some(host.join("java")),
            proxies: vec![("https_proxy".into(), "http://proxy:1".into())],
        };
        b.build_env = vec![("PIP_INDEX_URL".into(), "http://mirror".into())];
    };
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let check = format!(
        "FROM base\nRUN grep -q 192.0.2.1 /etc/resolv.conf && grep -q mirror /etc/hosts && grep -q HOST {bundle} && grep -q HOST $SSL_CERT_FILE && test $PIP_CERT = $GIT_SSL_CAINFO && test $https_proxy$PIP_INDEX_URL = http://proxy:1http://mirror\n"
    );
    let image = lab.build(&check, change).unwrap_or_else(|e| panic!("{e}"));
    let base = lab.images.get("base").unwrap();
    assert_eq!(lab.files(&image), lab.files(&base));
    assert_eq!(image.layers, base.layers, "a step that changes nothing makes no layer");
    assert_eq!(lab.config(&image)["config"], lab.config(&base)["config"]);

    // A Dockerfile's own setting wins.
    lab.build("FROM base\nENV PIP_CERT=/own\nARG https_proxy=mine\nRUN test $PIP_CERT = /own && test $https_proxy = mine\n", change).unwrap();

    // The tools of the image may replace the bundle, or add to it.
    let own = lab.good(&format!("FROM base\nRUN echo OWN > {bundle} && mkdir /etc/ssl/certs/java && echo OWNJKS > /etc/ssl/certs/java/cacerts\n"));
    lab.images.tag(&own.id, "own").unwrap();
    let run = |command: &str| {
        let image =
            lab.build(&format!("FROM own\nRUN {command}\n"), change).unwrap_or_else(|e| panic!("{e}"));
        (lab.read(&image, &bundle[1..]), lab.read(&image, "etc/ssl/certs/java/cacerts"))
    };
    let (some, java) = (|t: &str| Some(t.to_owned()), Some("OWNJKS\n".to_owned()));
    assert_eq!(
        run(&format!("echo NEW > {bundle}.new && mv -f {bundle}.new {bundle}")),
        (some("NEW\n"), java.clone())
    );
    assert_eq!(run(&format!("echo MORE >> {bundle}")), (some("OWN\nMORE\n"), java.clone()));
    assert_eq!(run(&format!("chmod 600 {bundle}")), (some("OWN\n"), java.clone()));
    assert_eq!(run(&format!("rm {bundle}; ls /etc/ssl")).0, None);
    assert_eq!(run("grep JKS /etc/ssl/certs/java/cacerts"), (some("OWN\n"), java));
    // Java's cannot be told apart, so that step sees none.
    assert_eq!(run("echo ADDED >> /etc/ssl/certs/java/cacerts").1, some("OWNJKS\nADDED\n"));
    lab.assert_clean();
}

#[test]
fn steps_run_as_their_user_in_their_folder() {
    let Some(lab) = Lab::new() else { return };
    let image = lab.good("FROM base\nUSER app:users\nWORKDIR /home/app\nWORKDIR sub\nRUN id -u > id; id -g >> id; pwd >> id; echo $HOME >> id\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN false; true || true\n".replace("RUN false; true || true\n", "").as_str());
    assert_eq!(lab.read(&image, "home/app/sub/id").unwrap(), "1000\n100\n/home/app/sub\n/home/app\n");
    assert_eq!(lab.files(&image)["home/app/sub"], "dir 755 1000:100");
    let error = lab.refused("FROM base\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN false; true\n");
    assert!(error.contains("\"/bin/sh -ec false; true\" ended with exit code 1"), "{error}");
    let error = lab.refused("FROM base\nUSER nobody\nRUN true\n");
    assert!(error.contains("Dockerfile:3: the image has no user \"nobody\""), "{error}");
    let error = lab.refused("FROM base\nCOPY --chown=x:y Dockerfile /\n");
    assert!(error.contains("--chown: the image has no user \"x\""), "{error}");
}

#[test]
fn triggers_of_a_base_image_run_in_its_children() {
    let Some(lab) = Lab::new() else { return };
    lab.write("f", "f");
    let parent = lab.good("FROM base\nONBUILD COPY f /f\nONBUILD RUN cat /f /f > /ff\n");
    assert_eq!(lab.config(&parent)["config"]["OnBuild"], json!(["COPY f /f", "RUN cat /f /f > /ff"]));
    assert!(lab.read(&parent, "f").is_none());
    lab.images.tag(&parent.id, "parent").unwrap();
    let child = lab.good("FROM parent\nRUN echo x >> /ff\n");
    assert_eq!(lab.read(&child, "ff").unwrap(), "ffx\n");
    assert_eq!(lab.config(&child)["config"].get("OnBuild"), None);
}

#[test]
fn arguments_have_their_scopes() {
    let Some(lab) = Lab::new() else { return };
    let text = "ARG BASE=base\nARG V=global\nFROM ${BASE} AS one\nARG V\nARG W=$V-w\nARG TARGETARCH\nENV E=env\nARG E=arg\nRUN echo $V $W $E ${TARGETARCH:+arch} $TARGETOS > /one\nFROM one\nRUN echo $V $W > /two\n";
    let image = lab.good(text);
    assert_eq!(lab.read(&image, "one").unwrap(), "global global-w env arch\n");
    assert_eq!(
        lab.read(&image, "two").unwrap(),
        "global global-w\n",
        "a stage has the arguments of its base"
    );
    lab.build(text, |b| drop(b.args.insert("BSAE".into(), "x".into()))).unwrap();
    assert!(
        lab.seen.all().contains(&"warning no ARG takes the build argument BSAE (is it BASE?)".to_owned())
    );
}

/// A server of one file on this machine; counts requests.
fn serve(content: &'static str) -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let n = stream.read(&mut request).unwrap();
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let found = request[..n].starts_with(b"GET /d/file ");
            let (status, body) = if found { ("200 OK", content) } else { ("404 Not Found", "") };
            let head = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nLast-Modified: Thu, 01 Jan 1970 00:00:09 GMT\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
    });
    (address, count)
}

#[test]
fn add_fetches_addresses() {
    use std::os::unix::fs::MetadataExt;
    let Some(lab) = Lab::new() else { return };
    let (address, count) = serve("fetched");
    let digest = "sha256:8d9e8a4ea1c8e2d8b5a3e5d3b5b9a5a1";
    let image = lab
        .good(&format!("FROM scratch\nADD {address}/d/file /in/\nADD --chmod=755 {address}/d/file /named\n"));
    let files = lab.files(&image);
    assert_eq!((files["in/file"].as_str(), files["named"].as_str()), ("file 7 600 0:0", "file 7 755 0:0"));
    assert_eq!(std::fs::metadata(image.layers[0].join("in/file")).unwrap().mtime(), 9);
    let error = lab.refused(&format!("FROM scratch\nADD {address}/none /x\n"));
    assert!(error.contains("/none answers 404 Not Found"), "{error}");
    let error = lab.refused(&format!("FROM scratch\nADD --checksum={digest} {address}/d/file /x\n"));
    assert!(error.contains("is not sha256: and 64 digits"), "{error}");
    let wrong = format!("sha256:{}", "0".repeat(64));
    let error = lab.refused(&format!("FROM scratch\nADD --checksum={wrong} {address}/d/file /x\n"));
    assert!(error.contains("and --checksum wants 000"), "{error}");
    let right = error.split_once("has the sha256 ").unwrap().1[..64].to_owned();
    let text = format!("FROM scratch\nADD --checksum=sha256:{right} {address}/d/file /x\n");
    lab.good(&text);
    let before = count.load(std::sync::atomic::Ordering::SeqCst);
    lab.good(&text);
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), before, "what is known needs not be fetched");
    let error = lab.refused("FROM scratch\nADD git@example.com:x.git /x\n");
    assert!(error.contains("cannot clone"), "{error}");
    let error = lab.refused("FROM scratch\nCOPY https://example.com/x /x\n");
    assert!(error.ends_with("ADD can."), "{error}");
    lab.assert_clean();
}

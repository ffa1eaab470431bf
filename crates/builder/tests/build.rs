//! Builds from beginning to end, with real layers and real processes.

mod lab;

use lab::Lab;
use serde_json::json;

#[test]
fn a_dockerfile_becomes_an_image_under_its_tags() {
    let Some(lab) = Lab::new() else { return };
    lab.write("app/hello", "hello\n");
    let text = "FROM base AS build\n\
        ARG WHO=world\n\
        ENV GREETING=\"hello $WHO\" OTHER=1\n\
        WORKDIR /srv/app\n\
        COPY app ./\n\
        RUN echo \"$GREETING\" > greeting && cat hello >> greeting && rm hello\n\
        LABEL org.x=y\n\
        EXPOSE 80 53/udp\n\
        USER app\n\
        VOLUME /data\n\
        STOPSIGNAL SIGINT\n\
        HEALTHCHECK --interval=5s CMD true\n\
        ENTRYPOINT [\"/bin/cat\"]\n\
        CMD [\"greeting\"]\n";
    let image = lab
        .build(text, |b| {
            b.tags = vec!["shop/app:1".into(), "shop/app".into()];
            b.labels.insert("given".into(), "too".into());
            b.args.insert("WHO".into(), "you".into());
        })
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(image.tags, ["docker.io/shop/app:1", "docker.io/shop/app:latest"]);
    assert_eq!(lab.read(&image, "srv/app/greeting").unwrap(), "hello you\nhello\n");
    assert!(!lab.files(&image).contains_key("srv/app/hello"));
    let config = &lab.config(&image)["config"];
    assert_eq!(
        config,
        &json!({
            "Env": ["BASE=yes", "GREETING=hello you", "OTHER=1"],
            "WorkingDir": "/srv/app",
            "Labels": {"org.x": "y", "given": "too"},
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "User": "app",
            "Volumes": {"/data": {}},
            "StopSignal": "SIGINT",
            "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000u64},
            "Entrypoint": ["/bin/cat"],
            "Cmd": ["greeting"],
        })
    );
    lab.assert_clean();
}

#[test]
fn a_step_is_done_again_only_when_what_matters_changed() {
    let Some(lab) = Lab::new() else { return };
    lab.write("a", "1");
    lab.write("b", "1");
    let text = "FROM base\nCOPY a /a\nRUN cat /a > /sum\nARG X=1\nCOPY b /b\nRUN cat /a /b > /sum && echo $X >> /sum\nLABEL l=1\n";
    let first = lab.good(text);
    let again = lab.good(text);
    assert!(!lab.seen.worked(), "{:?}", lab.seen.all());
    assert_eq!(first.id, again.id, "also the time of creation is that of the layers");

    // Times do not matter, contents do.
    lab.write("a", "1");
    lab.write("b", "2");
    lab.good(text);
    assert_eq!(lab.seen.outcomes("COPY a"), ["Cached"]);
    assert_eq!(lab.seen.outcomes("COPY b"), ["Done"]);
    assert_eq!(lab.seen.outcomes("RUN"), ["Cached", "Done"]);

    // A mode matters.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(lab.context().join("a"), mode).unwrap();
    lab.good(text);
    assert_eq!(lab.seen.outcomes("COPY a"), ["Done"]);

    // Labels are no matter to files; arguments are to a RUN after them.
    lab.good(&text.replace("l=1", "l=2").replace("FROM base", "FROM base\nLABEL early=1"));
    assert!(!lab.seen.worked());
    lab.build(text, |b| drop(b.args.insert("X".into(), "2".into()))).unwrap();
    assert_eq!(lab.seen.outcomes("RUN"), ["Cached", "Done"]);
    assert_eq!(lab.seen.outcomes("COPY b"), ["Cached"]);

    lab.build(text, |b| b.no_cache = true).unwrap();
    assert_eq!(lab.seen.outcomes("RUN"), ["Done", "Done"]);
}

#[test]
fn an_unchanged_result_keeps_what_follows_cached() {
    let Some(lab) = Lab::new() else { return };
    let text = |comment: &str| {
        format!(
            "FROM base\nRUN echo {comment} >/dev/null; echo same > /x; touch -d @1000000 /x /\nRUN cat /x > /y"
        )
    };
    let with_time = |b: &mut builder::Build| b.epoch = Some(2_000_000);
    lab.build(&text("one"), with_time).unwrap();
    lab.build(&text("two"), with_time).unwrap();
    assert_eq!(lab.seen.outcomes("RUN"), ["Done", "Cached"], "the second step stands on equal layers");
}

#[test]
fn two_builds_in_different_folders_give_the_same_image() {
    let (Some(one), Some(other)) = (Lab::new(), Lab::new()) else { return };
    let text = "FROM base\nCOPY . /src\nRUN mkdir -p /out/deep && cp -r /src /out/deep && rm /etc/group\nWORKDIR /made\n";
    let mut digests = Vec::new();
    for (n, lab) in [&one, &other].into_iter().enumerate() {
        lab.write("x/file", "content");
        lab.write("y", "more");
        let time =
            std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 * (n as u64 + 1));
        std::fs::File::open(lab.context().join("y")).unwrap().set_modified(time).unwrap();
        let image = lab.build(text, |b| b.epoch = Some(1_700_000_000)).unwrap();
        assert_eq!(lab.config(&image)["created"], "2023-11-14T22:13:20Z");
        digests.push(image.manifest);
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn stages_give_files_to_others_and_unused_ones_are_not_built() {
    let Some(lab) = Lab::new() else { return };
    let text = "FROM base AS build\nRUN mkdir /out && echo built > /out/file && chmod 640 /out/file && ln -s file /out/link\n\
        FROM base AS broken\nRUN false\n\
        FROM build AS more\nRUN echo more > /out/more\n\
        FROM scratch\nCOPY --from=build /out /a\nCOPY --from=more --chown=5:6 /out/more /b/\nCOPY --from=base /etc/passwd /etc/\nCOPY --from=2 /out/link /followed\n";
    let image = lab.good(text);
    let files = lab.files(&image);
    let expected = [
        ("a", "dir 755 0:0"),
        ("a/file", "file 6 640 0:0"),
        ("a/link", "-> file 777 0:0"),
        ("b", "dir 755 5:6"),
        ("b/more", "file 5 644 5:6"),
        ("etc", "dir 755 0:0"),
        ("etc/passwd", "file 67 644 0:0"),
        ("followed", "file 6 640 0:0"),
    ];
    let files: Vec<_> = files.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(files, expected);
    let again = lab.good(text);
    assert!(!lab.seen.worked());
    assert_eq!(image.id, again.id);
    let target = lab.build(text, |b| b.target = Some("build".into())).unwrap();
    assert_eq!(lab.read(&target, "out/file").unwrap(), "built\n");
    lab.assert_clean();
}

#[test]
fn a_failing_step_is_shown_with_its_place_and_its_last_words() {
    let Some(lab) = Lab::new() else { return };
    let error = lab.refused("FROM base\n\nRUN echo one && \\\n    echo two >&2 && exit 7\n");
    let dockerfile = "Dockerfile";
    assert_eq!(
        error,
        format!(
            "{dockerfile}:3: \"/bin/sh -c echo one && echo two >&2 && exit 7\" ended with exit code 7\n     3 | RUN echo one && \\\n     4 |     echo two >&2 && exit 7\nThe last it wrote:\n  one\n  two"
        )
    );
    assert_eq!(lab.seen.outcomes("RUN"), ["Failed"]);
    let error = lab.refused("FROM base\nRUN [\"/no/such\"]\n");
    assert!(error.contains("exit code 127 (command not found in the image)"), "{error}");
    assert!(error.ends_with("It wrote nothing."), "{error}");
    lab.assert_clean();
}

#[test]
fn cancelling_ends_the_build_and_leaves_nothing() {
    let Some(lab) = Lab::new() else { return };
    let cancel = lab.cancel.clone();
    let seen = lab.seen.clone();
    let stopper = std::thread::spawn(move || {
        while !seen.all().iter().any(|s| s.contains("running")) {
            std::thread::yield_now();
        }
        cancel.cancel();
    });
    let error = lab.refused("FROM base\nRUN echo running; sleep 1000\n");
    stopper.join().unwrap();
    assert_eq!(error, "the build was cancelled");
    lab.assert_clean();
}

#[test]
fn independent_stages_run_at_the_same_time() {
    let Some(lab) = Lab::new() else { return };
    // Each waits for the other, and gives up after a while.
    let meet = |mine: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,id=meet,target=/m touch /m/{mine}; n=0; until test -e /m/{other}; do n=$((n + 1)); test $n -lt 1000 || exit 9; sleep 0.01; done; touch /{mine}\n"
        )
    };
    let text = format!(
        "FROM base AS a\n{}FROM base AS b\n{}FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        meet("a", "b"),
        meet("b", "a")
    );
    let image = lab.good(&text);
    assert_eq!(lab.files(&image).into_keys().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn the_same_step_in_two_stages_is_done_once() {
    let Some(lab) = Lab::new() else { return };
    let text =
        "FROM base AS a\nRUN echo x > /x\nFROM base AS b\nRUN echo x > /x\nFROM a\nCOPY --from=b /x /y\n";
    lab.build(text, |b| b.no_cache = true).unwrap();
    assert_eq!(lab.executor.ran.lock().unwrap().len(), 1);
}

#[test]
fn a_command_that_is_nearly_json_is_warned_of() {
    let Some(lab) = Lab::new() else { return };
    let image = lab.good("FROM base\nCMD ['echo', 'x']\n");
    assert_eq!(lab.config(&image)["config"]["Cmd"], json!(["/bin/sh", "-c", "['echo', 'x']"]));
    let seen = lab.seen.all();
    assert!(
        seen.iter().any(|s| s.starts_with("warning Dockerfile:2: ['echo', 'x'] is not a JSON list")),
        "{seen:?}"
    );
}

use super::*;

fn one(text: &str) -> Kind {
    let file = parse("Dockerfile", text).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(file.instructions.len(), 1, "{text}");
    file.instructions[0].kind.clone()
}

fn refused(text: &str) -> String {
    parse("Dockerfile", text)
        .map(|f| panic!("{text}: {:?}", f.instructions))
        .unwrap_or_else(|e| e.to_string())
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|t| (*t).to_owned()).collect()
}

#[test]
fn an_error_names_file_and_line_shows_it_and_suggests() {
    let error = parse("sub/Dockerfile", "FROM busybox\n\nRNU apt-get \\\n  update\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "sub/Dockerfile:3: unknown instruction \"RNU\"\n     3 | RNU apt-get \\\n     4 |   update\nDid you mean RUN?"
    );
}

#[test]
fn stages_have_images_names_and_platforms() {
    let from = |platform: Option<&str>, image: &str, name: Option<&str>| {
        Kind::From(From {
            platform: platform.map(str::to_owned),
            image: image.into(),
            name: name.map(str::to_owned),
        })
    };
    assert_eq!(one("from busybox"), from(None, "busybox", None));
    assert_eq!(
        one("FROM --platform=$BUILDPLATFORM a:1 As Build"),
        from(Some("$BUILDPLATFORM"), "a:1", Some("build"))
    );
    assert!(refused("FROM a b").contains("AS name"));
    assert!(refused("FROM a AS 1x").contains("begin with a letter"));
    assert!(refused("FROM --plattform=x a").contains("Did you mean --platform=…?"));
}

#[test]
fn commands_have_two_forms() {
    assert_eq!(one("CMD [\"a\", \"b c\"]"), Kind::Cmd(Command::Exec(texts(&["a", "b c"]))));
    assert_eq!(one("CMD [ -f x ] && y"), Kind::Cmd(Command::Shell("[ -f x ] && y".into())));
    assert_eq!(one("ENTRYPOINT []"), Kind::Entrypoint(Command::Exec(Vec::new())));
    assert_eq!(one("SHELL [\"/bin/bash\", \"-c\"]"), Kind::Shell(texts(&["/bin/bash", "-c"])));
    assert!(refused("SHELL /bin/bash").contains("JSON list"));
    assert!(refused("CMD").contains("CMD needs at least one argument"));
}

#[test]
fn names_and_values_may_be_quoted() {
    let pairs = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    assert_eq!(
        one("ENV a=1 b=\"x y\" c=d\\ e"),
        Kind::Env(pairs(&[("a", "1"), ("b", "\"x y\""), ("c", "d\\ e")]))
    );
    assert_eq!(one("ENV a  b=c d"), Kind::Env(pairs(&[("a", "b=c d")])));
    assert_eq!(one("LABEL \"a b\"='c'"), Kind::Label(pairs(&[("\"a b\"", "'c'")])));
    assert!(refused("ENV a").contains("ENV a=value"));
    assert!(refused("ENV a=b c").contains("\"c\" has no ="));
    assert_eq!(
        one("ARG a b=c d="),
        Kind::Arg(vec![
            ("a".into(), None),
            ("b".into(), Some("c".into())),
            ("d".into(), Some(String::new()))
        ])
    );
    assert!(refused("ARG 1a=x").contains("cannot be the name"));
}

#[test]
fn run_takes_mounts_and_here_documents() {
    let Kind::Run(run) = one(
        "RUN --mount=type=cache,target=/root/.m2,sharing=locked --mount=type=secret,id=npm,env=NPM_TOKEN --network=none <<EOF\nset -e\nmake\nEOF",
    ) else {
        panic!("a RUN")
    };
    assert!(run.offline);
    assert_eq!(run.command, Command::Shell("<<EOF".into()));
    assert_eq!(run.heredocs[0].content, "set -e\nmake\n");
    assert_eq!(
        run.mounts[0],
        Mount {
            target: Some("/root/.m2".into()),
            kind: MountKind::Cache {
                id: None,
                sharing: Sharing::Locked,
                writable: true,
                owner: (0o755, 0, 0)
            }
        }
    );
    assert!(
        matches!(&run.mounts[1].kind, MountKind::Secret { env: Some(env), owner: (0o400, 0, 0), .. } if env == "NPM_TOKEN")
    );
    for (text, why) in [
        ("RUN --mount=type=cach,target=/x y", "Did you mean type=cache?"),
        ("RUN --mount=type=cache y", "needs a target"),
        ("RUN --mount=type=secret y", "needs an id"),
        ("RUN --mount=type=cache,target=/x,shareing=locked y", "Did you mean sharing?"),
        ("RUN --mount=type=ssh y", "as a secret"),
        ("RUN --mount=type=tmpfs,target=/x,size=lots y", "not a size"),
        ("RUN --network=bridge y", "default, host and none"),
        ("RUN --mount=type=cache,target=/x", "needs a command"),
        ("RUN []", "needs a command"),
        ("RUN --mounts=x y", "Did you mean --mount=…?"),
    ] {
        let error = refused(text);
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn copy_takes_flags_and_files_that_stand_here() {
    let Kind::Copy(copy) = one("COPY --from=build --chown=app:app --chmod=0755 --link a b* /c/") else {
        panic!("a COPY")
    };
    assert_eq!(
        (copy.from.as_deref(), copy.chown.as_deref(), copy.chmod.as_deref()),
        (Some("build"), Some("app:app"), Some("0755"))
    );
    assert_eq!(copy.sources, [CopySource::Path("a".into()), CopySource::Path("b*".into())]);
    assert_eq!(copy.target, "/c/");
    let Kind::Copy(copy) = one("COPY <<a.txt <<-'b' /x/\n$y\na.txt\n\tz\n\tb\n") else { panic!("a COPY") };
    let [CopySource::Inline(a), CopySource::Inline(b)] = copy.sources.as_slice() else { panic!("two files") };
    assert_eq!((a.text(), a.expand, b.text(), b.expand), ("$y\n".into(), true, "z\n".into(), false));
    let Kind::Copy(copy) = one("COPY [\"a b\", \"/c d\"]") else { panic!("a COPY") };
    assert_eq!((copy.sources, copy.target), (vec![CopySource::Path("a b".into())], "/c d".into()));
    for (text, why) in [
        ("COPY a", "a source and a target"),
        ("COPY --form=x a b", "Did you mean --from=…?"),
        ("ADD --from=x a b", "ADD has no flag --from"),
        ("COPY <<../x /y\na\n../x", "cannot be a file's name"),
        ("COPY a <<b\nx\nb", "cannot be a here-document"),
        ("COPY [\"\", \"/x\"]", "empty path"),
    ] {
        let error = refused(text);
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn health_checks_have_durations() {
    assert_eq!(one("HEALTHCHECK NONE"), Kind::Healthcheck(Health::None));
    assert_eq!(
        one("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=2 CMD [\"a\"]"),
        Kind::Healthcheck(Health::Check {
            command: Command::Exec(texts(&["a"])),
            times: [Some(90_000_000_000), Some(500_000_000), None, None],
            retries: Some(2)
        })
    );
    for bad in [
        "HEALTHCHECK a",
        "HEALTHCHECK CMD",
        "HEALTHCHECK --interval=5 CMD x",
        "HEALTHCHECK --interval=1us CMD x",
        "HEALTHCHECK NONE x",
    ] {
        refused(bad);
    }
}

#[test]
fn triggers_are_checked_where_they_are_written() {
    assert_eq!(one("ONBUILD RUN x"), Kind::Onbuild("RUN x".into()));
    assert_eq!(one("ONBUILD RUN <<E\nx\nE\n"), Kind::Onbuild("RUN <<E\nx\nE".into()));
    assert!(refused("ONBUILD FROM x").contains("ONBUILD FROM is not allowed"));
    assert!(refused("ONBUILD ONBUILD RUN x").contains("is not allowed"));
    assert!(refused("ONBUILD RNU x").contains("Did you mean RUN?"));
}

#[test]
fn what_is_no_dockerfile_is_refused() {
    assert!(refused("").contains("no instructions"));
    assert!(refused("# only a comment").contains("no instructions"));
    assert!(refused("FROM x\nRUN \0").contains("Dockerfile:2: there is a zero byte"));
    assert!(refused(&"#".repeat(MAX_BYTES + 1)).contains("larger than"));
    assert!(refused(&"USER x\n".repeat(MAX_INSTRUCTIONS + 1)).contains("more than 5000 instructions"));
    assert!(refused("# syntax=evil/frontend\nFROM x").contains("Dockerfile:1: the syntax \"evil/frontend\""));
    parse("Dockerfile", "# syntax=docker.io/docker/dockerfile:1.7-labs\nFROM x").unwrap();
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(
        text in "(FROM|RUN|COPY|ADD|ENV|ARG|ONBUILD|HEALTHCHECK|SHELL|LABEL| |--|mount=|from=|type=|cache|,|=|<<E|\n|\\\\|\"|'|\\[|\\]|\\$|\\{|#|\\PC){0,30}"
    ) {
        let _ = parse("Dockerfile", &text);
    }
}

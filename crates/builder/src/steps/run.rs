//! RUN.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use images::WorkDir;
use runtime::oneshot::{Bind, Oneshot};
use rustix::fs::{AtFlags, FileType, statat, unlinkat};

use super::{
    certificates::{Certificates, Verdict},
    mounts::Wanted,
};
use crate::{
    Error, Failure, Result,
    dockerfile::{Command, Run},
    error::IoContext,
    host::{BUNDLE_VARIABLES, is_proxy},
    overlay::{Rootfs, View, distinct},
    root::{FOLDER, Root, relative},
    session::Made,
    stage::{Here, State},
    user::{self, Identity},
};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const HOSTNAME: &str = "build";
/// Where the host's bundle is seen, whatever the image has.
const BUNDLE: &str = "/run/host-certificates.crt";
/// Where a here-document with a `#!` line is seen.
const SCRIPT: &str = "/dev/pipes/script";
/// Lines that an error shows, and bytes of each.
const SHOWN_LINES: usize = 30;
const MAX_LINE: usize = 8 * 1024;

/// What is run, its variables left to the shell.
struct Job {
    offline: bool,
    args: Vec<String>,
    /// A file to be run, for a here-document that begins with `#!`.
    script: Option<String>,
    env: Vec<(String, String)>,
}

impl Here<'_> {
    pub(crate) fn run(&self, state: &State, run: &Run) -> Result<Made> {
        let job = self.job(state, run);
        let wanted = self.wanted(state, &run.mounts)?;
        let mut key = self.key("run", state);
        key.fields(&job.args).field(job.script.as_deref().unwrap_or_default());
        key.fields(job.env.iter().map(|(n, v)| format!("{n}={v}")));
        key.fields([state.config.workdir(), state.config.user(), if run.offline { "offline" } else { "" }]);
        self.key_of_mounts(&mut key, &wanted);
        self.session.layer(&key.text(), || self.execute(state, &job, &wanted))
    }

    fn job(&self, state: &State, run: &Run) -> Job {
        let (args, script) = match (&run.command, run.heredocs.as_slice()) {
            (Command::Shell(text), [only]) if is_only(text, &only.name) => {
                let content = only.text();
                match content.starts_with("#!") {
                    true => (vec![SCRIPT.to_owned()], Some(content)),
                    false => (state.config.arguments(&Command::Shell(content)), None),
                }
            }
            (Command::Shell(text), heredocs) => {
                let documents = heredocs.iter().map(|h| format!("\n{}{}", h.content, h.name));
                let whole = std::iter::once(text.clone()).chain(documents).collect();
                (state.config.arguments(&Command::Shell(whole)), None)
            }
            (exec, _) => (state.config.arguments(exec), None),
        };
        let mut env = state.config.env();
        for (name, value) in &state.args {
            if let Some(value) = value
                && !env.iter().any(|(n, _)| n == name)
            {
                env.push((name.clone(), value.clone()));
            }
        }
        Job { offline: run.offline, args, script, env }
    }

    fn execute(&self, state: &State, job: &Job, wanted: &[Wanted]) -> Result<Option<WorkDir>> {
        let images = &self.session.images;
        let layers = distinct(&state.layers);
        let view = View::new(images, &layers)?;
        let root = view.root()?;
        let identity = user::identity(&root, state.config.user()).map_err(|why| self.fail(why, None))?;
        let mut java = true;
        loop {
            let host = &self.session.build.host;
            let certificates = Certificates::prepare(images, &root, host, java)?;
            let rootfs = Rootfs::new(images, &layers, certificates.as_ref().map(Certificates::path))?;
            self.run_in(&rootfs, state, job, wanted, &identity)?;
            let Some(certificates) = certificates else { return rootfs.finish() };
            match certificates.settle(rootfs.upper())? {
                Verdict::Clean => return rootfs.finish(),
                Verdict::JavaMixed if java && certificates.has_java() => {
                    self.session.progress.output(
                        self.step,
                        "This step changes Java's certificates; it is run again without the host's.",
                    );
                    java = false;
                    // Before the layer that it stands on.
                    drop(rootfs);
                }
                Verdict::JavaMixed => {
                    return Err(self.fail("Java's certificates are mixed with the host's", None));
                }
            }
        }
    }

    fn run_in(
        &self,
        rootfs: &Rootfs,
        state: &State,
        job: &Job,
        wanted: &[Wanted],
        identity: &Identity,
    ) -> Result<()> {
        let cwd = state.config.workdir();
        let root = rootfs.root()?;
        root.make_folders(Path::new(cwd), (identity.uid, identity.gid))
            .doing(|| format!("making {cwd} in the image"))?;
        let mut place = self.place(wanted, rootfs.scratch())?;
        let mut env = self.environment(job, identity);
        for (name, value) in std::mem::take(&mut place.env) {
            env.retain(|e| !e.as_encoded_bytes().starts_with(format!("{name}=").as_bytes()));
            env.push(OsString::from_vec([name.as_bytes(), b"=", &value].concat()));
        }
        let mut binds = self.host_binds(rootfs.scratch(), job)?;
        binds.append(&mut place.binds);
        let oneshot = Oneshot {
            root: rootfs.path().to_owned(),
            args: job.args.iter().map(OsString::from).collect(),
            env,
            cwd: cwd.into(),
            user: (identity.uid, identity.gid, identity.groups.clone()),
            binds,
            hostname: HOSTNAME.into(),
            stdin: Vec::new(),
            offline: job.offline,
        };
        let absent = Absent::note(&root, &oneshot.binds);
        let mut lines = Lines::default();
        let progress = &self.session.progress;
        let mut tell = |line: &str| progress.output(self.step, line);
        let mut output = |bytes: &[u8]| lines.push(bytes, &mut tell);
        let running = self.session.executor.run(&oneshot, &mut output, &self.session.cancel);
        let ended = self.session.handle.block_on(running);
        lines.end(&mut tell);
        drop(place);
        self.session.check_cancelled()?;
        let code = ended.doing(|| format!("starting \"{}\"", shown(&job.args)))?;
        if code != 0 {
            return Err(Error::Failed(Box::new(Failure {
                place: self.session.plan.place(self.instruction),
                code,
                command: shown(&job.args),
                output: lines.last.into(),
            })));
        }
        absent.remove(&root);
        Ok(())
    }

    /// What the step finds in its environment: the image's, then the arguments, then what is the machine's.
    fn environment(&self, job: &Job, identity: &Identity) -> Vec<OsString> {
        let build = &self.session.build;
        let mut env = job.env.clone();
        let mut add = |name: &str, value: &str| {
            if !env.iter().any(|(n, _)| n == name) {
                env.push((name.to_owned(), value.to_owned()));
            }
        };
        add("PATH", PATH);
        add("HOME", &identity.home);
        add("HOSTNAME", HOSTNAME);
        let given = build.args.iter().filter(|(name, _)| is_proxy(name));
        for (name, value) in given.chain(build.host.proxies.iter().map(|(n, v)| (n, v))) {
            add(name, value);
        }
        for (name, value) in &build.build_env {
            add(name, value);
        }
        if build.host.certificates.is_some() {
            BUNDLE_VARIABLES.into_iter().for_each(|name| add(name, BUNDLE));
        }
        env.into_iter().map(|(n, v)| format!("{n}={v}").into()).collect()
    }

    /// The machine's resolver, hosts and certificates, as copies: what is written to them is thrown away.
    fn host_binds(&self, scratch: &Path, job: &Job) -> Result<Vec<Bind>> {
        let host = &self.session.build.host;
        let mut binds = Vec::new();
        let mut bind = |name: &str, target: &str, content: &[u8], mode: u32| -> Result<()> {
            let source: PathBuf = scratch.join(name);
            fs::write(&source, content).at("writing", &source)?;
            fs::set_permissions(&source, fs::Permissions::from_mode(mode))
                .at("changing the mode of", &source)?;
            binds.push(Bind { source, target: target.into(), writable: true });
            Ok(())
        };
        let read = |path: &PathBuf| fs::read(path).at("reading", path);
        if let Some(resolver) = &host.resolver {
            bind("resolv.conf", "/etc/resolv.conf", &read(resolver)?, 0o644)?;
        }
        let mut hosts = match &host.hosts {
            Some(hosts) => read(hosts)?,
            None => b"127.0.0.1 localhost\n::1 localhost\n".to_vec(),
        };
        hosts.extend_from_slice(format!("\n127.0.0.1 {HOSTNAME}\n").as_bytes());
        bind("hosts", "/etc/hosts", &hosts, 0o644)?;
        if let Some(certificates) = &host.certificates {
            bind("certificates", BUNDLE, &read(certificates)?, 0o644)?;
        }
        if let Some(script) = &job.script {
            bind("script", SCRIPT, script.as_bytes(), 0o755)?;
        }
        Ok(binds)
    }
}

/// True if a RUN is nothing but one here-document.
fn is_only(text: &str, name: &str) -> bool {
    let word = text.trim_start_matches("<<").trim_start_matches('-').trim_matches(['"', '\'']);
    text.starts_with("<<") && word == name
}

/// A command in short.
fn shown(args: &[String]) -> String {
    let text = args.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(120) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Cuts output into lines, and keeps the last.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    last: VecDeque<String>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], tell: &mut dyn FnMut(&str)) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") || self.partial.len() > MAX_LINE {
                self.end(tell);
            }
        }
    }

    fn end(&mut self, tell: &mut dyn FnMut(&str)) {
        if self.partial.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.partial);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches(['\n', '\r']);
        // Of a line that was written over and over, the last stays.
        let text = text.rsplit('\r').next().unwrap_or_default();
        tell(text);
        let plain = without_controls(text);
        if !plain.trim().is_empty() {
            self.last.push_back(plain);
        }
        if self.last.len() > SHOWN_LINES {
            self.last.pop_front();
        }
    }
}

/// Text without control characters and the sequences of a terminal.
fn without_controls(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.next_if_eq(&'[').is_some() {
            chars.by_ref().find(|c| ('@'..='~').contains(c));
        } else if c == '\t' {
            plain.push(' ');
        } else if !c.is_control() {
            plain.push(c);
        }
    }
    plain
}

/// Files and folders that a step needs to mount on, and that the image does not have.
struct Absent(Vec<PathBuf>);

impl Absent {
    fn note(root: &Root, binds: &[Bind]) -> Absent {
        let always = ["/proc", "/sys", "/dev"].map(PathBuf::from);
        let mut absent: Vec<PathBuf> = Vec::new();
        for target in binds.iter().map(|b| &b.target).chain(&always) {
            let ways = target.ancestors().filter(|a| a.parent().is_some());
            absent.extend(ways.take_while(|way| matches!(root.kind(way), Ok(None))).map(Path::to_owned));
        }
        // What lies deeper goes first.
        absent.sort_unstable_by(|a, b| b.cmp(a));
        absent.dedup();
        Absent(absent)
    }

    /// Removes those that are still there and empty, so no layer has them.
    fn remove(&self, root: &Root) {
        for path in &self.0 {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let Ok(folder) = root.exact(&relative(parent), FOLDER) else { continue };
            let Ok(stat) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let flags = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => AtFlags::REMOVEDIR,
                FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
                _ => continue,
            };
            // A folder in which something lies is the step's own.
            let _ = unlinkat(&folder, name, flags);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_lines_and_the_last_are_kept() {
        let (mut lines, mut told) = (Lines::default(), Vec::new());
        let mut tell = |line: &str| told.push(line.to_owned());
        lines.push(b"a\nb", &mut tell);
        lines.push(b"c\r\n10%\r20%\r\n\x1b[31mred\x1b[0m\x07\n", &mut tell);
        lines.push(&vec![b'x'; 3 * MAX_LINE], &mut tell);
        lines.end(&mut tell);
        assert_eq!(told[..4], ["a", "bc", "20%", "\u{1b}[31mred\u{1b}[0m\u{7}"]);
        assert!(told[4].len() >= MAX_LINE);
        assert_eq!(
            lines.last.iter().take(4).map(String::as_str).collect::<Vec<_>>(),
            ["a", "bc", "20%", "red"]
        );
        (0..100).for_each(|n| lines.push(format!("{n}\n").as_bytes(), &mut |_| {}));
        assert_eq!((lines.last.len(), lines.last.back().unwrap().as_str()), (SHOWN_LINES, "99"));
    }

    #[test]
    fn a_lone_here_document_is_a_script() {
        for (text, only) in
            [("<<EOF", true), ("<<-EOF", true), ("<<'EOF'", true), ("<<EOF cat", false), ("cat <<EOF", false)]
        {
            assert_eq!(is_only(text, "EOF"), only, "{text}");
        }
    }
}

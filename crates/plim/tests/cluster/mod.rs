//! The real program and the real kubectl, for tests.
//!
//! kubectl is taken from `KUBECTL`, else from the cache that `scripts/deps` fills, else from the PATH. Without one a test
//! says so and passes.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A control plane of its own in a folder of its own.
pub struct Cluster {
    pub folder: tempfile::TempDir,
    pub kubectl: PathBuf,
}

impl Cluster {
    /// Starts one; `None`, with a printed reason, if there is no kubectl.
    pub fn new() -> Option<Self> {
        let Some(kubectl) = find_kubectl() else {
            eprintln!("skipped: no kubectl; `make deps` installs one");
            return None;
        };
        let cluster = Self { folder: tempfile::tempdir().unwrap(), kubectl };
        cluster.start();
        Some(cluster)
    }

    /// Runs the program on this cluster's folder.
    pub fn plim(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plim"));
        command.args(args).arg("--data").arg(self.folder.path()).output().unwrap()
    }

    /// Starts the server, in the background. No loop changes what a test has just written.
    pub fn start(&self) {
        let server = ["server", "-d", "--listen", "127.0.0.1", "--port", "0", "--disable", "controllers"];
        let output = self.plim(&server);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs kubectl.
    pub fn run(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = Command::new(&self.kubectl)
            .args(args)
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What kubectl prints; fails the test if kubectl fails.
    pub fn ok(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "kubectl {args:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// What kubectl complains about; fails the test if it does not.
    pub fn refused(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        assert!(!output.status.success(), "kubectl {args:?} was not refused");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.plim(&["down"]);
    }
}

fn find_kubectl() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("KUBECTL") {
        return Some(given.into());
    }
    let cached = Path::new(&std::env::var_os("HOME")?).join(".cache/plimsoll/bin/kubectl");
    if cached.exists() {
        return Some(cached);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|p| p.join("kubectl")).find(|p| p.exists())
}

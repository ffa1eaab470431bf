//! Upstream's own pods for every level and version, judged: those of `pass` are allowed, those of `fail` are not.
//!
//! The pods are in the module `k8s.io/pod-security-admission`, in Go's module cache once `go mod download` has been run in
//! `conformance/`. Elsewhere name the folder in `POD_SECURITY_TESTDATA`.

use std::{collections::HashMap, env, fs, path::PathBuf, process::Command};

use access::pod_security::{Policy, evaluate};
use serde_json::json;

/// The fixtures, or why there are none.
fn fixtures() -> Result<PathBuf, String> {
    if let Ok(folder) = env::var("POD_SECURITY_TESTDATA") {
        return Ok(folder.into());
    }
    let output = Command::new("go")
        .args(["list", "-m", "-f", "{{.Dir}}", "k8s.io/pod-security-admission"])
        .current_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../conformance"))
        .output()
        .map_err(|why| format!("go cannot be run: {why}"))?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "" => Err("k8s.io/pod-security-admission is not in Go's module cache".to_owned()),
        folder => Ok(PathBuf::from(folder).join("test/testdata")),
    }
}

#[test]
fn every_pod_is_judged_as_upstream_judges_it() {
    let folder = match fixtures() {
        Ok(folder) => folder,
        Err(why) => return println!("skipped: {why}"),
    };
    let (mut seen, mut wrong) = (0, Vec::new());
    // Most versions have the same pods.
    let mut pods = HashMap::new();
    let kind = kinds::find("", "v1", "pods").unwrap();
    for level in ["baseline", "restricted"] {
        for version in fs::read_dir(folder.join(level)).unwrap() {
            let version = version.unwrap().path();
            let labels = json!({
                "pod-security.kubernetes.io/enforce": level,
                "pod-security.kubernetes.io/enforce-version": version.file_name().unwrap().to_str().unwrap(),
            });
            let (policy, errors) = Policy::of_labels(&labels);
            assert!(errors.is_empty(), "{}", version.display());
            for verdict in ["pass", "fail"] {
                for file in fs::read_dir(version.join(verdict)).unwrap() {
                    let file = file.unwrap().path();
                    let text = fs::read(&file).unwrap();
                    let pod = pods.entry(text).or_insert_with_key(|text| {
                        let mut pod = apimachinery::decode::yaml(text).unwrap().value;
                        // A volume without a source is an empty directory.
                        kind.strategy.default(&mut pod);
                        pod
                    });
                    let found = evaluate(policy.enforce, pod);
                    if found.is_empty() != (verdict == "pass") {
                        wrong.push(format!("{}: {found:?}", file.display()));
                    }
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 4000, "only {seen} pods in {}", folder.display());
    assert!(wrong.is_empty(), "{} of {seen}:\n{}", wrong.len(), wrong.join("\n"));
}

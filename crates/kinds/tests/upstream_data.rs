//! Upstream's own test data: every kind served here survives JSON → decode, prune, default → JSON.
//!
//! The data is in the module `k8s.io/api`, which is in Go's module cache once `cargo xtask facts` has run. Elsewhere
//! name its folder in `K8S_API_TESTDATA`.

use std::{env, fs, path::PathBuf, process::Command};

use apimachinery::{Schema, structure};
use serde_json::Value;

/// The newest fixtures, or why there are none.
fn fixtures() -> Result<PathBuf, String> {
    if let Ok(folder) = env::var("K8S_API_TESTDATA") {
        return Ok(folder.into());
    }
    let module = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../conformance");
    let output = Command::new("go")
        .args(["list", "-m", "-f", "{{.Dir}}", "k8s.io/api"])
        .current_dir(module)
        .output()
        .map_err(|why| format!("go cannot be run: {why}"))?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if folder.is_empty() {
        return Err("k8s.io/api is not in Go's module cache".to_owned());
    }
    Ok(PathBuf::from(folder).join("testdata/HEAD"))
}

/// Every path below `before` that is another in `after`; what is only in `after` was added and is fine.
fn changed(before: &Value, after: &Value, path: &str, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before {
                let path = format!("{path}.{name}");
                match after.get(name) {
                    Some(after) => changed(value, after, &path, found),
                    None if value.is_null() => {}
                    None => found.push(format!("{path} is gone")),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                changed(before, after, &format!("{path}[{index}]"), found);
            }
        }
        (before, after) if before == after => {}
        (before, after) => found.push(format!("{path}: {before} is now {after}")),
    }
}

fn decode(object: &mut Value, schema: &Schema) -> Vec<String> {
    let mut faults = structure::prune(object, schema);
    if let Err(why) = structure::check(object, schema) {
        faults.push(why);
    }
    if let Err(why) = structure::canonicalize(object, schema) {
        faults.push(why);
    }
    structure::always(object, schema);
    apimachinery::defaults::apply(object, schema);
    faults
}

/// Fixtures fill every field with its own name, which some rules must change.
const MADE_ANEW: [&str; 4] = [
    // `serviceAccount` repeats `serviceAccountName`.
    "serviceAccount:",
    // Written into `data`.
    ".stringData",
    // `podIPs` repeats `podIP`.
    ".podIPs",
    // `podCIDRs` repeats `podCIDR`.
    ".podCIDRs",
];

#[test]
fn every_kind_survives_a_round_trip() {
    let folder = match fixtures() {
        Ok(folder) => folder,
        Err(why) => return println!("skipped: {why}"),
    };
    let mut seen = 0;
    for resource in kinds::all() {
        let group = if resource.group.is_empty() { "core" } else { &resource.group };
        let file = folder.join(format!("{group}.{}.{}.json", resource.version, resource.kind));
        // CustomResourceDefinition is of another module.
        let Ok(text) = fs::read(&file) else { continue };
        seen += 1;
        let before: Value = serde_json::from_slice(&text).unwrap();
        let mut after = before.clone();
        let mut found = decode(&mut after, &resource.schema);
        let decoded = after.clone();
        resource.strategy.default(&mut after);
        changed(&before, &after, "", &mut found);
        found.retain(|line| !MADE_ANEW.iter().any(|known| line.contains(known)));
        assert!(found.is_empty(), "{resource:?}: {found:#?}");
        let mut again = decoded;
        decode(&mut again, &resource.schema);
        resource.strategy.default(&mut again);
        assert_eq!(again, after, "{resource:?} is another the second time");
    }
    assert!(seen > 25, "only {seen} fixtures in {}", folder.display());
}

#[test]
fn upstreams_protobuf_of_every_kind_reads_as_its_json() {
    let folder = match fixtures() {
        Ok(folder) => folder,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let mut compared = 0;
    let mut faults = Vec::new();
    for resource in kinds::all() {
        let group = if resource.group.is_empty() { "core" } else { &resource.group };
        let name = format!("{group}.{}.{}", resource.version, resource.kind);
        let (Ok(pb), Ok(json)) = (
            fs::read(folder.join(format!("{name}.pb"))),
            fs::read_to_string(folder.join(format!("{name}.json"))),
        ) else {
            continue;
        };
        let expected: Value = serde_json::from_str(&json).unwrap();
        match kinds::protobuf::decode(&pb) {
            Ok(object) => {
                let mut found = Vec::new();
                changed(&expected, &object, &name, &mut found);
                faults.extend(found);
            }
            Err(why) => faults.push(format!("{name}: {why}")),
        }
        compared += 1;
    }
    assert!(compared > 30, "only {compared} fixtures were found in {}", folder.display());
    assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_kinds_json_is_written_as_upstreams_protobuf_to_the_byte() {
    let folder = match fixtures() {
        Ok(folder) => folder,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let mut compared = 0;
    let mut faults = Vec::new();
    for resource in kinds::all() {
        let group = if resource.group.is_empty() { "core" } else { &resource.group };
        let name = format!("{group}.{}.{}", resource.version, resource.kind);
        let (Ok(pb), Ok(json)) = (
            fs::read(folder.join(format!("{name}.pb"))),
            fs::read_to_string(folder.join(format!("{name}.json"))),
        ) else {
            continue;
        };
        let object: Value = serde_json::from_str(&json).unwrap();
        let ours = kinds::protobuf::encode(&object, &resource.api_version(), &resource.kind).unwrap();
        let stored = serde_json::to_vec(&object).unwrap();
        let of_json = kinds::protobuf::encode_json(&stored, &resource.api_version(), &resource.kind);
        assert!(of_json.unwrap().as_ref() == Some(&ours), "{name} as JSON is written in another way");
        if ours != pb {
            let at = ours.iter().zip(&pb).take_while(|(a, b)| a == b).count();
            let near = |bytes: &[u8]| {
                let part = &bytes[at.saturating_sub(40)..(at + 20).min(bytes.len())];
                String::from_utf8_lossy(part).into_owned()
            };
            faults.push(format!("{name} at {at}: {:?} for {:?}", near(&ours), near(&pb)));
        }
        compared += 1;
    }
    assert!(compared > 30, "only {compared} fixtures were found in {}", folder.display());
    assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
}

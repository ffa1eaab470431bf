//! Requests whose answers were recorded from upstream's kube-apiserver (`conformance/oracle/run --record`), asked here.

use std::sync::Arc;

use access::{node::NodeAuthorizer, rbac::Rbac, token::Issuer};
use serde_json::{Value, json};

use crate::cluster::{Answer, Cluster};

/// Lines of cases; `conformance/oracle/record.py` describes them.
const CASES: &str = include_str!("../recorded/cases.jsonl");
/// What stands for a text that differs each time.
const PLACEHOLDERS: [&str; 8] =
    ["<age>", "<uid>", "<time>", "<revision>", "<ip>", "<port>", "<host>", "<random>"];

#[tokio::test]
async fn what_upstream_has_answered_is_answered_here() {
    let cluster = Cluster::with(|config| {
        config.bootstrap = access::bootstrap::rbac_objects().into_iter().map(|(_, object)| object).collect();
        config.issuer =
            Some(Arc::new(Issuer::new("https://bench.invalid", &Issuer::generate_key().unwrap()).unwrap()));
        config.rbac = Some(Arc::new(Rbac::new(Arc::new(config.reader.clone()))));
        let node = Arc::new(NodeAuthorizer::new(Arc::new(config.reader.clone())));
        config.authorizers.insert(1, node);
    })
    .await;
    prepare(&cluster).await;
    let mut wrong = Vec::new();
    for line in CASES.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        if let Err(why) = replay(&cluster, &case).await {
            wrong.push(format!("{}\n{why}", case["title"]));
        }
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n\n"));
}

/// What `prepare` of the oracle makes.
async fn prepare(cluster: &Cluster) {
    for space in ["oracle", "oracle-b", "oracle-limits"] {
        cluster.create("/api/v1/namespaces", &json!({"metadata": {"name": space}})).await.ok();
        let accounts = format!("/api/v1/namespaces/{space}/serviceaccounts");
        cluster.create(&accounts, &json!({"metadata": {"name": "default"}})).await.ok();
    }
    let definition: Value = serde_json::from_str(include_str!("../recorded/definition.json")).unwrap();
    cluster.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await.ok();
    let widgets = "/apis/shop.example.com/v1/namespaces/oracle/widgets";
    cluster.until(widgets, |answer| answer.code == 200).await;
}

async fn replay(cluster: &Cluster, case: &Value) -> Result<(), String> {
    let mut answers: Vec<Value> = Vec::new();
    for (index, step) in case["steps"].as_array().unwrap().iter().enumerate() {
        let text = |field: &str| step[field].as_str().unwrap_or_default().to_owned();
        let body = match &step["body"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            document => document.to_string(),
        };
        let headers: Vec<(String, String)> =
            serde_json::from_value::<serde_json::Map<_, _>>(step["headers"].clone())
                .unwrap()
                .into_iter()
                .map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned()))
                .chain([("User-Agent".to_owned(), "oracle/1".to_owned())])
                .collect();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let path = filled(&text("path"), &answers);
        let answer =
            cluster.ask(&text("method"), &path, &headers, filled(&body, &answers).into_bytes()).await;
        let given = answer.json();
        let place = format!("step {index}: {} {path}", text("method"));
        if json!(answer.code) != step["status"] {
            return Err(format!("{place}: {} is {}: {given}", step["status"], answer.code));
        }
        let warnings = json!(warnings(&answer));
        agree(&step["warnings"], &warnings, "warnings").map_err(|why| format!("{place}: {why}"))?;
        agree(&step["answer"], &given, "").map_err(|why| format!("{place}: {why}"))?;
        answers.push(given);
    }
    Ok(())
}

fn warnings(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("warning").iter().filter_map(|value| value.to_str().ok()).collect()
}

/// `${0:metadata.uid}` is what the first answer of the case says there.
fn filled(text: &str, answers: &[Value]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (variable, tail) = after.split_once('}').unwrap();
        let (index, path) = variable.split_once(':').unwrap();
        let value = answers
            .get(index.parse::<usize>().unwrap())
            .and_then(|a| a.pointer(&format!("/{}", path.replace('.', "/"))));
        out.push_str(before);
        out.push_str(value.and_then(Value::as_str).unwrap_or_default());
        rest = tail;
    }
    out + rest
}

/// Whether `given` is what was recorded, but for what stands for something that differs each time.
fn agree(recorded: &Value, given: &Value, path: &str) -> Result<(), String> {
    match (recorded, given) {
        (Value::Object(a), Value::Object(b)) => {
            if let Some(key) = a.keys().find(|key| !b.contains_key(*key)) {
                return Err(format!("{path}.{key} is lacking, upstream: {}", a[key]));
            }
            if let Some(key) = b.keys().find(|key| !a.contains_key(*key)) {
                return Err(format!("{path}.{key} is there and should not: {}", b[key]));
            }
            a.iter().try_for_each(|(key, value)| agree(value, &b[key], &format!("{path}.{key}")))
        }
        // Managers are recorded in another order.
        (Value::Array(a), Value::Array(b)) if path.ends_with(".managedFields") && a.len() == b.len() => {
            let lacking = a.iter().find(|one| b.iter().all(|other| agree(one, other, "").is_err()));
            lacking.map_or(Ok(()), |one| Err(format!("{path}: no {one} in {given}")))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).try_for_each(|(x, y)| agree(x, y, &format!("{path}[]")))
        }
        (Value::String(a), Value::String(b)) if alike(a, b) => Ok(()),
        (Value::String(a), Value::Number(_)) if a == "<port>" => Ok(()),
        (a, b) if a == b => Ok(()),
        (a, b) => Err(format!("{path}: upstream {a}, here {b}")),
    }
}

/// Whether the texts are the same between placeholders.
fn alike(recorded: &str, given: &str) -> bool {
    let mut pieces = vec![recorded];
    for placeholder in PLACEHOLDERS {
        pieces = pieces.into_iter().flat_map(|piece| piece.split(placeholder)).collect();
    }
    let Some(mut rest) = given.strip_prefix(pieces[0]) else { return false };
    let Some((last, middle)) = pieces[1..].split_last() else { return rest.is_empty() };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn placeholders_stand_for_anything_and_the_rest_for_itself() {
    assert!(alike("a <uid> b <time>", "a 1-2 b 3"));
    assert!(!alike("a <uid> b", "a 1-2 c"));
    assert!(!alike("a", "a b") && alike("a", "a"));
}

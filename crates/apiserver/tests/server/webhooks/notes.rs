//! What the audit log is told of webhooks.

use super::*;
use crate::audit::{Lines, audit};

/// The annotations of a create of a ConfigMap at this level, but for those of authorization.
async fn annotations(level: &str) -> Value {
    let webhooks = Webhooks::new(|path, _| match path {
        "/change" => with(
            patch(&json!([{"op": "add", "path": "/data/b", "value": "c"}])),
            json!({"auditAnnotations": {"note": "changed", "not a key": "x"}}),
        ),
        "/leave" => allow(),
        "/check" => with(allow(), json!({"auditAnnotations": {"note": "seen"}})),
        // No answer: it cannot be asked.
        _ => json!({"allowed": 1}),
    });
    let lines = Lines::default();
    let rules = format!("[{{level: {level}, resources: [{{resources: [configmaps]}}]}}]");
    let audit = audit(&rules, "omitStages: [RequestReceived], ", &lines);
    let connector = webhooks.clone();
    let cluster = Cluster::with(|config| {
        config.nodes = Some(connector);
        config.audit = Some(audit);
    })
    .await;
    let maps = || rule(&["CREATE"], &["configmaps"]);
    let lenient = |name: &str| with(webhook(name, maps()), json!({"failurePolicy": "Ignore"}));
    let mutating = json!([webhook("change", maps()), webhook("leave", maps()), lenient("broken")]);
    configure(&cluster, "Mutating", "m", mutating).await;
    configure(&cluster, "Validating", "v", json!([webhook("check", maps()), lenient("broken")])).await;
    cluster.create(MAPS, &map("one", json!({"a": "b"}))).await.ok();
    let mut event = lines.one(&cluster).await;
    let annotations = event["annotations"].as_object_mut().unwrap();
    annotations.retain(|key, _| !key.starts_with("authorization.k8s.io/"));
    event["annotations"].clone()
}

#[tokio::test]
async fn what_webhooks_do_is_told() {
    let mut wanted = json!({
        "change.example.com/note": "changed",
        "check.example.com/note": "seen",
        "mutation.webhook.admission.k8s.io/round_0_index_0":
            "{\"configuration\":\"m\",\"webhook\":\"change.example.com\",\"mutated\":true}",
        "mutation.webhook.admission.k8s.io/round_0_index_1":
            "{\"configuration\":\"m\",\"webhook\":\"leave.example.com\",\"mutated\":false}",
        "mutation.webhook.admission.k8s.io/round_0_index_2":
            "{\"configuration\":\"m\",\"webhook\":\"broken.example.com\",\"mutated\":false}",
        "failed-open.mutation.webhook.admission.k8s.io/round_0_index_2": "broken.example.com",
        "failed-open.validating.webhook.admission.k8s.io/round_0_index_1": "broken.example.com",
    });
    assert_eq!(annotations("Metadata").await, wanted);
    wanted["patch.webhook.admission.k8s.io/round_0_index_0"] =
        "{\"configuration\":\"m\",\"webhook\":\"change.example.com\",\"patch\":[{\"op\":\"add\",\"path\":\"/data/b\",\
         \"value\":\"c\"}],\"patchType\":\"JSONPatch\"}"
            .into();
    assert_eq!(annotations("Request").await, wanted, "what a patch holds is part of the body");
}

//! Watches across a restart of the server: they go on where they were, and nobody has to list anew.

use std::path::Path;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::cluster::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WATCHERS: usize = 1000;

/// What a kill leaves behind: the files as they are now.
fn copied(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

async fn create(cluster: &Cluster, name: &str) -> String {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let made = cluster.create(MAPS, &object).await.ok();
    made["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// A watch of all config maps behind a revision: the names in its first `count` events.
async fn told(cluster: &Cluster, revision: &str, count: usize) -> Vec<String> {
    let path = format!("{MAPS}?watch=1&resourceVersion={revision}");
    let response = cluster.send("GET", &path, &[], "").await;
    assert_eq!(response.status(), 200);
    let (mut body, mut names) = (response.into_body(), Vec::new());
    while names.len() < count {
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        for event in serde_json::Deserializer::from_slice(&piece).into_iter::<Value>() {
            let event = event.unwrap();
            assert_eq!(event["type"], "ADDED", "{event}");
            names.push(event["object"]["metadata"]["name"].as_str().unwrap().to_owned());
        }
    }
    names
}

#[tokio::test]
async fn a_thousand_watchers_go_on_behind_what_each_has_seen() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::over(folder.path(), |_| {}).await;
    let mut revisions = Vec::new();
    for n in 0..10 {
        revisions.push(create(&cluster, &format!("m{n}")).await);
    }
    // Each has seen something, some more than others, when the server goes.
    let mut open = Vec::new();
    for watcher in 0..WATCHERS {
        let path = format!("{MAPS}?watch=1&resourceVersion={}", revisions[watcher % 10]);
        open.push(cluster.send("GET", &path, &[], "").await.into_body());
    }
    let folder = copied(folder.path());
    let cluster = Cluster::over(folder.path(), |_| {}).await;
    create(&cluster, "after").await;
    let again = (0..WATCHERS).map(|watcher| {
        let (cluster, revisions) = (&cluster, &revisions);
        async move {
            let seen = watcher % 10;
            let missed: Vec<String> =
                (seen + 1..10).map(|n| format!("m{n}")).chain(["after".to_owned()]).collect();
            assert_eq!(told(cluster, &revisions[seen], missed.len()).await, missed);
        }
    });
    futures::future::join_all(again).await;
    drop(open);
}

#[tokio::test]
async fn a_watch_opened_exactly_where_history_was_cut_on_a_deletion_has_the_deletion_or_an_error() {
    use store::{Revision, Store as _};
    let cluster = Cluster::new().await;
    let before: u64 = create(&cluster, "gone").await.parse().unwrap();
    let deleted = cluster.delete(&format!("{MAPS}/gone")).await.ok();
    assert_eq!(deleted["status"], "Success", "{deleted}");
    let deletion = cluster.store.revision().0;
    create(&cluster, "stays").await;
    for cut in [deletion - 1, deletion, deletion + 1] {
        cluster.store.compact(Revision(cut)).await.unwrap();
        for from in [before, deletion - 1, deletion] {
            let path = format!("{MAPS}?watch=1&resourceVersion={from}");
            let mut body = cluster.send("GET", &path, &[], "").await.into_body();
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            let first: Value =
                serde_json::Deserializer::from_slice(&piece).into_iter().next().unwrap().unwrap();
            let name = first["object"]["metadata"]["name"].as_str();
            match first["type"].as_str() {
                // Too old for what is left: said so, not passed over.
                Some("ERROR") => {
                    assert_eq!(first["object"]["code"], 410, "{first}");
                    assert!(from < cut, "from {from} with history from {cut}: {first}");
                }
                Some("DELETED") => assert_eq!((from < deletion, name), (true, Some("gone")), "{first}"),
                Some("ADDED") => {
                    assert_eq!((from, name), (deletion, Some("stays")), "from {from} after {cut}: a gap")
                }
                _ => panic!("{first}"),
            }
        }
    }
}

#[tokio::test]
async fn a_watcher_that_does_not_read_while_history_is_cut_gets_an_error_and_no_gap() {
    use store::Store as _;
    let cluster = Cluster::new().await;
    let from = create(&cluster, "first").await;
    let path = format!("{MAPS}?watch=1&resourceVersion={from}");
    let mut body = cluster.send("GET", &path, &[], "").await.into_body();
    create(&cluster, "second").await;
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(String::from_utf8_lossy(&frame).contains("second"));
    for name in ["third", "fourth"] {
        create(&cluster, name).await;
    }
    cluster.store.compact(cluster.store.revision()).await.unwrap();
    let rest = body.collect().await.unwrap().to_bytes();
    let events: Vec<Value> =
        serde_json::Deserializer::from_slice(&rest).into_iter().map(Result::unwrap).collect();
    let names: Vec<_> = events.iter().filter_map(|e| e["object"]["metadata"]["name"].as_str()).collect();
    assert!(["third", "fourth"].starts_with(&names), "in order and without a gap: {events:?}");
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["object"]["code"]), (&json!("ERROR"), &json!(410)), "{last}");
}

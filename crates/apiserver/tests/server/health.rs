//! What the server tells of itself: health and metrics.

use serde_json::json;

use crate::cluster::Cluster;

#[tokio::test]
async fn health_is_told_check_by_check() {
    let cluster = Cluster::new().await;
    let page = cluster.get("/readyz?verbose").await;
    let text = String::from_utf8_lossy(&page.body).into_owned();
    assert_eq!(page.code, 200, "{text}");
    for line in [
        "[+]ping ok\n",
        "[+]etcd ok\n",
        "[+]poststarthook/kube-apiserver-autoregistration ok\n",
        "readyz check passed\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(cluster.get("/livez/etcd").await.body, "ok");
    assert_eq!(cluster.get("/readyz/poststarthook/rbac/bootstrap-roles").await.body, "ok");
    assert_eq!(cluster.get("/readyz/nothing").await.code, 404);
    let page = cluster.get("/healthz?verbose&exclude=etcd&exclude=x").await;
    let text = String::from_utf8_lossy(&page.body).into_owned();
    assert!(text.contains("[+]etcd excluded: ok\n") && text.contains("no matches for \"x\""), "{text}");
}

#[tokio::test]
async fn a_store_that_cannot_write_is_not_healthy() {
    let cluster = Cluster::new().await;
    cluster.store.close();
    let made = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    assert_eq!(cluster.create("/api/v1/namespaces/default/configmaps", &made).await.code, 500);
    let page = cluster.get("/livez").await;
    assert_eq!(page.code, 500);
    assert!(String::from_utf8_lossy(&page.body).contains("[-]etcd failed: reason withheld\n"));
}

#[tokio::test]
async fn requests_watches_and_objects_are_counted_under_upstreams_names() {
    let cluster = Cluster::new().await;
    let made = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    cluster.create("/api/v1/namespaces/default/configmaps?dryRun=All", &made).await.ok();
    cluster.create("/api/v1/namespaces/default/configmaps", &made).await.ok();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}});
    cluster.apply("/api/v1/namespaces/default/configmaps/b", "me", &object).await.ok();
    cluster.get("/api/v1/configmaps").await.ok();
    cluster.get("/api/v1/configmaps?watch=1&timeoutSeconds=1").await;
    cluster.get("/apis/made.up/v1/names").await;
    let page = cluster.get("/metrics").await;
    let text = String::from_utf8_lossy(&page.body).into_owned();
    let line = |code: u16, dry: &str, scope: &str, verb: &str| {
        format!(
            "apiserver_request_total{{code=\"{code}\",component=\"apiserver\",dry_run=\"{dry}\",group=\"\",\
             resource=\"configmaps\",scope=\"{scope}\",subresource=\"\",verb=\"{verb}\",version=\"v1\"}} 1\n",
        )
    };
    for wanted in [
        line(201, "All", "resource", "POST"),
        line(201, "", "resource", "POST"),
        line(201, "", "resource", "APPLY"),
        line(200, "", "cluster", "LIST"),
        line(200, "", "cluster", "WATCH"),
        "apiserver_storage_objects{resource=\"configmaps\"} 2\n".to_owned(),
        "apiserver_resource_objects{group=\"\",resource=\"namespaces\"} 4\n".to_owned(),
        "apiserver_watch_events_total{group=\"\",resource=\"configmaps\",version=\"v1\"} 2\n".to_owned(),
        "verb=\"WATCH\",version=\"v1\"} 0\n".to_owned(),
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1\n".to_owned(),
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"catch-all\"} ".to_owned(),
    ] {
        assert!(text.contains(&wanted), "{wanted}\n{text}");
    }
    assert!(!text.contains("made.up"), "names that anybody can make up are not told");
}

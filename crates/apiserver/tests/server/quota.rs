//! Quotas are charged in the commit that stores the object.

use crate::cluster::{Cluster, account};
use futures::future::join_all;
use serde_json::{Value, json};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn quota(cluster: &Cluster, hard: Value, used: Value) {
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}});
    cluster.create(QUOTAS, &quota).await.ok();
    cluster.merge(&format!("{QUOTAS}/q/status"), &json!({"status": {"hard": hard, "used": used}})).await.ok();
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_use_exactly_what_there_is() {
    let cluster = Cluster::new().await;
    account(&cluster).await;
    quota(&cluster, json!({"pods": "10"}), json!({"pods": "0"})).await;
    let made = join_all((0..32).map(|n| {
        let pod = pod(&format!("p{n}"));
        let cluster = &cluster;
        async move { cluster.create(PODS, &pod).await }
    }))
    .await;
    let (mut fine, mut refused) = (0, Vec::new());
    for answer in made {
        if answer.code == 201 { fine += 1 } else { refused.push(answer.refused()) }
    }
    assert_eq!(fine, 10, "{refused:?}");
    for (code, message) in refused {
        assert_eq!(code, 403);
        assert!(
            message.ends_with(
                "is forbidden: exceeded quota: q, requested: pods=1, used: pods=10, limited: pods=10"
            ),
            "{message}"
        );
    }
    let quota = cluster.get(&format!("{QUOTAS}/q")).await.ok();
    assert_eq!(quota["status"]["used"], json!({"pods": "10"}));
    assert_eq!(cluster.get(PODS).await.ok()["items"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn what_is_not_stored_is_not_charged() {
    let cluster = Cluster::new().await;
    quota(
        &cluster,
        json!({"configmaps": "5", "count/configmaps": "5"}),
        json!({"configmaps": "1", "count/configmaps": "1"}),
    )
    .await;
    let path = "/api/v1/namespaces/default/configmaps";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let used = async || cluster.get(&format!("{QUOTAS}/q")).await.ok()["status"]["used"].clone();
    cluster.create(&format!("{path}?dryRun=All"), &map).await.ok();
    assert_eq!(used().await, json!({"configmaps": "1", "count/configmaps": "1"}));
    cluster.create(path, &map).await.ok();
    assert_eq!(cluster.create(path, &map).await.refused().0, 409);
    assert_eq!(used().await, json!({"configmaps": "2", "count/configmaps": "2"}));
}

#[tokio::test]
async fn a_service_that_wants_more_ports_is_charged_or_refused() {
    let cluster = Cluster::new().await;
    quota(&cluster, json!({"services.nodeports": "1"}), json!({"services.nodeports": "0"})).await;
    let path = "/api/v1/namespaces/default/services";
    let service = |ports: &[u16]| {
        let ports: Vec<Value> = ports.iter().map(|p| json!({"name": format!("p{p}"), "port": p})).collect();
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}})
    };
    cluster.create(path, &service(&[80])).await.ok();
    let s = format!("{path}/s");
    cluster.merge(&s, &json!({"spec": {"type": "NodePort"}})).await.ok();
    let two = json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}});
    let (code, message) = cluster.merge(&s, &two).await.refused();
    assert_eq!(code, 403);
    assert!(
        message.contains(
            "requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1"
        ),
        "{message}"
    );
}

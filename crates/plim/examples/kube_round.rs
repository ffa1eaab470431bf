//! The round of a client library, with Rust's: `kube_round NAMESPACE IMAGE`. Each step is told in a line.

use std::{future::Future, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, Config,
    api::{
        AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent,
        WatchParams,
    },
    runtime::{conditions::is_pod_running, wait::await_condition},
};
use serde_json::json;
use tokio::io::AsyncReadExt;

async fn step(what: &str, work: impl Future<Output = Result<()>>) {
    let limit = tokio::time::timeout(Duration::from_secs(60), work);
    match limit.await.unwrap_or_else(|_| bail!("not within a minute")) {
        Ok(()) => println!("ok {what}"),
        Err(error) => println!("failed {what}: {error:#}"),
    }
}

fn data(map: &ConfigMap) -> String {
    let value = |key: &str| map.data.as_ref().and_then(|d| d.get(key)).cloned().unwrap_or_default();
    value("a") + &value("b")
}

fn expect<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> Result<()> {
    ensure!(found == wanted, "{found:?} and not {wanted:?}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (namespace, image) = arguments.next().zip(arguments.next()).context("kube_round NAMESPACE IMAGE")?;
    let mut config = Config::infer().await?;
    config.proxy_url = None;
    let client = Client::try_from(config)?;
    objects(Api::namespaced(client.clone(), &namespace)).await?;
    pod(Api::namespaced(client, &namespace), &image).await;
    Ok(())
}

async fn objects(maps: Api<ConfigMap>) -> Result<()> {
    let label = ListParams::default().labels("round=rust");
    let before = maps.list(&label).await?.metadata.resource_version.context("a list without version")?;
    let watch = maps.watch(&WatchParams::default().labels("round=rust"), &before).await?.boxed();
    step("create", async {
        let wanted = serde_json::from_value(
            json!({ "metadata": { "name": "round", "labels": { "round": "rust" } }, "data": { "a": "1" } }),
        )?;
        expect(data(&maps.create(&PostParams::default(), &wanted).await?).as_str(), "1")
    })
    .await;
    step("get", async { expect(data(&maps.get("round").await?).as_str(), "1") }).await;
    step("list by label", async { expect(maps.list(&label).await?.items.len(), 1) }).await;
    step("patch", async {
        let patch = Patch::Merge(json!({ "data": { "a": "2" } }));
        expect(data(&maps.patch("round", &PatchParams::default(), &patch).await?).as_str(), "2")
    })
    .await;
    step("server-side apply, and a conflict with another's field", async {
        let apply = async |fields: serde_json::Value| {
            let wanted = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": fields });
            maps.patch("round", &PatchParams::apply("round"), &Patch::Apply(wanted)).await
        };
        expect(data(&apply(json!({ "b": "1" })).await?).as_str(), "21")?;
        let refused = apply(json!({ "a": "4", "b": "1" })).await;
        ensure!(matches!(&refused, Err(kube::Error::Api(s)) if s.code == 409), "{refused:?}");
        Ok(())
    })
    .await;
    step("update, and a conflict for an old version", async {
        let mut found = maps.get("round").await?;
        found.data.get_or_insert_default().insert("a".into(), "3".into());
        maps.replace("round", &PostParams::default(), &found).await?;
        let refused = maps.replace("round", &PostParams::default(), &found).await;
        ensure!(matches!(&refused, Err(kube::Error::Api(s)) if s.code == 409), "{refused:?}");
        Ok(())
    })
    .await;
    step("delete", async {
        maps.delete("round", &DeleteParams::default()).await.map(drop).map_err(Into::into)
    })
    .await;
    step("watch", follow(watch)).await;
    Ok(())
}

async fn follow(
    mut watch: futures::stream::BoxStream<'_, kube::Result<WatchEvent<ConfigMap>>>,
) -> Result<()> {
    let mut seen = Vec::new();
    while let Some(event) = watch.try_next().await? {
        match event {
            WatchEvent::Added(map) => seen.push(format!("ADDED {}", data(&map))),
            WatchEvent::Modified(map) => seen.push(format!("MODIFIED {}", data(&map))),
            WatchEvent::Deleted(map) => {
                seen.push(format!("DELETED {}", data(&map)));
                break;
            }
            other => bail!("{other:?}"),
        }
    }
    let wanted = ["ADDED 1", "MODIFIED 2", "MODIFIED 21", "MODIFIED 31", "DELETED 31"];
    expect(seen, wanted.map(String::from).to_vec())
}

async fn pod(pods: Api<Pod>, image: &str) {
    step("a pod runs", async {
        let pod = serde_json::from_value(json!({ "metadata": { "name": "rust" }, "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "main", "image": image, "args": ["netexec"] }] } }))?;
        pods.create(&PostParams::default(), &pod).await?;
        await_condition(pods.clone(), "rust", is_pod_running()).await?;
        Ok(())
    })
    .await;
    step("logs, followed", async {
        let follow = LogParams { follow: true, ..LogParams::default() };
        let mut lines = pods.log_stream("rust", &follow).await?.lines();
        while let Some(line) = lines.try_next().await? {
            if line.contains("Started HTTP server") {
                return Ok(());
            }
        }
        bail!("the log has ended")
    })
    .await;
    step("exec", async {
        let mut process =
            pods.exec("rust", ["hostname"], &AttachParams::default().stdin(false).stderr(false)).await?;
        let mut said = String::new();
        process.stdout().context("no output")?.read_to_string(&mut said).await?;
        process.join().await?;
        expect(said.trim(), "rust")
    })
    .await;
    step("delete a pod", async {
        pods.delete("rust", &DeleteParams::default()).await.map(drop).map_err(Into::into)
    })
    .await;
}

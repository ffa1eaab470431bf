//! An operator as people write them, on kube's runtime: `kube_operator IMAGE`. A custom resource `Shop` becomes a
//! Deployment by server-side apply, its status says how many pods are ready, and a finalizer makes the Deployment go first.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    runtime::{
        Controller,
        controller::Action,
        finalizer::{Event, finalizer},
        watcher,
    },
};
use serde_json::{Value, json};

const MANAGER: &str = "kube-operator";
const FINALIZER: &str = "swap.plimsoll.dev/deployment-first";

type Failure = kube::runtime::finalizer::Error<kube::Error>;

struct World {
    client: Client,
    shops: ApiResource,
    image: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let image = std::env::args().nth(1).context("kube_operator IMAGE")?;
    let mut config = Config::infer().await?;
    config.proxy_url = None;
    let client = Client::try_from(config)?;
    let shops =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("swap.plimsoll.dev", "v1", "Shop"), "shops");
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &shops);
    let owned: Api<Deployment> = Api::all(client.clone());
    let context = Arc::new(World { client, shops: shops.clone(), image });
    Controller::new_with(all, watcher::Config::default(), shops)
        .owns(owned, watcher::Config::default())
        .shutdown_on_signal()
        .run(reconcile, |_, error, _| retry(error), context)
        .for_each(|result| async move {
            if let Err(error) = result {
                eprintln!("{error}");
            }
        })
        .await;
    Ok(())
}

fn retry(error: &Failure) -> Action {
    eprintln!("{error}");
    Action::requeue(Duration::from_secs(1))
}

async fn reconcile(shop: Arc<DynamicObject>, context: Arc<World>) -> Result<Action, Failure> {
    let namespace = shop.namespace().unwrap_or_default();
    let shops: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &context.shops);
    finalizer(&shops, FINALIZER, shop, |event| async {
        match event {
            Event::Apply(shop) => open(&shops, &shop, &namespace, &context).await,
            Event::Cleanup(shop) => close(&shop, &namespace, &context).await,
        }
    })
    .await
}

async fn open(
    shops: &Api<DynamicObject>,
    shop: &DynamicObject,
    namespace: &str,
    context: &World,
) -> Result<Action, kube::Error> {
    let (name, labels) = (shop.name_any(), json!({ "shop": shop.name_any() }));
    let owner = json!({ "apiVersion": "swap.plimsoll.dev/v1", "kind": "Shop", "name": name, "uid": shop.uid(),
        "controller": true, "blockOwnerDeletion": true });
    let wanted = json!({ "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": name, "ownerReferences": [owner] },
        "spec": { "replicas": shop.data["spec"]["clerks"], "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "terminationGracePeriodSeconds": 1,
                "containers": [{ "name": "clerk", "image": context.image, "args": ["pause"] }] } } } });
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
    let made = deployments.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(wanted)).await?;
    let ready = made.status.and_then(|s| s.ready_replicas).unwrap_or(0);
    let status = json!({ "ready": ready, "observedGeneration": shop.metadata.generation });
    if shop.data.get("status") != Some(&status) {
        let patch: Value = json!({ "status": status });
        shops.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    Ok(Action::await_change())
}

async fn close(shop: &DynamicObject, namespace: &str, context: &World) -> Result<Action, kube::Error> {
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
    match deployments.delete(&shop.name_any(), &DeleteParams::foreground()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(Action::await_change())
}

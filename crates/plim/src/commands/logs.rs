//! `plim logs`: what a pod, or every pod of a workload, says.

use anyhow::{Result, bail};
use clap::Args;
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
};

use crate::{client, data::Data, workload::Owners};

/// Shown by `plim logs --help`.
pub const EXAMPLES: &str = "Examples:\n  plim logs web-7d4b9 -f\n  plim logs web            every pod of the workload\n  plim logs web --previous";

/// What a pod or a workload says.
#[derive(Args, Debug)]
pub struct Logs {
    /// A pod or a workload.
    name: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Only this container.
    #[arg(short, long)]
    container: Option<String>,
    /// Go on as more is said.
    #[arg(short, long)]
    follow: bool,
    /// What the container said before it was started again.
    #[arg(long)]
    previous: bool,
    /// Only the last lines.
    #[arg(long, value_name = "LINES")]
    tail: Option<i64>,
}

impl Logs {
    /// Prints them.
    pub fn run(self, data: &Data) -> Result<()> {
        client::with(data, async |client| {
            let pods =
                pods_of(&client, &self.namespace, &self.name).await.map_err(|e| client::explain(e, data))?;
            if pods.is_empty() {
                bail!(
                    "no pod or workload {:?} in namespace {:?}: `plim ps -a` lists what there is",
                    self.name,
                    self.namespace
                );
            }
            let several = pods.len() > 1;
            let api = Api::<Pod>::namespaced(client.clone(), &self.namespace);
            let streams = pods
                .iter()
                .flat_map(|pod| self.containers(pod).into_iter().map(move |c| (pod.name_any(), c)));
            stream::iter(streams)
                .map(Ok::<_, anyhow::Error>)
                .try_for_each_concurrent(None, |(pod, container)| {
                    let prefix = if several { format!("{pod} ") } else { String::new() };
                    self.print(api.clone(), pod, container, prefix)
                })
                .await
        })
    }

    fn containers(&self, pod: &Pod) -> Vec<String> {
        if let Some(container) = &self.container {
            return vec![container.clone()];
        }
        pod.spec.iter().flat_map(|s| &s.containers).map(|c| c.name.clone()).collect()
    }

    async fn print(&self, api: Api<Pod>, pod: String, container: String, prefix: String) -> Result<()> {
        let params = LogParams {
            container: Some(container),
            follow: self.follow,
            previous: self.previous,
            tail_lines: self.tail,
            ..LogParams::default()
        };
        let mut lines = api.log_stream(&pod, &params).await?.lines();
        while let Some(line) = lines.try_next().await? {
            println!("{prefix}{line}");
        }
        Ok(())
    }
}

/// The pod of this name, or the pods of the workload of this name.
pub async fn pods_of(client: &Client, namespace: &str, name: &str) -> Result<Vec<Pod>, kube::Error> {
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    if let Some(pod) = api.get_opt(name).await? {
        return Ok(vec![pod]);
    }
    let owners = Owners::read(client).await?;
    let pods = api.list(&ListParams::default()).await?.items;
    let wanted = name.rsplit('/').next().unwrap_or(name);
    Ok(pods.into_iter().filter(|p| owners.of(p).name == wanted).collect())
}

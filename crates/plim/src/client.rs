//! The cluster as the commands reach it: through the kubeconfig of the state folder, like any other client.

use anyhow::{Context, Result, bail};
use kube::{Client, Config, config::Kubeconfig};

use crate::{data::Data, kubeconfig};

/// Runs a command that talks to the cluster.
pub fn with<T>(data: &Data, work: impl AsyncFnOnce(Client) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { work(connect(data).await?).await })
}

/// A client with the administrator's certificate.
pub async fn connect(data: &Data) -> Result<Client> {
    // One provider is linked; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(text) = data.read(kubeconfig::FILE)? else {
        bail!("no cluster has been started in {}: run `plim up -d` first", data.root().display());
    };
    let file = Kubeconfig::from_yaml(&text).context("the kubeconfig of the state folder is damaged")?;
    let mut config =
        Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
    // A cluster on this machine is never behind a proxy.
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

/// Says what to do when nobody answers.
pub fn explain(error: kube::Error, data: &Data) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::anyhow!("{}", status.message),
        other => anyhow::Error::new(other).context(format!(
            "the cluster in {} does not answer: is it up? (`plim up -d`)",
            data.root().display()
        )),
    }
}

//! The cluster as the commands reach it: through the kubeconfig of the state folder, or another one, like any other client.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
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
    Ok(of(file).await?.0)
}

/// A client of the API server that a kubeconfig file names, and that server's authority, PEM.
pub async fn of_file(path: &Path) -> Result<(Client, String)> {
    let file = Kubeconfig::read_from(path).with_context(|| format!("cannot use {}", path.display()))?;
    // A kubeconfig may name a program that gives credentials: it is waited for where that keeps nothing else waiting.
    let made = tokio::task::spawn_blocking(|| tokio::runtime::Handle::current().block_on(of(file)));
    let (client, authorities) = made.await??;
    ensure!(!authorities.is_empty(), "{} names no certificate-authority", path.display());
    Ok((client, authorities))
}

async fn of(file: Kubeconfig) -> Result<(Client, String)> {
    // Without being told, kube takes the environment's proxy, which leads out of the cluster's network.
    let behind_proxy =
        file.clusters.iter().any(|c| c.cluster.as_ref().is_some_and(|c| c.proxy_url.is_some()));
    let mut config =
        Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
    if !behind_proxy {
        config.proxy_url = None;
    }
    let authorities = config.root_cert.iter().flatten().map(|der| pem(der)).collect();
    Ok((Client::try_from(config)?, authorities))
}

fn pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
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

//! Kubeconfig files: how kubectl, Helm and this program's own commands reach the cluster.

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::{data::Data, pki::Identity};

/// Where the administrator's file lies in the state folder.
pub const FILE: &str = "kubeconfig";

/// The file's text: one cluster, one user, one context, all named `plimsoll`.
pub fn text(server: &str, authority: &str, user: &Identity) -> String {
    let encode = |pem: &str| STANDARD.encode(pem);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: plimsoll\nclusters:\n- name: plimsoll\n  cluster:\n    server: {server}\n    certificate-authority-data: {}\ncontexts:\n- name: plimsoll\n  context:\n    cluster: plimsoll\n    user: plimsoll\nusers:\n- name: plimsoll\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        encode(authority),
        encode(&user.certificate),
        encode(&user.key)
    )
}

/// A client of the cluster whose state folder this is.
pub async fn client(data: &Data) -> Result<kube::Client> {
    let Some(text) = data.read(FILE)? else {
        bail!("no cluster has been started in {}: run `plim up`, or name its folder with --data", data.root().display());
    };
    let file = Kubeconfig::from_yaml(&text).context("the kubeconfig of the state folder is damaged")?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

//! Kubeconfig files: how kubectl, Helm and client libraries reach the cluster.

use anyhow::{Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};

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

/// `plim kubeconfig`
pub fn print(data: &Data) -> Result<()> {
    match data.read(FILE)? {
        Some(text) => {
            print!("{text}");
            Ok(())
        }
        None => bail!("no server has been started in {}: run `plim server -d` first", data.root().display()),
    }
}

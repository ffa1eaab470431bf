//! Commands that only ask a running cluster.

use anyhow::{Result, bail};

use crate::{data::Data, kubeconfig};

/// `plim kubeconfig`
pub fn print_kubeconfig(data: &Data) -> Result<()> {
    match data.read(kubeconfig::FILE)? {
        Some(text) => {
            print!("{text}");
            Ok(())
        }
        None => bail!("no cluster has been started in {}: run `plim up` first", data.root().display()),
    }
}

//! Which kinds there are, for the loops that look at everything.

use kube::{
    Client,
    discovery::{Discovery, Scope, verbs},
};

use crate::world::{Kind, Served};

/// Every resource that the server tells of, one version each, the preferred one.
///
/// # Errors
/// When the server cannot be asked.
pub async fn discover(client: Client) -> Result<Vec<Served>, kube::Error> {
    let discovery = Discovery::new(client).run().await?;
    let mut served: Vec<Served> = discovery
        .groups()
        .flat_map(kube::discovery::ApiGroup::recommended_resources)
        .map(|(resource, capabilities)| Served {
            kind: Kind {
                group: resource.group.into(),
                version: resource.version.into(),
                kind: resource.kind.into(),
                plural: resource.plural.into(),
            },
            namespaced: capabilities.scope == Scope::Namespaced,
            verbs: capabilities.operations,
        })
        .collect();
    served.sort_by(|a, b| a.kind.cmp(&b.kind));
    Ok(served)
}

/// Whether the garbage collector can follow objects of this kind. Events have no owners worth following, and there are many.
#[must_use]
pub fn is_collectable(served: &Served) -> bool {
    let events = served.kind.plural == "events" && matches!(&*served.kind.group, "" | "events.k8s.io");
    !events && [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| served.can(verb))
}

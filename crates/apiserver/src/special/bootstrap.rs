//! Objects that exist in every cluster: made at start when they are missing, never overwritten.

use apimachinery::{ApiError, Object, meta};
use serde_json::{Value, json};

use crate::{
    fields, options,
    server::{Call, Inner},
    shape,
    verbs::create,
};

fn namespace(name: &str) -> Object {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn priority(name: &str, value: i64, description: &str) -> Object {
    json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
        "value": value, "description": description,
    })
}

/// Makes what is missing.
pub(crate) async fn run(inner: &Inner) -> Result<(), ApiError> {
    let mut objects: Vec<Object> =
        ["kube-system", "kube-public", "kube-node-lease", "default"].into_iter().map(namespace).collect();
    objects.push(priority(
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ));
    objects.push(priority(
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ));
    objects.extend(kinds::flowcontrol::objects());
    objects.extend(inner.config.bootstrap.iter().cloned());
    if inner.config.nodes.is_some() {
        objects.push(super::metrics::role());
    }
    for object in objects {
        ensure(inner, object).await?;
    }
    super::addresses::default_range(inner).await?;
    own_service(inner).await?;
    super::addresses::repair(inner).await?;
    crate::aggregation::trust::publish(inner).await
}

/// Creates the object unless one of its name is there. Kinds that are not served are passed over.
pub(super) async fn ensure(inner: &Inner, mut object: Object) -> Result<(), ApiError> {
    let (version, kind) =
        (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
    let Some(served) = inner.catalogue.load().of_kind(version, kind).cloned() else {
        tracing::debug!(version, kind, "not served, so not made at start");
        return Ok(());
    };
    let (namespace, name) = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
    if inner.config.store.get(&served.key(&namespace, &name)).is_some() {
        return Ok(());
    }
    shape::apply(&served.resource, &mut object)?;
    shape::default(&served.resource, &mut object);
    fields::Tracker::internal(&served, (inner.config.now)()).update(None, &mut object);
    let mut call = Call::internal(inner, &served, &namespace);
    match create::insert(inner, &mut call, &served, object, &options::Write::default(), "").await {
        Err(error) if error.reason != "AlreadyExists" => {
            tracing::warn!(%error, kind = &*served.resource.kind, name, "could not be made at start");
            Err(error)
        }
        _ => Ok(()),
    }
}

/// `default/kubernetes`: the server's own Service, and where it is.
async fn own_service(inner: &Inner) -> Result<(), ApiError> {
    let Some((address, port)) = inner.config.advertise else { return Ok(()) };
    let Some(net) = inner.config.service_cidrs.first() else { return Ok(()) };
    let first = match net.network() {
        std::net::IpAddr::V4(base) => std::net::IpAddr::V4((u32::from(base) + 1).into()),
        std::net::IpAddr::V6(base) => std::net::IpAddr::V6((u128::from(base) + 1).into()),
    };
    ensure(
        inner,
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "type": "ClusterIP", "clusterIP": first.to_string(), "sessionAffinity": "None",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
            },
        }),
    )
    .await?;
    if address.is_loopback() {
        // No endpoint may be such an address, and no pod could reach it.
        tracing::info!(%address, "the Service default/kubernetes has no endpoints: the server is not reachable from outside its host");
        return Ok(());
    }
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": address.to_string()}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    for (object, fields) in [(endpoints, ["subsets"].as_slice()), (slice, ["endpoints", "ports"].as_slice())]
    {
        replace(inner, object, fields).await?;
    }
    Ok(())
}

/// Creates the object, or brings `fields` of the one that is there to the wanted value: the address may have changed.
pub(crate) async fn replace(inner: &Inner, object: Object, fields: &[&str]) -> Result<(), ApiError> {
    let (version, kind) =
        (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
    let Some(served) = inner.catalogue.load().of_kind(version, kind).cloned() else { return Ok(()) };
    let (namespace, name) = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
    if inner.config.store.get(&served.key(&namespace, &name)).is_none() {
        return ensure(inner, object).await;
    }
    let mut call = Call::internal(inner, &served, &namespace);
    call.info.name = name;
    let wanted: Vec<(&str, Value)> = fields.iter().map(|f| (*f, object[*f].clone())).collect();
    crate::verbs::update::change(inner, &mut call, &served, &options::Write::default(), |old, _| {
        let mut new = old.clone();
        for (field, value) in &wanted {
            new[*field] = value.clone();
        }
        shape::default(&served.resource, &mut new);
        fields::Tracker::internal(&served, (inner.config.now)()).update(Some(old), &mut new);
        Ok(new)
    })
    .await
    .map(|_| ())
}

//! `/api`, `/apis`: what is served, as legacy documents and aggregated.

use apimachinery::ApiError;
use base64::Engine as _;
use http::{HeaderValue, header};
use kinds::Resource;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::{
    Response,
    aggregation::{Remote, Table},
    catalogue::{Catalogue, Served, Version, version_rank},
    health,
    negotiate::{self, Offer},
    respond, route,
    server::{Call, Inner},
};

/// `/`: the paths there are.
pub(crate) fn root(inner: &Inner, _call: &Call) -> Response {
    let (catalogue, table) = (inner.catalogue.load(), inner.aggregation.table.load());
    let mut paths = Vec::new();
    if inner.config.issuer.is_some() {
        paths.extend(["/.well-known/openid-configuration".to_owned(), "/openid/v1/jwks".to_owned()]);
    }
    paths.extend(["/api", "/api/v1", "/apis", "/apis/"].map(str::to_owned));
    for group in listed(&catalogue, &table).iter().filter(|g| !g.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|(version, _)| format!("/apis/{}/{version}", group.name)));
    }
    for page in ["healthz", "livez", "readyz"] {
        paths.push(format!("/{page}"));
        paths.extend(health::list(inner, page).iter().map(|(check, _)| format!("/{page}/{check}")));
    }
    paths.extend(["/metrics", "/openapi/v2", "/openapi/v3", "/openapi/v3/", "/version"].map(str::to_owned));
    paths.sort_unstable();
    respond::document(200, negotiate::Media { pretty: true, ..Default::default() }, &json!({"paths": paths}))
}

/// Who serves a version.
enum Source<'a> {
    Local(&'a Version),
    Remote(&'a Remote),
}

/// A group as it is shown, its versions in order of preference.
struct Listed<'a> {
    name: &'a str,
    versions: Vec<(&'a str, Source<'a>)>,
}

/// All groups in their order: by what APIServices say, then by name.
fn listed<'a>(catalogue: &'a Catalogue, table: &'a Table) -> Vec<Listed<'a>> {
    let mut all: Vec<Listed<'a>> = Vec::with_capacity(catalogue.groups.len());
    for (name, group) in &catalogue.groups {
        let local = group.versions.iter().filter(|(version, _)| table.find(name, version).is_none());
        let versions = local.map(|(version, found)| (version.as_str(), Source::Local(found))).collect();
        all.push(Listed { name, versions });
    }
    for remote in table.remotes() {
        let (group, version) = (remote.backend.group.as_str(), remote.backend.version.as_str());
        let source = (version, Source::Remote(remote));
        match all.iter_mut().find(|listed| listed.name == group) {
            Some(listed) => listed.versions.push(source),
            None => all.push(Listed { name: group, versions: vec![source] }),
        }
    }
    for listed in &mut all {
        let name = listed.name;
        listed.versions.sort_by_cached_key(|(version, _)| {
            std::cmp::Reverse((table.version_priority(name, version), version_rank(version)))
        });
    }
    all.sort_by_cached_key(|listed| (-table.group_priority(listed.name), listed.name.to_owned()));
    all
}

/// A discovery document.
pub(crate) fn answer(inner: &Inner, call: &Call, parts: &[&str]) -> Result<Response, ApiError> {
    let (catalogue, table) = (inner.catalogue.load(), inner.aggregation.table.load());
    let offer = if parts.len() == 1 { Offer::Discovery } else { Offer::Plain };
    let media = negotiate::answer(&call.headers, &call.query, offer, true)?;
    let document = match parts {
        ["api"] if media.aggregated => aggregated(&listed(&catalogue, &table), |name| name.is_empty()),
        ["apis"] if media.aggregated => aggregated(&listed(&catalogue, &table), |name| !name.is_empty()),
        ["api"] => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address(inner)}],
        }),
        ["apis"] => {
            let all = listed(&catalogue, &table);
            let groups: Vec<Value> = all.iter().filter(|g| !g.name.is_empty()).map(group).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", name] => {
            let all = listed(&catalogue, &table);
            let Some(found) = all.iter().find(|g| g.name == *name && !name.is_empty()) else {
                return Ok(route::not_found());
            };
            let mut document = group(found);
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            document
        }
        ["api", version] => match catalogue.version("", version) {
            Some(found) => resources(version, found),
            None => return Err(route::unknown_resource()),
        },
        ["apis", name, version] => match catalogue.version(name, version).filter(|_| !name.is_empty()) {
            Some(found) => resources(&format!("{name}/{version}"), found),
            None if catalogue.is_builtin(name) => return Err(route::unknown_resource()),
            None => return Ok(route::not_found()),
        },
        _ => return Ok(route::not_found()),
    };
    if !media.aggregated {
        return Ok(respond::document(200, media, &document));
    }
    let tag = format!("\"{}\"", hex(&Sha512::digest(document.to_string().as_bytes())));
    let known = call.headers.get(header::IF_NONE_MATCH).is_some_and(|t| t.as_bytes() == tag.as_bytes());
    let mut response = if known {
        let mut response = respond::text(304, "");
        response.headers_mut().remove(header::CONTENT_TYPE);
        response
    } else {
        respond::document(200, media, &document)
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    Ok(response)
}

/// Upper-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

fn address(inner: &Inner) -> String {
    inner
        .config
        .advertise
        .map(|(ip, port)| std::net::SocketAddr::new(ip, port).to_string())
        .unwrap_or_default()
}

fn group(group: &Listed<'_>) -> Value {
    let name = group.name;
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|(version, _)| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn storage_hash(served: &Served) -> String {
    let resource = &served.resource;
    // Events are stored as those of the core group.
    let group = if &*resource.group == "events.k8s.io" { "" } else { &*resource.group };
    let text = format!("{group}/{}/{}", served.storage_version, resource.kind);
    base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(text.as_bytes())[..8])
}

fn resources(group_version: &str, version: &Version) -> Value {
    let mut list = Vec::new();
    for served in version.resources.values() {
        let resource = &served.resource;
        let mut entry = json!({
            "name": &*resource.plural, "singularName": &*resource.singular, "namespaced": resource.namespaced,
            "kind": &*resource.kind, "verbs": resource.verbs,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        // What is made when it is asked for is not stored.
        if ["get", "create"].iter().all(|verb| resource.verbs.iter().any(|known| &**known == *verb)) {
            entry["storageVersionHash"] = storage_hash(served).into();
        }
        list.push(entry);
        for sub in &resource.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": &*sub.kind, "verbs": sub.verbs,
            });
            if (&sub.group, &sub.version) != (&resource.group, &resource.version) {
                entry["group"] = (&*sub.group).into();
                entry["version"] = (&*sub.version).into();
            }
            list.push(entry);
        }
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let mut document = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": list});
    // The core group's list is older than its own `apiVersion`.
    if group_version.contains('/') {
        document["apiVersion"] = "v1".into();
    }
    document
}

fn aggregated(groups: &[Listed<'_>], wanted: impl Fn(&str) -> bool) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .filter(|group| wanted(group.name))
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|(version, source)| match source {
                    Source::Remote(remote) => remote.learned.version(version),
                    Source::Local(found) => {
                        let resources: Vec<Value> =
                            found.resources.values().map(|s| aggregated_resource(&s.resource)).collect();
                        json!({"version": version, "resources": resources, "freshness": "Current"})
                    }
                })
                .collect();
            let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

/// Group and version of a built-in kind are named only where they are not those of the resource.
fn kind_of(resource: &Resource, group: &str, version: &str, kind: &str) -> Value {
    let own = resource.builtin && (group, version) == (&*resource.group, &*resource.version);
    let (group, version) = if own { ("", "") } else { (group, version) };
    json!({"group": group, "version": version, "kind": kind})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let own = kind_of(resource, &resource.group, &resource.version, &resource.kind);
    let mut entry = json!({
        "resource": &*resource.plural, "responseKind": own,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": &*resource.singular, "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let subs: Vec<Value> = resource
        .subresources
        .iter()
        .map(|s| json!({
            "subresource": &*s.name, "responseKind": kind_of(resource, &s.group, &s.version, &s.kind), "verbs": s.verbs,
        }))
        .collect();
    if !subs.is_empty() {
        entry["subresources"] = subs.into();
    }
    entry
}

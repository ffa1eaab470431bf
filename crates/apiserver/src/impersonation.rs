//! `Impersonate-*` headers: acting as somebody else, when one may.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/filters/impersonation`. The plain verb `impersonate`; not the constrained modes.

use access::{Attributes, UserInfo};
use apimachinery::ApiError;
use http::HeaderMap;

use crate::server::{Call, Inner};

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect()
}

/// Upstream prints the user that was asked for as Go does.
fn nameless(uid: &str, groups: &[&str], extra: &[(String, &str)]) -> ApiError {
    let list = |values: &[&str]| {
        let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        format!("[]string{{{}}}", quoted.join(", "))
    };
    let groups = if groups.is_empty() { "[]string(nil)".to_owned() } else { list(groups) };
    let mut keys: Vec<&str> = extra.iter().map(|(key, _)| &**key).collect();
    keys.sort_unstable();
    keys.dedup();
    let of = |key: &str| {
        let values: Vec<&str> = extra.iter().filter(|(k, _)| k == key).map(|(_, value)| *value).collect();
        format!("{key:?}:{}", list(&values))
    };
    let extra = if keys.is_empty() {
        "map[string][]string(nil)".to_owned()
    } else {
        format!("map[string][]string{{{}}}", keys.into_iter().map(of).collect::<Vec<_>>().join(", "))
    };
    ApiError::bad_request(format!(
        "requested &user.DefaultInfo{{Name:\"\", UID:{uid:?}, Groups:{groups}, Extra:{extra}}} without impersonating a user name"
    ))
}

/// The user that the request acts as, if it asks to act as one.
pub(crate) fn effective(inner: &Inner, call: &Call) -> Result<Option<UserInfo>, ApiError> {
    let headers = &call.headers;
    let name = all(headers, "impersonate-user").first().copied().unwrap_or_default();
    let groups = all(headers, "impersonate-group");
    let uid = all(headers, "impersonate-uid").first().copied().unwrap_or_default();
    let extra: Vec<(String, &str)> = headers
        .iter()
        .filter_map(|(key, value)| {
            let key = key.as_str().strip_prefix("impersonate-extra-")?;
            let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
            Some((key, value.to_str().ok()?))
        })
        .collect();
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(nameless(uid, &groups, &extra));
    }
    let ask = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        inner.authorize(&Attributes {
            user: call.user.clone(),
            verb: "impersonate".to_owned(),
            resource_request: true,
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        })
    };
    let mut user = UserInfo { name: name.to_owned(), uid: uid.to_owned(), ..UserInfo::default() };
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, account)) => ask("", "serviceaccounts", "", namespace, account)?,
        None => ask("", "users", "", "", name)?,
    }
    for group in &groups {
        ask("", "groups", "", "", group)?;
        user.groups.push((*group).to_owned());
    }
    if !uid.is_empty() {
        ask("authentication.k8s.io", "uids", "", "", uid)?;
    }
    for (key, value) in extra {
        ask("authentication.k8s.io", "userextras", &key, "", value)?;
        user.extra.entry(key).or_default().push(value.to_owned());
    }
    if let (Some((namespace, _)), true) = (account, groups.is_empty()) {
        user.groups.push("system:serviceaccounts".to_owned());
        user.groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    let both = ["system:authenticated", "system:unauthenticated"];
    if !user.groups.iter().any(|g| both.contains(&g.as_str())) {
        let group = if name == "system:anonymous" { both[1] } else { both[0] };
        user.groups.push(group.to_owned());
    }
    Ok(Some(user))
}

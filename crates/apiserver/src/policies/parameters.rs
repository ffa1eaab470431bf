//! The parameters that a binding lends to a policy.

use std::sync::Arc;

use access::Reader as _;
use apimachinery::Object;

use super::policy::{Binding, ParamKind, ParamRef, Policy};
use crate::{catalogue::Served, server::Inner};

/// What `params` stands for, once for each evaluation. `None`: null.
pub(super) type Parameters = Vec<Option<Arc<Object>>>;

/// Where the parameters of a policy lie. `Ok(None)`: it takes none.
///
/// # Errors
/// There is no such kind.
pub(super) fn kind_of<T>(inner: &Inner, policy: &Policy<T>) -> Result<Option<Arc<Served>>, String> {
    let Some(ParamKind { api_version, kind }) = &policy.params else { return Ok(None) };
    match inner.catalogue.load().of_kind(api_version, kind) {
        Some(served) => Ok(Some(served.clone())),
        None => Err(format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'")),
    }
}

/// The parameters of a binding for a request in a namespace, which is empty for what lies in none.
///
/// # Errors
/// What the binding asks for cannot be, or has to be and is not.
pub(super) fn of(
    inner: &Inner,
    kind: Option<&Served>,
    binding: &Binding,
    namespace: &str,
) -> Result<Parameters, String> {
    // A reference counts only where the policy takes parameters.
    let (Some(served), Some(reference)) = (kind, &binding.params) else { return Ok(vec![None]) };
    let namespace = namespace_of(served, reference, namespace)?;
    let found = if !reference.name.is_empty() {
        if reference.selector.is_some() {
            return Err("paramRef.name and paramRef.selector are mutually exclusive".to_owned());
        }
        one(inner, served, namespace, &reference.name).into_iter().collect()
    } else {
        let Some(selector) = &reference.selector else {
            return Err("one of name or selector must be provided".to_owned());
        };
        let selector = selector.as_ref().map_err(Clone::clone)?;
        let mut all = all(inner, served, namespace);
        all.retain(|object| selector.matches_object(object));
        all
    };
    if found.is_empty() && reference.must_exist {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found.into_iter().map(Some).collect())
}

fn namespace_of<'n>(served: &Served, reference: &'n ParamRef, namespace: &'n str) -> Result<&'n str, String> {
    let asked = reference.namespace.as_str();
    match (served.resource.namespaced, asked.is_empty()) {
        (true, false) => Ok(asked),
        (true, true) if namespace.is_empty() => {
            Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                .to_owned())
        }
        (true, true) => Ok(namespace),
        (false, true) => Ok(""),
        (false, false) => {
            Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned())
        }
    }
}

/// Whether the reader, which decodes once for all, sees the kind in this version.
fn is_preferred(inner: &Inner, served: &Served) -> bool {
    let resource = &served.resource;
    let catalogue = inner.catalogue.load();
    catalogue
        .preferred(&resource.group, &resource.plural)
        .is_some_and(|preferred| preferred.resource.version == resource.version)
}

fn one(inner: &Inner, served: &Served, namespace: &str, name: &str) -> Option<Arc<Object>> {
    if is_preferred(inner, served) {
        return inner.reader.get(&served.resource.group, &served.resource.plural, namespace, name);
    }
    let entry = inner.config.store.get(&served.key(namespace, name))?;
    served.object(&entry).ok().map(Arc::new)
}

fn all(inner: &Inner, served: &Served, namespace: &str) -> Vec<Arc<Object>> {
    if is_preferred(inner, served) {
        return inner.reader.list(&served.resource.group, &served.resource.plural, namespace);
    }
    let Ok(page) = inner.config.store.list(&served.range(namespace), None, 0, None) else {
        return Vec::new();
    };
    page.entries.iter().filter_map(|entry| served.object(entry).ok().map(Arc::new)).collect()
}

//! The names that admission gives an expression, with their types.

use super::{Declared, Ty};

/// What an expression of admission may use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names {
    /// `params`
    pub params: bool,
    /// `authorizer` and `authorizer.requestResource`
    pub authorizer: bool,
    /// `Object{…}` and `JSONPatch{…}`
    pub patches: bool,
}

/// Declares the names. `object` and `params` are the types of the variables of that name; `oldObject` has that of
/// `object`.
#[must_use]
pub fn declared(names: Names, object: Ty, params: Ty) -> Declared {
    let mut declared = Declared::default()
        .with("object", object.clone())
        .with("oldObject", object)
        .with("request", request())
        .with("namespaceObject", namespace());
    if names.params {
        declared = declared.with("params", params);
    }
    if names.authorizer {
        let named = |name: &str| Ty::Named(format!("kubernetes.authorization.{name}").into());
        declared = declared
            .with("authorizer", named("Authorizer"))
            .with("authorizer.requestResource", named("ResourceCheck"));
    }
    if names.patches { declared.with_patches() } else { declared }
}

/// Adds `variables` with the variables whose types are known so far.
#[must_use]
pub fn with_variables(declared: Declared, variables: &[(String, Ty)]) -> Declared {
    declared.with("variables", Ty::object("kubernetes.variables", variables.to_vec()))
}

fn texts(name: &str, fields: &[&str]) -> Ty {
    Ty::object(name, fields.iter().map(|field| ((*field).to_owned(), Ty::STRING)))
}

fn object(name: &str, fields: &[(&str, Ty)]) -> Ty {
    Ty::object(name, fields.iter().map(|(field, ty)| ((*field).to_owned(), ty.clone())))
}

fn request() -> Ty {
    let kind = texts("kubernetes.GroupVersionKind", &["group", "version", "kind"]);
    let resource = texts("kubernetes.GroupVersionResource", &["group", "version", "resource"]);
    let strings = Ty::list(Ty::STRING);
    let user = object(
        "kubernetes.UserInfo",
        &[
            ("username", Ty::STRING),
            ("uid", Ty::STRING),
            ("groups", strings.clone()),
            ("extra", Ty::map(strings)),
        ],
    );
    object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", Ty::STRING),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", Ty::STRING),
            ("name", Ty::STRING),
            ("namespace", Ty::STRING),
            ("operation", Ty::STRING),
            ("userInfo", user),
            ("dryRun", Ty::BOOL),
            ("options", Ty::Dyn),
        ],
    )
}

fn namespace() -> Ty {
    let time = Ty::Plain("timestamp");
    let strings = Ty::list(Ty::STRING);
    let condition = object(
        "kubernetes.NamespaceCondition",
        &[
            ("status", Ty::STRING),
            ("type", Ty::STRING),
            ("lastTransitionTime", time.clone()),
            ("message", Ty::STRING),
            ("reason", Ty::STRING),
        ],
    );
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", Ty::STRING),
            ("generateName", Ty::STRING),
            ("namespace", Ty::STRING),
            ("labels", Ty::map(Ty::STRING)),
            ("annotations", Ty::map(Ty::STRING)),
            ("UID", Ty::STRING),
            ("creationTimestamp", time.clone()),
            ("deletionGracePeriodSeconds", Ty::INT),
            ("deletionTimestamp", time),
            ("generation", Ty::INT),
            ("resourceVersion", Ty::STRING),
            ("finalizers", strings.clone()),
        ],
    );
    object(
        "kubernetes.Namespace",
        &[
            ("metadata", metadata),
            ("spec", object("kubernetes.NamespaceSpec", &[("finalizers", strings)])),
            (
                "status",
                object(
                    "kubernetes.NamespaceStatus",
                    &[("conditions", Ty::list(condition)), ("phase", Ty::STRING)],
                ),
            ),
        ],
    )
}

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

/// What an expression has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Whatever it is.
    Anything,
    /// A truth value.
    Bool,
    /// A text.
    Text,
    /// A text, or nothing.
    TextOrNull,
    /// An `Object`.
    Configuration,
    /// A list of `JSONPatch`.
    Patch,
}

impl Wanted {
    /// The types, as cel-go writes them.
    fn types(self) -> &'static [&'static str] {
        match self {
            Self::Anything => &[],
            Self::Bool => &["bool"],
            Self::Text => &["string"],
            Self::TextOrNull => &["string", "null_type"],
            Self::Configuration => &["Object"],
            Self::Patch => &["list(JSONPatch)"],
        }
    }
}

/// Whether an expression may be used where it stands: its type.
///
/// # Errors
/// `compilation failed: …`, or that it gives something else.
pub fn compile(source: &str, declared: &Declared, wanted: Wanted) -> Result<Ty, String> {
    let ty = super::check(source, declared).map_err(|issues| format!("compilation failed: {issues}"))?;
    let found = if ty == Ty::Null { "null_type".to_owned() } else { ty.to_string() };
    match wanted.types() {
        types if types.is_empty() || types.contains(&found.as_str()) => Ok(ty),
        [one] => Err(format!("must evaluate to {one} but got {found}")),
        many => Err(format!("must evaluate to one of [{}] but got {found}", many.join(" "))),
    }
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

//! The options of requests, from query parameters and DELETE bodies, checked as upstream checks them.
//!
//! Source: `k8s.io/apimachinery/pkg/apis/meta/internalversion/validation`, `…/meta/v1/validation`.

use std::time::Duration;

use apimachinery::{
    ApiError, FieldError, FieldPath,
    selector::{FieldSelector, LabelSelector},
};
use serde_json::Value;
use store::Revision;

use crate::request::Query;

fn invalid(kind: &str, errors: &[FieldError]) -> ApiError {
    ApiError::invalid("meta.k8s.io", kind, "", errors)
}

/// What `resourceVersion` and `resourceVersionMatch` ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The newest state.
    Newest,
    /// Whatever is at hand.
    Any,
    /// Exactly this revision.
    Exact(Revision),
    /// This revision or a later one.
    NotOlderThan(Revision),
}

/// `ListOptions`, of list, watch and deletecollection.
#[derive(Clone, Debug)]
pub struct List {
    /// The label selector.
    pub labels: LabelSelector,
    /// The field selector.
    pub fields: FieldSelector,
    /// At most so many; 0 is all.
    pub limit: usize,
    /// Where the page before ended.
    pub token: Option<Continue>,
    /// Which state.
    pub at: At,
    /// Watch: the revision to begin behind, when one was named that is not 0.
    pub since: Option<Revision>,
    /// Watch: synthetic ADDED events first.
    pub initial_events: bool,
    /// Watch: the end of the initial events is marked (asked for by name).
    pub mark_initial_events: bool,
    /// Watch: BOOKMARK events.
    pub bookmarks: bool,
    /// Watch: when to end.
    pub timeout: Option<Duration>,
}

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continue {
    /// The state of the first page; `None`: the newest state.
    pub revision: Option<Revision>,
    /// The last key that was given, without the prefix of the list.
    pub after: String,
}

impl Continue {
    /// The token.
    #[must_use]
    pub fn encode(&self) -> String {
        use base64::Engine as _;
        let rv = self.revision.map_or(-1, |r| i64::try_from(r.0).unwrap_or(i64::MAX));
        let json =
            serde_json::json!({"v": "meta.k8s.io/v1", "rv": rv, "start": format!("{}\u{0}", self.after)});
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string())
    }

    /// Reads a token.
    pub fn decode(token: &str) -> Result<Self, ApiError> {
        use base64::Engine as _;
        let bad = |why: &str| ApiError::bad_request(format!("invalid continue token: {why}"));
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).map_err(|error| {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) => at,
                // Go names the group of four that is not whole.
                _ => token.len() / 4 * 4,
            };
            bad(&format!("continue key is not valid: illegal base64 data at input byte {at}"))
        })?;
        let json: Value = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
        if json["v"] != "meta.k8s.io/v1" {
            return Err(bad(&format!(
                "continue key is not valid: server does not recognize this encoded version {}",
                json["v"]
            )));
        }
        let revision = match json["rv"].as_i64() {
            Some(-1) => None,
            Some(n) if n > 0 => Some(Revision(n.unsigned_abs())),
            _ => {
                return Err(bad(
                    "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
                ));
            }
        };
        let start = json["start"].as_str().unwrap_or_default();
        let after = start.strip_suffix('\u{0}').unwrap_or(start);
        if after.is_empty() {
            return Err(bad("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)"));
        }
        if format!("/{after}/").contains("/../") || after.starts_with('/') {
            return Err(bad(&format!("continue key is not valid: {after}")));
        }
        Ok(Self { revision, after: after.to_owned() })
    }
}

/// A `resourceVersion`: `None` when empty, `Some(0)` when `0`.
pub fn revision(text: &str) -> Result<Option<Revision>, ApiError> {
    match text {
        "" => Ok(None),
        text if text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().map(|n| Some(Revision(n))).map_err(|_| bad_revision(text))
        }
        text => Err(bad_revision(text)),
    }
}

fn bad_revision(text: &str) -> ApiError {
    ApiError::bad_request(format!(
        "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
    ))
}

impl List {
    /// Reads the query of a list, watch or deletecollection.
    pub fn parse(query: &Query, watch: bool) -> Result<Self, ApiError> {
        let labels = LabelSelector::parse(query.text("labelSelector")).map_err(ApiError::bad_request)?;
        let fields = FieldSelector::parse(query.text("fieldSelector")).map_err(ApiError::bad_request)?;
        let version = query.text("resourceVersion");
        let matching = query.text("resourceVersionMatch");
        let token = query.text("continue");
        let send_initial = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        let limit = usize::try_from(query.integer("limit")?.unwrap_or_default()).unwrap_or_default();
        let mut errors = Vec::new();
        let path = |name: &str| FieldPath::root().child(name);
        let mut forbid = |name: &str, why: &str| errors.push(FieldError::forbidden(&path(name), why));
        if watch {
            if !matching.is_empty() && send_initial.is_none() {
                forbid(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            if send_initial.is_some() && matching != "NotOlderThan" {
                forbid(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
            if !matches!(matching, "" | "NotOlderThan") {
                errors.push(FieldError::not_supported(
                    &path("resourceVersionMatch"),
                    matching,
                    &["NotOlderThan"],
                ));
            }
        } else {
            if send_initial.is_some() {
                forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
            }
            if !matching.is_empty() {
                if version.is_empty() {
                    forbid(
                        "resourceVersionMatch",
                        "resourceVersionMatch is forbidden unless resourceVersion is provided",
                    );
                }
                if !token.is_empty() {
                    forbid(
                        "resourceVersionMatch",
                        "resourceVersionMatch is forbidden when continue is provided",
                    );
                }
                if !matches!(matching, "Exact" | "NotOlderThan") {
                    errors.push(FieldError::not_supported(
                        &path("resourceVersionMatch"),
                        matching,
                        &["Exact", "NotOlderThan", ""],
                    ));
                }
                if matching == "Exact" && version == "0" {
                    errors.push(FieldError::forbidden(
                        &path("resourceVersionMatch"),
                        "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                    ));
                }
            }
        }
        if !errors.is_empty() {
            return Err(invalid("ListOptions", &errors));
        }
        let token = match token {
            "" => None,
            token if !watch => {
                if !version.is_empty() && version != "0" {
                    return Err(ApiError::bad_request(
                        "specifying resource version is not allowed when using continue",
                    ));
                }
                Some(Continue::decode(token)?)
            }
            _ => None,
        };
        let since = revision(version).map_err(|error| {
            let why = format!("resourceVersion: {}", error.message);
            // The list looks at it itself, a watch leaves it to its storage.
            if watch {
                ApiError::other(500, "", why)
            } else {
                ApiError::bad_request(format!("invalid resource version: {why}"))
            }
        })?;
        let at = match since {
            None => At::Newest,
            Some(Revision(0)) => At::Any,
            Some(n) if matching == "Exact" || (matching.is_empty() && limit > 0) => At::Exact(n),
            Some(n) => At::NotOlderThan(n),
        };
        let seconds = query.integer("timeoutSeconds")?.and_then(|n| u64::try_from(n).ok());
        let named = since.filter(|r| r.0 > 0);
        Ok(Self {
            labels,
            fields,
            limit,
            token,
            at,
            since: named,
            initial_events: send_initial.unwrap_or(named.is_none()),
            mark_initial_events: send_initial == Some(true),
            bookmarks: query.flag("allowWatchBookmarks"),
            timeout: seconds.filter(|s| *s > 0).map(Duration::from_secs),
        })
    }
}

/// How strictly a body is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Unknown and duplicate fields are dropped.
    Ignore,
    /// … and told in warnings.
    #[default]
    Warn,
    /// … are errors.
    Strict,
}

impl FieldValidation {
    /// As the query names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ignore => "Ignore",
            Self::Warn => "Warn",
            Self::Strict => "Strict",
        }
    }
}

/// Create, update and patch options.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// Nothing is stored.
    pub dry_run: bool,
    /// How strictly the body is read.
    pub validation: FieldValidation,
    /// The same, if the request says it.
    pub named_validation: Option<FieldValidation>,
    /// Who owns what is written; empty: told by the user agent.
    pub field_manager: String,
    /// An apply takes fields from other managers.
    pub force: bool,
}

impl Write {
    /// Reads the query; `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`. `apply`: the patch is an apply.
    pub fn parse(query: &Query, kind: &str, apply: bool) -> Result<Self, ApiError> {
        let mut errors = Vec::new();
        let path = |name: &str| FieldPath::root().child(name);
        let dry: Vec<&str> = query.all("dryRun").collect();
        dry_run_errors(&dry, &mut errors);
        let field_manager = query.text("fieldManager").to_owned();
        let force = query.get("force").map(|_| query.flag("force"));
        if kind == "PatchOptions" {
            if apply && field_manager.is_empty() {
                errors.push(FieldError::required(&path("fieldManager"), "is required for apply patch"));
            }
            if !apply && force.is_some() {
                errors
                    .push(FieldError::forbidden(&path("force"), "may not be specified for non-apply patch"));
            }
        }
        apimachinery::meta::check_manager(&field_manager, &path("fieldManager"), &mut errors);
        let validation = match query.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                errors.push(FieldError::not_supported(
                    &path("fieldValidation"),
                    other,
                    &["", "Ignore", "Strict", "Warn"],
                ));
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(invalid(kind, &errors));
        }
        Ok(Self {
            dry_run: !dry.is_empty(),
            validation,
            named_validation: (!query.text("fieldValidation").is_empty()).then_some(validation),
            field_manager,
            force: force == Some(true),
        })
    }
}

fn dry_run_errors(values: &[&str], errors: &mut Vec<FieldError>) {
    if values.iter().any(|v| *v != "All") {
        let path = FieldPath::root().child("dryRun");
        let list: Vec<Value> = values.iter().map(|v| Value::from(*v)).collect();
        errors.push(FieldError::not_supported(&path, Value::Array(list), &["All"]));
    }
}

/// What happens to dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They lose the owner.
    Orphan,
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
}

impl Propagation {
    /// As a body names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Orphan => "Orphan",
            Self::Background => "Background",
            Self::Foreground => "Foreground",
        }
    }
}

/// `DeleteOptions`
#[derive(Clone, Debug, Default)]
pub struct Delete {
    /// Seconds until it is gone; the kind's default when absent.
    pub grace: Option<i64>,
    /// Only this object.
    pub uid: Option<String>,
    /// Only this state of it.
    pub resource_version: Option<String>,
    /// The policy, when one was named (also by the old `orphanDependents`).
    pub propagation: Option<Propagation>,
    /// `orphanDependents: false` was named.
    pub not_orphan: bool,
    /// Nothing is stored.
    pub dry_run: bool,
}

impl Delete {
    /// From the body when there is one, else from the query.
    pub fn parse(body: Option<&Value>, query: &Query) -> Result<Self, ApiError> {
        let mut errors = Vec::new();
        let path = |name: &str| FieldPath::root().child(name);
        let (grace, orphan, policy, dry): (Option<i64>, Option<bool>, String, Vec<String>);
        let mut options = Self::default();
        if let Some(body) = body {
            grace = body.get("gracePeriodSeconds").and_then(Value::as_i64);
            orphan = body.get("orphanDependents").and_then(Value::as_bool);
            policy = body.get("propagationPolicy").and_then(Value::as_str).unwrap_or_default().to_owned();
            let list = body.get("dryRun").and_then(Value::as_array);
            dry = list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            let precondition =
                |name: &str| body.pointer(&format!("/preconditions/{name}")).and_then(Value::as_str);
            options.uid = precondition("uid").map(str::to_owned);
            options.resource_version = precondition("resourceVersion").map(str::to_owned);
        } else {
            grace = query.integer("gracePeriodSeconds")?;
            orphan = query.get("orphanDependents").map(|_| query.flag("orphanDependents"));
            policy = query.text("propagationPolicy").to_owned();
            dry = query.all("dryRun").map(str::to_owned).collect();
        }
        if orphan.is_some() && !policy.is_empty() {
            errors.push(FieldError::invalid(
                &path("propagationPolicy"),
                policy.as_str(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        options.propagation = match (policy.as_str(), orphan) {
            ("Orphan", _) | ("", Some(true)) => Some(Propagation::Orphan),
            ("Background", _) => Some(Propagation::Background),
            ("Foreground", _) => Some(Propagation::Foreground),
            ("", Some(false)) => Some(Propagation::Background),
            ("", None) => None,
            (other, _) => {
                errors.push(FieldError::not_supported(
                    &path("propagationPolicy"),
                    other,
                    &["Foreground", "Background", "Orphan", "nil"],
                ));
                None
            }
        };
        let dry: Vec<&str> = dry.iter().map(String::as_str).collect();
        dry_run_errors(&dry, &mut errors);
        if !errors.is_empty() {
            return Err(invalid("DeleteOptions", &errors));
        }
        options.not_orphan = orphan == Some(false);
        options.grace = grace.map(|g| if g < 0 { 1 } else { g });
        options.dry_run = !dry.is_empty();
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continue_token_survives_the_way_out_and_back() {
        let token = Continue { revision: Some(Revision(7)), after: "shop/web".to_owned() };
        assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        let inconsistent = Continue { revision: None, after: "web".to_owned() };
        assert_eq!(Continue::decode(&inconsistent.encode()).unwrap(), inconsistent);
        assert_eq!(Continue::decode("%%").unwrap_err().code, 400);
    }

    #[test]
    fn a_match_without_a_version_is_refused() {
        let error = List::parse(&Query::parse("resourceVersionMatch=Exact"), false).unwrap_err();
        assert_eq!((error.code, error.reason), (422, "Invalid"));
    }

    #[test]
    fn a_plain_watch_replays_what_is_there() {
        let options = List::parse(&Query::parse("watch=1"), true).unwrap();
        assert!(options.initial_events && !options.mark_initial_events);
        let options = List::parse(&Query::parse("watch=1&resourceVersion=9"), true).unwrap();
        assert!(!options.initial_events);
        assert_eq!(options.since, Some(Revision(9)));
    }

    #[test]
    fn orphan_dependents_and_a_policy_exclude_each_other() {
        let query = Query::parse("orphanDependents=true&propagationPolicy=Background");
        assert_eq!(Delete::parse(None, &query).unwrap_err().code, 422);
    }
}

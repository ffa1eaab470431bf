//! Which form an answer takes (`Accept`) and a body has (`Content-Type`).
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers/negotiation`. JSON and YAML for all,
//! protobuf for built-in kinds.

use apimachinery::ApiError;
use http::{HeaderMap, header};

use kinds::Resource;

use crate::request::Query;

/// Another kind that the client wants the answer as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transform {
    /// The object itself.
    #[default]
    None,
    /// `meta.k8s.io/v1 Table`
    Table,
    /// `PartialObjectMetadata`
    Partial,
    /// `PartialObjectMetadataList`
    PartialList,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// JSON
    #[default]
    Json,
    /// YAML
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// The media type of Kubernetes' protobuf.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Media {
    /// How it is written.
    pub form: Form,
    /// Indented.
    pub pretty: bool,
    /// See [`Transform`].
    pub transform: Transform,
    /// `apidiscovery.k8s.io/v2 APIGroupDiscoveryList`
    pub aggregated: bool,
    /// The transformed kind at its older version, `meta.k8s.io/v1beta1`.
    pub beta: bool,
}

impl Media {
    /// The `Content-Type` of a document.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match (self.form, self.aggregated) {
            (_, true) => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            (Form::Json, _) => "application/json",
            (Form::Yaml, _) => "application/yaml",
            (Form::Protobuf, _) => PROTOBUF,
        }
    }

    /// 406 if metadata of one object are asked of a list, or metadata of a list of one object.
    pub fn fits(self, resource: &Resource, list: bool) -> Result<(), ApiError> {
        let internal = match (&*resource.group, resource.builtin) {
            (_, false) => "unstructured",
            ("" | "events.k8s.io", _) => "core",
            (group, _) => group.split('.').next().unwrap_or_default(),
        };
        let kind = if resource.builtin { &resource.kind } else { "Unstructured" };
        let why = match (self.transform, list) {
            (Transform::Partial, true) => format!(
                "you requested PartialObjectMetadata, but the requested object is a list (*{internal}.{kind}List)"
            ),
            (Transform::PartialList, false) => format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list (*{internal}.{kind})"
            ),
            _ => return Ok(()),
        };
        Err(ApiError::other(406, "NotAcceptable", why))
    }
}

/// What a request path can answer with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Documents that are never transformed.
    Plain,
    /// `/api`, `/apis`
    Discovery,
    /// One object: Table or PartialObjectMetadata.
    Object,
    /// A list: Table or PartialObjectMetadataList.
    List,
    /// A stream of objects: Table or PartialObjectMetadata; no YAML.
    Watch,
}

struct Clause<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    q: f32,
}

fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut list: Vec<Clause<'_>> = accept
        .split(',')
        .filter_map(|clause| {
            let mut pieces = clause.split(';').map(str::trim);
            let media = pieces.next().filter(|m| !m.is_empty())?;
            let parameters: Vec<_> = pieces.filter_map(|p| p.split_once('=')).collect();
            let q =
                parameters.iter().find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
            Some(Clause { media, parameters, q })
        })
        .collect();
    list.sort_by(|a, b| b.q.total_cmp(&a.q));
    list
}

fn accept_clause(clause: &Clause<'_>, offer: Offer, protobuf: bool) -> Option<Media> {
    let mut media = Media::default();
    match clause.media {
        "application/json" | "*/*" | "application/*" => {}
        "application/yaml" if offer != Offer::Watch => media.form = Form::Yaml,
        PROTOBUF if protobuf => media.form = Form::Protobuf,
        _ => return None,
    }
    let get = |name: &str| clause.parameters.iter().find(|(k, _)| *k == name).map(|(_, v)| *v);
    media.pretty = get("pretty") == Some("1");
    if let Some(stream) = get("stream")
        && (offer != Offer::Watch || stream != "watch")
    {
        return None;
    }
    let Some(kind) = get("as") else { return Some(media) };
    let group = (get("g").unwrap_or_default(), get("v").unwrap_or_default());
    let meta = matches!(group, ("meta.k8s.io", "v1" | "v1beta1"));
    media.transform = match (kind, offer) {
        // Upstream has no protobuf form of tables.
        ("Table", Offer::Object | Offer::List | Offer::Watch) if meta && media.form != Form::Protobuf => {
            Transform::Table
        }
        // Whether it fits is seen when there is an answer: see [`Media::fits`].
        ("PartialObjectMetadata", Offer::Object | Offer::List | Offer::Watch) if meta => Transform::Partial,
        ("PartialObjectMetadataList", Offer::Object | Offer::List) if meta => Transform::PartialList,
        ("APIGroupDiscoveryList", Offer::Discovery)
            if group == ("apidiscovery.k8s.io", "v2") && media.form == Form::Json =>
        {
            media.aggregated = true;
            Transform::None
        }
        _ => return None,
    };
    media.beta = media.transform != Transform::None && group.1 == "v1beta1";
    Some(media)
}

/// What upstream's router answers with at a path of a built-in kind, before anything else looks at the request: types
/// by name only. 406 when none is accepted.
fn routed(accept: &str, offer: Offer) -> Result<(), ApiError> {
    const ONE: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    const STREAMS: &str = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    let known = |media: &str| matches!(media, "*/*" | "application/json" | "application/yaml" | PROTOBUF);
    if accept.split(',').any(|clause| known(clause.split(';').next().unwrap_or_default().trim())) {
        return Ok(());
    }
    let list = match offer {
        Offer::List | Offer::Watch => format!("{ONE}, {STREAMS}"),
        _ => ONE.to_owned(),
    };
    let why = format!("406: Not Acceptable\n\nAvailable representations: {list}");
    let mut error = ApiError::other(406, "NotAcceptable", why);
    error.details = Some(serde_json::json!({}));
    Err(error)
}

/// The form for `headers`; 406 when nothing on offer is accepted. `protobuf`: it is on offer.
pub fn answer(headers: &HeaderMap, query: &Query, offer: Offer, protobuf: bool) -> Result<Media, ApiError> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let browser = headers
        .get(header::USER_AGENT)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|a| ["curl", "Wget", "Mozilla/5.0"].iter().any(|b| a.starts_with(b)));
    let mut media = if accept.trim().is_empty() {
        Media::default()
    } else {
        if protobuf && matches!(offer, Offer::Object | Offer::List | Offer::Watch) {
            routed(accept, offer)?;
        }
        let found = clauses(accept).iter().find_map(|c| accept_clause(c, offer, protobuf));
        found.ok_or_else(|| not_acceptable(offer, protobuf))?
    };
    media.pretty = match query.get("pretty") {
        Some(text) => text != "false" && text != "0",
        None => media.pretty || browser,
    };
    Ok(media)
}

/// The form of an OpenAPI document of version 2 or 3, whose protobuf is not Kubernetes' own; `None` if no form of it is
/// accepted.
pub fn openapi(headers: &HeaderMap, version: u8) -> Option<Form> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if accept.trim().is_empty() {
        return Some(Form::Json);
    }
    let form = |clause: &Clause<'_>| match clause.media {
        "application/json" | "*/*" | "application/*" => Some(Form::Json),
        media => {
            let spec = media.strip_prefix("application/com.github.proto-openapi.spec.v")?;
            let known = ["@v1.0+protobuf", ".v1.0+protobuf"].map(|rest| format!("{version}{rest}"));
            known.iter().any(|known| known == spec).then_some(Form::Protobuf)
        }
    };
    clauses(accept).iter().find_map(form)
}

/// 406, with what there is.
pub fn not_acceptable(offer: Offer, protobuf: bool) -> ApiError {
    let list = match (offer, protobuf) {
        (Offer::Watch, false) => "application/json;stream=watch",
        (Offer::Watch, true) => {
            "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
        }
        // Upstream names protobuf also where only metadata and errors have that form.
        _ => "application/json, application/yaml, application/vnd.kubernetes.protobuf",
    };
    ApiError::other(406, "NotAcceptable", format!("only the following media types are accepted: {list}"))
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// `application/vnd.kubernetes.protobuf`, of built-in kinds only.
    Protobuf,
}

/// The media type of `Content-Type` without parameters.
#[must_use]
pub fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The encoding of a body; 415 when it is none of ours.
pub fn body(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    match media_type(headers).as_str() {
        "" | "application/json" => Ok(Encoding::Json),
        "application/yaml" => Ok(Encoding::Yaml),
        PROTOBUF => Ok(Encoding::Protobuf),
        _ => Err(unsupported("application/json, application/yaml, application/vnd.kubernetes.protobuf")),
    }
}

/// 415
#[must_use]
pub fn unsupported(list: &str) -> ApiError {
    ApiError::other(
        415,
        "UnsupportedMediaType",
        format!("the body of the request was in an unknown format - accepted media types include: {list}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(accept: &str, offer: Offer) -> Result<Media, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        answer(&headers, &Query::default(), offer, false)
    }

    #[test]
    fn kubectl_gets_its_table() {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(ask(accept, Offer::List).unwrap().transform, Transform::Table);
        assert_eq!(ask(accept, Offer::Plain).unwrap().transform, Transform::None);
    }

    #[test]
    fn what_is_not_offered_is_not_acceptable() {
        assert_eq!(ask("application/vnd.kubernetes.protobuf", Offer::Object).unwrap_err().code, 406);
        let media = ask("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", Offer::List).unwrap();
        let resource = kinds::find("", "v1", "configmaps").unwrap();
        let why =
            "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)";
        assert_eq!(media.fits(resource, true).unwrap_err().message, why);
        assert!(media.fits(resource, false).is_ok());
        assert!(ask("application/vnd.kubernetes.protobuf,application/json", Offer::Object).is_ok());
    }
}

//! Questions that are asked by creating an object that is never stored: TokenReview, the SubjectAccessReviews,
//! SelfSubjectReview.

use std::{collections::BTreeMap, sync::Arc};

use access::{Attributes, Decision, UserInfo};
use apimachinery::{ApiError, FieldError, FieldPath, Object, time};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::{
    Response,
    catalogue::Served,
    fields, negotiate,
    negotiate::Offer,
    options, respond,
    server::{Call, Inner},
    shape,
    verbs::create,
};

/// Whether a resource is one of these questions.
#[must_use]
pub fn is_review(group: &str, plural: &str) -> bool {
    matches!(
        (group, plural),
        ("authentication.k8s.io", "tokenreviews" | "selfsubjectreviews")
            | (
                "authorization.k8s.io",
                "subjectaccessreviews"
                    | "localsubjectaccessreviews"
                    | "selfsubjectaccessreviews"
                    | "selfsubjectrulesreviews"
            )
    )
}

/// POST of a question; the answer is the object with its status.
pub(crate) async fn review(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let media = call.media(Offer::Plain)?;
    let options = options::Write::parse(&call.query, "CreateOptions", false)?;
    let encoding = negotiate::body(&call.headers)?;
    let mut object = shape::body(served, body, encoding, options.validation, call)?;
    let plural = &*served.resource.plural;
    if plural.ends_with("accessreviews") {
        create::place(&mut object, &served.resource, &call.info.namespace)?;
        fields::Tracker::new(call, served, &options).update(None, &mut object);
        check_access(plural, &object)?;
    }
    let status = match &*served.resource.plural {
        "tokenreviews" => token(inner, call, &object).await?,
        "selfsubjectreviews" => {
            object["metadata"]["creationTimestamp"] = time::format_time(call.now).into();
            json!({"userInfo": user_json(&call.user)})
        }
        "selfsubjectaccessreviews" => access(inner, call.user.clone(), &object),
        "selfsubjectrulesreviews" => {
            let status = rules(inner, call, &object)?;
            // The answer does not say what was asked.
            object["spec"] = json!({});
            object["metadata"] = json!({});
            status
        }
        plural => {
            if plural == "localsubjectaccessreviews" {
                let asked = object["spec"]["resourceAttributes"]["namespace"].as_str().unwrap_or_default();
                if asked != call.info.namespace {
                    return Err(ApiError::bad_request(format!(
                        "spec.resourceAttributes.namespace must match namespace: {asked}"
                    )));
                }
            }
            access(inner, Arc::new(subject(&object)), &object)
        }
    };
    object["status"] = status;
    Ok(respond::document(201, media, &object))
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn user_json(user: &UserInfo) -> Value {
    let mut json = json!({"username": user.name});
    if !user.uid.is_empty() {
        json["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        json["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        json["extra"] = json!(user.extra);
    }
    json
}

/// What is wrong with a question about access.
///
/// Source: `k8s.io/kubernetes/pkg/apis/authorization/validation`.
fn check_access(plural: &str, object: &Object) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    let (resource, url) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let path = FieldPath::root().child("spec");
    let own = plural == "selfsubjectaccessreviews";
    if !resource.is_null() && !url.is_null() {
        let why = "cannot be specified in combination with resourceAttributes";
        errors.push(FieldError::invalid(&path.child("nonResourceAttributes"), url.clone(), why));
    }
    if resource.is_null() && url.is_null() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let at = if own { path.child("resourceAttributes") } else { path.clone() };
        errors.push(FieldError::invalid(&at, Value::Null, why));
    }
    let nobody = |field: &str| match &spec[field] {
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    if !own && nobody("user") && nobody("groups") {
        let why = "at least one of user or group must be specified";
        errors.push(FieldError::invalid(&path.child("user"), "", why));
    }
    let of_server = ["managedFields", if plural == "localsubjectaccessreviews" { "namespace" } else { "" }];
    let metadata = object["metadata"].as_object().into_iter().flatten();
    if metadata.filter(|(_, value)| !value.is_null()).any(|(name, _)| !of_server.contains(&name.as_str())) {
        let at = FieldPath::root().child("metadata");
        let what = if own || plural == "subjectaccessreviews" {
            "must be empty"
        } else {
            "must be empty except for namespace"
        };
        errors.push(FieldError::invalid(&at, object["metadata"].clone(), what));
    }
    if errors.is_empty() {
        return Ok(());
    }
    // Upstream names the group only.
    Err(ApiError::invalid("authorization.k8s.io", "", "", &errors))
}

fn subject(object: &Object) -> UserInfo {
    let spec = &object["spec"];
    let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
    let extra: BTreeMap<String, Vec<String>> =
        spec["extra"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), strings(v))).collect();
    UserInfo { name: text("user"), uid: text("uid"), groups: strings(&spec["groups"]), extra }
}

fn access(inner: &Inner, user: Arc<UserInfo>, object: &Object) -> Value {
    let spec = &object["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let of = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let attributes = if path.is_null() {
        Attributes {
            user,
            verb: of(resource, "verb"),
            resource_request: true,
            group: of(resource, "group"),
            version: of(resource, "version"),
            resource: of(resource, "resource"),
            subresource: of(resource, "subresource"),
            namespace: of(resource, "namespace"),
            name: of(resource, "name"),
            label_selector: resource["labelSelector"]["rawSelector"].as_str().unwrap_or_default().to_owned(),
            field_selector: resource["fieldSelector"]["rawSelector"].as_str().unwrap_or_default().to_owned(),
            ..Attributes::default()
        }
    } else {
        Attributes { user, verb: of(path, "verb"), path: of(path, "path"), ..Attributes::default() }
    };
    let (mut status, reason) = match inner.decide(&attributes) {
        Decision::Allow(reason) => (json!({"allowed": true}), reason),
        Decision::Deny(reason) => (json!({"allowed": false, "denied": true}), reason),
        Decision::NoOpinion(reason) => (json!({"allowed": false}), reason),
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

/// What RBAC allows the caller in a namespace.
fn rules(inner: &Inner, call: &Call, object: &Object) -> Result<Value, ApiError> {
    let namespace = object["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let Some(rbac) = &inner.config.rbac else {
        return Ok(json!({"resourceRules": [], "nonResourceRules": [], "incomplete": true}));
    };
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in rbac.rules_of(&call.user, namespace) {
        if rule.urls.is_empty() {
            let mut told = json!({"verbs": rule.verbs});
            for (field, list) in
                [("apiGroups", rule.groups), ("resources", rule.resources), ("resourceNames", rule.names)]
            {
                if !list.is_empty() {
                    told[field] = list.into();
                }
            }
            resources.push(told);
        } else {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.urls}));
        }
    }
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}

async fn token(inner: &Inner, call: &Call, object: &Object) -> Result<Value, ApiError> {
    let token = object["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let wanted = strings(&object["spec"]["audiences"]);
    if let Some(issuer) = &inner.config.issuer {
        let audiences = if wanted.is_empty() { vec![issuer.url.clone()] } else { wanted.clone() };
        match issuer.authenticate(token, &audiences, &inner.reader, call.now) {
            Ok((user, matching)) => {
                return Ok(json!({"authenticated": true, "user": user_json(&user), "audiences": matching}));
            }
            Err(why) if inner.config.authenticators.is_empty() => {
                return Ok(json!({"user": {}, "error": why}));
            }
            Err(_) => {}
        }
    }
    let mut headers = HeaderMap::new();
    let Ok(value) = format!("Bearer {token}").parse() else {
        return Ok(json!({"user": {}, "error": "invalid bearer token"}));
    };
    headers.insert(http::header::AUTHORIZATION, value);
    for authenticator in &inner.config.authenticators {
        match authenticator.authenticate(&headers, &[], call.now).await {
            Ok(Some(user)) if wanted.is_empty() => {
                return Ok(json!({"authenticated": true, "user": user_json(&user)}));
            }
            Ok(_) => {}
            Err(error) => {
                return Ok(json!({"user": {}, "error": format!("[invalid bearer token, {error}]")}));
            }
        }
    }
    Ok(json!({"user": {}}))
}

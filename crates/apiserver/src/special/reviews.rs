//! Questions that are asked by creating an object that is never stored: TokenReview, the SubjectAccessReviews,
//! SelfSubjectReview.

use std::{collections::BTreeMap, sync::Arc};

use access::{Attributes, Decision, UserInfo};
use apimachinery::{ApiError, FieldError, FieldPath, Object, meta, time};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::{
    Response,
    catalogue::Served,
    negotiate,
    negotiate::Offer,
    options, respond,
    server::{Call, Inner},
    shape,
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
    let status = match &*served.resource.plural {
        "tokenreviews" => token(inner, call, &object).await?,
        "selfsubjectreviews" => {
            object["metadata"]["creationTimestamp"] = time::format_time(call.now).into();
            json!({"userInfo": user_json(&call.user)})
        }
        "selfsubjectaccessreviews" => access(inner, call.user.clone(), served, &object)?,
        "selfsubjectrulesreviews" => {
            let found = rules(inner, call, &object)?;
            // Nothing of the question is said again.
            object["metadata"] = json!({});
            object["spec"] = json!({});
            found
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
            let user = subject(served, &object)?;
            access(inner, Arc::new(user), served, &object)?
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

fn subject(served: &Served, object: &Object) -> Result<UserInfo, ApiError> {
    let spec = &object["spec"];
    let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
    let extra: BTreeMap<String, Vec<String>> =
        spec["extra"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), strings(v))).collect();
    let user = UserInfo { name: text("user"), uid: text("uid"), groups: strings(&spec["groups"]), extra };
    if user.name.is_empty() && user.groups.is_empty() {
        let path = FieldPath::root().child("spec").child("user");
        let error = FieldError::invalid(&path, "", "at least one of user or group must be specified");
        return Err(served.invalid(meta::name(object), &[error]));
    }
    Ok(user)
}

fn access(inner: &Inner, user: Arc<UserInfo>, served: &Served, object: &Object) -> Result<Value, ApiError> {
    let spec = &object["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let at = FieldPath::root().child("spec").child("resourceAttributes");
    if resource.is_null() == path.is_null() {
        let why = if resource.is_null() {
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        } else {
            "cannot be specified in combination with resourceAttributes"
        };
        let at = if resource.is_null() {
            at
        } else {
            FieldPath::root().child("spec").child("nonResourceAttributes")
        };
        return Err(served.invalid(meta::name(object), &[FieldError::invalid(&at, Value::Null, why)]));
    }
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
    Ok(status)
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
            let mut told =
                json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
            if !rule.names.is_empty() {
                told["resourceNames"] = json!(rule.names);
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

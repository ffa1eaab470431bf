//! `serviceaccounts/NAME/token`: TokenRequest.

use access::{
    Audit as _,
    token::{Grant, Issued, Reference},
};
use apimachinery::{ApiError, FieldError, FieldPath, Object, meta, time};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    Response, admit,
    catalogue::Served,
    negotiate,
    negotiate::Offer,
    options, respond,
    server::{Call, Inner},
    shape,
    verbs::existing,
};

const MINIMUM: i64 = 600;
const DEFAULT: i64 = 3600;

/// POST of a TokenRequest.
pub(crate) async fn request(
    inner: &Inner,
    call: &mut Call,
    accounts: &Served,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let media = call.media(Offer::Plain)?;
    let Some(issuer) = &inner.config.issuer else {
        return Err(ApiError::internal("this server signs no tokens"));
    };
    let encoding = negotiate::body(&call.headers)?;
    let options = options::Write::parse(&call.query, "CreateOptions", false)?;
    let kind = ("authentication.k8s.io/v1", "TokenRequest");
    let mut request = shape::foreign(accounts, body, encoding, kind, options.validation, call)?;
    let (namespace, name) = (call.info.namespace.clone(), call.info.name.clone());
    let write = admit::Write::new(call, accounts, "CREATE", admit::Options::Write(&options));
    write.mutate(inner, call, &mut request, None).await?;
    write.validate(inner, call, &mut request, None).await?;
    let account = accounts.object(&*existing(inner, accounts, &namespace, &name)?)?;
    let asked = meta::uid(&request);
    if !asked.is_empty() && asked != meta::uid(&account) {
        let why = format!(
            "the UID in the token request ({asked}) does not match the UID of the service account ({})",
            meta::uid(&account)
        );
        return Err(ApiError::conflict("", "serviceaccounts/token", &name, &why));
    }
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT);
    let path = FieldPath::root().child("spec").child("expirationSeconds");
    let invalid = |why: &str| {
        Err(ApiError::invalid(
            "authentication.k8s.io",
            "TokenRequest",
            "",
            &[FieldError::invalid(&path, seconds, why)],
        ))
    };
    if seconds < MINIMUM {
        return invalid("may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        return invalid("may not specify a duration larger than 2^32 seconds");
    }
    let mut grant = Grant {
        namespace: namespace.clone(),
        service_account: reference(&account),
        audiences: request["spec"]["audiences"]
            .as_array()
            .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default(),
        seconds,
        ..Grant::default()
    };
    bind(inner, &request, &namespace, &name, &mut grant)?;
    let Issued { token, expires, credential_id } = issuer.sign(&grant, call.now)?;
    if let Some(trail) = call.trail() {
        trail.annotate("authentication.kubernetes.io/issued-credential-id", credential_id);
    }
    if grant.audiences.is_empty() {
        request["spec"]["audiences"] = json!([issuer.url]);
    }
    request["spec"]["expirationSeconds"] = seconds.into();
    if request["spec"].get("boundObjectRef").is_none() {
        request["spec"]["boundObjectRef"] = Value::Null;
    }
    if !request["metadata"].is_object() {
        request["metadata"] = json!({});
    }
    request["metadata"]["name"] = name.into();
    request["metadata"]["namespace"] = namespace.into();
    request["metadata"]["creationTimestamp"] = time::format_time(call.now).into();
    request["status"] = json!({"token": token, "expirationTimestamp": time::format_time(expires)});
    Ok(respond::document(201, media, &request))
}

fn reference(object: &Object) -> Reference {
    Reference { name: meta::name(object).to_owned(), uid: meta::uid(object).to_owned() }
}

/// Checks what the token is bound to.
fn bind(
    inner: &Inner,
    request: &Object,
    namespace: &str,
    account: &str,
    grant: &mut Grant,
) -> Result<(), ApiError> {
    let bound = &request["spec"]["boundObjectRef"];
    if bound.is_null() {
        return Ok(());
    }
    let text = |field: &str| bound[field].as_str().unwrap_or_default();
    let (kind, name) = (text("kind"), text("name"));
    let find = |resource: &str, namespace: &str| {
        inner.stored("", resource, namespace, name).ok_or_else(|| ApiError::not_found("", resource, name))
    };
    let same = |resource: &str, object: &Object| {
        let asked = text("uid");
        if asked.is_empty() || asked == meta::uid(object) {
            return Ok(());
        }
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        Err(ApiError::conflict("", resource, name, &why))
    };
    match (text("apiVersion"), kind) {
        ("v1", "Pod") => {
            let pod = find("pods", namespace)?;
            same("pods", &pod)?;
            if pod["spec"]["serviceAccountName"] != account {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            grant.pod = Some(reference(&pod));
            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            if !node.is_empty() {
                let uid =
                    inner.stored("", "nodes", "", node).map(|n| meta::uid(&n).to_owned()).unwrap_or_default();
                grant.node = Some(Reference { name: node.to_owned(), uid });
            }
        }
        ("v1", "Secret") => {
            let secret = find("secrets", namespace)?;
            same("secrets", &secret)?;
            grant.secret = Some(reference(&secret));
        }
        ("v1", "Node") => {
            let node = find("nodes", "")?;
            same("nodes", &node)?;
            grant.node = Some(reference(&node));
        }
        (version, kind) => {
            let core = if version.contains('/') { "" } else { "/" };
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {core}{version}, Kind={kind}"
            )));
        }
    }
    Ok(())
}

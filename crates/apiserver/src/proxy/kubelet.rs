//! What a request about a pod is to its kubelet: another path, other names of its parameters, other errors.

use apimachinery::{
    ApiError, Object,
    field::{FieldError, FieldPath},
};
use chrono::DateTime;
use form_urlencoded::Serializer;
use futures::TryStreamExt as _;
use serde_json::{Map, Value, json};

use crate::{
    Response,
    body::Body,
    request::{Query, RequestInfo},
};

/// Bytes of a kubelet's error that are read.
const MAX_WORDS: usize = 50_000;

/// Path and query: `/containerLogs/NS/POD/CONTAINER`, `/exec/NS/POD/CONTAINER`, `/portForward/NS/POD`.
///
/// Flags are `1` there, and a terminal's streams have names of their own.
pub(super) fn location(info: &RequestInfo, pod: &Object, query: &Query) -> Result<String, ApiError> {
    let (namespace, name) = (&info.namespace, &info.name);
    let mut parameters = Serializer::new(String::new());
    if info.subresource == "portforward" {
        let ports: Vec<&str> = query.all("ports").collect();
        for port in &ports {
            port.parse::<i32>().map_err(|e| ApiError::bad_request(format!("parsing {port:?}: {e}")))?;
        }
        if !ports.is_empty() {
            parameters.append_pair("port", &ports.join(","));
        }
        return Ok(format!("/portForward/{namespace}/{name}?{}", parameters.finish()));
    }
    let verb = match info.subresource.as_str() {
        "log" => {
            for (name, value) in log_options(query, name)? {
                parameters.append_pair(name, &value);
            }
            "containerLogs"
        }
        verb => {
            for (ours, theirs) in
                [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
            {
                if flag(query, ours) {
                    parameters.append_pair(theirs, "1");
                }
            }
            if verb == "exec" {
                for word in query.all("command") {
                    parameters.append_pair("command", word);
                }
            }
            verb
        }
    };
    let container = container(pod, query.text("container"), name)?;
    Ok(format!("/{verb}/{namespace}/{name}/{container}?{}", parameters.finish()))
}

/// A flag that is there is on, unless it says otherwise.
pub(super) fn flag(query: &Query, name: &str) -> bool {
    query.get(name).is_some_and(|v| v != "0" && !v.eq_ignore_ascii_case("false"))
}

/// `PodLogOptions`, checked.
fn log_options(query: &Query, pod: &str) -> Result<Vec<(&'static str, String)>, ApiError> {
    let number = |name: &str| -> Result<Option<i64>, ApiError> {
        let text = query.get(name).filter(|t| !t.is_empty());
        let wrong = |t| ApiError::bad_request(format!("strconv.ParseInt: parsing {t:?}: invalid syntax"));
        text.map(|t| t.parse().map_err(|_| wrong(t))).transpose()
    };
    let (tail, seconds, limit) = (number("tailLines")?, number("sinceSeconds")?, number("limitBytes")?);
    let time = query.get("sinceTime").filter(|t| !t.is_empty());
    if let Some(time) = time
        && let Err(error) = DateTime::parse_from_rfc3339(time)
    {
        return Err(ApiError::bad_request(format!("parsing time {time:?} as RFC 3339: {error}")));
    }
    let field = |name: &str| FieldPath::root().child(name);
    let mut errors = Vec::new();
    if let Some(tail) = tail.filter(|t| *t < 0) {
        errors.push(FieldError::invalid(&field("tailLines"), tail, "must be greater than or equal to 0"));
    }
    if let Some(limit) = limit.filter(|l| *l < 1) {
        errors.push(FieldError::invalid(&field("limitBytes"), limit, "must be greater than 0"));
    }
    if seconds.is_some() && time.is_some() {
        let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        // Upstream's name of what has none.
        errors.push(FieldError::forbidden(&FieldPath::from("[]"), why));
    } else if let Some(seconds) = seconds.filter(|s| *s < 1) {
        errors.push(FieldError::invalid(&field("sinceSeconds"), seconds, "must be greater than 0"));
    }
    // Upstream's release has the choice of streams switched off.
    if query.get("stream").is_some_and(|stream| !stream.is_empty()) {
        errors.push(FieldError::forbidden(&field("stream"), "may not be specified"));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid("", "PodLogOptions", pod, &errors));
    }
    let mut options: Vec<(&'static str, String)> = Vec::new();
    for name in ["follow", "previous", "timestamps"] {
        if flag(query, name) {
            options.push((name, "true".to_owned()));
        }
    }
    for (name, value) in [("sinceSeconds", seconds), ("tailLines", tail), ("limitBytes", limit)] {
        options.extend(value.map(|v| (name, v.to_string())));
    }
    options.extend(time.map(|t| ("sinceTime", t.to_owned())));
    options.push(("stream", "All".to_owned()));
    Ok(options)
}

fn container(pod: &Object, asked: &str, name: &str) -> Result<String, ApiError> {
    let names = |field: &str| {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|c| c["name"].as_str()).map(str::to_owned).collect::<Vec<_>>()
    };
    let main = names("containers");
    let all = [names("initContainers"), main.clone(), names("ephemeralContainers")].concat();
    if asked.is_empty() {
        return match main.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {name}"))),
            _ => Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                all.join(" ")
            ))),
        };
    }
    if all.iter().any(|c| c == asked) {
        Ok(asked.to_owned())
    } else {
        Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")))
    }
}

/// The kubelet's answer to a request for a log; what it refuses in words becomes a `Status`.
pub(super) async fn checked(response: Response, pod: &str) -> Result<Response, ApiError> {
    let code = response.status().as_u16();
    if (200..=206).contains(&code) {
        return Ok(response);
    }
    let mut words = Vec::new();
    match response.into_body() {
        Body::Full(bytes) => words.extend(bytes.iter().flatten()),
        Body::Stream(mut chunks) => {
            while words.len() < MAX_WORDS
                && let Some(chunk) = chunks.try_next().await.map_err(ApiError::internal)?
            {
                words.extend_from_slice(&chunk);
            }
        }
    }
    words.truncate(MAX_WORDS);
    Err(refusal(code, &String::from_utf8_lossy(&words), pod))
}

/// Upstream's `GenericHttpResponseChecker`.
fn refusal(code: u16, words: &str, pod: &str) -> ApiError {
    let (reason, message) = match code {
        400 => return ApiError::bad_request(words),
        500 => return ApiError::internal(words),
        401 => ("Unauthorized", "the server has asked for the client to provide credentials".to_owned()),
        403 => ("Forbidden", words.to_owned()),
        404 => ("NotFound", "the server could not find the requested resource".to_owned()),
        422 => ("Invalid", "the server rejected our request due to an error in our request".to_owned()),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request".to_owned()),
        _ => (
            "",
            format!("the server responded with the status code {code} but did not return more information"),
        ),
    };
    let mut error = ApiError::other(code, reason, format!("{message} ( pods/log {pod})"));
    let details: Map<String, Value> =
        [("name".to_owned(), json!(pod)), ("kind".to_owned(), json!("pods/log"))].into_iter().collect();
    error.details = Some(Value::Object(details));
    error
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn place(url: &str) -> Result<String, ApiError> {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let query = Query::parse(query);
        let info = RequestInfo::parse(&Method::GET, &format!("/api/v1/namespaces/shop/pods/{path}"), &query);
        let pod = json!({"spec": {
            "initContainers": [{"name": "init"}], "containers": [{"name": "app"}, {"name": "side"}],
            "ephemeralContainers": [{"name": "debug"}],
        }});
        location(&info, &pod, &query)
    }

    #[test]
    fn a_command_has_the_kubelets_parameters() {
        assert_eq!(
            place("web/exec?container=app&command=sh&command=-c&command=a%20%26b&stdin=true&stdout=1&tty=&stderr=false")
                .unwrap(),
            "/exec/shop/web/app?input=1&output=1&tty=1&command=sh&command=-c&command=a+%26b"
        );
        assert_eq!(
            place("web/attach?container=debug&stderr=true").unwrap(),
            "/attach/shop/web/debug?error=1"
        );
        assert_eq!(place("web/portforward?ports=80&ports=81").unwrap(), "/portForward/shop/web?port=80%2C81");
        assert_eq!(place("web/portforward").unwrap(), "/portForward/shop/web?");
        assert_eq!(place("web/portforward?ports=x").unwrap_err().code, 400);
    }

    #[test]
    fn log_options_are_checked() {
        assert_eq!(
            place("web/log?container=init&follow=true&tailLines=3&pretty=true").unwrap(),
            "/containerLogs/shop/web/init?follow=true&tailLines=3&stream=All"
        );
        for (query, code, words) in [
            ("tailLines=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
            (
                "tailLines=-1",
                422,
                "PodLogOptions \"web\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "limitBytes=0",
                422,
                "PodLogOptions \"web\" is invalid: limitBytes: Invalid value: 0: must be greater than 0",
            ),
            ("sinceTime=yesterday", 400, "parsing time \"yesterday\""),
            (
                "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
                422,
                "at most one of `sinceTime` or `sinceSeconds`",
            ),
            ("stream=Stdout", 422, "stream: Forbidden: may not be specified"),
        ] {
            let error = place(&format!("web/log?container=app&{query}")).unwrap_err();
            assert!(error.code == code && error.message.contains(words), "{query}: {error:?}");
        }
    }

    #[test]
    fn a_container_has_to_be_named_where_there_are_several() {
        let why = |url| place(url).unwrap_err().message;
        let choose = "a container name must be specified for pod web, choose one of: [init app side debug]";
        assert_eq!(why("web/log"), choose);
        assert_eq!(why("web/log?container=none"), "container none is not valid for pod web");
    }

    #[test]
    fn a_kubelets_words_become_a_status() {
        let error = refusal(400, "container \"c\" in pod \"p\" is waiting to start: ContainerCreating", "p");
        assert_eq!((error.code, error.reason), (400, "BadRequest"));
        assert!(error.message.ends_with("ContainerCreating"));
        assert_eq!(refusal(500, "why", "p").message, "Internal error occurred: why");
        let error = refusal(404, "pod \"p\" does not exist", "p");
        assert_eq!(error.message, "the server could not find the requested resource ( pods/log p)");
        assert_eq!(error.details, Some(json!({"name": "p", "kind": "pods/log"})));
    }
}

//! Writes as requests to a real API server.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use http::{Method, Request};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::execute::{Answer, Answered, Server};
use crate::{
    ask::{Ask, Refusal, collection},
    local_path::{self, Directories},
    plan::{Failure, PatchKind, Target, Write},
    protection,
    world::Kind,
};

/// Who the fields belong to that the loops set.
const MANAGER: &str = "plim-controllers";

/// Sends the writes of one loop.
#[derive(Clone)]
pub struct Requests {
    client: Client,
    /// How many requests may still be started, over all loops.
    slots: Arc<Semaphore>,
    /// The loop, as field manager of server-side apply.
    name: &'static str,
    /// The disks of nodes, where they can be reached.
    directories: Option<Arc<dyn Directories>>,
}

/// An error as the API tells it; code 0 when there was no answer.
struct Wrong {
    code: u16,
    reason: String,
    message: String,
    causes: Vec<String>,
}

impl From<kube::Error> for Wrong {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self {
                code: status.code,
                reason: status.reason.clone(),
                message: status.message.clone(),
                causes: status
                    .details
                    .iter()
                    .flat_map(|d| d.causes.iter().map(|c| c.reason.clone()))
                    .collect(),
            },
            other => Self::precondition("", other.to_string()),
        }
    }
}

impl Wrong {
    fn precondition(reason: &str, message: impl Into<String>) -> Self {
        Self { code: 0, reason: reason.to_owned(), message: message.into(), causes: Vec::new() }
    }

    fn of(self, write: &Write) -> Box<Failure> {
        Box::new(Failure {
            write: write.clone(),
            code: self.code,
            reason: self.reason,
            message: self.message,
            causes: self.causes,
        })
    }
}

fn object(target: &Target, subresource: Option<&str>) -> String {
    let mut path = format!("{}/{}", collection(&target.kind, &target.namespace), target.name);
    if let Some(subresource) = subresource {
        path.push('/');
        path.push_str(subresource);
    }
    path
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn written(kind: &Kind, object: &Value) -> Answered {
    let revision = text(object, "resourceVersion").parse().unwrap_or(0);
    Answered {
        answer: Answer::Written { kind: kind.clone(), revision },
        name: text(object, "name").to_owned(),
    }
}

fn gone(target: &Target) -> Answered {
    Answered { answer: Answer::Gone(target.clone()), name: target.name.clone() }
}

fn nothing(name: &str) -> Answered {
    Answered { answer: Answer::Nothing, name: name.to_owned() }
}

impl Requests {
    /// For the loop `name`.
    #[must_use]
    pub fn new(client: Client, slots: Arc<Semaphore>, name: &'static str) -> Self {
        Self { client, slots, name, directories: None }
    }

    /// The same, with the disks of nodes.
    #[must_use]
    pub fn with(self, directories: Option<Arc<dyn Directories>>) -> Self {
        Self { directories, ..self }
    }

    /// Makes or removes a directory, away from the tasks that must not block.
    async fn on_disk(&self, write: &Write) -> Result<Answered, Wrong> {
        let Some(directories) = self.directories.clone() else {
            return Err(Wrong::precondition("Directory", "no disk of a node can be reached from here"));
        };
        let write = write.clone();
        let done = tokio::task::spawn_blocking(move || local_path::perform(&write, &*directories)).await;
        match done {
            Ok(Ok(())) => Ok(nothing("")),
            Ok(Err(failure)) => Err(Wrong::precondition(&failure.reason, failure.message)),
            Err(error) => Err(Wrong::precondition("Directory", error.to_string())),
        }
    }

    async fn call(&self, method: Method, path: String, body: Option<(&str, Value)>) -> Result<Value, Wrong> {
        let mut request = Request::builder().method(method).uri(path).header("accept", "application/json");
        let bytes = match body {
            Some((media, body)) => {
                request = request.header("content-type", media);
                serde_json::to_vec(&body).map_err(|e| Wrong::precondition("", e.to_string()))?
            }
            None => Vec::new(),
        };
        let request = request.body(bytes).map_err(|e| Wrong::precondition("", e.to_string()))?;
        let _slot = self.slots.acquire().await.map_err(|e| Wrong::precondition("", e.to_string()))?;
        Ok(self.client.request(request).await?)
    }

    /// The object as it is right now, if it is there with the target's UID.
    async fn live(&self, target: &Target) -> Result<Option<Value>, Wrong> {
        match self.call(Method::GET, object(target, None), None).await {
            Ok(found) if target.uid.is_empty() || text(&found, "uid") == target.uid => Ok(Some(found)),
            Ok(_) => Ok(None),
            Err(wrong) if wrong.code == 404 => Ok(None),
            Err(wrong) => Err(wrong),
        }
    }

    /// A refusal of something meant for one UID: was it because that object is no more?
    async fn or_gone(&self, target: &Target, wrong: Wrong) -> Result<Answered, Wrong> {
        let about_uid = matches!(wrong.code, 404 | 409 | 422) && !target.uid.is_empty();
        if about_uid && self.live(target).await?.is_none() { Ok(gone(target)) } else { Err(wrong) }
    }

    async fn perform(&self, write: &Write) -> Result<Answered, Wrong> {
        let json = "application/json";
        match write {
            Write::Create { kind, object, .. } => {
                let path = format!("{}?fieldManager={MANAGER}", collection(kind, text(object, "namespace")));
                let made = self.call(Method::POST, path, Some((json, Value::clone(object)))).await?;
                Ok(written(kind, &made))
            }
            Write::Update { kind, object: new, subresource } => {
                let target = Target {
                    kind: kind.clone(),
                    namespace: text(new, "namespace").to_owned(),
                    name: text(new, "name").to_owned(),
                    uid: String::new(),
                };
                let path = format!("{}?fieldManager={MANAGER}", object(&target, *subresource));
                Ok(written(kind, &self.call(Method::PUT, path, Some((json, Value::clone(new)))).await?))
            }
            Write::Patch { target, patch, body, subresource } => {
                self.patch(target, *patch, body, *subresource).await
            }
            Write::Delete { target, resource_version, grace, propagation, .. } => {
                let uid = (!target.uid.is_empty()).then_some(&target.uid);
                let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions",
                    "preconditions": {"uid": uid, "resourceVersion": resource_version}});
                if let Some(grace) = grace {
                    options["gracePeriodSeconds"] = (*grace).into();
                }
                if let Some(propagation) = propagation {
                    options["propagationPolicy"] = (*propagation).into();
                }
                match self.call(Method::DELETE, object(target, None), Some((json, options))).await {
                    Ok(answer) if answer["kind"] == "Status" => Ok(gone(target)),
                    Ok(answer) => Ok(written(&target.kind, &answer)),
                    Err(wrong) if wrong.code == 404 => Ok(gone(target)),
                    Err(wrong) => self.or_gone(target, wrong).await,
                }
            }
            Write::DeleteCollection { kind, namespace } => {
                let options = json!({"apiVersion": "v1", "kind": "DeleteOptions",
                    "propagationPolicy": "Background"});
                self.call(Method::DELETE, collection(kind, namespace), Some((json, options))).await?;
                Ok(nothing(""))
            }
            Write::Require { target, alive } => match self.live(target).await? {
                Some(found) if !alive || text(&found, "deletionTimestamp").is_empty() => {
                    Ok(nothing(&target.name))
                }
                _ => {
                    Err(Wrong::precondition("Gone", format!("{} {} is gone", target.kind.kind, target.name)))
                }
            },
            Write::RequireAbsent { target } => match self.live(target).await? {
                None => Ok(nothing(&target.name)),
                Some(_) => Err(Wrong::precondition(
                    "Present",
                    format!("{} {} is there", target.kind.kind, target.name),
                )),
            },
            Write::RequireNone { kind, namespace } => {
                let path = format!("{}?limit=1", collection(kind, namespace));
                let found = self.call(Method::GET, path, None).await?;
                if found["items"].as_array().is_some_and(|items| !items.is_empty()) {
                    return Err(Wrong::precondition("Present", format!("there are {} left", kind.plural)));
                }
                Ok(nothing(""))
            }
            Write::RequireUnused { claim } => {
                let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
                let path = collection(&Kind::of::<Pod>(), namespace);
                let found = self.call(Method::GET, path, None).await?;
                let pods = found["items"].as_array().into_iter().flatten();
                let mut pods = pods.filter_map(|pod| Pod::deserialize(pod).ok());
                match pods.find(|pod| protection::uses(pod, claim)) {
                    None => Ok(nothing("")),
                    Some(pod) => {
                        let name = pod.metadata.name.unwrap_or_default();
                        Err(Wrong::precondition("InUse", format!("pod {name} uses the claim")))
                    }
                }
            }
            Write::MakeDirectory { .. } | Write::RemoveDirectory { .. } => self.on_disk(write).await,
            Write::Post { target, subresource, object: body } => {
                let method = match *subresource {
                    "finalize" | "approval" | "scale" | "status" => Method::PUT,
                    _ => Method::POST,
                };
                let path = object(target, Some(subresource));
                let answer = self.call(method, path, Some((json, Value::clone(body)))).await?;
                let itself = answer["kind"] == *target.kind.kind && text(&answer, "name") == target.name;
                Ok(if itself { written(&target.kind, &answer) } else { nothing(&target.name) })
            }
        }
    }

    async fn patch(
        &self,
        target: &Target,
        patch: PatchKind,
        body: &Value,
        subresource: Option<&str>,
    ) -> Result<Answered, Wrong> {
        let media = match patch {
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Strategic => "application/strategic-merge-patch+json",
            PatchKind::Json => "application/json-patch+json",
            PatchKind::Apply => "application/apply-patch+yaml",
        };
        let query = match patch {
            PatchKind::Apply => format!("fieldManager={}&force=true", self.name),
            _ => format!("fieldManager={MANAGER}"),
        };
        let path = format!("{}?{query}", object(target, subresource));
        let body = Write::guarded(patch, body, &target.uid);
        match self.call(Method::PATCH, path, Some((media, body))).await {
            Ok(answer) => Ok(written(&target.kind, &answer)),
            Err(wrong) => self.or_gone(target, wrong).await,
        }
    }
}

impl Server for Requests {
    fn send<'a>(&'a self, write: &'a Write) -> BoxFuture<'a, Result<Answered, Box<Failure>>> {
        async move { self.perform(write).await.map_err(|wrong| wrong.of(write)) }.boxed()
    }

    fn answer<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Value, Refusal>> {
        async move {
            let (method, body) = match &ask.body {
                Some(body) => (Method::POST, Some(("application/json", body.clone()))),
                None => (Method::GET, None),
            };
            let Wrong { code, reason, message, .. } = match self.call(method, ask.path.clone(), body).await {
                Ok(answer) => return Ok(answer),
                Err(wrong) => wrong,
            };
            Err(Refusal { code, reason, message })
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Node};

    use super::*;

    #[test]
    fn paths_are_the_apis() {
        let kind = Kind::of::<Deployment>();
        assert_eq!(collection(&kind, "shop"), "/apis/apps/v1/namespaces/shop/deployments");
        let target = Target {
            kind: Kind::of::<Node>(),
            namespace: String::new(),
            name: "one".to_owned(),
            uid: String::new(),
        };
        assert_eq!(object(&target, Some("status")), "/api/v1/nodes/one/status");
    }
}

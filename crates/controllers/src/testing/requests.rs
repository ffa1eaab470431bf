//! Writes as requests to the server that is not there.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::task::Poll;

use apimachinery::ApiError;
use futures::{FutureExt, future::BoxFuture};
use rand::{Rng as _, rngs::StdRng};
use serde_json::Value;

use super::{
    api::{Api, Deletion},
    cluster::Chaos,
};
use crate::{
    ask::{Ask, Refusal},
    driver::execute::{Answer, Answered, Server},
    plan::{Failure, Target, Write},
    protection,
    world::Kind,
};

/// What the driver sees as the API server.
pub(super) struct Requests {
    pub api: Arc<Api>,
    pub chaos: Option<Chaos>,
    pub random: Arc<Mutex<StdRng>>,
    pub alive: Arc<AtomicBool>,
}

/// Lets the others go first, once.
async fn turn() {
    let mut waited = false;
    futures::future::poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Requests {
    fn roll(&self, below: u32) -> u32 {
        if below == 0 {
            return 0;
        }
        self.random.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..below)
    }
}

impl Server for Requests {
    fn send<'a>(&'a self, write: &'a Write) -> BoxFuture<'a, Result<Answered, Box<Failure>>> {
        async move {
            let no_answer = || Box::new(failure(write, &ApiError::other(0, "", "no answer")));
            if let Some(chaos) = self.chaos {
                for _ in 0..self.roll(chaos.turns + 1) {
                    turn().await;
                }
                match self.roll(100) {
                    dice if dice < chaos.lost => return Err(no_answer()),
                    dice if dice < 2 * chaos.lost => {
                        let _ = perform(&self.api, write);
                        return Err(no_answer());
                    }
                    _ => {}
                }
            }
            if !self.alive.load(Ordering::Relaxed) {
                return Err(no_answer());
            }
            let answer = perform(&self.api, write);
            if let Some(chaos) = self.chaos {
                for _ in 0..self.roll(chaos.turns + 1) {
                    turn().await;
                }
            }
            answer.map_err(|error| Box::new(failure(write, &error)))
        }
        .boxed()
    }

    fn answer<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Value, Refusal>> {
        async move {
            if let Some(chaos) = self.chaos {
                for _ in 0..self.roll(chaos.turns + 1) {
                    turn().await;
                }
                if self.roll(100) < chaos.lost {
                    let (reason, message) = (String::new(), "no answer".to_owned());
                    return Err(Refusal { code: 0, reason, message });
                }
            }
            super::asks::answer(&self.api, ask)
        }
        .boxed()
    }
}

fn failure(write: &Write, error: &ApiError) -> Failure {
    let causes = error.details.as_ref().and_then(|d| d["causes"].as_array());
    let causes = causes.into_iter().flatten().filter_map(|c| c["reason"].as_str().map(str::to_owned));
    Failure {
        write: write.clone(),
        code: error.code,
        reason: error.reason.to_owned(),
        message: error.message.clone(),
        causes: causes.collect(),
    }
}

fn written(kind: &Kind, object: &Value) -> Answered {
    let meta = &object["metadata"];
    let revision = meta["resourceVersion"].as_str().and_then(|r| r.parse().ok()).unwrap_or(0);
    let name = meta["name"].as_str().unwrap_or_default().to_owned();
    Answered { answer: Answer::Written { kind: kind.clone(), revision }, name }
}

fn gone(target: &Target) -> Answered {
    Answered { answer: Answer::Gone(target.clone()), name: target.name.clone() }
}

fn nothing(name: &str) -> Answered {
    Answered { answer: Answer::Nothing, name: name.to_owned() }
}

fn perform(api: &Api, write: &Write) -> Result<Answered, ApiError> {
    let precondition = |why: &str| ApiError::other(0, "Required", why);
    let live = |target: &Target| {
        let found = api.get(&target.kind, &target.namespace, &target.name);
        found.filter(|o| target.uid.is_empty() || o["metadata"]["uid"] == *target.uid)
    };
    match write {
        Write::Create { kind, object, .. } => Ok(written(kind, &*api.create(Value::clone(object))?)),
        Write::Update { kind, object, subresource } => {
            Ok(written(kind, &*api.update(object, subresource.unwrap_or_default())?))
        }
        Write::Patch { target, patch, body, subresource } => {
            if !target.uid.is_empty() && live(target).is_none() {
                return Ok(gone(target));
            }
            let place = (&target.kind, &*target.namespace, &*target.name);
            let body = Write::guarded(*patch, body, &target.uid);
            let object = api.patch(place, *patch, &body, subresource.unwrap_or_default())?;
            Ok(written(&target.kind, &object))
        }
        Write::Delete { target, resource_version, grace, propagation, .. } => {
            if live(target).is_none() {
                return Ok(gone(target));
            }
            let deletion = Deletion {
                uid: Some(&*target.uid).filter(|uid| !uid.is_empty()),
                resource_version: resource_version.as_deref(),
                grace: *grace,
                propagation: *propagation,
            };
            let place = (&target.kind, &*target.namespace, &*target.name);
            Ok(match api.delete(place, &deletion)? {
                Some(object) => written(&target.kind, &object),
                None => gone(target),
            })
        }
        Write::DeleteCollection { kind, namespace } => {
            for object in api.list(kind, namespace) {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let deletion = Deletion { propagation: Some("Background"), ..Deletion::default() };
                api.delete((kind, namespace, name), &deletion)?;
            }
            Ok(nothing(""))
        }
        Write::Require { target, alive } => {
            let found = live(target);
            let found = found.filter(|o| !alive || o["metadata"]["deletionTimestamp"].is_null());
            found.map(|_| nothing(&target.name)).ok_or_else(|| precondition("the object is gone"))
        }
        Write::RequireAbsent { target } => match live(target) {
            Some(_) => Err(precondition("the object is there")),
            None => Ok(nothing(&target.name)),
        },
        Write::RequireNone { kind, namespace } => match api.list(kind, namespace).first() {
            Some(_) => Err(precondition("there are objects")),
            None => Ok(nothing("")),
        },
        Write::RequireUnused { claim } => {
            let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
            let pods = api.list(&Kind::of::<k8s_openapi::api::core::v1::Pod>(), namespace);
            let used = pods.iter().any(|pod| {
                serde_json::from_value(Value::clone(pod)).is_ok_and(|pod| protection::uses(&pod, claim))
            });
            if used { Err(precondition("a pod uses the claim")) } else { Ok(nothing("")) }
        }
        Write::MakeDirectory { node, path } => {
            api.directories().insert((node.clone(), path.clone()));
            Ok(nothing(""))
        }
        Write::RemoveDirectory { node, path } => {
            api.directories().remove(&(node.clone(), path.clone()));
            Ok(nothing(""))
        }
        Write::Post { target, subresource: "finalize", object } => {
            Ok(written(&target.kind, &*api.finalize(&target.name, object)?))
        }
        Write::Post { target, subresource: "scale", object } => {
            let place = (&target.kind, &*target.namespace, &*target.name);
            super::asks::rescale(api, place, object)?;
            Ok(nothing(&target.name))
        }
        Write::Post { .. } => Err(ApiError::other(405, "MethodNotAllowed", "no such subresource here")),
    }
}

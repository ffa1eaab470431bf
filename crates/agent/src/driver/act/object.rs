//! The pod's object: its status, and its end.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};

use super::Job;
use crate::{driver::retry::persist, spec};

/// How a write of a status ended.
pub(in crate::driver) enum Written {
    /// Done; the object as it is now.
    Done(Box<Pod>),
    /// The API server no longer has this pod.
    Gone,
    /// It will never be taken as it is.
    Refused,
    /// It has to be tried again.
    Failed,
}

/// Writes a status patch.
pub(in crate::driver) async fn write_status(job: &Job, status: Value) -> Written {
    let (namespace, name, uid) = spec::identity(&job.pod);
    let api = Api::<Pod>::namespaced(job.cx.config.client.clone(), namespace);
    // with its UID the patch never meets another pod of the same name
    let patch = json!({"metadata": {"uid": uid}, "status": status});
    match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(pod) => Written::Done(Box::new(pod)),
        Err(kube::Error::Api(status)) if status.code == 404 => Written::Gone,
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            tracing::warn!(namespace, name, why = status.message, "a pod's status was refused");
            Written::Refused
        }
        Err(error) => {
            tracing::debug!(namespace, name, %error, "a pod's status was not written, trying again");
            Written::Failed
        }
    }
}

/// Deletes the object for good.
pub(in crate::driver) async fn delete(job: &Job) {
    let (namespace, name, uid) = spec::identity(&job.pod);
    let api = Api::<Pod>::namespaced(job.cx.config.client.clone(), namespace);
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let parameters = DeleteParams::default().grace_period(0).preconditions(preconditions);
    persist("a pod was not deleted", || async {
        match api.delete(name, &parameters).await {
            Ok(_) => Ok(()),
            // gone, or another pod of the same name
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    })
    .await;
}

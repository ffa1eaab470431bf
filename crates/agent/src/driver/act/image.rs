//! Images: what a pull policy asks for, and what is said about it.

use std::time::Instant;

use base64::Engine as _;
use k8s_cri::v1 as cri;
use k8s_openapi::{
    api::core::v1::{Pod, Secret},
    jiff::SignedDuration,
};
use tonic::Request;

use super::{Job, words};
use crate::{
    driver::events::Kind,
    machine::{Image, backoff::go_duration},
    spec,
};

/// Sees that the images are there which a container needs: those of volumes it mounts, then its own; `again` says that the
/// last attempt failed too. Its own image, or (reason, message).
pub(in crate::driver) async fn ensure(
    job: &Job,
    container: &str,
    again: bool,
) -> Result<Image, (String, String)> {
    let spec = spec::spec(&job.pod);
    let part = spec::part(&spec, container);
    let mounts = part.iter().flat_map(|p| p.container.volume_mounts.iter().flatten());
    for mount in mounts {
        let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        if let Some(image) = volume.and_then(|volume| volume.image.as_ref()) {
            let reference = image.reference.as_deref().unwrap_or_default();
            ensure_one(job, container, reference, image.pull_policy.as_deref(), again).await?;
        }
    }
    let (image, policy) =
        part.map(|p| (p.container.image.clone(), p.container.image_pull_policy.clone())).unwrap_or_default();
    let asked = image.unwrap_or_default();
    let id = ensure_one(job, container, &asked, policy.as_deref(), again).await?;
    Ok(Image { asked, id })
}

async fn ensure_one(
    job: &Job,
    container: &str,
    image: &str,
    policy: Option<&str>,
    again: bool,
) -> Result<String, (String, String)> {
    let policy = policy.unwrap_or("IfNotPresent");
    let say = |kind, reason: &str, note| {
        job.cx.events.container(&job.pod, container, kind, reason, "Pulling", note);
    };
    let fail = |reason: &str, message: String| {
        say(Kind::Warning, "Failed", format!("Error: {reason}"));
        Err((reason.to_owned(), message))
    };
    if policy != "Always" {
        match present(job, image).await {
            Ok(Some(found)) => {
                let note = format!(
                    "Container image {image:?} already present on machine and can be accessed by the pod"
                );
                say(Kind::Normal, "Pulled", note);
                return Ok(found.id);
            }
            Ok(None) if policy == "Never" => {
                let note = format!("Container image {image:?} is not present with pull policy of Never");
                say(Kind::Warning, "ErrImageNeverPull", note.clone());
                return fail("ErrImageNeverPull", note);
            }
            Ok(None) => {}
            Err(why) => {
                let note = format!("Failed to inspect image {image:?}: {why}");
                say(Kind::Warning, "InspectFailed", note.clone());
                return fail("ImageInspectError", note);
            }
        }
    }
    say(Kind::Normal, "Pulling", format!("Pulling image {image:?}"));
    let begun = Instant::now();
    let error = match pull(job, image).await {
        Ok(reference) => {
            job.cx.disk_changed();
            job.cx.news.notify_one();
            let took = SignedDuration::from_millis(i64::try_from(begun.elapsed().as_millis()).unwrap_or(0));
            let took = go_duration(took);
            let size = present(job, &reference).await.ok().flatten().map_or(0, |i| i.size);
            let note = format!(
                "Successfully pulled image {image:?} in {took} ({took} including waiting). Image size: {size} bytes."
            );
            say(Kind::Normal, "Pulled", note);
            return Ok(reference);
        }
        Err(error) => error,
    };
    say(Kind::Warning, "Failed", format!("Failed to pull image {image:?}: {error}"));
    say(Kind::Normal, "BackOff", format!("Back-off pulling image {image:?}"));
    if again {
        fail("ImagePullBackOff", format!("Back-off pulling image {image:?}: ErrImagePull: {error}"))
    } else {
        fail("ErrImagePull", error)
    }
}

/// The image, if the runtime has it.
pub(in crate::driver) async fn present(job: &Job, image: &str) -> Result<Option<cri::Image>, String> {
    let spec = cri::ImageSpec { image: image.to_owned(), ..cri::ImageSpec::default() };
    let request = cri::ImageStatusRequest { image: Some(spec), verbose: false };
    match job.cx.config.images.image_status(Request::new(request)).await {
        Ok(response) => Ok(response.into_inner().image),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(words(&status)),
    }
}

/// Pulls, with each of the credentials that fit until one works.
async fn pull(job: &Job, image: &str) -> Result<String, String> {
    let names: Vec<String> = {
        let spec = spec::spec(&job.pod);
        spec.image_pull_secrets.iter().flatten().map(|r| r.name.clone()).collect()
    };
    let secrets = job.inputs.secrets(&names).await?;
    let mut credentials: Vec<Option<cri::AuthConfig>> =
        secrets.values().flatten().flat_map(|s| logins(s, image)).map(Some).collect();
    if credentials.is_empty() {
        credentials.push(None);
    }
    let mut error = String::new();
    for auth in credentials {
        let request = cri::PullImageRequest {
            image: Some(cri::ImageSpec {
                image: image.to_owned(),
                user_specified_image: image.to_owned(),
                ..cri::ImageSpec::default()
            }),
            auth,
            sandbox_config: Some(sandbox_name(&job.pod)),
        };
        match job.cx.config.images.pull_image(Request::new(request)).await {
            Ok(response) => return Ok(response.into_inner().image_ref),
            Err(status) => error = words(&status),
        }
    }
    Err(error)
}

fn sandbox_name(pod: &Pod) -> cri::PodSandboxConfig {
    let (namespace, name, uid) = spec::identity(pod);
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.into(),
            uid: uid.into(),
            namespace: namespace.into(),
            attempt: 0,
        }),
        ..cri::PodSandboxConfig::default()
    }
}

/// Logins of a pull secret (`kubernetes.io/dockerconfigjson` or `dockercfg`) that are meant for this image.
fn logins(secret: &Secret, image: &str) -> Vec<cri::AuthConfig> {
    let data = |key: &str| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        serde_json::from_slice::<serde_json::Value>(bytes).ok()
    };
    let modern = data(".dockerconfigjson").and_then(|mut v| v.get_mut("auths").map(serde_json::Value::take));
    let Some(serde_json::Value::Object(map)) = modern.or_else(|| data(".dockercfg")) else { return vec![] };
    let mut fitting: Vec<(usize, cri::AuthConfig)> = map
        .iter()
        .filter_map(|(server, login)| {
            let place = server.trim_start_matches("https://").trim_start_matches("http://");
            let place = place.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
            fits(place, image).then(|| (place.len(), login_of(server, login)))
        })
        .collect();
    // the most exact one first
    fitting.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    fitting.into_iter().map(|(_, auth)| auth).collect()
}

/// Whether a login for `place` (a host, or a host and the beginning of a path) is meant for `image`.
fn fits(place: &str, image: &str) -> bool {
    let has_host =
        image.split_once('/').is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost");
    let full = if has_host {
        image.to_owned()
    } else if image.contains('/') {
        format!("docker.io/{image}")
    } else {
        format!("docker.io/library/{image}")
    };
    let place = if place == "index.docker.io" { "docker.io" } else { place };
    let (place_host, place_path) = place.split_once('/').unwrap_or((place, ""));
    let (host, path) = full.split_once('/').unwrap_or((full.as_str(), ""));
    let host_fits = match place_host.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(_, h)| h == rest),
        None => place_host == host,
    };
    host_fits && path.starts_with(place_path)
}

fn login_of(server: &str, login: &serde_json::Value) -> cri::AuthConfig {
    let text = |key: &str| login.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let (mut username, mut password) = (text("username"), text("password"));
    if username.is_empty() {
        let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")).unwrap_or_default();
        let decoded = String::from_utf8_lossy(&decoded).into_owned();
        if let Some((user, pass)) = decoded.split_once(':') {
            (username, password) = (user.to_owned(), pass.trim_end_matches('\0').to_owned());
        }
    }
    cri::AuthConfig {
        username,
        password,
        server_address: server.to_owned(),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        ..cri::AuthConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_login_is_used_for_the_registries_and_paths_it_is_for() {
        for (place, image, want) in [
            ("reg.example:5000", "reg.example:5000/a/b:1", true),
            ("reg.example:5000/a", "reg.example:5000/a/b:1", true),
            ("reg.example:5000/x", "reg.example:5000/a/b:1", false),
            ("*.example", "reg.example/a", true),
            ("*.example", "a.reg.example/a", false),
            ("index.docker.io", "busybox", true),
            ("docker.io", "me/app:2", true),
            ("other", "busybox", false),
        ] {
            assert_eq!(fits(place, image), want, "{place} {image}");
        }
    }

    #[test]
    fn both_forms_of_pull_secrets_are_read() {
        let of = |key: &str, value: serde_json::Value| {
            let encoded = base64::engine::general_purpose::STANDARD.encode(value.to_string());
            let secret: Secret = serde_json::from_value(json!({"data": {key: encoded}})).unwrap();
            logins(&secret, "r.io/app")
                .iter()
                .map(|l| format!("{}:{}", l.username, l.password))
                .collect::<Vec<_>>()
        };
        let auth = base64::engine::general_purpose::STANDARD.encode("me:secret:x");
        assert_eq!(
            of(".dockerconfigjson", json!({"auths": {"https://r.io/v2/": {"auth": auth}}})),
            ["me:secret:x"]
        );
        assert_eq!(of(".dockercfg", json!({"r.io": {"username": "u", "password": "p"}})), ["u:p"]);
        assert!(of(".dockercfg", json!("nonsense")).is_empty());
    }
}

//! `/containerLogs/NAMESPACE/POD/CONTAINER`

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use http::StatusCode;
use k8s_cri::v1 as cri;
use tonic::Request;

use super::{
    Kubelet,
    reply::{self, Refused, Reply},
    streams::values,
};
use crate::{
    cri::Runtime,
    logs::{self, Options, Wants},
    spec,
    view::ContainerView,
};

/// How often a runtime without events is asked whether a container still runs, upstream's `stateCheckPeriod`.
const STATE_CHECK: Duration = Duration::from_secs(5);

pub(super) async fn serve(
    kubelet: &Kubelet,
    [namespace, name, container]: [&str; 3],
    query: &str,
) -> Result<Reply, Refused> {
    let asked = Asked::read(query, Utc::now())?;
    let pod = kubelet.pods.get(namespace, name, None);
    let pod = pod.ok_or_else(|| Refused::not_found(format!("pod {name:?} does not exist")))?;
    if spec::part(&spec::spec(&pod), container).is_none() {
        let why = format!("container {container:?} not found in pod {name:?}");
        return Err(Refused::not_found(why));
    }
    let view = kubelet.pods.container(namespace, name, container);
    let path = which(view.as_ref(), asked.previous)
        .map_err(|why| Refused::bad_request(why.words(container, name)))?;
    let id = view.as_ref().and_then(|v| v.id.clone()).filter(|_| !asked.previous);
    let running = view.as_ref().is_some_and(|v| v.running);
    let follow: Option<logs::Ended> = match id {
        Some(id) if asked.follow && running => {
            let runtime = kubelet.config.runtime.clone();
            Some(Box::pin(ended(runtime, id)))
        }
        _ => None,
    };
    let shown = path.display().to_string();
    let stream = logs::read(path, asked.options, follow)
        .await
        .map_err(|error| Refused::bad_request(format!("failed to open log file {shown:?}: {error}")))?;
    // An empty part first: the answer's head goes out before the container has said anything.
    let first = futures::stream::iter([Ok(Bytes::new())]);
    Ok(reply::stream(first.chain(stream)))
}

/// Why there is no log.
#[derive(Debug, PartialEq, Eq)]
enum NoLog {
    Unknown,
    NoPrevious,
    Waiting(Option<String>),
}

impl NoLog {
    fn words(&self, container: &str, pod: &str) -> String {
        let what = format!("container {container:?} in pod {pod:?}");
        match self {
            NoLog::Unknown => format!("{what} is not available"),
            NoLog::NoPrevious => format!("previous terminated {what} not found"),
            NoLog::Waiting(reason) => match reason.as_deref() {
                Some("ErrImagePull") => format!("{what} is waiting to start: image can't be pulled"),
                Some("ImagePullBackOff") => {
                    format!("{what} is waiting to start: trying and failing to pull image")
                }
                Some(reason) => format!("{what} is waiting to start: {reason}"),
                None => format!("{what} is waiting to start - no logs yet"),
            },
        }
    }
}

/// The log that is meant.
fn which(view: Option<&ContainerView>, previous: bool) -> Result<std::path::PathBuf, NoLog> {
    let view = view.ok_or(NoLog::Unknown)?;
    // One that waits to be started again is itself the previous one.
    let waits = !view.running && view.waiting.is_some();
    match previous {
        true if waits => view.log.clone().ok_or(NoLog::NoPrevious),
        true => view.previous_log.clone().ok_or(NoLog::NoPrevious),
        false => view
            .log
            .clone()
            .or_else(|| view.previous_log.clone())
            .ok_or_else(|| NoLog::Waiting(view.waiting.clone())),
    }
}

/// `PodLogOptions` in a query.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    options: Options,
    follow: bool,
    previous: bool,
}

impl Asked {
    fn read(query: &str, now: DateTime<Utc>) -> Result<Self, Refused> {
        let undecodable = || Refused::bad_request(r#"{"message": "Unable to decode query."}"#);
        let invalid =
            || Refused(StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#.to_owned());
        let text = |name: &str| values(query, name).into_iter().next();
        let number = |name: &str| -> Result<Option<i64>, Refused> {
            text(name).filter(|t| !t.is_empty()).map(|t| t.parse().map_err(|_| undecodable())).transpose()
        };
        let flag = |name: &str| {
            // absent is false, anything but `false` and `0` is true
            text(name).is_some_and(|t| !t.eq_ignore_ascii_case("false") && t != "0")
        };
        let tail = match text("tail").filter(|t| !t.is_empty()).as_deref() {
            None => number("tailLines")?,
            Some("all") => None,
            Some(_) => number("tail")?,
        };
        let seconds = number("sinceSeconds")?;
        let time = text("sinceTime").filter(|t| !t.is_empty());
        let time = time.map(|t| DateTime::parse_from_rfc3339(&t).map_err(|_| undecodable())).transpose()?;
        let limit = number("limitBytes")?;
        let stream = match text("stream").as_deref() {
            None | Some("" | "All") => Wants::All,
            Some("Stdout") => Wants::Stdout,
            Some("Stderr") => Wants::Stderr,
            Some(_) => return Err(invalid()),
        };
        let contradicts = seconds.is_some() && time.is_some() || stream != Wants::All && tail.is_some();
        if contradicts
            || tail.is_some_and(|t| t < 0)
            || limit.is_some_and(|l| l < 1)
            || seconds.is_some_and(|s| s < 1)
        {
            return Err(invalid());
        }
        let ago = |seconds: i64| now.checked_sub_signed(chrono::TimeDelta::try_seconds(seconds)?);
        let since = match (seconds, time) {
            // longer ago than time goes
            (Some(seconds), _) => ago(seconds).map(|t| t.fixed_offset()),
            (None, time) => time,
        };
        let options = Options {
            tail: tail.and_then(|t| u64::try_from(t).ok()),
            since,
            timestamps: flag("timestamps"),
            limit: limit.and_then(|l| u64::try_from(l).ok()),
            stream,
        };
        Ok(Self { options, follow: flag("follow"), previous: flag("previous") })
    }
}

/// Resolves when the container runs no longer.
async fn ended(runtime: Runtime, id: String) {
    // Listening before asking, so that its end is not missed between the two.
    let events = runtime.get_container_events(Request::new(cri::GetEventsRequest {})).await;
    if !runs(&runtime, &id).await {
        return;
    }
    if let Ok(events) = events {
        let mut events = events.into_inner();
        while let Some(Ok(event)) = events.next().await {
            let over = matches!(
                event.container_event_type(),
                cri::ContainerEventType::ContainerStoppedEvent
                    | cri::ContainerEventType::ContainerDeletedEvent
            );
            if event.container_id == id && over {
                return;
            }
        }
    }
    // A runtime that tells no events, or has been restarted.
    loop {
        tokio::time::sleep(STATE_CHECK).await;
        if !runs(&runtime, &id).await {
            return;
        }
    }
}

async fn runs(runtime: &Runtime, id: &str) -> bool {
    let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    match runtime.container_status(Request::new(request)).await {
        Ok(response) => {
            let state = response.into_inner().status.map(|s| s.state());
            matches!(
                state,
                Some(cri::ContainerState::ContainerRunning | cri::ContainerState::ContainerCreated)
            )
        }
        // Only a runtime that answers can say that there is no such container.
        Err(status) => status.code() != tonic::Code::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Asked, (u16, String)> {
        let now = "2026-01-01T00:01:40Z".parse().unwrap();
        Asked::read(query, now).map_err(|Refused(code, why)| (code.as_u16(), why))
    }

    #[test]
    fn a_query_is_read_as_pod_log_options() {
        let query = "follow=true&previous=1&sinceSeconds=100&timestamps=&tailLines=7&limitBytes=9";
        let asked = asked(query).unwrap();
        assert!(asked.follow && asked.previous && asked.options.timestamps);
        assert_eq!((asked.options.tail, asked.options.limit), (Some(7), Some(9)));
        assert_eq!(asked.options.since.unwrap().to_rfc3339(), "2026-01-01T00:00:00+00:00");
    }

    #[test]
    fn flags_are_off_unless_they_are_on() {
        let off = asked("follow=false&previous=0").unwrap();
        assert!(!off.follow && !off.previous && !off.options.timestamps);
        assert_eq!(asked("tail=all&tailLines=3").unwrap().options.tail, None);
        assert_eq!(asked("tail=4").unwrap().options.tail, Some(4));
        assert_eq!(asked("stream=Stderr").unwrap().options.stream, Wants::Stderr);
        assert_eq!(asked("sinceSeconds=9223372036854775807").unwrap().options.since, None);
    }

    #[test]
    fn queries_that_make_no_sense_are_refused_with_upstreams_codes() {
        for query in ["tailLines=x", "sinceTime=yesterday", "limitBytes=1.5"] {
            assert_eq!(asked(query).unwrap_err().0, 400, "{query}");
        }
        for query in [
            "tailLines=-1",
            "limitBytes=0",
            "sinceSeconds=0",
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            "stream=Stdin",
            "stream=Stdout&tailLines=1",
        ] {
            assert_eq!(asked(query).unwrap_err().0, 422, "{query}");
        }
    }

    fn view(
        log: Option<&str>,
        previous: Option<&str>,
        running: bool,
        waiting: Option<&str>,
    ) -> ContainerView {
        ContainerView {
            id: None,
            running,
            log: log.map(Into::into),
            previous_log: previous.map(Into::into),
            waiting: waiting.map(Into::into),
        }
    }

    #[test]
    fn a_container_that_waits_to_be_started_again_is_its_own_previous_one() {
        let path = |view: ContainerView, previous| {
            which(Some(&view), previous).ok().map(|p| p.display().to_string())
        };
        let crashing = || view(Some("1"), Some("0"), false, Some("CrashLoopBackOff"));
        assert_eq!(path(crashing(), false).as_deref(), Some("1"));
        assert_eq!(path(crashing(), true).as_deref(), Some("1"));
        assert_eq!(path(view(Some("1"), Some("0"), true, None), true).as_deref(), Some("0"));
        assert_eq!(path(view(None, Some("0"), false, Some("ImagePullBackOff")), false).as_deref(), Some("0"));
    }

    #[test]
    fn a_missing_log_is_explained_in_upstreams_words() {
        let words = |view: Option<ContainerView>, previous| {
            which(view.as_ref(), previous).unwrap_err().words("c", "p")
        };
        let waiting = |reason| Some(view(None, None, false, reason));
        let c = r#"container "c" in pod "p""#;
        assert_eq!(words(None, false), format!("{c} is not available"));
        assert_eq!(words(waiting(None), true), format!("previous terminated {c} not found"));
        assert_eq!(
            words(waiting(Some("ErrImagePull")), false),
            format!("{c} is waiting to start: image can't be pulled")
        );
        assert_eq!(
            words(waiting(Some("ImagePullBackOff")), false),
            format!("{c} is waiting to start: trying and failing to pull image")
        );
        assert_eq!(
            words(waiting(Some("PodInitializing")), false),
            format!("{c} is waiting to start: PodInitializing")
        );
        assert_eq!(words(waiting(None), false), format!("{c} is waiting to start - no logs yet"));
    }
}

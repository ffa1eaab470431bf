//! From what the runtime says of a container to what the pod's state machine knows of it.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use k8s_cri::v1 as cri;
use k8s_openapi::{
    api::core::v1::{Container, ContainerUser, LinuxContainerUser},
    jiff::Timestamp,
};

use crate::{
    machine::{Instance, Life},
    spec,
    translate::labels,
};

/// Bytes of a termination message at most.
const MESSAGE_LIMIT: usize = 4096;
/// Bytes and lines of a log's end that stand for a missing message.
const TAIL_BYTES: u64 = 2048;
const TAIL_LINES: usize = 80;

/// Nanoseconds since the epoch, as CRI counts; 0 means never.
fn time(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten()
}

/// The container's name, by its metadata or label.
pub(crate) fn name(status: &cri::ContainerStatus) -> String {
    let own = status.metadata.as_ref().map(|m| m.name.clone()).filter(|n| !n.is_empty());
    own.or_else(|| status.labels.get(labels::CONTAINER_NAME).cloned()).unwrap_or_default()
}

/// A container as the state machine sees it. `container` is its part of the spec, `message` its termination message.
pub(crate) fn instance(
    status: &cri::ContainerStatus,
    container: Option<&Container>,
    message: String,
) -> Instance {
    let attempt = status.annotations.get(labels::RESTARTS).and_then(|r| r.parse().ok());
    let attempt = attempt.or(status.metadata.as_ref().map(|m| m.attempt)).unwrap_or(0);
    let hash = status.annotations.get(labels::HASH).and_then(|h| u32::from_str_radix(h, 16).ok());
    let life = match cri::ContainerState::try_from(status.state) {
        Ok(cri::ContainerState::ContainerCreated) => Life::Created,
        Ok(cri::ContainerState::ContainerRunning) => Life::Running,
        Ok(cri::ContainerState::ContainerExited) => exited(status, message),
        Ok(cri::ContainerState::ContainerUnknown) | Err(_) => Life::lost(Timestamp::now()),
    };
    let spec_image = status.image.as_ref();
    let image = spec_image
        .map(|i| if i.image.starts_with("sha256:") { &i.user_specified_image } else { &i.image })
        .cloned()
        .unwrap_or_default();
    Instance {
        id: status.id.clone(),
        attempt,
        life,
        started: time(status.started_at),
        image,
        image_id: status.image_ref.clone(),
        user: status.user.as_ref().and_then(|u| u.linux.as_ref()).map(|u| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: u.uid,
                gid: u.gid,
                supplemental_groups: (!u.supplemental_groups.is_empty())
                    .then(|| u.supplemental_groups.clone()),
            }),
        }),
        hash: hash.or(container.map(spec::container_hash)).unwrap_or_default(),
        resources: container.and_then(|c| c.resources.clone()),
    }
}

fn exited(status: &cri::ContainerStatus, message: String) -> Life {
    let reason = match (status.reason.as_str(), status.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let mut text = status.message.clone();
    if !message.is_empty() {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&message);
    }
    Life::Exited {
        finished: time(status.finished_at).unwrap_or_else(Timestamp::now),
        exit_code: status.exit_code,
        reason: reason.to_owned(),
        message: text,
    }
}

/// The termination message of an ended container: its file, or the end of its log where the policy says so.
pub(crate) fn message(status: &cri::ContainerStatus, container: Option<&Container>, log: &Path) -> String {
    if status.state != cri::ContainerState::ContainerExited as i32 {
        return String::new();
    }
    let file = status.annotations.get(labels::MESSAGE_FILE);
    let text = file.and_then(|f| head(Path::new(f)).ok()).unwrap_or_default();
    let from_log = container
        .and_then(|c| c.termination_message_policy.as_deref())
        .is_some_and(|p| p == "FallbackToLogsOnError");
    if text.is_empty() && from_log && status.exit_code != 0 {
        let own = Path::new(&status.log_path);
        return tail(if status.log_path.is_empty() { log } else { own }).unwrap_or_default();
    }
    text
}

/// The first bytes of a termination message. The file belongs to the container: nothing but a file is opened, and
/// nothing is waited for.
fn head(path: &Path) -> std::io::Result<String> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let mut bytes = vec![];
    file.take(MESSAGE_LIMIT as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The end of a log in CRI's format, without its time stamps.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // lines carry some 40 bytes that are not shown
    let window = (TAIL_BYTES + 40 * TAIL_LINES as u64).min(length);
    file.seek(SeekFrom::Start(length - window))?;
    let mut bytes = vec![];
    file.take(window).read_to_end(&mut bytes)?;
    Ok(plain(&String::from_utf8_lossy(&bytes), window < length))
}

/// Messages of `text`'s last lines; the first line is dropped where it may be cut.
fn plain(text: &str, cut: bool) -> String {
    let lines: Vec<&str> = text.lines().skip(usize::from(cut)).collect();
    let mut out = String::new();
    for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
        let mut parts = line.splitn(4, ' ');
        let (tag, message) = (parts.nth(2), parts.next());
        out.push_str(message.unwrap_or_default());
        if tag.is_some_and(|t| !t.starts_with('P')) {
            out.push('\n');
        }
    }
    let mut from = out.len().saturating_sub(TAIL_BYTES as usize);
    while !out.is_char_boundary(from) {
        from += 1;
    }
    out.split_off(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: cri::ContainerState, exit_code: i32) -> cri::ContainerStatus {
        cri::ContainerStatus {
            id: "x".into(),
            metadata: Some(cri::ContainerMetadata { name: "a".into(), attempt: 0 }),
            state: state as i32,
            exit_code,
            started_at: 2_000_000_000,
            finished_at: 5_000_000_000,
            image: Some(cri::ImageSpec {
                image: "sha256:1".into(),
                user_specified_image: "busybox".into(),
                ..cri::ImageSpec::default()
            }),
            annotations: [
                (labels::RESTARTS.to_owned(), "3".to_owned()),
                (labels::HASH.to_owned(), "ff".into()),
            ]
            .into(),
            ..cri::ContainerStatus::default()
        }
    }

    #[test]
    fn restarts_and_hash_come_from_the_annotations() {
        let i = instance(&status(cri::ContainerState::ContainerRunning, 0), None, String::new());
        assert_eq!((i.attempt, i.hash, i.image.as_str(), i.life), (3, 255, "busybox", Life::Running));
        assert_eq!(i.started.map(|t| t.as_second()), Some(2));
    }

    #[test]
    fn an_end_without_a_reason_is_completed_or_an_error() {
        for (code, want) in [(0, "Completed"), (3, "Error")] {
            let s = status(cri::ContainerState::ContainerExited, code);
            let Life::Exited { reason, finished, .. } = instance(&s, None, String::new()).life else {
                panic!("not exited")
            };
            assert_eq!((reason.as_str(), finished.as_second()), (want, 5));
        }
    }

    #[test]
    fn a_missing_message_is_taken_from_the_log_only_after_an_error_and_by_policy() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        std::fs::write(&log, "2026-01-01T00:00:00Z stdout P one \n2026-01-01T00:00:00Z stdout F two\n")
            .unwrap();
        let c = Container {
            termination_message_policy: Some("FallbackToLogsOnError".into()),
            ..Container::default()
        };
        let of = |code, c| message(&status(cri::ContainerState::ContainerExited, code), c, &log);
        assert_eq!(of(1, Some(&c)), "one two\n");
        assert_eq!(of(0, Some(&c)), "");
        assert_eq!(of(1, None), "");
    }

    #[test]
    fn a_message_file_is_cut_at_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m");
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        let mut s = status(cri::ContainerState::ContainerExited, 0);
        s.annotations.insert(labels::MESSAGE_FILE.into(), file.display().to_string());
        assert_eq!(message(&s, None, &file).len(), MESSAGE_LIMIT);
    }

    #[test]
    fn only_the_last_lines_of_a_log_are_kept() {
        let text: String = (0..200).map(|n| format!("t stdout F line {n}\n")).collect();
        let out = plain(&text, false);
        assert_eq!(out.lines().count(), TAIL_LINES);
        assert!(out.ends_with("line 199\n"), "{out}");
    }
}

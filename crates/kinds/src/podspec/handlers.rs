//! Probes and lifecycle hooks.

use apimachinery::{FieldPath, names};
use serde_json::Value;

use crate::{
    checks::Checks,
    object::{at, has, list, number, text},
};

/// The three probes of a container.
pub fn check_probes(checks: &mut Checks, container: &Value, grace: Option<i64>, path: &FieldPath) {
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = at(container, field);
        if probe.is_null() {
            continue;
        }
        let path = path.child(field);
        check_handler(checks, probe, &["exec", "httpGet", "tcpSocket", "grpc"], grace, &path);
        let fields = [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ];
        checks.nonnegative_fields(&path, probe, &fields);
        let seconds = at(probe, "terminationGracePeriodSeconds").as_i64();
        if let Some(seconds) = seconds.filter(|seconds| *seconds <= 0) {
            checks.invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
        }
        if field == "readinessProbe" {
            if let Some(seconds) = seconds {
                let detail = "must not be set for readinessProbes";
                checks.invalid(&path.child("terminationGracePeriodSeconds"), seconds, detail);
            }
        } else if number(probe, "successThreshold") != 1 {
            checks.invalid(&path.child("successThreshold"), number(probe, "successThreshold"), "must be 1");
        }
    }
}

/// The hooks of a container, and its stop signal.
pub fn check_lifecycle(
    checks: &mut Checks,
    container: &Value,
    spec: &Value,
    grace: Option<i64>,
    path: &FieldPath,
) {
    let lifecycle = at(container, "lifecycle");
    let path = path.child("lifecycle");
    for field in ["postStart", "preStop"] {
        if has(lifecycle, field) {
            let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
            check_handler(checks, at(lifecycle, field), &kinds, grace, &path.child(field));
        }
    }
    if let Some(signal) = at(lifecycle, "stopSignal").as_str() {
        let path = path.child("stopSignal");
        match text(spec, "os.name") {
            "" => checks.forbidden(&path, "may not be set for containers with empty `spec.os.name`"),
            "windows" => checks.one_of(&path, signal, &["SIGKILL", "SIGTERM"]),
            "linux" if !is_linux_signal(signal) => {
                checks.errors.push(apimachinery::FieldError::not_supported(&path, signal, &LINUX_SIGNALS));
            }
            _ => {}
        }
    }
}

const LINUX_SIGNALS: [&str; 65] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn is_linux_signal(signal: &str) -> bool {
    LINUX_SIGNALS.contains(&signal)
}

/// Exactly one of `kinds`.
fn check_handler(checks: &mut Checks, handler: &Value, kinds: &[&str], grace: Option<i64>, path: &FieldPath) {
    let mut found = false;
    for kind in kinds {
        let action = at(handler, kind);
        if action.is_null() {
            continue;
        }
        let path = path.child(kind);
        if found {
            checks.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *kind {
            "exec" if list(action, "command").is_empty() => checks.required(&path.child("command"), ""),
            "httpGet" => check_http(checks, action, &path),
            "tcpSocket" => checks.port(&path.child("port"), at(action, "port")),
            "grpc" => {
                checks.port_number(&path.child("port"), number(action, "port"));
                if let Some(mode) = at(action, "mode").as_str() {
                    checks.one_of(&path.child("mode"), mode, &["Plaintext", "TLS"]);
                }
            }
            "sleep" => {
                let seconds = number(action, "seconds");
                if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
                    let detail =
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    checks.invalid(&path, seconds, &detail);
                }
            }
            _ => {}
        }
    }
    if !found {
        checks.required(path, "must specify a handler type");
    }
}

fn check_http(checks: &mut Checks, action: &Value, path: &FieldPath) {
    if text(action, "path").is_empty() {
        checks.required(&path.child("path"), "");
    }
    checks.port(&path.child("port"), at(action, "port"));
    checks.one_of(&path.child("scheme"), text(action, "scheme"), &["HTTP", "HTTPS"]);
    for header in list(action, "httpHeaders") {
        let name = text(header, "name");
        checks.each(&path.child("httpHeaders"), name, names::is_http_header_name(name));
    }
    if let Some(protocol) = at(action, "protocol").as_str() {
        checks.one_of(&path.child("protocol"), protocol, &["HTTP1", "HTTP2"]);
    }
}

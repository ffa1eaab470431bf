//! The image config as it grows from step to step. It is kept as JSON, so that what this builder does not know of a
//! base image's config stays.

use serde_json::{Map, Value, json};

use crate::dockerfile::{Command, Health};

/// Fields of the document that belong to one image only.
const OWN: [&str; 9] = [
    "created",
    "rootfs",
    "history",
    "container",
    "container_config",
    "docker_version",
    "id",
    "parent",
    "config",
];
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// An image config.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    /// The document but for what is kept apart here.
    rest: Map<String, Value>,
    config: Map<String, Value>,
    history: Vec<Value>,
    /// Whether CMD was set in this stage.
    own_cmd: bool,
}

impl Config {
    /// The config of an image with nothing in it.
    pub(crate) fn scratch(platform: &images::Platform) -> Config {
        let mut rest = Map::new();
        rest.insert("architecture".into(), platform.architecture.as_str().into());
        rest.insert("os".into(), platform.os.as_str().into());
        if let Some(variant) = &platform.variant {
            rest.insert("variant".into(), variant.as_str().into());
        }
        Config { rest, ..Config::default() }
    }

    /// The config of a base image with this many layers.
    pub(crate) fn of_base(document: Value, layers: usize) -> Config {
        let Value::Object(mut rest) = document else { return Config::default() };
        let config = match rest.remove("config") {
            Some(Value::Object(config)) => config,
            _ => Map::new(),
        };
        let mut history = match rest.remove("history") {
            Some(Value::Array(history)) => history,
            _ => Vec::new(),
        };
        let described = history.iter().filter(|h| h["empty_layer"] != json!(true)).count();
        if described != layers {
            history = vec![json!({ "created_by": "base image" }); layers];
        }
        rest.retain(|key, value| !OWN.contains(&key.as_str()) && !value.is_null());
        Config { rest, config, history, own_cmd: false }
    }

    /// What a stage that is based on this one begins with.
    pub(crate) fn inherited(&self) -> Config {
        Config { own_cmd: false, ..self.clone() }
    }

    fn text(&self, key: &str) -> &str {
        self.config.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.config.insert(key.into(), value.into());
    }

    fn list(&self, key: &str) -> Vec<String> {
        let list = self.config.get(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// The environment.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let split = |e: String| e.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        self.list("Env").into_iter().filter_map(split).collect()
    }

    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        let mut env = self.env();
        match env.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value.to_owned(),
            None => env.push((name.to_owned(), value.to_owned())),
        }
        self.set("Env", env.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>());
    }

    /// Bytes of environment and labels.
    pub(crate) fn variables_size(&self) -> usize {
        let env = self.config.get("Env").and_then(Value::as_array).into_iter().flatten();
        let labels = self.config.get("Labels").and_then(Value::as_object).into_iter().flatten();
        let text = |v: &Value| v.as_str().map_or(0, str::len);
        env.map(text).sum::<usize>() + labels.map(|(name, value)| name.len() + text(value)).sum::<usize>()
    }

    pub(crate) fn set_label(&mut self, name: &str, value: &str) {
        self.insert("Labels", name, value.into());
    }

    /// Puts something into one of the config's maps.
    fn insert(&mut self, key: &str, name: &str, value: Value) {
        let entry = self.config.entry(key).or_insert(Value::Null);
        match entry {
            Value::Object(map) => {
                map.insert(name.into(), value);
            }
            other => *other = json!({ name: value }),
        }
    }

    pub(crate) fn workdir(&self) -> &str {
        match self.text("WorkingDir") {
            "" => "/",
            dir => dir,
        }
    }

    pub(crate) fn set_workdir(&mut self, dir: &str) {
        self.set("WorkingDir", dir);
    }

    pub(crate) fn user(&self) -> &str {
        self.text("User")
    }

    pub(crate) fn set_user(&mut self, user: &str) {
        self.set("User", user);
    }

    pub(crate) fn set_stop_signal(&mut self, signal: &str) {
        self.set("StopSignal", signal);
    }

    pub(crate) fn set_author(&mut self, author: &str) {
        self.rest.insert("author".into(), author.into());
    }

    pub(crate) fn add_volume(&mut self, path: &str) {
        self.insert("Volumes", path, json!({}));
    }

    pub(crate) fn add_port(&mut self, port: &str) {
        self.insert("ExposedPorts", port, json!({}));
    }

    pub(crate) fn add_trigger(&mut self, text: &str) {
        let mut triggers = self.list("OnBuild");
        triggers.push(text.to_owned());
        self.set("OnBuild", triggers);
    }

    /// What is to be done in a stage that is based on this image; it is not inherited further.
    pub(crate) fn take_triggers(&mut self) -> Vec<String> {
        let triggers = self.list("OnBuild");
        self.config.remove("OnBuild");
        triggers
    }

    /// The shell of the shell forms.
    pub(crate) fn shell(&self) -> Vec<String> {
        match self.list("Shell") {
            shell if shell.is_empty() => DEFAULT_SHELL.map(str::to_owned).to_vec(),
            shell => shell,
        }
    }

    pub(crate) fn set_shell(&mut self, shell: &[String]) {
        self.set("Shell", shell);
    }

    /// A command as arguments.
    pub(crate) fn arguments(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(args) => args.clone(),
            Command::Shell(text) => self.shell().into_iter().chain([text.clone()]).collect(),
        }
    }

    pub(crate) fn set_cmd(&mut self, command: &Command) {
        self.set("Cmd", self.arguments(command));
        self.own_cmd = true;
    }

    pub(crate) fn set_entrypoint(&mut self, command: &Command) {
        self.set("Entrypoint", self.arguments(command));
        if !self.own_cmd {
            // Arguments for the base image's program mean nothing to another.
            self.config.remove("Cmd");
        }
    }

    pub(crate) fn set_health(&mut self, health: &Health) {
        let Health::Check { command, times, retries } = health else {
            return self.set("Healthcheck", json!({ "Test": ["NONE"] }));
        };
        let test: Vec<String> = match command {
            Command::Exec(args) => std::iter::once("CMD".to_owned()).chain(args.iter().cloned()).collect(),
            // The config has no place for another shell here.
            Command::Shell(text) => vec!["CMD-SHELL".into(), text.clone()],
        };
        let mut check = Map::new();
        check.insert("Test".into(), test.into());
        for (key, time) in ["Interval", "Timeout", "StartPeriod", "StartInterval"].into_iter().zip(times) {
            if let Some(time) = time {
                check.insert(key.into(), (*time).into());
            }
        }
        if let Some(retries) = retries {
            check.insert("Retries".into(), (*retries).into());
        }
        self.set("Healthcheck", check);
    }

    /// Notes a step.
    pub(crate) fn note(&mut self, text: &str, created: Option<i64>, has_layer: bool) {
        let mut entry = Map::new();
        if let Some(created) = created.and_then(timestamp) {
            entry.insert("created".into(), created.into());
        }
        entry.insert("created_by".into(), text.into());
        if !has_layer {
            entry.insert("empty_layer".into(), true.into());
        }
        self.history.push(entry.into());
    }

    /// The whole document.
    pub(crate) fn document(&self, created: Option<i64>) -> Value {
        let mut document = self.rest.clone();
        if let Some(created) = created.and_then(timestamp) {
            document.insert("created".into(), created.into());
        }
        document.insert("config".into(), self.config.clone().into());
        document.insert("history".into(), self.history.clone().into());
        document.into()
    }
}

/// Seconds since 1970 in the way of RFC 3339.
fn timestamp(seconds: i64) -> Option<String> {
    chrono::DateTime::from_timestamp(seconds, 0).map(|t| t.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}

/// The time in a config, in seconds since 1970.
pub(crate) fn created(document: &Value) -> Option<i64> {
    let text = document.get("created")?.as_str()?;
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Command {
        Command::Shell(text.into())
    }

    #[test]
    fn an_entry_point_resets_an_inherited_command_but_not_an_own_one() {
        let base = || Config::of_base(json!({"config": {"Cmd": ["old"], "Env": ["A=1"]}}), 0);
        let mut config = base();
        config.set_entrypoint(&Command::Exec(vec!["x".into()]));
        assert_eq!(config.document(None)["config"], json!({"Entrypoint": ["x"], "Env": ["A=1"]}));
        let mut config = base();
        config.set_cmd(&shell("y"));
        config.set_entrypoint(&shell("x"));
        assert_eq!(config.document(None)["config"]["Cmd"], json!(["/bin/sh", "-c", "y"]));
        let mut child = config.inherited();
        child.set_entrypoint(&shell("z"));
        assert_eq!(child.document(None)["config"].get("Cmd"), None);
    }

    #[test]
    fn what_is_unknown_in_a_base_image_stays_and_what_was_its_own_goes() {
        let base = json!({
            "architecture": "amd64", "os": "linux", "os.features": ["x"], "created": "2020-01-01T00:00:00Z",
            "config": {"Domainname": "d", "Labels": null}, "container": "c", "rootfs": {"type": "layers"},
            "history": [{"created_by": "a"}, {"created_by": "b", "empty_layer": true}]
        });
        let mut config = Config::of_base(base, 1);
        config.set_label("l", "v");
        config.set_env("A", "1");
        config.set_env("A", "2");
        config.note("RUN x", Some(0), true);
        assert_eq!(
            config.document(Some(1)),
            json!({
                "architecture": "amd64", "os": "linux", "os.features": ["x"], "created": "1970-01-01T00:00:01Z",
                "config": {"Domainname": "d", "Labels": {"l": "v"}, "Env": ["A=2"]},
                "history": [{"created_by": "a"}, {"created_by": "b", "empty_layer": true},
                    {"created": "1970-01-01T00:00:00Z", "created_by": "RUN x"}]
            })
        );
        assert_eq!(created(&json!({"created": "1970-01-01T01:00:00.5+01:00"})), Some(0));
    }

    #[test]
    fn a_base_without_history_gets_an_entry_for_each_layer() {
        let config = Config::of_base(json!({"config": null}), 2);
        assert_eq!(config.document(None)["history"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn triggers_are_taken_once() {
        let mut config = Config::default();
        config.add_trigger("RUN x");
        config.add_trigger("RUN y");
        assert_eq!(config.take_triggers(), ["RUN x", "RUN y"]);
        assert!(config.take_triggers().is_empty());
    }
}

//! A stage, step by step.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use images::Layer;

use crate::{
    Error, Result, Step,
    config::{self, Config},
    dockerfile::{Command, Instruction, Kind, expand},
    plan::{Base, MAX_VARIABLES, Stage},
    session::{Made, Session},
};

/// Longest text of a step that is shown, in characters, and that the history holds.
const SHOWN: usize = 200;
const NOTED: usize = 2000;
/// Most layers of an image: their descriptors' paths must fit into one page of mount options.
const MAX_LAYERS: usize = 200;

/// A stage as it has come to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) config: Config,
    /// Base first.
    pub(crate) layers: Vec<Layer>,
    /// ARGs that were declared, and their values.
    pub(crate) args: BTreeMap<String, Option<String>>,
    /// When its last layer was made, seconds since 1970.
    pub(crate) created: Option<i64>,
}

/// Where a step stands.
pub(crate) struct Here<'a> {
    pub(crate) session: &'a Session,
    pub(crate) instruction: &'a Instruction,
    pub(crate) step: &'a Step,
    /// The environment as it was before this step.
    pub(crate) env: HashMap<String, String>,
}

impl Here<'_> {
    pub(crate) fn fail(&self, message: impl Into<String>, hint: Option<String>) -> Error {
        self.session.plan.fail(self.instruction, message.into(), hint)
    }

    /// Replaces the variables of a word.
    pub(crate) fn expand(&self, state: &State, word: &str) -> Result<String> {
        // The environment goes before arguments.
        let lookup = |name: &str| -> Option<&str> {
            let argument = || state.args.get(name).and_then(Option::as_deref);
            self.env.get(name).map(String::as_str).or_else(argument)
        };
        expand(word, self.session.plan.escape, &lookup).map_err(|why| self.fail(why, None))
    }

    /// Replaces the variables of a word that must not become empty.
    fn needed(&self, state: &State, word: &str) -> Result<String> {
        let text = self.expand(state, word)?;
        match text.is_empty() {
            true => Err(self.fail(format!("\"{word}\" is empty when its variables are replaced"), None)),
            false => Ok(text),
        }
    }
}

/// Runs one stage to its end.
pub(crate) fn run_stage(session: &Session, at: usize) -> Result<()> {
    let stage = &session.plan.stages[at];
    let mut state = begin(session, stage)?;
    for (number, instruction) in stage.instructions.iter().enumerate() {
        let step = step(stage, number + 2, instruction);
        let here = Here { session, instruction, step: &step, env: state.config.env().into_iter().collect() };
        let result = here.carry_out(&mut state, stage);
        result.map_err(|e| e.within(&session.plan.place(instruction)))?;
    }
    session.outputs[at].send_replace(Some(Arc::new(state)));
    Ok(())
}

fn step(stage: &Stage, number: usize, instruction: &Instruction) -> Step {
    Step {
        stage: stage.name.clone(),
        number,
        total: stage.instructions.len() + 1,
        line: instruction.line,
        text: shortened(&instruction.text, SHOWN),
    }
}

fn shortened(text: &str, most: usize) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn begin(session: &Session, stage: &Stage) -> Result<State> {
    let step = step(stage, 1, &stage.from);
    let within = |e: Error| e.within(&session.plan.place(&stage.from));
    if let Base::Stage(base) = stage.base {
        // Waiting for another stage is not this one's time.
        let base = session.stage(base)?;
        let config = base.config.inherited();
        let mut state = State { config, ..(*base).clone() };
        state.config.take_triggers();
        return session.step(&step, || Ok((state, true)));
    }
    session.step(&step, || {
        let Base::Image(name) = &stage.base else {
            let config = Config::scratch(&images::Platform::host());
            return Ok((State { config, ..State::default() }, true));
        };
        let load = session.bases.load(name, &session.build, &session.images, &*session.progress);
        let base = session.handle.block_on(load).map_err(within)?;
        let mut config = Config::of_base(base.config.clone(), base.layers.len());
        config.take_triggers();
        let created = config::created(&base.config);
        Ok((State { config, layers: base.layers.clone(), created, ..State::default() }, true))
    })
}

impl Here<'_> {
    fn carry_out(&self, state: &mut State, stage: &Stage) -> Result<()> {
        match &self.instruction.kind {
            Kind::Run(run) => {
                let made = self
                    .session
                    .step(self.step, || self.run(state, run).map(|made| (made.clone(), made.cached)))?;
                self.add(state, made)
            }
            Kind::Copy(copy) => {
                // What is copied may be long in coming.
                let from = copy.from.as_deref().map(|from| self.origin(from)).transpose()?;
                let made = self.session.step(self.step, || {
                    self.copy(state, copy, from.as_ref()).map(|made| (made.clone(), made.cached))
                })?;
                self.add(state, made)
            }
            Kind::Workdir(dir) => {
                let dir = self.needed(state, dir)?;
                state.config.set_workdir(&crate::root::absolute(state.config.workdir(), &dir));
                let made = self
                    .session
                    .step(self.step, || self.workdir(state).map(|made| (made.clone(), made.cached)))?;
                self.add(state, made)
            }
            _ => {
                self.session.step(self.step, || self.describe(state, stage).map(|()| ((), true)))?;
                if !matches!(self.instruction.kind, Kind::Arg(_)) {
                    let created = self.session.build.epoch.or(state.created);
                    state.config.note(&shortened(&self.instruction.text, NOTED), created, false);
                }
                Ok(())
            }
        }
    }

    /// Puts a step's layer on top.
    fn add(&self, state: &mut State, made: Made) -> Result<()> {
        state.created = Some(made.created);
        state.config.note(
            &shortened(&self.instruction.text, NOTED),
            Some(made.created),
            made.layer.is_some(),
        );
        state.layers.extend(made.layer);
        match state.layers.len() > MAX_LAYERS {
            true => Err(self.fail(format!("the image has more than {MAX_LAYERS} layers"), None)),
            false => Ok(()),
        }
    }

    /// Instructions that only change the config.
    fn describe(&self, state: &mut State, stage: &Stage) -> Result<()> {
        match &self.instruction.kind {
            Kind::Arg(args) => {
                for (name, default) in args {
                    let value = self.argument(state, stage, name, default.as_deref())?;
                    state.args.insert(name.clone(), value);
                    let sizes = state.args.iter().map(|(n, v)| n.len() + v.as_ref().map_or(0, String::len));
                    self.check_size("arguments", sizes.sum())?;
                }
            }
            Kind::Env(pairs) | Kind::Label(pairs) => {
                // All values see the environment as it was before.
                let replaced = pairs
                    .iter()
                    .map(|(name, value)| Ok((self.needed(state, name)?, self.expand(state, value)?)))
                    .collect::<Result<Vec<_>>>()?;
                for (name, value) in replaced {
                    if name.contains(['=', '\0']) || value.contains('\0') {
                        return Err(self.fail(format!("\"{name}\" cannot be a name"), None));
                    }
                    match &self.instruction.kind {
                        Kind::Env(_) => state.config.set_env(&name, &value),
                        _ => state.config.set_label(&name, &value),
                    }
                    self.check_size("environment and labels", state.config.variables_size())?;
                }
            }
            Kind::User(user) => state.config.set_user(&self.needed(state, user)?),
            Kind::Stopsignal(signal) => {
                let signal = self.needed(state, signal)?;
                let named = signal
                    .trim_start_matches("SIG")
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"+-".contains(&b));
                if !named {
                    return Err(self.fail(format!("\"{signal}\" is not a signal"), None));
                }
                state.config.set_stop_signal(&signal);
            }
            Kind::Volume(paths) => {
                for path in paths {
                    state.config.add_volume(&self.needed(state, path)?);
                }
            }
            Kind::Expose(ports) => {
                for port in ports {
                    for port in self.expand(state, port)?.split_whitespace() {
                        self.expose(state, port)?;
                    }
                }
            }
            Kind::Cmd(command) => {
                self.warn_of_near_json(command);
                state.config.set_cmd(command);
            }
            Kind::Entrypoint(command) => {
                self.warn_of_near_json(command);
                state.config.set_entrypoint(command);
            }
            Kind::Shell(shell) => state.config.set_shell(shell),
            Kind::Healthcheck(health) => state.config.set_health(health),
            Kind::Onbuild(text) => state.config.add_trigger(text),
            Kind::Maintainer(author) => state.config.set_author(author),
            Kind::From(_) | Kind::Run(_) | Kind::Copy(_) | Kind::Workdir(_) => {}
        }
        Ok(())
    }

    fn check_size(&self, what: &str, size: usize) -> Result<()> {
        match size > MAX_VARIABLES {
            true => {
                Err(self
                    .fail(format!("the {what} of this stage are larger than {MAX_VARIABLES} bytes"), None))
            }
            false => Ok(()),
        }
    }

    /// `CMD ['x']` is not JSON, so a shell gets it.
    fn warn_of_near_json(&self, command: &Command) {
        if let Command::Shell(text) = command
            && text.starts_with('[')
            && text.ends_with(']')
        {
            let place = self.session.plan.place(self.instruction);
            self.session.progress.warning(&format!(
                "{place}: {text} is not a JSON list (it needs double quotes), so a shell will run it"
            ));
        }
    }

    fn argument(
        &self,
        state: &State,
        stage: &Stage,
        name: &str,
        default: Option<&str>,
    ) -> Result<Option<String>> {
        if let Some(given) = self.session.build.args.get(name) {
            return Ok(Some(given.clone()));
        }
        if let Some(default) = default {
            return self.expand(state, default).map(Some);
        }
        if name == "TARGETSTAGE" {
            return Ok(Some(stage.name.clone()));
        }
        // Declared again without a value, it keeps the one it had.
        let had = state.args.get(name).cloned().flatten();
        Ok(self.session.plan.globals.get(name).cloned().or(had))
    }

    /// `80`, `80/udp`, `8000-8010`.
    fn expose(&self, state: &mut State, text: &str) -> Result<()> {
        let bad = |why: &str, hint: Option<String>| Err(self.fail(format!("EXPOSE {text}: {why}"), hint));
        if let Some((_, inner)) = text.rsplit_once(':') {
            let hint = format!("EXPOSE takes the port of the container alone: EXPOSE {inner}");
            return bad("which port of the host leads here is said when it runs", Some(hint));
        }
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
            return bad("the protocol is tcp, udp or sctp", None);
        }
        let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
        match (from.parse::<u16>(), to.parse::<u16>()) {
            (Ok(from), Ok(to)) if from > 0 && from <= to && to - from < 1000 => {
                (from..=to).for_each(|port| state.config.add_port(&format!("{port}/{protocol}")));
                Ok(())
            }
            _ => bad("a port is a number from 1 to 65535, or a range of at most 1000", None),
        }
    }
}

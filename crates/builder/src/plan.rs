//! From instructions to stages: what each is based on, what it needs, and which of them a build needs.

use std::collections::{BTreeMap, BTreeSet};

use images::Platform;

use crate::{
    Error, Result,
    dockerfile::{Dockerfile, From, Instruction, Kind, MountKind, Source, expand},
    error::Place,
    typo::nearest,
};

/// Most stages of a build.
const MAX_STAGES: usize = 200;

/// Most bytes of all arguments of a stage, of its environment, and of its labels.
pub(crate) const MAX_VARIABLES: usize = 1024 * 1024;

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image.
    Image(String),
}

/// A stage.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// Its name, or `stage-N`.
    pub(crate) name: String,
    pub(crate) base: Base,
    /// Its FROM.
    pub(crate) from: Instruction,
    /// What follows.
    pub(crate) instructions: Vec<Instruction>,
}

/// All stages of a Dockerfile.
#[derive(Clone, Debug)]
pub(crate) struct Stages {
    pub(crate) source: Source,
    pub(crate) escape: char,
    pub(crate) stages: Vec<Stage>,
    /// Names that the Dockerfile gives → place in `stages`.
    names: BTreeMap<String, usize>,
    /// Values of ARGs before the first FROM.
    pub(crate) globals: BTreeMap<String, String>,
}

/// Where `--from` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Stage(usize),
    Image(String),
}

impl Stages {
    /// Groups the instructions and resolves the bases.
    pub(crate) fn new(
        file: &Dockerfile,
        given: &BTreeMap<String, String>,
        platform: &Platform,
    ) -> Result<Stages> {
        let mut plan = Stages {
            source: file.source.clone(),
            escape: file.directives.escape,
            stages: Vec::new(),
            names: BTreeMap::new(),
            globals: platform_args(platform),
        };
        for instruction in &file.instructions {
            let fail = |message: String, hint: Option<String>| plan.fail(instruction, message, hint);
            match (&instruction.kind, plan.stages.is_empty()) {
                (Kind::From(from), _) => {
                    let stage = plan.stage(instruction, from, platform)?;
                    if plan.stages.len() >= MAX_STAGES {
                        return Err(fail(format!("there are more than {MAX_STAGES} stages"), None));
                    }
                    if let Some(name) = &from.name
                        && plan.names.insert(name.clone(), plan.stages.len()).is_some()
                    {
                        return Err(plan.fail(
                            instruction,
                            format!("there are two stages named \"{name}\""),
                            None,
                        ));
                    }
                    plan.stages.push(stage);
                }
                (Kind::Arg(args), true) => {
                    for (name, default) in args {
                        let value = match (given.get(name), default) {
                            (Some(value), _) => Some(value.clone()),
                            (None, Some(default)) => Some(
                                expand(default, plan.escape, &|n| plan.globals.get(n).map(String::as_str))
                                    .map_err(|why| plan.fail(instruction, why, None))?,
                            ),
                            (None, None) => None,
                        };
                        if let Some(value) = value {
                            plan.globals.insert(name.clone(), value);
                        }
                        let size: usize = plan.globals.iter().map(|(n, v)| n.len() + v.len()).sum();
                        if size > MAX_VARIABLES {
                            let message = format!("the arguments are larger than {MAX_VARIABLES} bytes");
                            return Err(plan.fail(instruction, message, None));
                        }
                    }
                }
                (_, true) => {
                    let message = format!("{} stands before the first FROM", instruction.keyword());
                    return Err(fail(message, Some("Only ARG may stand there.".into())));
                }
                (_, false) => {
                    if let Some(stage) = plan.stages.last_mut() {
                        stage.instructions.push(instruction.clone());
                    }
                }
            }
        }
        match plan.stages.is_empty() {
            false => Ok(plan),
            true => {
                let place = Box::new(plan.source.place(1, 1));
                let hint = Some("Begin with FROM.".into());
                Err(Error::Dockerfile { place, message: "there is no FROM".into(), hint })
            }
        }
    }

    fn stage(&self, instruction: &Instruction, from: &From, platform: &Platform) -> Result<Stage> {
        let replaced = |word: &str| {
            expand(word, self.escape, &|n| self.globals.get(n).map(String::as_str))
                .map_err(|why| self.fail(instruction, why, None))
        };
        let image = replaced(&from.image)?;
        if image.is_empty() {
            let hint = "Only ARGs before the first FROM count here; give them a default, or --build-arg.";
            let message = format!("\"{}\" is empty when its variables are replaced", from.image);
            return Err(self.fail(instruction, message, Some(hint.into())));
        }
        if let Some(wanted) = &from.platform {
            let wanted = replaced(wanted)?;
            let same = |p: &Platform| p.os == platform.os && p.architecture == platform.architecture;
            if !Platform::parse(&wanted).as_ref().is_some_and(same) {
                let message =
                    format!("--platform={wanted}: only {platform}, this machine's own, can be built here");
                return Err(self.fail(instruction, message, None));
            }
        }
        let base = match self.names.get(&image.to_lowercase()) {
            Some(stage) => Base::Stage(*stage),
            None if image == "scratch" => Base::Scratch,
            None => Base::Image(image),
        };
        let name = from.name.clone().unwrap_or_else(|| format!("stage-{}", self.stages.len()));
        Ok(Stage { name, base, from: instruction.clone(), instructions: Vec::new() })
    }

    /// Place of an instruction.
    pub(crate) fn place(&self, instruction: &Instruction) -> Place {
        self.source.place(instruction.line, instruction.last)
    }

    pub(crate) fn fail(&self, instruction: &Instruction, message: String, hint: Option<String>) -> Error {
        Error::Dockerfile { place: Box::new(self.place(instruction)), message, hint }
    }

    /// The stage to build: the last, or the one of this name or number.
    pub(crate) fn target(&self, name: Option<&str>) -> Result<usize> {
        let Some(name) = name else { return Ok(self.stages.len() - 1) };
        if let Some(stage) = self.names.get(&name.to_lowercase()) {
            return Ok(*stage);
        }
        if let Some(n) = name.parse::<usize>().ok().filter(|n| *n < self.stages.len()) {
            return Ok(n);
        }
        let meant = match self.suggest(name) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None if self.names.is_empty() => "its stages have no names".into(),
            None => {
                format!("there are {}", self.names.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
            }
        };
        Err(Error::Invalid(format!("the Dockerfile has no stage \"{name}\"; {meant}")))
    }

    /// A stage whose name is much like this one.
    pub(crate) fn suggest(&self, name: &str) -> Option<&str> {
        nearest(name, self.names.keys().map(String::as_str))
    }

    /// Where a `--from` in `instruction` leads.
    pub(crate) fn origin(&self, instruction: &Instruction, from: &str) -> Result<Origin> {
        if let Some(stage) = self.names.get(&from.to_lowercase()) {
            return Ok(Origin::Stage(*stage));
        }
        match from.parse::<usize>() {
            Ok(n) if n < self.stages.len() => Ok(Origin::Stage(n)),
            Ok(n) => Err(self.fail(
                instruction,
                format!("there is no stage {n}"),
                Some(format!("Stages are counted from 0 to {}.", self.stages.len() - 1)),
            )),
            Err(_) if from.contains('$') => Err(self.fail(
                instruction,
                format!("--from={from} cannot have variables"),
                Some("Give the image a name first: FROM $IMAGE AS name.".into()),
            )),
            Err(_) => Ok(Origin::Image(from.to_owned())),
        }
    }

    /// The stages that these instructions need.
    fn needs(&self, instructions: &[Instruction]) -> Result<BTreeSet<usize>> {
        let mut needs = BTreeSet::new();
        for instruction in instructions {
            let froms: Vec<&String> = match &instruction.kind {
                Kind::Copy(copy) => copy.from.iter().collect(),
                Kind::Run(run) => run
                    .mounts
                    .iter()
                    .filter_map(|m| match &m.kind {
                        MountKind::Bind { from, .. } => from.as_ref(),
                        _ => None,
                    })
                    .collect(),
                _ => Vec::new(),
            };
            for from in froms {
                if let Origin::Stage(stage) = self.origin(instruction, from)? {
                    needs.insert(stage);
                }
            }
        }
        Ok(needs)
    }

    /// The stages that `target` needs, itself last. `triggers` gives the instructions that a base image carries.
    pub(crate) async fn needed<F>(&mut self, target: usize, mut triggers: F) -> Result<Vec<usize>>
    where
        F: AsyncFnMut(&Stage) -> Result<Vec<String>>,
    {
        let mut needs: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut open = vec![target];
        while let Some(at) = open.pop() {
            if needs.contains_key(&at) {
                continue;
            }
            let stage = &self.stages[at];
            let carried = match &stage.base {
                Base::Scratch => Vec::new(),
                Base::Image(_) => triggers(stage).await?,
                Base::Stage(base) => own_triggers(&self.stages[*base]),
            };
            let place = self.place(&stage.from);
            let carried = carried
                .iter()
                .map(|text| crate::dockerfile::parse_trigger(text, self.escape, &place))
                .collect::<Result<Vec<_>>>()?;
            let stage = &mut self.stages[at];
            stage.instructions.splice(0..0, carried);
            let mut all = self.needs(&self.stages[at].instructions)?;
            if let Base::Stage(base) = self.stages[at].base {
                all.insert(base);
            }
            open.extend(&all);
            needs.insert(at, all);
        }
        self.order(&needs)
    }

    /// What comes first is needed by what follows.
    fn order(&self, needs: &BTreeMap<usize, BTreeSet<usize>>) -> Result<Vec<usize>> {
        let mut order: Vec<usize> = Vec::new();
        while order.len() < needs.len() {
            let ready =
                needs.iter().find(|(at, n)| !order.contains(at) && n.iter().all(|n| order.contains(n)));
            let Some((at, _)) = ready else {
                let stuck = needs.keys().find(|at| !order.contains(at)).copied().unwrap_or_default();
                let stage = &self.stages[stuck];
                let names: Vec<_> = needs
                    .keys()
                    .filter(|at| !order.contains(at))
                    .map(|at| self.stages[*at].name.as_str())
                    .collect();
                let message = format!("these stages need each other: {}", names.join(", "));
                return Err(self.fail(&stage.from, message, None));
            };
            order.push(*at);
        }
        Ok(order)
    }

    /// Names of all ARGs that stand anywhere.
    pub(crate) fn declared(&self, file: &Dockerfile) -> BTreeSet<String> {
        let args = file.instructions.iter().filter_map(|i| match &i.kind {
            Kind::Arg(args) => Some(args.iter().map(|(name, _)| name.clone())),
            _ => None,
        });
        args.flatten().collect()
    }
}

fn own_triggers(stage: &Stage) -> Vec<String> {
    let triggers = stage.instructions.iter().filter_map(|i| match &i.kind {
        Kind::Onbuild(text) => Some(text.clone()),
        _ => None,
    });
    triggers.collect()
}

/// `TARGETPLATFORM` and its like.
fn platform_args(platform: &Platform) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    for side in ["TARGET", "BUILD"] {
        args.insert(format!("{side}PLATFORM"), platform.to_string());
        args.insert(format!("{side}OS"), platform.os.clone());
        args.insert(format!("{side}ARCH"), platform.architecture.clone());
        args.insert(format!("{side}VARIANT"), platform.variant.clone().unwrap_or_default());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    fn host() -> Platform {
        Platform { os: "linux".into(), architecture: "amd64".into(), variant: None }
    }

    fn stages(text: &str) -> Result<Stages> {
        stages_with(text, &[])
    }

    fn stages_with(text: &str, args: &[(&str, &str)]) -> Result<Stages> {
        let args = args.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Stages::new(&parse("Dockerfile", text)?, &args, &host())
    }

    fn needed(text: &str, target: Option<&str>) -> Result<Vec<usize>> {
        let mut stages = stages(text)?;
        let target = stages.target(target)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(stages.needed(target, async |_| Ok(Vec::new())))
    }

    fn refused<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn stages_that_nobody_needs_are_left_out() {
        let text =
            "FROM a AS one\nFROM b AS two\nFROM one\nCOPY --from=Two /x /y\nFROM c AS unused\nFROM 2\n";
        assert_eq!(needed(text, Some("2")).unwrap(), [0, 1, 2]);
        assert_eq!(needed(text, Some("UNUSED")).unwrap(), [3]);
        assert_eq!(needed(text, None).unwrap(), [4], "a number is no base");
        let mounts = "FROM a AS one\nFROM b\nRUN --mount=from=one,target=/x y";
        assert_eq!(needed(mounts, None).unwrap(), [0, 1]);
        assert_eq!(
            needed("FROM a\nCOPY --from=1 /x /\nFROM b", Some("0")).unwrap(),
            [1, 0],
            "also later ones"
        );
    }

    #[test]
    fn stages_that_need_each_other_are_refused() {
        let text = "FROM a AS one\nCOPY --from=two /x /\nFROM b AS two\nCOPY --from=one /x /";
        assert!(refused(needed(text, None)).contains("Dockerfile:1: these stages need each other: one, two"));
        assert!(
            refused(needed("FROM a AS self\nCOPY --from=self /x /", None)).contains("need each other: self")
        );
    }

    #[test]
    fn bases_see_only_global_arguments() {
        let text = "ARG V=1\nARG IMAGE=base:$V\nFROM ${IMAGE}\nFROM --platform=$BUILDPLATFORM scratch";
        let bases = |s: Stages| s.stages.into_iter().map(|s| s.base).collect::<Vec<_>>();
        assert_eq!(bases(stages(text).unwrap()), [Base::Image("base:1".into()), Base::Scratch]);
        assert_eq!(bases(stages_with(text, &[("V", "2")]).unwrap())[0], Base::Image("base:2".into()));
        assert!(refused(stages("FROM x\nARG V=1\nFROM $V")).contains("Dockerfile:3: \"$V\" is empty"));
        assert!(refused(stages("FROM --platform=linux/s390x x")).contains("only linux/amd64"));
    }

    #[test]
    fn wrong_names_are_answered_with_the_right_ones() {
        let text = "FROM a AS build\nFROM b AS test";
        let target = |name| stages(text).unwrap().target(Some(name));
        assert!(refused(target("biuld")).contains("did you mean \"build\"?"));
        assert!(refused(target("xyzxyz")).contains("there are build, test"));
        assert!(refused(needed("FROM a\nCOPY --from=7 /x /", None)).contains("there is no stage 7"));
        assert!(refused(stages("FROM a AS x\nFROM b AS X")).contains("two stages named \"x\""));
        assert!(refused(stages("RUN x\nFROM a")).contains("RUN stands before the first FROM"));
        assert!(refused(stages("ARG x")).contains("there is no FROM"));
    }

    #[test]
    fn triggers_run_first_and_once() {
        let mut stages =
            stages("FROM a AS one\nONBUILD COPY --from=tools /t /t\nFROM b AS tools\nFROM one\nRUN x")
                .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let carried = async |stage: &Stage| {
            Ok(if stage.base == Base::Image("a".into()) { vec!["RUN from-image".into()] } else { Vec::new() })
        };
        assert_eq!(runtime.block_on(stages.needed(2, carried)).unwrap(), [0, 1, 2]);
        let texts =
            |at: usize| stages.stages[at].instructions.iter().map(|i| i.text.as_str()).collect::<Vec<_>>();
        assert_eq!(texts(0), ["RUN from-image", "ONBUILD COPY --from=tools /t /t"]);
        assert_eq!(texts(2), ["COPY --from=tools /t /t", "RUN x"]);
    }

    proptest::proptest! {
        #[test]
        fn no_dockerfile_makes_it_panic(
            text in "((FROM|ARG|COPY|RUN|ONBUILD COPY) |--from=|--mount=from=|--platform=| AS |a|b|0|1|\\$\\{?a|\\}|=|/|\n){0,40}"
        ) {
            let _ = needed(&text, None);
        }
    }
}

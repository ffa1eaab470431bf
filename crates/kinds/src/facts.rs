//! The facts table: what upstream publishes about its kinds, as `cargo xtask facts` wrote it down.
//!
//! One line a fact, words divided by blanks, `#` begins a comment:
//!
//! ```text
//! version v1.37.2
//! resource GROUP/VERSION PLURAL SINGULAR KIND namespaced|cluster TYPE [short=a,b] [categories=a] [verbs=get,list]
//!  sub NAME GROUP/VERSION KIND VERBS
//!  col TYPE PRIORITY FORMAT|- NAME OF THE COLUMN
//! type NAME [atomic] [union=DISCRIMINATOR(field:value,…)]
//!  FIELD TYPE [#TAG] [ptr] [req] [!ALWAYS] [=DEFAULT] [shown=DEFAULT] [list=set|map(key,…)|atomic] [atomic|granular] [bare]
//!        [go=v1.Name] [in=Embedded] [patch=STRATEGY(key)] [enum=a,b]
//! ```
//!
//! A field's TYPE is a scalar word (`string`, `int32`, `int64`, `float64`, `bool`, `bytes`, `time`, `microtime`,
//! `duration`, `quantity`, `intstr`, `object`, `any`, `schemaorlist`, `schemaorbool`, `schemaorstrings`) or the name of another type, below any number of `[]` (list) and
//! `{}` (map). `#TAG` holds protobuf field numbers, outermost first, where JSON flattens a message. `ptr` is a Go
//! pointer: its zero differs from its absence. ALWAYS is what an absent field is encoded as, DEFAULT what it is
//! decoded as; both are JSON without blanks. `shown=` is a default that is published and changes nothing, `bare` a field
//! of which OpenAPI tells nothing but its type. `go` is the field's type as Go prints it, where it has a name that TYPE
//! does not tell, and `in` the embedded structs that have the field: errors of decoding name both. In values of `enum` a
//! `~` stands for a blank.

use std::collections::HashMap;

/// The table that this build of Plimsoll serves.
pub const TABLE: &str = include_str!("../facts/v1.37.2.txt");

/// The table, cut into lines that borrow from the text.
pub struct Table<'t> {
    /// `v1.37.2`
    pub version: &'t str,
    /// In upstream's order of groups.
    pub resources: Vec<ResourceFacts<'t>>,
    types: HashMap<&'t str, TypeFacts<'t>>,
}

/// One `resource` line and what is below it.
#[derive(Default)]
pub struct ResourceFacts<'t> {
    /// `apps/v1`, `v1`
    pub api_version: &'t str,
    /// `deployments`
    pub plural: &'t str,
    /// `deployment`
    pub singular: &'t str,
    /// `Deployment`
    pub kind: &'t str,
    /// Lives in a namespace.
    pub namespaced: bool,
    /// The name of its type.
    pub type_name: &'t str,
    /// `deploy`
    pub short_names: Vec<&'t str>,
    /// `all`
    pub categories: Vec<&'t str>,
    /// Sorted.
    pub verbs: Vec<&'t str>,
    /// What is below an object.
    pub subresources: Vec<SubFacts<'t>>,
    /// What `kubectl get` shows.
    pub columns: Vec<ColumnFacts<'t>>,
}

/// One `sub` line.
pub struct SubFacts<'t> {
    /// `status`
    pub name: &'t str,
    /// Of the object it takes.
    pub api_version: &'t str,
    /// Of the object it takes.
    pub kind: &'t str,
    /// Sorted.
    pub verbs: Vec<&'t str>,
}

/// One `col` line.
pub struct ColumnFacts<'t> {
    /// `string`, `integer`, `boolean`, `date`
    pub kind: &'t str,
    /// 0, or 1 for `-o wide`.
    pub priority: i32,
    /// `name`, or empty.
    pub format: &'t str,
    /// `Port(s)`
    pub name: &'t str,
}

/// One `type` line and its fields.
#[derive(Default)]
pub struct TypeFacts<'t> {
    /// `x-kubernetes-map-type: atomic`
    pub atomic: bool,
    /// Of which fields no more than one is set: `DISCRIMINATOR(field:value,…)`.
    pub unions: Vec<&'t str>,
    /// In Go's order.
    pub fields: Vec<FieldFacts<'t>>,
}

/// One field line.
#[derive(Clone, Copy, Default)]
pub struct FieldFacts<'t> {
    /// JSON name.
    pub name: &'t str,
    /// The type expression.
    pub kind: &'t str,
    /// Protobuf field numbers, outermost first; empty if there is no protobuf form.
    pub tag: &'t str,
    /// Absent and zero differ.
    pub pointer: bool,
    /// OpenAPI says that it is required.
    pub required: bool,
    /// What an absent field is encoded as, JSON.
    pub always: Option<&'t str>,
    /// What an absent field is decoded as, JSON.
    pub default: Option<&'t str>,
    /// The default that is published where it changes nothing, JSON.
    pub shown: Option<&'t str>,
    /// `set`, `map(a,b)` or empty; `atomic` of bytes, which are a list to Go.
    pub list: &'t str,
    /// `x-kubernetes-map-type: atomic`
    pub atomic: bool,
    /// `x-kubernetes-map-type: granular`, of a map, or of a field whose type is atomic elsewhere.
    pub granular: bool,
    /// OpenAPI refers to its type and says nothing beside it.
    pub bare: bool,
    /// `v1.RestartPolicy`, or empty: Go's type has the name that follows from `kind`.
    pub go: &'t str,
    /// `VolumeSource`, `ConfigMapEnvSource.LocalObjectReference`, or empty.
    pub within: &'t str,
    /// `merge(key)`, `retainKeys()`, `merge+retainKeys(key)`, `replace()` or empty.
    pub patch: &'t str,
    /// The published values, divided by commas, `~` for a blank. For reading only: upstream does not validate by them.
    pub values: Option<&'t str>,
}

impl<'t> Table<'t> {
    /// Reads a table. Lines that are not of the form above are left out; the table is part of the build and a test
    /// reads it whole.
    #[must_use]
    pub fn parse(text: &'t str) -> Self {
        let mut table = Self { version: "", resources: Vec::new(), types: HashMap::with_capacity(1024) };
        let mut in_type: Option<(&str, TypeFacts<'t>)> = None;
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(fact) = line.strip_prefix(' ') {
                match &mut in_type {
                    Some((_, facts)) => facts.fields.extend(field(fact)),
                    None => {
                        if let Some(resource) = table.resources.last_mut() {
                            resource.add(fact);
                        }
                    }
                }
                continue;
            }
            if let Some((name, facts)) = in_type.take() {
                table.types.insert(name, facts);
            }
            let mut words = line.split(' ');
            match words.next() {
                Some("version") => table.version = words.next().unwrap_or_default(),
                Some("resource") => table.resources.extend(resource(words)),
                Some("type") => {
                    let name = words.next().unwrap_or_default();
                    let mut facts = TypeFacts::default();
                    for word in words {
                        match word.split_once('=') {
                            Some(("union", union)) => facts.unions.push(union),
                            _ => facts.atomic |= word == "atomic",
                        }
                    }
                    in_type = Some((name, facts));
                }
                _ => {}
            }
        }
        if let Some((name, facts)) = in_type {
            table.types.insert(name, facts);
        }
        table
    }

    /// The type of this name, `core.v1.Pod`.
    #[must_use]
    pub fn type_of(&self, name: &str) -> Option<&TypeFacts<'t>> {
        self.types.get(name)
    }

    /// Every type with its name, in no order.
    pub fn types(&self) -> impl Iterator<Item = (&'t str, &TypeFacts<'t>)> {
        self.types.iter().map(|(name, facts)| (*name, facts))
    }

    /// How many types there are.
    #[must_use]
    pub fn type_count(&self) -> usize {
        self.types.len()
    }

    /// The resource `deployments` of `apps/v1`.
    #[must_use]
    pub fn resource(&self, api_version: &str, plural: &str) -> Option<&ResourceFacts<'t>> {
        self.resources.iter().find(|r| r.api_version == api_version && r.plural == plural)
    }
}

fn names(list: &str) -> Vec<&str> {
    list.split(',').filter(|name| !name.is_empty()).collect()
}

fn resource<'t>(mut words: impl Iterator<Item = &'t str>) -> Option<ResourceFacts<'t>> {
    let mut facts = ResourceFacts {
        api_version: words.next()?,
        plural: words.next()?,
        singular: words.next()?,
        kind: words.next()?,
        namespaced: words.next()? == "namespaced",
        type_name: words.next()?,
        ..ResourceFacts::default()
    };
    for word in words {
        match word.split_once('=') {
            Some(("short", list)) => facts.short_names = names(list),
            Some(("categories", list)) => facts.categories = names(list),
            Some(("verbs", list)) => facts.verbs = names(list),
            _ => {}
        }
    }
    Some(facts)
}

impl<'t> ResourceFacts<'t> {
    fn add(&mut self, fact: &'t str) {
        if let Some(rest) = fact.strip_prefix("sub ") {
            let mut words = rest.split(' ');
            if let (Some(name), Some(api_version), Some(kind), Some(verbs)) =
                (words.next(), words.next(), words.next(), words.next())
            {
                self.subresources.push(SubFacts { name, api_version, kind, verbs: names(verbs) });
            }
        } else if let Some(rest) = fact.strip_prefix("col ") {
            let mut words = rest.splitn(4, ' ');
            if let (Some(kind), Some(priority), Some(format), Some(name)) =
                (words.next(), words.next(), words.next(), words.next())
            {
                let format = if format == "-" { "" } else { format };
                self.columns.push(ColumnFacts {
                    kind,
                    priority: priority.parse().unwrap_or(0),
                    format,
                    name,
                });
            }
        }
    }
}

fn field(fact: &str) -> Option<FieldFacts<'_>> {
    let mut words = fact.split(' ');
    let mut field = FieldFacts { name: words.next()?, kind: words.next()?, ..FieldFacts::default() };
    for word in words {
        if let Some(tag) = word.strip_prefix('#') {
            field.tag = tag;
        } else if let Some(always) = word.strip_prefix('!') {
            field.always = Some(always);
        } else if let Some(default) = word.strip_prefix('=') {
            field.default = Some(default);
        } else {
            match (word, word.split_once('=')) {
                ("ptr", _) => field.pointer = true,
                ("req", _) => field.required = true,
                ("atomic", _) => field.atomic = true,
                ("granular", _) => field.granular = true,
                ("bare", _) => field.bare = true,
                (_, Some(("shown", default))) => field.shown = Some(default),
                (_, Some(("list", list))) => field.list = list,
                (_, Some(("go", name))) => field.go = name,
                (_, Some(("in", structs))) => field.within = structs,
                (_, Some(("patch", patch))) => field.patch = patch,
                (_, Some(("enum", values))) => field.values = Some(values),
                _ => {}
            }
        }
    }
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_every_kind_and_field_of_its_version() {
        let table = Table::parse(TABLE);
        assert_eq!(table.version, "v1.37.2");
        assert!(table.type_count() > 500, "{}", table.type_count());
        let pods = table.resource("v1", "pods").unwrap();
        assert_eq!(pods.short_names, ["po"]);
        assert!(pods.subresources.iter().any(|s| s.name == "eviction" && s.api_version == "policy/v1"));
        assert_eq!(pods.columns[7].name, "Nominated Node");
    }

    #[test]
    fn a_field_line_carries_tag_keys_and_what_is_always_encoded() {
        let table = Table::parse(TABLE);
        let ports =
            table.type_of("core.v1.Container").unwrap().fields.iter().find(|f| f.name == "ports").unwrap();
        assert_eq!((ports.kind, ports.tag), ("[]core.v1.ContainerPort", "6"));
        assert_eq!((ports.list, ports.patch), ("map(containerPort,protocol)", "merge(containerPort)"));
        let volume = table.type_of("core.v1.Volume").unwrap();
        assert_eq!(volume.fields[0].always, Some("\"\""));
        assert_eq!(volume.fields[1].tag, "2.1", "an inlined struct is a message of its own in protobuf");
    }

    #[test]
    fn every_type_that_a_field_names_is_in_the_table() {
        let table = Table::parse(TABLE);
        for (name, facts) in &table.types {
            for field in &facts.fields {
                let base = field.kind.trim_start_matches(['[', ']', '{', '}']);
                assert!(
                    !base.contains('.') || table.type_of(base).is_some(),
                    "{name}.{}: {base}",
                    field.name
                );
            }
        }
    }
}

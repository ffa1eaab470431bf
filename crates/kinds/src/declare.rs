//! How a group's file declares its resources: the facts first, then what a person has to know.

use std::sync::Arc;

use crate::{
    facts::{ResourceFacts, TABLE, Table},
    resource::{
        Behaviour, Column, DeletedObject, Generation, NameRule, Plain, Resource, ScalePaths, SelectableField,
        Strategy, Subresource,
    },
    shape::Shapes,
};

/// Makes the resources of every group.
pub struct Declarer<'t> {
    shapes: Shapes<'t>,
    made: Vec<Arc<Resource>>,
}

/// One resource in the making; it becomes one of the declared when [`Declaration::strategy`] is called.
pub struct Declaration<'d, 't> {
    to: &'d mut Declarer<'t>,
    resource: Resource,
}

impl<'t> Declarer<'t> {
    /// Nothing declared yet.
    pub fn new(table: &'t Table<'t>) -> Self {
        Self { shapes: Shapes::new(table), made: Vec::new() }
    }

    /// All that was declared.
    pub fn finish(self) -> Vec<Arc<Resource>> {
        self.made
    }

    /// Starts with the facts of `PLURAL` in `GROUP/VERSION`.
    ///
    /// # Panics
    /// If the table has no such resource: a fault of this crate's source, found by any test that calls `all()`.
    pub fn resource(&mut self, api_version: &str, plural: &str) -> Declaration<'_, 't> {
        let table = self.shapes.table;
        let facts = table
            .resource(api_version, plural)
            .unwrap_or_else(|| panic!("no facts of {api_version} {plural}"));
        let resource = self.base(facts);
        Declaration { to: self, resource }
    }

    fn base(&mut self, facts: &'t ResourceFacts<'t>) -> Resource {
        let mut names = |list: &[&str]| list.iter().map(|name| self.shapes.name(name)).collect::<Vec<_>>();
        let (short_names, categories, verbs) =
            (names(&facts.short_names), names(&facts.categories), names(&facts.verbs));
        let (group, version) = group_version(facts.api_version);
        let subresources = facts
            .subresources
            .iter()
            .map(|sub| {
                let (group, version) = group_version(sub.api_version);
                Subresource {
                    name: self.shapes.name(sub.name),
                    group: self.shapes.name(group),
                    version: self.shapes.name(version),
                    kind: self.shapes.name(sub.kind),
                    verbs: sub.verbs.iter().map(|verb| self.shapes.name(verb)).collect(),
                    scale: None,
                }
            })
            .collect();
        let columns = facts
            .columns
            .iter()
            .map(|column| Column {
                name: self.shapes.name(column.name),
                kind: self.shapes.name(column.kind),
                format: self.shapes.name(column.format),
                description: self.shapes.name(""),
                priority: column.priority,
                json_path: self.shapes.name(""),
            })
            .collect();
        Resource {
            group: self.shapes.name(group),
            version: self.shapes.name(version),
            kind: self.shapes.name(facts.kind),
            list_kind: self.shapes.name(&format!("{}List", facts.kind)),
            plural: self.shapes.name(facts.plural),
            singular: self.shapes.name(facts.singular),
            short_names,
            categories,
            namespaced: facts.namespaced,
            verbs,
            schema: self.shapes.schema(facts.type_name),
            subresources,
            columns,
            selectable: Vec::new(),
            behaviour: Behaviour { unconditional_update: true, ..Behaviour::default() },
            strategy: Arc::new(Plain),
            builtin: true,
        }
    }
}

/// `apps/v1` → (`apps`, `v1`); `v1` → (``, `v1`).
pub fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

impl Declaration<'_, '_> {
    /// The generation rises with the spec.
    pub fn tracks_spec(mut self) -> Self {
        self.resource.behaviour.generation = Generation::Spec;
        self
    }

    /// The generation counts changes of the spec, from none.
    pub fn counts_spec_changes(mut self) -> Self {
        self.resource.behaviour.generation = Generation::SpecChanges;
        self
    }

    /// The generation rises with anything but metadata.
    pub fn tracks_content(mut self) -> Self {
        self.resource.behaviour.generation = Generation::Content;
        self
    }

    /// DELETE answers with the object.
    pub fn returns_deleted(mut self) -> Self {
        self.resource.behaviour.deleted = DeletedObject::Object;
        self
    }

    /// PUT of a missing name creates it.
    pub fn created_by_update(mut self) -> Self {
        self.resource.behaviour.create_on_update = true;
        self
    }

    /// PUT needs a resourceVersion.
    pub fn needs_resource_version(mut self) -> Self {
        self.resource.behaviour.unconditional_update = false;
        self
    }

    /// What a name looks like, where it is no DNS subdomain.
    pub fn named(mut self, rule: NameRule) -> Self {
        self.resource.behaviour.name = rule;
        self
    }

    /// Any other flag.
    pub fn behaves(mut self, change: impl FnOnce(&mut Behaviour)) -> Self {
        change(&mut self.resource.behaviour);
        self
    }

    /// A selector may name `name`, which is at the same path; `absent` is what it is when it is not there.
    pub fn select(self, name: &str, absent: &str) -> Self {
        self.select_at(name, name, absent)
    }

    /// A selector may name `name`, which is at `path`.
    pub fn select_at(mut self, name: &str, path: &str, absent: &str) -> Self {
        let field = SelectableField {
            name: self.to.shapes.name(name),
            path: self.to.shapes.name(path),
            absent: self.to.shapes.name(absent),
        };
        self.resource.selectable.push(field);
        self
    }

    /// The `scale` subresource reads and writes `spec.replicas`, `status.replicas` and this selector.
    pub fn scales_by(mut self, selector: &str) -> Self {
        let paths = ScalePaths {
            spec_replicas: self.to.shapes.name("spec.replicas"),
            status_replicas: self.to.shapes.name("status.replicas"),
            selector: Some(self.to.shapes.name(selector)),
        };
        for sub in &mut self.resource.subresources {
            if &*sub.name == "scale" {
                sub.scale = Some(paths.clone());
            }
        }
        self
    }

    /// What only this kind does; ends the declaration.
    pub fn strategy(mut self, strategy: impl Strategy + 'static) {
        self.resource.strategy = Arc::new(strategy);
        self.to.made.push(Arc::new(self.resource));
    }
}

/// The schema of any kind that the table knows, also of those that are no resource (`Scale`, `Eviction`, `Binding`,
/// `TokenRequest`, `DeleteOptions`). Made anew at each call.
#[must_use]
pub fn schema_of(api_version: &str, kind: &str) -> Option<Arc<apimachinery::Schema>> {
    let table = Table::parse(TABLE);
    let (group, version) = group_version(api_version);
    // `rbac.authorization.k8s.io` is `rbac` in type names; the core group is `core`.
    let package = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) };
    let package = if group == "events.k8s.io" { "events" } else { package };
    for name in [format!("{package}.{version}.{kind}"), format!("meta.{version}.{kind}")] {
        if table.type_of(&name).is_some() {
            return Some(Shapes::new(&table).schema(&name));
        }
    }
    None
}

//! From the facts table to [`Schema`]s. Equal nodes are made once and shared, names too.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use apimachinery::{
    Schema,
    schema::{GoField, ListType, PatchStrategy, Published, Type},
};
use serde_json::Value;

use crate::{
    defaults,
    facts::{FieldFacts, Table},
};

/// Makes schemas of one table and remembers them.
pub struct Shapes<'t> {
    /// Where the facts come from.
    pub table: &'t Table<'t>,
    made: HashMap<String, Arc<Schema>>,
    names: HashSet<Arc<str>>,
    open: Vec<&'t str>,
}

impl<'t> Shapes<'t> {
    /// Nothing made yet.
    #[must_use]
    pub fn new(table: &'t Table<'t>) -> Self {
        Self { table, made: HashMap::new(), names: HashSet::new(), open: Vec::new() }
    }

    /// The one copy of a name.
    pub fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let made: Arc<str> = name.into();
        self.names.insert(Arc::clone(&made));
        made
    }

    /// The schema of the type expression, `[]core.v1.Container`. Unknown types, and types inside themselves, are
    /// objects whose fields are kept as they are.
    pub fn schema(&mut self, expression: &'t str) -> Arc<Schema> {
        if let Some(made) = self.made.get(expression) {
            return Arc::clone(made);
        }
        if self.open.contains(&expression) {
            // The name stays, so that what is published can refer to itself.
            let name = self.openapi_name(expression);
            let cut = Schema { name: Some(name), ..self.scalar("open") };
            return Arc::new(cut);
        }
        let schema = if let Some(item) = expression.strip_prefix("[]") {
            Schema { kind: Some(Type::Array), items: Some(self.schema(item)), ..Schema::default() }
        } else if let Some(value) = expression.strip_prefix("{}") {
            Schema { kind: Some(Type::Object), additional: Some(self.schema(value)), ..Schema::default() }
        } else if expression.contains('.') {
            self.open.push(expression);
            let made = self.structure(expression);
            self.open.pop();
            made
        } else {
            self.scalar(expression)
        };
        let made = Arc::new(schema);
        self.made.insert(expression.to_owned(), Arc::clone(&made));
        made
    }

    /// `io.k8s.api.core.v1.Pod` of `core.v1.Pod`.
    fn openapi_name(&mut self, expression: &str) -> Arc<str> {
        let package = match expression.split('.').next() {
            Some("meta") => "io.k8s.apimachinery.pkg.apis.",
            Some("apiextensions") => "io.k8s.apiextensions-apiserver.pkg.apis.",
            Some("apiregistration") => "io.k8s.kube-aggregator.pkg.apis.",
            _ => "io.k8s.api.",
        };
        self.name(&format!("{package}{expression}"))
    }

    fn scalar(&mut self, word: &str) -> Schema {
        let (kind, format) = match word {
            "string" | "duration" => (Some(Type::String), ""),
            "bytes" => (Some(Type::String), "byte"),
            "time" => (Some(Type::String), "date-time"),
            "microtime" => (Some(Type::String), "micro-time"),
            "bool" => (Some(Type::Boolean), ""),
            "int32" | "int64" => (Some(Type::Integer), word),
            "float64" => (Some(Type::Number), "double"),
            "quantity" => (None, "quantity"),
            "intstr" => (None, "int-or-string"),
            "any" | "schemaorlist" | "schemaorbool" | "schemaorstrings" => (None, ""),
            // `object`: a RawExtension or FieldsV1; `open`: a type inside itself, cut. Anything else would be a fault of
            // the table.
            _ => (Some(Type::Object), ""),
        };
        // Structs that write themselves as whatever they hold.
        let own = match word {
            "any" => Some("JSON"),
            "schemaorlist" => Some("JSONSchemaPropsOrArray"),
            "schemaorbool" => Some("JSONSchemaPropsOrBool"),
            "schemaorstrings" => Some("JSONSchemaPropsOrStringArray"),
            _ => None,
        };
        Schema {
            name: own.map(|own| self.openapi_name(&format!("apiextensions.v1.{own}"))),
            kind,
            format: (!format.is_empty()).then(|| self.name(format)),
            int_or_string: word == "intstr",
            preserve_unknown: matches!(word, "object" | "open")
                || word.starts_with("schemaor")
                || word == "any",
            atomic_map: word == "object",
            go: self.reads_itself(word),
            ..Schema::default()
        }
    }

    /// The Go type behind a word whose values are of more than one JSON type, each with a shape of its own.
    fn reads_itself(&mut self, word: &str) -> Option<Box<GoField>> {
        let name = match word {
            "schemaorlist" => "v1.JSONSchemaPropsOrArray",
            "schemaorbool" => "v1.JSONSchemaPropsOrBool",
            "schemaorstrings" => "v1.JSONSchemaPropsOrStringArray",
            _ => return None,
        };
        Some(Box::new(GoField { kind: Some(self.name(name)), within: None }))
    }

    fn structure(&mut self, name: &'t str) -> Schema {
        let table = self.table;
        let Some(facts) = table.type_of(name) else { return Schema::any() };
        let openapi_name = self.openapi_name(name);
        let mut properties = BTreeMap::new();
        let mut required = Vec::new();
        for field in &facts.fields {
            let key = self.name(field.name);
            if field.required {
                required.push(Arc::clone(&key));
            }
            let schema = self.field(name, field);
            properties.insert(key, schema);
        }
        let unions: Vec<Value> = facts.unions.iter().copied().filter_map(union).collect();
        let published = (!unions.is_empty()).then(|| Published { unions, ..Published::default() });
        Schema {
            published: published.map(Box::new),
            name: Some(openapi_name),
            kind: Some(Type::Object),
            properties,
            required,
            atomic_map: facts.atomic,
            ..Schema::default()
        }
    }

    /// The schema of a field: its type's, with what the field itself says. Fields that say the same share it.
    fn field(&mut self, owner: &str, field: &FieldFacts<'t>) -> Arc<Schema> {
        let default = field.default.or_else(|| defaults::constant(owner, field.name));
        // Where Go has a default, its zero is as good as absent, and what is always encoded is the default.
        let omit_empty =
            (field.always.is_none() || default.is_some()) && !field.pointer && !is_struct(field.kind);
        let key = format!(
            "{} {:?} {default:?} {:?} {:?} {:?} {} {} {} {} {} {} {} {omit_empty}",
            field.kind,
            field.always,
            field.default,
            field.shown,
            field.values,
            field.list,
            field.atomic,
            field.granular,
            field.bare,
            field.go,
            field.within,
            field.patch
        );
        if let Some(made) = self.made.get(&key) {
            return Arc::clone(made);
        }
        let base = self.schema(field.kind);
        let mut schema = Schema::clone(&base);
        schema.omit_empty = omit_empty;
        schema.always = field.always.and(default.or(field.always)).and_then(json);
        schema.default = default.and_then(json);
        schema.atomic_map = (schema.atomic_map || field.atomic) && !field.granular;
        if field.list == "set" {
            schema.list_type = ListType::Set;
        } else if let Some(keys) = field.list.strip_prefix("map(").and_then(|rest| rest.strip_suffix(')')) {
            schema.list_type = ListType::Map;
            schema.list_map_keys = keys.split(',').map(|key| self.name(key)).collect();
        }
        if let Some((strategy, key)) = field.patch.strip_suffix(')').and_then(|patch| patch.split_once('(')) {
            let has = |word: &str| strategy.split('+').any(|s| s == word);
            schema.patch_strategy = PatchStrategy {
                merge: has("merge"),
                retain_keys: has("retainKeys"),
                replace: has("replace"),
            };
            schema.patch_merge_key = (!key.is_empty()).then(|| self.name(key));
        }
        let published = Published {
            default: field
                .default
                .or(field.always)
                .filter(|_| has_plain_default(field.kind))
                .or(field.shown)
                .and_then(json)
                .filter(|v| !v.is_null()),
            values: field
                .values
                .into_iter()
                .flat_map(|values| values.split(','))
                .map(|value| self.name(&value.replace('~', " ")))
                .collect(),
            unions: base.published.as_ref().map(|published| published.unions.clone()).unwrap_or_default(),
            granular: field.granular,
            bare: field.bare,
            atomic_list: field.list == "atomic",
        };
        let tells = published != Published::default();
        schema.published = tells.then(|| Box::new(published));
        if !field.go.is_empty() || !field.within.is_empty() {
            let mut name = |name: &str| (!name.is_empty()).then(|| self.name(name));
            schema.go = Some(Box::new(GoField { kind: name(field.go), within: name(field.within) }));
        }
        let made = if schema == *base { base } else { Arc::new(schema) };
        // What was cut because it is inside itself depends on the place and is not shared.
        if !self.open.contains(&field.kind.trim_start_matches(['[', ']', '{', '}'])) {
            self.made.insert(key, Arc::clone(&made));
        }
        made
    }
}

fn is_struct(kind: &str) -> bool {
    kind.contains('.') && !kind.starts_with(['[', '{'])
}

/// `DISCRIMINATOR(field:value,…)` as it is published.
fn union(fact: &str) -> Option<Value> {
    let (discriminator, fields) = fact.strip_suffix(')')?.split_once('(')?;
    let fields = fields.split(',').filter_map(|field| field.split_once(':'));
    let fields: serde_json::Map<String, Value> = fields.map(|(k, v)| (k.to_owned(), v.into())).collect();
    let mut union = serde_json::json!({"fields-to-discriminateBy": fields});
    if !discriminator.is_empty() {
        union["discriminator"] = discriminator.into();
    }
    Some(union)
}

/// Upstream tells no default of types that write themselves, nor of lists and maps.
fn has_plain_default(kind: &str) -> bool {
    let own = matches!(kind, "time" | "microtime" | "quantity" | "intstr" | "object" | "any");
    !own && !kind.starts_with(['[', '{'])
}

/// Values in the table and in [`defaults`] are JSON; a test reads them all.
fn json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

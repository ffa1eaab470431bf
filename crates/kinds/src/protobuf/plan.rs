//! What a type's message looks like, made once from the facts table: which JSON field goes where, in which form.

use std::{
    collections::HashMap,
    sync::{LazyLock, OnceLock},
};

use super::{SCHEMA, table, transcode::Writer};
use crate::facts::FieldFacts;

/// A kind that is served for every other kind; the table does not know it.
pub const PARTIAL: &str = "PartialObjectMetadata";

/// What of any object is in its [`PARTIAL`].
static METADATA: [FieldFacts<'static>; 1] = [FieldFacts {
    name: "metadata",
    kind: "meta.v1.ObjectMeta",
    tag: "1",
    pointer: false,
    required: false,
    always: None,
    default: None,
    list: "",
    atomic: false,
    granular: false,
    go: "",
    within: "",
    patch: "",
    values: None,
    shown: None,
    bare: false,
}];

/// The message of a type.
pub struct Plan {
    /// Those that have a protobuf form, by their JSON names.
    pub fields: Vec<Field>,
    /// What the message consists of, in ascending order of field numbers.
    pub nodes: Vec<Node>,
}

/// One field of a type.
pub struct Field {
    /// JSON name.
    pub name: &'static str,
    /// Its number in the message that it is in.
    pub tag: u64,
    /// The form of its value.
    pub form: Form,
    /// Its zero, `null`, is not written.
    pub optional: bool,
    zero: OnceLock<Box<[u8]>>,
}

impl Field {
    /// What is written where the field is absent.
    pub fn zero(&self) -> &[u8] {
        self.zero.get_or_init(|| Writer::zero(self.tag, &self.form, self.optional).into())
    }
}

/// One field number of a message.
pub enum Node {
    /// The field at this index of [`Plan::fields`].
    Field(usize),
    /// A message whose fields JSON shows as the outer one's.
    Inner(u64, Vec<Node>),
}

/// How a value is written.
pub enum Form {
    Text,
    Bool,
    Whole,
    Double,
    Bytes,
    /// Seconds, and nanoseconds that are always zero.
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON as it stands, in a message.
    Raw,
    SchemaOrList,
    SchemaOrBool,
    SchemaOrStrings,
    /// Of this index among all plans.
    Message(usize),
    /// A type that the table does not know: an empty message.
    Unknown,
    List(Box<Form>),
    Map(Box<Form>),
}

struct Plans {
    index: HashMap<&'static str, usize>,
    all: Vec<Plan>,
    schema: Form,
}

static PLANS: LazyLock<Plans> = LazyLock::new(|| {
    let partial: (_, &[_]) = (PARTIAL, &METADATA);
    let types: Vec<_> =
        table().types().map(|(name, facts)| (name, &facts.fields[..])).chain([partial]).collect();
    let index: HashMap<_, _> = types.iter().enumerate().map(|(i, (name, _))| (*name, i)).collect();
    let all = types.iter().map(|(_, fields)| plan(fields, &index)).collect();
    Plans { schema: form(SCHEMA, &index), index, all }
});

/// The index of a type's plan.
pub fn index_of(type_name: &str) -> Option<usize> {
    PLANS.index.get(type_name).copied()
}

/// The plan at an index that [`index_of`] or a [`Form::Message`] gave.
pub fn plan_at(index: usize) -> &'static Plan {
    &PLANS.all[index]
}

/// The form of a schema.
pub fn schema() -> &'static Form {
    &PLANS.schema
}

fn plan(facts: &'static [FieldFacts<'static>], index: &HashMap<&str, usize>) -> Plan {
    let tags = |fact: &FieldFacts<'_>| -> Option<Vec<u64>> {
        fact.tag.split('.').map(|tag| tag.parse().ok()).collect()
    };
    let mut known: Vec<_> = facts.iter().filter_map(|fact| Some((fact, tags(fact)?))).collect();
    known.sort_by_key(|(fact, _)| fact.name);
    let mut plan = Plan { fields: Vec::with_capacity(known.len()), nodes: Vec::new() };
    for (fact, tags) in known {
        let Some((tag, around)) = tags.split_last() else { continue };
        place(&mut plan.nodes, around, plan.fields.len());
        let form = form(fact.kind, index);
        let optional = fact.pointer || matches!(form, Form::Bytes);
        plan.fields.push(Field { name: fact.name, tag: *tag, form, optional, zero: OnceLock::new() });
    }
    sort(&mut plan.nodes, &plan.fields);
    plan
}

fn form(kind: &'static str, index: &HashMap<&str, usize>) -> Form {
    if let Some(item) = kind.strip_prefix("[]") {
        return Form::List(Box::new(form(item, index)));
    }
    if let Some(item) = kind.strip_prefix("{}") {
        return Form::Map(Box::new(form(item, index)));
    }
    match kind {
        "string" => Form::Text,
        "bool" => Form::Bool,
        "int32" | "int64" => Form::Whole,
        "float64" => Form::Double,
        "bytes" => Form::Bytes,
        "time" => Form::Time,
        "microtime" => Form::MicroTime,
        "quantity" => Form::Quantity,
        "intstr" => Form::IntOrString,
        "object" | "any" => Form::Raw,
        "schemaorlist" => Form::SchemaOrList,
        "schemaorbool" => Form::SchemaOrBool,
        "schemaorstrings" => Form::SchemaOrStrings,
        name => index.get(name).map_or(Form::Unknown, |plan| Form::Message(*plan)),
    }
}

/// Puts a field into the messages `around` it, outermost first.
fn place(nodes: &mut Vec<Node>, around: &[u64], field: usize) {
    let [tag, rest @ ..] = around else { return nodes.push(Node::Field(field)) };
    let known = nodes.iter_mut().find_map(|node| match node {
        Node::Inner(inner, fields) if inner == tag => Some(fields),
        _ => None,
    });
    if let Some(fields) = known {
        return place(fields, rest, field);
    }
    let mut fields = Vec::new();
    place(&mut fields, rest, field);
    nodes.push(Node::Inner(*tag, fields));
}

fn sort(nodes: &mut [Node], fields: &[Field]) {
    nodes.sort_by_key(|node| match node {
        Node::Field(field) => fields[*field].tag,
        Node::Inner(tag, _) => *tag,
    });
    for node in nodes {
        if let Node::Inner(_, inner) = node {
            sort(inner, fields);
        }
    }
}

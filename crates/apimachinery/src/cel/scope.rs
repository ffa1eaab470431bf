//! What the names in an expression stand for while it runs.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, OnceLock},
};

use ::cel::{
    ExecutionError, Value,
    common::{
        traits::Indexer,
        types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, Type},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use serde_json::Value as Json;

use super::{EvalError, Program, functions::failed};

/// The variables of an expression. Made once for a request, and used by all its expressions: nothing is copied when one
/// runs.
#[derive(Default)]
pub struct Scope<'v> {
    values: BTreeMap<&'static str, Box<dyn Val + 'v>>,
}

impl<'v> Scope<'v> {
    /// No variables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A variable from JSON, as it is: without a schema numbers are integers or doubles, everything is visible. Nothing
    /// is `null`.
    pub fn json(&mut self, name: &'static str, json: Option<&'v Json>) {
        self.values.insert(name, json.map_or_else(|| Box::new(CelNull) as _, of_json));
    }

    /// A variable with a value. What has no representation stays undeclared.
    pub fn set(&mut self, name: &'static str, value: Value) {
        if let Ok(value) = Box::<dyn Val>::try_from(value) {
            self.values.insert(name, value);
        }
    }

    /// Adds `variables`, whose fields are computed when they are first asked for and at most once. An expression sees
    /// the variables before its own.
    #[must_use]
    pub fn with_variables<'s>(&'s self, declared: &'s [(String, Arc<Program>)]) -> Composed<'s>
    where
        'v: 's,
    {
        let known = declared.iter().map(|_| OnceLock::new()).collect();
        Composed { fields: Fields { declared, base: self, known, below: declared.len() } }
    }
}

impl VariableResolver for Scope<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        self.values.get(variable).map(|value| CowVal::Borrowed(value.as_ref()))
    }
}

/// A scope with `variables`.
pub struct Composed<'s> {
    fields: Fields<'s>,
}

impl VariableResolver for Composed<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        match variable {
            "variables" => Some(CowVal::Borrowed(&self.fields)),
            other => self.fields.base.resolve(other),
        }
    }
}

type Known = Arc<[OnceLock<Result<Box<dyn Val>, String>>]>;

/// The value of `variables`.
#[derive(Clone)]
struct Fields<'s> {
    declared: &'s [(String, Arc<Program>)],
    base: &'s Scope<'s>,
    known: Known,
    /// How many of the declared variables can be seen: an expression sees those before it, so there are no cycles.
    below: usize,
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.declared[..self.below].iter().map(|(name, _)| name)).finish()
    }
}

static FIELDS: Type = Type::new_unspecified_type("kubernetes.variables");

impl Fields<'_> {
    fn compute(&self, at: usize) -> Result<Box<dyn Val>, String> {
        let (name, program) = &self.declared[at];
        let scope = Composed { fields: Fields { below: at, ..self.clone() } };
        program
            .resolve(&scope)
            .map_err(|error| super::words::of(&error))
            .and_then(|value| Box::<dyn Val>::try_from(value).map_err(|error| super::words::of(&error)))
            .map_err(|error| format!("composited variable {name:?} fails to evaluate: {error}"))
    }
}

impl Indexer for Fields<'_> {
    fn get<'b, 'w>(&'b self, field: &dyn Val) -> Result<CowVal<'b, 'w>, ExecutionError>
    where
        Self: 'w,
    {
        let name = field.downcast_ref::<CelString>().map_or("", |name| name.inner());
        let found = self.declared[..self.below].iter().position(|(declared, _)| declared == name);
        let Some(at) = found else { return Err(ExecutionError::no_such_key(name)) };
        match self.known[at].get_or_init(|| self.compute(at)) {
            Ok(value) => Ok(CowVal::Borrowed(value.as_ref())),
            Err(error) => failed("", error),
        }
    }

    fn steal<'w>(self: Box<Self>, field: &dyn Val) -> Result<Box<dyn Val + 'w>, ExecutionError>
    where
        Self: 'w,
    {
        self.get(field).map(CowVal::into_owned)
    }
}

impl Val for Fields<'_> {
    fn get_type(&self) -> &Type {
        &FIELDS
    }

    fn cel_type() -> &'static Type {
        &FIELDS
    }

    fn as_indexer<'b, 'w>(&'b self) -> Option<&'b (dyn Indexer + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn clone_as_boxed<'w>(&self) -> Box<dyn Val + 'w>
    where
        Self: 'w,
    {
        Box::new(self.clone())
    }
}

/// JSON as a value that borrows its texts.
fn of_json<'v>(json: &'v Json) -> Box<dyn Val + 'v> {
    match json {
        Json::Null => Box::new(CelNull),
        Json::Bool(flag) => Box::new(CelBool::from(*flag)),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Box::new(CelInt::from(whole)),
            None => Box::new(CelDouble::from(number.as_f64().unwrap_or_default())),
        },
        Json::String(text) => Box::new(CelString::from(text.as_str())),
        Json::Array(list) => Box::new(CelList::from(list.iter().map(of_json).collect::<Vec<_>>())),
        Json::Object(map) => {
            let fields = map.iter().map(|(name, value)| (CelMapKey::from(name.as_str()), of_json(value)));
            Box::new(CelMap::from(fields.collect::<HashMap<_, _>>()))
        }
    }
}

/// A result as JSON.
///
/// # Errors
/// What has no form in JSON: bytes, types, and Kubernetes' own types; a time and a duration are texts.
pub fn to_json(value: &Value) -> Result<Json, EvalError> {
    let unfit = |what: &str| Err(EvalError::Failed(format!("unsupported conversion of {what} to JSON")));
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::Bool(*flag),
        Value::Int(int) => Json::from(*int),
        Value::UInt(uint) => Json::from(*uint),
        Value::Float(double) => match serde_json::Number::from_f64(*double) {
            Some(number) => Json::Number(number),
            None => return unfit("a number that is not finite"),
        },
        Value::String(text) => Json::String(text.as_str().to_owned()),
        Value::Timestamp(time) => Json::String(time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
        Value::Duration(length) => Json::String(format!("{}s", length.num_milliseconds() as f64 / 1000.0)),
        Value::List(list) => Json::Array(list.iter().map(to_json).collect::<Result<_, _>>()?),
        Value::Map(map) => {
            let mut fields = serde_json::Map::new();
            for (key, value) in map.map.iter() {
                let super::Key::String(name) = key else { return unfit("a map whose keys are no strings") };
                fields.insert(name.as_str().to_owned(), to_json(value)?);
            }
            Json::Object(fields)
        }
        other => return unfit(&format!("{:?}", other.type_of())),
    })
}

//! CEL expressions with Kubernetes' functions, within a bound on work.
//!
//! An expression is compiled once ([`Program`]) and runs over a [`Scope`]. What can take long charges while it runs
//! (`cost.rs`); the source itself is bounded before it is parsed.

pub mod admission;
mod check;
mod cost;
mod declarations;
pub mod estimate;
mod functions;
mod macros;
mod patches;
mod scope;
mod types;
mod words;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

pub use ::cel::Value;
use ::cel::{
    Context, Env, ExecutionError, IdedExpr,
    common::ast::{EntryExpr, Expr},
    context::VariableResolver,
    objects::{Key, Map, OptionalValue},
};
use serde_json::Value as Json;

pub use self::{
    check::{Declared, check},
    functions::authorizer::{Answer, Authorize, Question, authorizer, request_resource},
    patches::{configuration, operations},
    scope::{Composed, Scope, to_json},
    types::{Fields, Known, Ty},
};
use crate::schema::{Schema, Type};

/// Steps that one run may take.
const CALL_BUDGET: u64 = 1_000_000;
/// Steps that all runs for one object may take together.
pub const OBJECT_BUDGET: u64 = 10_000_000;
/// Longer expressions are not compiled.
const MAX_SOURCE: usize = 16 << 10;
/// Deeper expressions are not compiled: the interpreter recurses as deep as they nest.
const MAX_LEVELS: usize = 200;
/// What nests no deeper runs on whatever stack there is.
const SHALLOW: usize = 24;
/// Stack that the deepest expression needs, and the stack made when less is left, in bytes.
const STACK: (usize, usize) = (8 << 20, 16 << 20);
/// Programs kept compiled; the store is emptied when it has grown to this many.
const MAX_PROGRAMS: usize = 4096;

/// Why an expression gave no value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// It took more steps than one run may.
    #[error("operation cancelled: actual cost limit exceeded")]
    Call,
    /// It took more steps than are left for all.
    #[error("running out of cost budget")]
    Budget,
    /// It failed, in cel-go's words.
    #[error("{0}")]
    Failed(String),
}

/// A compiled expression.
pub struct Program {
    source: ::cel::Program,
    /// What runs: the same with its charges.
    metered: IdedExpr,
    /// How deep it nests.
    levels: usize,
}

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(functions::environment()));
/// What became of each source.
type Compiled = HashMap<String, Result<Arc<Program>, String>>;
static PROGRAMS: LazyLock<Mutex<Compiled>> = LazyLock::new(Mutex::default);

impl Program {
    /// Compiles an expression. Types are not checked; that shows when it runs.
    ///
    /// # Errors
    /// The syntax errors, as text.
    pub fn compile(source: &str) -> Result<Self, String> {
        let source = parse(source)?;
        let mut metered = source.expression().clone();
        cost::meter(&mut metered);
        let levels = levels(&metered);
        Ok(Self { source, metered, levels })
    }

    /// The same, compiled once for all callers.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub fn cached(source: &str) -> Result<Arc<Self>, String> {
        let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = programs.get(source) {
            return found.clone();
        }
        if programs.len() >= MAX_PROGRAMS {
            programs.clear();
        }
        let compiled = Self::compile(source).map(Arc::new);
        programs.insert(source.to_owned(), compiled.clone());
        compiled
    }

    /// The expression as it was written, its macros expanded.
    pub(crate) fn expression(&self) -> &IdedExpr {
        self.source.expression()
    }

    /// Line and column of a part, both from 1, and the text of the line.
    pub(crate) fn place(&self, id: u64) -> (usize, usize, &str) {
        let info = self.source.source_info();
        let at = info.offset_for(id).map_or(0, |(start, _)| start as usize);
        let mut begin = 0;
        for (index, line) in info.source.split_inclusive('\n').enumerate() {
            let letters = line.chars().count();
            if at < begin + letters {
                return (index + 1, at - begin + 1, line.trim_end_matches('\n'));
            }
            begin += letters;
        }
        (1, 1, info.source.lines().next().unwrap_or_default())
    }

    /// Whether it reads a variable, such as `oldSelf`: the object before the change.
    #[must_use]
    pub fn uses(&self, variable: &str) -> bool {
        let mut open = vec![self.expression()];
        while let Some(expression) = open.pop() {
            if matches!(&expression.expr, Expr::Ident(name) if name == variable) {
                return true;
            }
            children(expression, |child, _| open.push(child));
        }
        false
    }

    /// Runs it over variables; takes what the run costs from `budget`.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn eval(&self, vars: &[(&'static str, Value)], budget: &mut u64) -> Result<Value, EvalError> {
        let mut scope = Scope::new();
        for (name, value) in vars {
            scope.set(name, value.clone());
        }
        self.run(&scope, budget)
    }

    /// Runs it over a [`Scope`] or [`Composed`] scope; takes what the run costs, that of the variables it asks for
    /// included, from `budget`.
    ///
    /// # Errors
    /// [`EvalError::Call`] and [`EvalError::Budget`] when it costs too much, else what went wrong.
    pub fn run(&self, scope: &dyn VariableResolver, budget: &mut u64) -> Result<Value, EvalError> {
        let limit = CALL_BUDGET.min(*budget);
        let (outcome, left) = cost::within(limit, || {
            cost::charge(1)?;
            self.resolve(scope)
        });
        let Some(left) = left else {
            *budget -= limit;
            return Err(if limit == CALL_BUDGET { EvalError::Call } else { EvalError::Budget });
        };
        *budget -= limit - left;
        outcome.map_err(|error| EvalError::Failed(words::of(&error)))
    }

    /// Runs it within the bound that is already there.
    fn resolve(&self, scope: &dyn VariableResolver) -> Result<Value, ExecutionError> {
        let mut context = Context::with_env(ENV.clone());
        context.set_variable_resolver(scope);
        if self.levels > SHALLOW {
            stacker::maybe_grow(STACK.0, STACK.1, || Value::resolve(&self.metered, &context))
        } else {
            Value::resolve(&self.metered, &context)
        }
    }
}

/// Reads a source that is neither too long nor too deep.
fn parse(source: &str) -> Result<::cel::Program, String> {
    if source.len() > MAX_SOURCE {
        return Err(format!("expression is longer than {MAX_SOURCE} bytes"));
    }
    if nesting(source) > 64 {
        return Err("expression is nested too deeply".to_owned());
    }
    let program = stacker::maybe_grow(STACK.0, STACK.1, || ENV.compile(source))
        .map_err(|errors| words::of_parsing(&errors, source))?;
    if levels(program.expression()) > MAX_LEVELS {
        return Err("expression is nested too deeply".to_owned());
    }
    Ok(program)
}

/// A bound on the parser's recursion: how deep brackets nest, and the longest row of signs and choices.
fn nesting(source: &str) -> usize {
    let (mut deep, mut deepest, mut row, mut longest) = (0usize, 0usize, 0usize, 0usize);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => deep += 1,
            b')' | b']' | b'}' => deep = deep.saturating_sub(1),
            _ => {}
        }
        match byte {
            b'!' | b'-' => row += 1,
            b' ' => {}
            _ => row = 0,
        }
        (deepest, longest) = (deepest.max(deep), longest.max(row));
    }
    // Chains (`a.b.c`, `a + b + c`) nest to the left. Each link is counted, wherever it stands.
    let links = source.bytes().filter(|b| b"+-*/%.&|?".contains(b)).count();
    deepest.max(longest).max(links / 8)
}

/// Levels of an expression; the interpreter recurses as deep.
fn levels(source: &IdedExpr) -> usize {
    let (mut deepest, mut open) = (0, vec![(source, 1)]);
    while let Some((expression, level)) = open.pop() {
        deepest = deepest.max(level);
        children(expression, |child, _| open.push((child, level + 1)));
    }
    deepest
}

/// Visits what an expression is made of; the flag says that it runs once an item.
fn children<'a>(expression: &'a IdedExpr, mut visit: impl FnMut(&'a IdedExpr, bool)) {
    match &expression.expr {
        Expr::Call(call) => {
            call.target.iter().for_each(|target| visit(target, false));
            call.args.iter().for_each(|arg| visit(arg, false));
        }
        Expr::Comprehension(all) => {
            visit(&all.iter_range, false);
            visit(&all.accu_init, false);
            visit(&all.loop_cond, true);
            visit(&all.loop_step, true);
            visit(&all.result, false);
        }
        Expr::List(list) => list.elements.iter().for_each(|item| visit(item, false)),
        Expr::Select(select) => visit(&select.operand, false),
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    visit(&entry.key, false);
                    visit(&entry.value, false);
                }
            }
        }
        Expr::Struct(made) => {
            for entry in &made.entries {
                if let EntryExpr::StructField(field) = &entry.expr {
                    visit(&field.value, false);
                }
            }
        }
        _ => {}
    }
}

/// An optional value, as `oldSelf` with `optionalOldSelf`.
#[must_use]
pub fn optional(value: Option<Value>) -> Value {
    Value::Opaque(Arc::new(value.map_or_else(OptionalValue::none, OptionalValue::of)))
}

/// A JSON value as CEL sees it through its schema: times are timestamps, numbers doubles, unknown fields invisible,
/// names escaped. `root`: it is a whole object, of whose metadata only the names are visible. Without a schema
/// everything is visible as it is.
#[must_use]
pub fn value(json: &Json, schema: Option<&Schema>, root: bool) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(whole) if schema.and_then(|s| s.kind) != Some(Type::Number) => Value::Int(whole),
            _ => Value::Float(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => string(text, schema.and_then(|s| s.format.as_deref())),
        Json::Array(list) => {
            let items = schema.and_then(|s| s.items.as_deref());
            Value::List(Arc::new(list.iter().map(|item| value(item, items, false)).collect()))
        }
        Json::Object(map) => {
            let whole = root || schema.is_some_and(|s| s.embedded_resource);
            let mut fields = HashMap::new();
            for (name, child) in map {
                let below = schema.and_then(|s| s.field(name)).map(AsRef::as_ref);
                let declared = schema.is_some_and(|s| s.properties.contains_key(name.as_str()));
                let seen = if whole && name == "metadata" {
                    let names = child.as_object().into_iter().flatten();
                    let names: serde_json::Map<String, Json> = names
                        .filter(|(k, _)| matches!(k.as_str(), "name" | "generateName"))
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect();
                    value(&Json::Object(names), None, false)
                } else if below.is_some()
                    || schema.is_none()
                    || whole && matches!(name.as_str(), "apiVersion" | "kind")
                {
                    value(child, below, false)
                } else {
                    continue;
                };
                let name = if declared { escape(name) } else { name.clone() };
                fields.insert(Key::String(Arc::new(name)), seen);
            }
            Value::Map(Map { map: Arc::new(fields) })
        }
    }
}

fn string(text: &str, format: Option<&str>) -> Value {
    match format {
        Some("date-time") => match chrono::DateTime::parse_from_rfc3339(text) {
            Ok(time) => Value::Timestamp(time),
            Err(_) => Value::String(Arc::new(text.to_owned())),
        },
        _ => Value::String(Arc::new(text.to_owned())),
    }
}

/// Words of the language that are no names.
pub const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A field name as an identifier: `a-b` is `a__dash__b`, `if` is `__if__`.
fn escape(name: &str) -> String {
    if RESERVED.contains(&name) || name == "__reserved__" {
        return format!("__{name}__");
    }
    if !name.contains(['-', '.', '/']) && !name.contains("__") {
        return name.to_owned();
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

/// The same, for a name that can be written in an expression at all.
fn escaped(name: &str) -> Option<String> {
    let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b));
    let begins = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    (fits && begins).then(|| escape(name))
}

#[cfg(test)]
mod tests;

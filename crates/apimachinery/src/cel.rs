//! CEL expressions with Kubernetes' extension functions, within a bound on work.
//!
//! The interpreter counts no costs, so the bound is taken before a run: the size of the expression times the longest
//! list or map that it may walk, to the power of the depth of its loops. A run that could pass the bound is refused.

pub mod estimate;
mod functions;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

pub use ::cel::Value;
use ::cel::{
    Context, Env,
    common::ast::{Expr, IdedExpr},
    objects::{Key, Map, OptionalValue},
};
use serde_json::Value as Json;

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
    /// It could take more steps than one run may.
    #[error("call cost exceeds limit")]
    Call,
    /// It could take more steps than are left.
    #[error("running out of cost budget")]
    Budget,
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

/// A compiled expression.
pub struct Program {
    program: ::cel::Program,
    /// How deep the expression nests.
    levels: usize,
    /// Nodes of the expression.
    size: u64,
    /// How deep loops are nested.
    depth: u32,
    /// A bound on the lists and maps written in the expression itself.
    literal: u64,
}

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(functions::environment()));
/// What became of each source.
type Compiled = HashMap<String, Result<Arc<Program>, String>>;
static PROGRAMS: LazyLock<Mutex<Compiled>> = LazyLock::new(Mutex::default);

impl Program {
    /// Compiles an expression. Types are not checked; that shows when it runs.
    ///
    /// # Errors
    /// The syntax error, as text.
    pub fn compile(source: &str) -> Result<Self, String> {
        if source.len() > MAX_SOURCE {
            return Err(format!("expression is longer than {MAX_SOURCE} bytes"));
        }
        if nesting(source) > 64 {
            return Err("expression is nested too deeply".to_owned());
        }
        let program = stacker::maybe_grow(STACK.0, STACK.1, || ENV.compile(source))
            .map_err(|error| error.to_string())?;
        let levels = levels(&program);
        if levels > MAX_LEVELS {
            return Err("expression is nested too deeply".to_owned());
        }
        let (mut size, mut depth) = (0, 0);
        let mut open = vec![(program.expression(), 0)];
        while let Some((expression, loops)) = open.pop() {
            (size, depth) = (size + 1, depth.max(loops));
            children(expression, |child, repeated| open.push((child, loops + u32::from(repeated))));
        }
        Ok(Self { program, levels, size, depth, literal: source.len() as u64 })
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

    /// The parsed expression.
    pub(crate) fn expression(&self) -> &IdedExpr {
        self.program.expression()
    }

    /// Line and column of a part, both from 1, and the text of the line.
    pub(crate) fn place(&self, id: u64) -> (usize, usize, &str) {
        let info = self.program.source_info();
        let at = info.offset_for(id).map_or(0, |(start, _)| start as usize);
        let mut begin = 0;
        for (index, line) in info.source.split_inclusive('\n').enumerate() {
            if at < begin + line.len() {
                return (index + 1, at - begin + 1, line.trim_end_matches('\n'));
            }
            begin += line.len();
        }
        (1, 1, info.source.lines().next().unwrap_or_default())
    }

    /// Whether it looks at the object before the change.
    #[must_use]
    pub fn uses(&self, variable: &str) -> bool {
        let mut open = vec![self.program.expression()];
        while let Some(expression) = open.pop() {
            if matches!(&expression.expr, Expr::Ident(name) if name == variable) {
                return true;
            }
            children(expression, |child, _| open.push(child));
        }
        false
    }

    /// Whether it goes over lists or maps.
    #[must_use]
    pub fn loops(&self) -> bool {
        self.depth > 0
    }

    /// Runs it over variables; takes what the run may cost from `budget`.
    ///
    /// # Errors
    /// [`EvalError::Call`] and [`EvalError::Budget`] when it may cost too much, else what went wrong.
    pub fn eval(&self, vars: &[(&str, Value)], budget: &mut u64) -> Result<Value, EvalError> {
        let longest =
            if self.depth == 0 { 1 } else { vars.iter().map(|(_, v)| longest(v)).max().unwrap_or(1) };
        let longest = if self.depth == 0 { 1 } else { longest.max(self.literal).max(1) };
        let cost = longest.saturating_pow(self.depth).saturating_mul(self.size.max(1));
        self.run(vars, cost, budget)
    }

    /// The same for a run of which it is known what it may `cost` at most.
    ///
    /// # Errors
    /// As [`Program::eval`].
    pub fn run(&self, vars: &[(&str, Value)], cost: u64, budget: &mut u64) -> Result<Value, EvalError> {
        if cost > CALL_BUDGET {
            return Err(EvalError::Call);
        }
        if cost > *budget {
            return Err(EvalError::Budget);
        }
        *budget -= cost;
        let mut context = Context::with_env(ENV.clone());
        functions::add(&mut context);
        for (name, value) in vars {
            context.add_variable_from_value(*name, value.clone());
        }
        let outcome = if self.levels > SHALLOW {
            stacker::maybe_grow(STACK.0, STACK.1, || self.program.execute(&context))
        } else {
            self.program.execute(&context)
        };
        outcome.map_err(|error| EvalError::Failed(error.to_string()))
    }
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
fn levels(source: &::cel::Program) -> usize {
    let (mut deepest, mut open) = (0, vec![(source.expression(), 1)]);
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
                if let ::cel::common::ast::EntryExpr::MapEntry(entry) = &entry.expr {
                    visit(&entry.key, false);
                    visit(&entry.value, false);
                }
            }
        }
        _ => {}
    }
}

/// The longest list or map inside.
fn longest(value: &Value) -> u64 {
    match value {
        Value::List(list) => list.iter().map(longest).max().unwrap_or(0).max(list.len() as u64),
        Value::Map(map) => map.map.values().map(longest).max().unwrap_or(0).max(map.map.len() as u64),
        _ => 1,
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

/// A field name as an identifier: `a-b` is `a__dash__b`, `if` is `__if__`.
fn escape(name: &str) -> String {
    const WORDS: [&str; 22] = [
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
        "__reserved__",
    ];
    if WORDS.contains(&name) {
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
mod tests {
    use serde_json::json;

    use super::*;

    fn run(source: &str, this: &Json) -> Result<Value, EvalError> {
        let program = Program::compile(source).map_err(EvalError::Failed)?;
        program.eval(&[("self", value(this, None, false))], &mut OBJECT_BUDGET.clone())
    }

    #[test]
    fn kubernetes_functions_are_there() {
        for source in [
            "self.a.all(x, x > 0)",
            "self.a.sum() == 6",
            "self.a.isSorted()",
            "self.a.max() == 3 && self.a.min() == 1",
            "self.s.find('[0-9]+') == '42'",
            "self.s.findAll('[a-z]').size() == 2",
            "quantity('1Gi').isGreaterThan(quantity('1G'))",
            "isQuantity('1Gi') && !isQuantity('x')",
            "quantity('1500m').compareTo(quantity('1.5')) == 0",
            "isIP('10.0.0.1') && ip('::1').family() == 6",
            "cidr('10.0.0.0/8').containsIP('10.1.2.3')",
            "isURL('https://a.b/c') && url('https://a.b:8/c').getHost() == 'a.b:8'",
            "sets.contains([1, 2], [1])",
            "'a,b'.split(',').size() == 2",
            "has(self.s) && !has(self.t)",
            "self.s.matches('^[a-z]+')",
        ] {
            assert_eq!(run(source, &json!({"a": [1, 2, 3], "s": "ab42"})), Ok(Value::Bool(true)), "{source}");
        }
    }

    #[test]
    fn loops_that_could_run_too_long_are_refused() {
        let long: Vec<i64> = (0..2000).collect();
        let source = "self.all(x, self.all(y, self.all(z, x + y + z >= 0)))";
        assert_eq!(run(source, &json!(long)), Err(EvalError::Call));
    }

    #[test]
    fn nested_and_broken_sources_are_errors() {
        assert!(Program::compile(&format!("{}1", "1+".repeat(8_000))).is_err());
        assert!(Program::compile(&format!("a{}", ".a".repeat(8_000))).is_err());
        assert_eq!(run(&format!("{}1 == 151", "1+".repeat(150)), &json!(0)), Ok(Value::Bool(true)));
        assert!(Program::compile(&"(".repeat(10_000)).is_err());
        assert!(Program::compile(&"!".repeat(10_000)).is_err());
        assert!(Program::compile("self.").is_err());
    }

    #[test]
    fn values_are_seen_through_their_schema() {
        let mut schema = Schema { kind: Some(Type::Object), ..Schema::default() };
        schema
            .properties
            .insert(Arc::from("a-b"), Arc::new(Schema { kind: Some(Type::Number), ..Schema::default() }));
        let seen = value(
            &json!({"a-b": 1, "hidden": 2, "metadata": {"name": "n", "labels": {}}}),
            Some(&schema),
            true,
        );
        let Value::Map(map) = seen else { panic!("an object is a map") };
        assert_eq!(map.map.len(), 2);
        assert_eq!(map.map[&Key::String(Arc::new("a__dash__b".to_owned()))], Value::Float(1.0));
    }
}

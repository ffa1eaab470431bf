//! Types of expressions, as far as they can be told, and what does not fit.
//!
//! Where a type is not known it is [`Ty::Dyn`], against which nothing is held: what is refused here is wrong for sure.

use std::{collections::HashMap, sync::Arc};

use ::cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators as op};

use super::{super::Program, Declared, calls, declared::Kind};

/// A CEL type.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Ty {
    /// Only known when it runs.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    /// A type as a value.
    Type,
    List(Box<Ty>),
    Map(Box<Ty>, Box<Ty>),
    Object(Arc<Declared>),
    Optional(Box<Ty>),
    /// One of Kubernetes' own, by its name: `net.IP`.
    Opaque(&'static str),
}

impl Ty {
    fn name(&self) -> String {
        match self {
            Self::Dyn => "dyn".to_owned(),
            Self::Null => "null".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Int => "int".to_owned(),
            Self::Uint => "uint".to_owned(),
            Self::Double => "double".to_owned(),
            Self::String => "string".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Duration => "google.protobuf.Duration".to_owned(),
            Self::Timestamp => "google.protobuf.Timestamp".to_owned(),
            Self::Type => "type".to_owned(),
            Self::List(items) => format!("list({})", items.name()),
            Self::Map(keys, values) => format!("map({}, {})", keys.name(), values.name()),
            Self::Object(_) => "object".to_owned(),
            Self::Optional(inner) => format!("optional_type({})", inner.name()),
            Self::Opaque(name) => (*name).to_owned(),
        }
    }

    /// Has one value without parts, so that its size is 1.
    pub fn is_scalar(&self) -> bool {
        match self {
            Self::Bool | Self::Double | Self::Duration | Self::Int | Self::Timestamp | Self::Uint => true,
            Self::Optional(inner) => inner.is_scalar(),
            _ => false,
        }
    }

    /// A type that is compared with its like only.
    fn is_definite(&self) -> bool {
        matches!(self, Self::Bool | Self::Int | Self::Uint | Self::Double | Self::String | Self::Bytes)
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }
}

/// The types of all parts of an expression, by their ids.
pub struct Types {
    found: HashMap<u64, Ty>,
    /// What does not fit.
    pub wrong: Vec<String>,
}

impl Types {
    /// Finds the types in a program.
    pub fn of(program: &Program, this: &Arc<Declared>, optional: bool) -> Self {
        let ty = this.as_type();
        let old = if optional { Ty::Optional(Box::new(ty.clone())) } else { ty.clone() };
        let mut walk = Walk {
            program,
            names: vec![("self".to_owned(), ty), ("oldSelf".to_owned(), old)],
            types: Self { found: HashMap::new(), wrong: Vec::new() },
        };
        walk.node(program.expression());
        walk.types
    }

    /// The type of a part.
    pub fn get(&self, expression: &IdedExpr) -> &Ty {
        self.found.get(&expression.id).unwrap_or(&Ty::Dyn)
    }

    /// The type of the whole.
    pub fn root(&self, expression: &IdedExpr) -> Ty {
        self.get(expression).clone()
    }
}

struct Walk<'p> {
    program: &'p Program,
    names: Vec<(String, Ty)>,
    types: Types,
}

/// Names of types, and of groups of functions.
const KNOWN: [&str; 27] = [
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "dyn",
    "google",
    "optional_type",
    "optional",
    "sets",
    "math",
    "strings",
    "lists",
    "cel",
    "format",
    "ip",
    "cidr",
    "quantity",
    "semver",
    "net",
    "kubernetes",
    "base64",
];

impl Walk<'_> {
    fn wrong(&mut self, at: &IdedExpr, words: &str) {
        let (line, column, snippet) = self.program.place(at.id);
        let dots = ".".repeat(column.saturating_sub(1));
        let text = format!("ERROR: <input>:{line}:{column}: {words}\n | {snippet}\n | {dots}^");
        if self.types.wrong.len() < 10 {
            self.types.wrong.push(text);
        }
    }

    fn node(&mut self, expression: &IdedExpr) -> Ty {
        let ty = match &expression.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Ty::Bool,
                LiteralValue::Bytes(_) => Ty::Bytes,
                LiteralValue::Double(_) => Ty::Double,
                LiteralValue::Int(_) => Ty::Int,
                LiteralValue::Null => Ty::Null,
                LiteralValue::String(_) => Ty::String,
                LiteralValue::UInt(_) => Ty::Uint,
            },
            Expr::Ident(name) => self.name(expression, name),
            Expr::Select(select) => self.select(expression, select),
            Expr::Call(call) => self.call(expression, call),
            Expr::List(list) => {
                let mut items: Vec<Ty> = list.elements.iter().map(|item| self.node(item)).collect();
                Ty::List(Box::new(joined(&mut items)))
            }
            Expr::Map(map) => {
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                for entry in &map.entries {
                    if let ::cel::common::ast::EntryExpr::MapEntry(entry) = &entry.expr {
                        keys.push(self.node(&entry.key));
                        values.push(self.node(&entry.value));
                    }
                }
                Ty::Map(Box::new(joined(&mut keys)), Box::new(joined(&mut values)))
            }
            Expr::Comprehension(all) => {
                let range = self.node(&all.iter_range);
                let accumulated = self.node(&all.accu_init);
                let depth = self.names.len();
                // What it collects shows in its step, below.
                let open = matches!(&all.accu_init.expr, Expr::List(l) if l.elements.is_empty())
                    || matches!(&all.accu_init.expr, Expr::Map(m) if m.entries.is_empty());
                let seen = if open { Ty::Dyn } else { accumulated };
                self.names.push((all.accu_var.clone(), seen.clone()));
                let (key, value) = match range {
                    Ty::List(items) => (Ty::Int, *items),
                    Ty::Map(keys, values) => (*keys, *values),
                    _ => (Ty::Dyn, Ty::Dyn),
                };
                match &all.iter_var2 {
                    Some(second) => {
                        self.names.push((all.iter_var.clone(), key));
                        self.names.push((second.clone(), value));
                    }
                    None => {
                        let is_map = matches!(self.types.get(&all.iter_range), Ty::Map(..));
                        self.names.push((all.iter_var.clone(), if is_map { key } else { value }));
                    }
                }
                self.node(&all.loop_cond);
                let step = self.node(&all.loop_step);
                self.names.truncate(depth);
                self.names.push((all.accu_var.clone(), if open { step } else { seen }));
                let result = self.node(&all.result);
                self.names.truncate(depth);
                result
            }
            Expr::Struct(_) | Expr::Unspecified => Ty::Dyn,
        };
        self.types.found.insert(expression.id, ty.clone());
        ty
    }

    fn known(&self, name: &str) -> Option<Ty> {
        self.names.iter().rev().find(|(known, _)| known == name).map(|(_, ty)| ty.clone())
    }

    fn name(&mut self, at: &IdedExpr, name: &str) -> Ty {
        match self.known(name) {
            Some(ty) => ty,
            None if KNOWN.contains(&name) => Ty::Type,
            None => {
                self.wrong(at, &format!("undeclared reference to '{name}' (in container '')"));
                Ty::Dyn
            }
        }
    }

    fn select(&mut self, at: &IdedExpr, select: &SelectExpr) -> Ty {
        let of = self.node(&select.operand);
        let found = self.field(at, &of, &select.field);
        if select.test { Ty::Bool } else { found }
    }

    fn field(&mut self, at: &IdedExpr, of: &Ty, name: &str) -> Ty {
        match of {
            Ty::Object(declared) => match declared.part(name) {
                Some(part) => part.as_type(),
                None => {
                    self.wrong(at, &format!("undefined field '{name}'"));
                    Ty::Dyn
                }
            },
            Ty::Map(_, values) => (**values).clone(),
            Ty::Optional(inner) => Ty::Optional(Box::new(self.field(at, inner, name))),
            other if other.is_definite() || matches!(other, Ty::List(_)) => {
                self.wrong(at, &format!("type '{}' does not support field selection", other.name()));
                Ty::Dyn
            }
            _ => Ty::Dyn,
        }
    }

    fn call(&mut self, at: &IdedExpr, call: &CallExpr) -> Ty {
        let target = match call.target.as_deref() {
            // `sets.contains(…)`: no value, but part of the function's name.
            Some(IdedExpr { expr: Expr::Ident(name), .. })
                if self.known(name).is_none() && KNOWN.contains(&name.as_str()) =>
            {
                None
            }
            Some(target) => Some(self.node(target)),
            None => None,
        };
        let args: Vec<Ty> = call.args.iter().map(|arg| self.node(arg)).collect();
        let (a, b) = (args.first().unwrap_or(&Ty::Dyn), args.get(1).unwrap_or(&Ty::Dyn));
        let fits = match call.func_name.as_str() {
            op::EQUALS | op::NOT_EQUALS => !(a.is_definite() && b.is_definite()) || a == b,
            op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS => {
                !(a.is_definite() && b.is_definite()) || a == b || a.is_number() && b.is_number()
            }
            op::ADD => !(a.is_definite() && b.is_definite()) || a == b && *a != Ty::Bool,
            op::SUBSTRACT | op::MULTIPLY | op::DIVIDE => {
                !(a.is_definite() && b.is_definite()) || a == b && a.is_number()
            }
            op::MODULO => !(a.is_definite() && b.is_definite()) || a == b && matches!(a, Ty::Int | Ty::Uint),
            op::LOGICAL_AND | op::LOGICAL_OR => [a, b].iter().all(|ty| !ty.is_definite() || **ty == Ty::Bool),
            op::LOGICAL_NOT | op::CONDITIONAL => !a.is_definite() || *a == Ty::Bool,
            _ => true,
        };
        if !fits {
            let names: Vec<String> = args.iter().map(Ty::name).collect();
            self.wrong(
                at,
                &format!(
                    "found no matching overload for '{}' applied to '({})'",
                    call.func_name,
                    names.join(", ")
                ),
            );
        }
        match call.func_name.as_str() {
            op::OPT_SELECT => {
                let name = match call.args.get(1).map(|arg| &arg.expr) {
                    Some(Expr::Literal(LiteralValue::String(name))) => name.inner().to_owned(),
                    _ => return Ty::Optional(Box::new(Ty::Dyn)),
                };
                match self.field(at, a, &name) {
                    already @ Ty::Optional(_) => already,
                    other => Ty::Optional(Box::new(other)),
                }
            }
            function => calls::result(function, target.as_ref(), &args),
        }
    }
}

/// The type that all of them have, if it is one.
fn joined(types: &mut Vec<Ty>) -> Ty {
    let first = types.pop();
    match first {
        Some(first) if types.iter().all(|other| *other == first) => first,
        _ => Ty::Dyn,
    }
}

/// The type of what is inside.
pub fn inner(ty: &Ty) -> Ty {
    match ty {
        Ty::List(items) => (**items).clone(),
        Ty::Map(_, values) => (**values).clone(),
        Ty::Optional(inner) => (**inner).clone(),
        Ty::Object(declared) => match &declared.ty {
            Kind::List(inner) | Kind::Map(inner) => inner.as_type(),
            _ => Ty::Dyn,
        },
        _ => Ty::Dyn,
    }
}

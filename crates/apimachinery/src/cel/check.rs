//! The check of types, as cel-go makes it before an expression may be used.

use std::{collections::BTreeMap, sync::Arc};

use ::cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, StructExpr, operators},
};

use super::{
    Program,
    declarations::{self, Overload},
    types::{Fields, Found, Known, Ty},
    words,
};

/// The names that an expression may use, each with its type.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    names: BTreeMap<String, Ty>,
    /// Whether `Object{…}` and `JSONPatch{…}` can be made.
    patches: bool,
}

impl Declared {
    /// Declares a name.
    #[must_use]
    pub fn with(mut self, name: &str, ty: Ty) -> Self {
        self.names.insert(name.to_owned(), ty);
        self
    }

    /// Lets `Object{…}` and `JSONPatch{…}` be made.
    #[must_use]
    pub fn with_patches(mut self) -> Self {
        self.patches = true;
        self
    }
}

/// The type of an expression; what was never learned is `dyn`.
///
/// # Errors
/// Everything that is wrong, in cel-go's words, each with its place and the line it is in.
pub fn check(source: &str, declared: &Declared) -> Result<Ty, String> {
    let program = Program::compile(source)?;
    let mut checker = Checker {
        declared,
        local: Vec::new(),
        program: &program,
        found: Found::default(),
        // The first numbers are those of the declarations.
        next: 3,
        issues: Vec::new(),
    };
    let ty = stacker::maybe_grow(super::STACK.0, super::STACK.1, || checker.check(program.expression()));
    let ty = checker.found.settle(&ty);
    if checker.issues.is_empty() {
        return Ok(ty);
    }
    checker.issues.sort_by_key(|(line, column, _)| (*line, *column));
    let shown =
        checker.issues.iter().map(|(line, column, message)| words::at(source, *line, *column, message));
    Err(shown.collect::<Vec<_>>().join("\n"))
}

struct Checker<'a> {
    declared: &'a Declared,
    /// The variables of the loops around.
    local: Vec<(String, Ty)>,
    program: &'a Program,
    found: Found,
    next: usize,
    /// Line, column, message.
    issues: Vec<(usize, usize, String)>,
}

impl Checker<'_> {
    fn issue(&mut self, at: &IdedExpr, message: String) {
        let (line, column, _) = self.program.place(at.id);
        self.issues.push((line, column, message));
    }

    fn fresh(&mut self) -> Ty {
        self.next += 1;
        Ty::Param(self.next)
    }

    fn lookup(&self, name: &str) -> Option<Ty> {
        let plain = name.strip_prefix('.').unwrap_or(name);
        let local = self.local.iter().rev().find(|(local, _)| local == name).map(|(_, ty)| ty);
        local.or_else(|| self.declared.names.get(plain)).cloned().or_else(|| declarations::type_named(plain))
    }

    fn check(&mut self, node: &IdedExpr) -> Ty {
        match &node.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Ty::BOOL,
                LiteralValue::Bytes(_) => Ty::Plain("bytes"),
                LiteralValue::Double(_) => Ty::Plain("double"),
                LiteralValue::Int(_) => Ty::INT,
                LiteralValue::Null => Ty::Null,
                LiteralValue::String(_) => Ty::STRING,
                LiteralValue::UInt(_) => Ty::Plain("uint"),
            },
            Expr::Ident(name) => match self.lookup(name) {
                Some(ty) => ty,
                None => self.undeclared(node, name),
            },
            Expr::Select(select) => {
                if !select.test
                    && let Some(name) = qualified(node)
                    && !self.local.iter().any(|(local, _)| name.split('.').next() == Some(local))
                    && let Some(ty) = self.lookup(&name)
                {
                    return ty;
                }
                let ty = self.field(node, &select.operand, &select.field, false);
                if select.test { Ty::BOOL } else { self.found.resolve(&ty) }
            }
            Expr::Call(call) => self.call(node, call),
            Expr::List(list) => {
                let mut items = None;
                for (at, element) in list.elements.iter().enumerate() {
                    let optional = list.optional_indices.contains(&at);
                    let ty = self.element(element, optional);
                    items = Some(self.join(element, items, ty));
                }
                let items = items.unwrap_or_else(|| self.fresh());
                Ty::list(items)
            }
            Expr::Map(map) => {
                let (mut keys, mut values) = (None, None);
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    let key = self.check(&entry.key);
                    keys = Some(self.join(&entry.key, keys, key));
                    let value = self.element(&entry.value, entry.optional);
                    values = Some(self.join(&entry.value, values, value));
                }
                let keys = keys.unwrap_or_else(|| self.fresh());
                let values = values.unwrap_or_else(|| self.fresh());
                Ty::Of("map", vec![keys, values])
            }
            Expr::Struct(made) => self.made(node, made),
            Expr::Comprehension(all) => self.comprehension(all),
            Expr::Unspecified => Ty::Error,
        }
    }

    fn undeclared(&mut self, node: &IdedExpr, name: &str) -> Ty {
        self.issue(node, format!("undeclared reference to '{name}' (in container '')"));
        Ty::Error
    }

    /// The type of an element; that of what an optional element holds.
    fn element(&mut self, element: &IdedExpr, optional: bool) -> Ty {
        let ty = self.check(element);
        if !optional {
            return ty;
        }
        match self.found.resolve(&ty) {
            Ty::Of("optional_type", mut parameters) => parameters.pop().unwrap_or(Ty::Dyn),
            open if open.is_open() => Ty::Dyn,
            other => {
                self.issue(element, format!("expected type 'optional_type({other})' but found '{other}'"));
                other
            }
        }
    }

    /// The type of all elements so far and one more, which have to be of one type.
    fn join(&mut self, at: &IdedExpr, before: Option<Ty>, next: Ty) -> Ty {
        let Some(before) = before else { return next };
        let (a, b) = (self.found.resolve(&before), self.found.resolve(&next));
        if self.found.all_fit(std::slice::from_ref(&b), std::slice::from_ref(&a)) {
            return self.found.join(&a, &b);
        }
        self.issue(at, format!("expected type '{a}' but found '{b}'"));
        a
    }

    fn field(&mut self, node: &IdedExpr, operand: &IdedExpr, field: &str, optional: bool) -> Ty {
        let ty = self.check(operand);
        let (ty, unwrapped) = match self.found.resolve(&ty) {
            Ty::Of("optional_type", mut parameters) => (parameters.pop().unwrap_or(Ty::Dyn), true),
            other => (other, false),
        };
        let result = match &ty {
            Ty::Of("map", parameters) => parameters.get(1).cloned().unwrap_or(Ty::Dyn),
            Ty::Object(fields) => match fields.get(field) {
                Some(ty) => ty,
                None => {
                    self.issue(node, format!("undefined field '{field}'"));
                    Ty::Error
                }
            },
            Ty::Param(_) => {
                self.found.all_fit(&[Ty::Dyn], std::slice::from_ref(&ty));
                Ty::Dyn
            }
            open if open.is_open() => Ty::Dyn,
            other => {
                self.issue(node, format!("type '{other}' does not support field selection"));
                Ty::Dyn
            }
        };
        if optional || unwrapped { Ty::Of("optional_type", vec![result]) } else { result }
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr) -> Ty {
        if call.func_name == operators::OPT_SELECT
            && let [operand, field] = call.args.as_slice()
            && let Expr::Literal(LiteralValue::String(field)) = &field.expr
        {
            let ty = self.field(node, operand, field.inner(), true);
            return self.found.resolve(&ty);
        }
        let given: Vec<Ty> = call.args.iter().map(|arg| self.check(arg)).collect();
        let name = call.func_name.as_str();
        let Some(target) = &call.target else {
            return match self.function(name) {
                Some(overloads) => self.overload(node, name, overloads, given, false),
                None => self.undeclared(node, name),
            };
        };
        if let Some(prefix) = qualified(target) {
            let name = format!("{prefix}.{name}");
            if let Some(overloads) = self.function(&name) {
                return self.overload(node, &name, overloads, given, false);
            }
        }
        let target = self.check(target);
        match self.function(name) {
            Some(overloads) => {
                let given = std::iter::once(target).chain(given).collect();
                self.overload(node, name, overloads, given, true)
            }
            None => self.undeclared(node, name),
        }
    }

    fn function(&self, name: &str) -> Option<&'static [Overload]> {
        declarations::find(name).filter(|_| self.declared.patches || !name.starts_with("jsonpatch."))
    }

    fn overload(
        &mut self,
        node: &IdedExpr,
        name: &str,
        overloads: &'static [Overload],
        given: Vec<Ty>,
        member: bool,
    ) -> Ty {
        let given: Vec<Ty> = given.iter().map(|ty| self.found.resolve(ty)).collect();
        let mut result: Option<Ty> = None;
        for overload in overloads.iter().filter(|o| o.member == member && o.given.len() == given.len()) {
            // Each use of an overload has open types of its own.
            let base = self.next + 1;
            self.next += 3;
            let wanted: Vec<Ty> = overload.given.iter().map(|ty| renumbered(ty, base)).collect();
            if !self.found.all_fit(&given, &wanted) {
                continue;
            }
            let ty = self.found.resolve(&renumbered(&overload.result, base));
            result = Some(match result {
                Some(before) if before != ty && !same(&before, &ty) => Ty::Dyn,
                Some(before) => before,
                None => ty,
            });
        }
        result.unwrap_or_else(|| {
            self.unmatched(node, name, &given, member);
            Ty::Error
        })
    }

    fn unmatched(&mut self, node: &IdedExpr, name: &str, given: &[Ty], member: bool) {
        // What the loops with two variables run over is wrapped in a function that nobody wrote.
        if name == "@pairs" {
            let over = given.first().map(ToString::to_string).unwrap_or_default();
            return self.issue(node, not_a_range(&over));
        }
        let shown: Vec<String> = given.iter().map(ToString::to_string).collect();
        let signature = match shown.split_first() {
            Some((receiver, rest)) if member => format!("{receiver}.({})", rest.join(", ")),
            _ => format!("({})", shown.join(", ")),
        };
        self.issue(node, format!("found no matching overload for '{name}' applied to '{signature}'"));
    }

    fn made(&mut self, node: &IdedExpr, made: &StructExpr) -> Ty {
        let name = made.type_name.trim_start_matches('.');
        let patch = name == "JSONPatch";
        if !self.declared.patches || !(patch || name == "Object" || name.starts_with("Object.")) {
            return self.undeclared(node, name);
        }
        for entry in &made.entries {
            let EntryExpr::StructField(field) = &entry.expr else { continue };
            let given = self.element(&field.value, field.optional);
            let given = self.found.resolve(&given);
            let wanted = match field.field.as_str() {
                "op" | "path" | "from" if patch => Ty::STRING,
                _ => Ty::Dyn,
            };
            if !self.found.all_fit(std::slice::from_ref(&given), std::slice::from_ref(&wanted)) {
                let name = &field.field;
                let message =
                    format!("expected type of field '{name}' is '{wanted}' but provided type is '{given}'");
                self.issue(&field.value, message);
            }
        }
        Ty::Object(Arc::new(Fields { name: name.to_owned(), known: Known::Any }))
    }

    fn comprehension(&mut self, all: &ComprehensionExpr) -> Ty {
        let range = self.check(&all.iter_range);
        let init = self.check(&all.accu_init);
        let item = match self.found.resolve(&range) {
            Ty::Of("list", mut parameters) => parameters.pop().unwrap_or(Ty::Dyn),
            Ty::Of("map", mut parameters) => parameters.swap_remove(0),
            open if open.is_open() => Ty::Dyn,
            Ty::Param(number) => {
                self.found.all_fit(&[Ty::Dyn], &[Ty::Param(number)]);
                Ty::Dyn
            }
            other => {
                self.issue(&all.iter_range, not_a_range(&other.to_string()));
                Ty::Error
            }
        };
        let outer = self.local.len();
        self.local.push((all.accu_var.clone(), init.clone()));
        self.local.push((all.iter_var.clone(), item));
        let condition = self.check(&all.loop_cond);
        self.expect(&all.loop_cond, &condition, &Ty::BOOL);
        let step = self.check(&all.loop_step);
        self.expect(&all.loop_step, &step, &init);
        self.local.truncate(outer + 1);
        let result = self.check(&all.result);
        self.local.truncate(outer);
        self.found.resolve(&result)
    }

    fn expect(&mut self, node: &IdedExpr, given: &Ty, wanted: &Ty) {
        if !self.found.all_fit(std::slice::from_ref(given), std::slice::from_ref(wanted)) {
            let (given, wanted) = (self.found.resolve(given), self.found.resolve(wanted));
            self.issue(node, format!("expected type '{wanted}' but found '{given}'"));
        }
    }
}

fn not_a_range(ty: &str) -> String {
    format!("expression of type '{ty}' cannot be range of a comprehension (must be list, map, or dynamic)")
}

/// Whether two types differ only in what is not known of them.
fn same(a: &Ty, b: &Ty) -> bool {
    match (a, b) {
        (Ty::Param(_), Ty::Param(_)) => true,
        (Ty::Of(a, mine), Ty::Of(b, others)) => {
            a == b && mine.len() == others.len() && mine.iter().zip(others).all(|(a, b)| same(a, b))
        }
        (a, b) => a == b,
    }
}

fn renumbered(ty: &Ty, base: usize) -> Ty {
    match ty {
        Ty::Param(number) => Ty::Param(base + number),
        Ty::Of(name, parameters) => Ty::Of(name, parameters.iter().map(|p| renumbered(p, base)).collect()),
        other => other.clone(),
    }
}

/// The name that an expression spells: `a.b.c`.
fn qualified(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            Some(format!("{}.{}", qualified(&select.operand)?, select.field))
        }
        _ => None,
    }
}

//! The functions that Kubernetes adds to CEL, a file a library.
//!
//! They are overloads of the environment: picked by the types of their arguments, declared once, not once a run.

mod addresses;
pub(super) mod authorizer;
mod format;
mod jsonpatch;
mod lists;
mod quantity;
mod regex;
mod semver;
mod sets;
mod urls;

use std::sync::Arc;

use ::cel::{
    Env, ExecutionError, Value,
    common::{
        functions::Function,
        types::{CelInt, CelString, Type},
        value::{CowVal, Val},
    },
    extensions,
    objects::Opaque,
};

use super::{cost, macros};

/// What a function is given; the receiver, if it has one, comes first.
type Given<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Outcome<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// The standard library with the extensions of CEL that Kubernetes turns on, and Kubernetes' own libraries.
pub(super) fn environment() -> Env {
    let mut env = Env::stdlib();
    // A clash of names would be one of this crate's releases with itself; the functions then stay absent.
    for extension in [extensions::strings, extensions::lists] {
        let _ = env.add_extension(extension);
    }
    env.set_error_on_duplicate_map_keys(false);
    let mut library = Library(env);
    for add in [
        addresses::add,
        authorizer::add,
        format::add,
        jsonpatch::add,
        lists::add,
        quantity::add,
        regex::add,
        semver::add,
        sets::add,
        urls::add,
        macros::add,
        cost::add,
    ] {
        add(&mut library);
    }
    library.0
}

/// An environment that is being filled.
pub(super) struct Library(pub(super) Env);

impl Library {
    /// A function that is called by its name.
    pub(super) fn global(&mut self, name: &str, given: &[&Type], run: Function) {
        let types = given.iter().map(|t| (*t).to_owned()).collect();
        let _ = self.0.add_overload(name, &id(name, given), types, run);
    }

    /// A function of a receiver.
    pub(super) fn member(&mut self, name: &str, receiver: &Type, given: &[&Type], run: Function) {
        let types = given.iter().map(|t| (*t).to_owned()).collect();
        let id = format!("{}.{}", receiver.name(), id(name, given));
        let _ = self.0.add_member_overload(name, &id, receiver.to_owned(), types, run);
    }
}

fn id(name: &str, given: &[&Type]) -> String {
    let types: Vec<&str> = given.iter().map(|t| t.name()).collect();
    format!("{name}({})", types.join(","))
}

pub(super) fn failed<T>(function: &str, message: impl std::fmt::Display) -> Result<T, ExecutionError> {
    Err(ExecutionError::FunctionError { function: function.to_owned(), message: message.to_string() })
}

/// A value as a result.
fn give<'b, 'v>(value: impl Into<Value>) -> Outcome<'b, 'v> {
    let value: Box<dyn Val> = value.into().try_into()?;
    Ok(CowVal::Owned(value))
}

/// A text as a result.
fn give_text<'b, 'v>(text: impl Into<String>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelString::from(text.into())))
}

/// A value of Kubernetes' own types as a result.
fn hold<'b, 'v, T: Opaque>(value: T) -> Outcome<'b, 'v> {
    give(Value::Opaque(Arc::new(value)))
}

fn absent<T>() -> Result<T, ExecutionError> {
    failed("", "no such overload")
}

fn text<'a>(given: &'a [CowVal<'_, '_>], at: usize) -> Result<&'a str, ExecutionError> {
    given.get(at).and_then(|v| v.downcast_ref::<CelString>()).map_or_else(absent, |text| Ok(text.inner()))
}

fn int(given: &[CowVal<'_, '_>], at: usize) -> Result<i64, ExecutionError> {
    given.get(at).and_then(|v| v.downcast_ref::<CelInt>()).map_or_else(absent, |int| Ok(*int.inner()))
}

/// The value of one of Kubernetes' own types.
fn held<T: Clone + 'static>(given: &[CowVal<'_, '_>], at: usize) -> Result<T, ExecutionError> {
    match given.get(at).map(|v| Value::try_from(v.as_ref())).transpose()? {
        Some(Value::Opaque(inner)) => inner.downcast_ref::<T>().cloned().map_or_else(absent, Ok),
        _ => absent(),
    }
}

/// The items of a list.
fn items<'a, 'v>(given: &'a [CowVal<'_, 'v>], at: usize) -> Result<Vec<&'a (dyn Val + 'v)>, ExecutionError> {
    let Some(list) = given.get(at).and_then(|v| v.as_iterable()) else { return absent() };
    let (mut iterator, mut items) = (list.iter(), Vec::new());
    while let Some(item) = iterator.next() {
        items.push(item);
    }
    Ok(items)
}

//! What every Kubernetes object obeys, whatever its kind: schemas, names, quantities, selectors, defaulting,
//! pruning, validation, patches, server-side apply and tables.
//!
//! Pure functions over [`serde_json::Value`]: no I/O, no clock, no async, and no knowledge of any kind. A built-in
//! kind and a CustomResourceDefinition are the same thing here: a [`schema::Schema`].
//!
//! Reading order: [`field`] (where an error is) → [`status`] (how it is told) → [`schema`] (what an object looks
//! like) → the rest.

pub mod apply;
pub mod cel;
pub mod columns;
pub mod decode;
pub mod defaults;
pub mod duration;
pub mod field;
pub mod go;
pub mod intstr;
mod json_syntax;
pub mod meta;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod structure;
pub mod time;
pub mod validate;

pub use field::{FieldError, FieldErrorKind, FieldErrors, FieldPath};
pub use schema::Schema;
pub use status::ApiError;

/// An object as it travels: any JSON value that has `metadata`.
pub type Object = serde_json::Value;

//! Every built-in kind, declared.
//!
//! A built-in kind is the same thing as a CustomResourceDefinition: a [`Resource`] with a schema, columns,
//! subresources and flags, plus a [`Strategy`] of a few functions where a kind truly behaves. What is mechanical comes
//! from the checked-in facts table (`cargo xtask facts`); the files of this crate, one per API group, add what a person
//! has to know. Pure: no I/O, no async, no clock.

pub mod resource;

pub use resource::{
    Behaviour, Column, DeletedObject, Generation, NameRule, Plain, Resource, ScalePaths, SelectableField, Strategy,
    Subresource,
};

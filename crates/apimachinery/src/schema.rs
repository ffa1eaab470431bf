//! The structural schema: what an object of a kind looks like, as data.
//!
//! The same type describes built-in kinds (from the facts table) and CustomResourceDefinitions (from
//! `openAPIV3Schema`). Decoding, pruning, defaulting, validation, strategic merge and server-side apply all read it;
//! none of them knows a kind.

mod below;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

pub use below::Surveyed;

/// The JSON type of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `object`: fixed [`Schema::properties`], or a map with [`Schema::additional`].
    Object,
    /// `array` of [`Schema::items`].
    Array,
    /// `string`
    String,
    /// `integer`: an `i64`, or `i32` when [`Schema::format`] is `int32`.
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
}

/// How a list is merged by server-side apply (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ListType {
    /// Replaced as a whole, owned by one manager.
    #[default]
    Atomic,
    /// Scalars that occur once.
    Set,
    /// Objects told apart by [`Schema::list_map_keys`].
    Map,
}

/// How strategic merge patch treats a list or map (`x-kubernetes-patch-strategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PatchStrategy {
    /// `merge`: list items are merged (by the merge key, or as a set of scalars).
    pub merge: bool,
    /// `retainKeys`: keys that the patch does not name are dropped.
    pub retain_keys: bool,
    /// `replace`: an object takes the place of the one that was there.
    pub replace: bool,
}

/// One node of a structural schema. `Schema::default()` is "any value, kept as it is told by `preserve_unknown`".
///
/// Recursion (only `JSONSchemaProps` inside CustomResourceDefinition has it) is cut with `preserve_unknown`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// Built-ins: the OpenAPI name of the type, `io.k8s.api.core.v1.Container`. Error texts of decoding name it, and
    /// published documents refer to it. `None`: a type written in place.
    pub name: Option<Arc<str>>,
    /// `None`: any type (int-or-string, embedded JSON).
    pub kind: Option<Type>,
    /// OpenAPI `format`: `int32`, `int64`, `date-time`, `micro-time`, `byte`, `quantity`, `int-or-string`, …
    /// Built-in quantities and times carry `quantity`, `date-time`, `micro-time`: they are made canonical.
    pub format: Option<Arc<str>>,
    /// `null` is a value of its own (CRDs only; in built-ins null means absent).
    pub nullable: bool,
    /// The value of an absent field.
    pub default: Option<Value>,
    /// The fields of an object, by JSON name.
    pub properties: BTreeMap<Arc<str>, Arc<Schema>>,
    /// The value schema of a map.
    pub additional: Option<Arc<Schema>>,
    /// The item schema of a list.
    pub items: Option<Arc<Schema>>,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`: a whole object with apiVersion, kind and metadata.
    pub embedded_resource: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-list-type`
    pub list_type: ListType,
    /// `x-kubernetes-list-map-keys`
    pub list_map_keys: Vec<Arc<str>>,
    /// `x-kubernetes-map-type: atomic`
    pub atomic_map: bool,
    /// `x-kubernetes-patch-strategy`
    pub patch_strategy: PatchStrategy,
    /// `x-kubernetes-patch-merge-key`
    pub patch_merge_key: Option<Arc<str>>,
    /// Field names of [`Schema::properties`] that have to be present.
    pub required: Vec<Arc<str>>,
    /// A built-in field that upstream always encodes, and with what when it is empty: `""`, `0`, `false`, `{}` or
    /// `null` (a Go field without `omitempty`). `None`: left out when absent.
    pub always: Option<Value>,
    /// A built-in field whose empty value (`""`, `0`, `false`, `[]`, an empty map) is the same as an absent one: a Go
    /// field with `omitempty` that is no pointer. `structure::canonicalize` drops it before defaults are applied.
    pub omit_empty: bool,
    /// Value validation; `None` when there is none.
    pub rules: Option<Box<Rules>>,
    /// Text for `kubectl explain` and OpenAPI.
    pub description: Option<Arc<str>>,
    /// Built-in fields: what published documents say beside all this, and nothing else reads.
    pub published: Option<Box<Published>>,
    /// Built-in fields: what errors of decoding call it, where that does not follow from the rest.
    pub go: Option<Box<GoField>>,
    /// What walks over objects have found out about this place.
    pub surveyed: Surveyed,
}

/// A field as Go's decoder knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GoField {
    /// `v1.RestartPolicy`, `[]v1.FinalizerName`
    pub kind: Option<Arc<str>>,
    /// The embedded structs that have the field, `VolumeSource`, outermost first and joined by dots.
    pub within: Option<Arc<str>>,
}

/// What OpenAPI v3 tells of a built-in field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// The field's default by its Go type or marker; what defaulting code sets is not told.
    pub default: Option<Value>,
    /// The known values of the field, or of what its list or map holds.
    pub values: Vec<Arc<str>>,
    /// Of a type: `x-kubernetes-unions`, as it is published.
    pub unions: Vec<Value>,
    /// `x-kubernetes-map-type: granular`, which is how maps are merged anyway; of a field with a named type it means that
    /// the type is atomic elsewhere.
    pub granular: bool,
    /// Nothing is said beside the reference to its type.
    pub bare: bool,
    /// `x-kubernetes-list-type: atomic`, of bytes, which are a list to Go.
    pub atomic_list: bool,
}

/// Value validation of one node: the JSON-schema keywords and the CEL rules of a structural schema.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// `enum`
    pub one_of_values: Vec<Value>,
    /// `pattern`, an RE2 expression, not anchored.
    pub pattern: Option<String>,
    /// `minLength`, in characters.
    pub min_length: Option<u64>,
    /// `maxLength`, in characters.
    pub max_length: Option<u64>,
    /// `minimum`
    pub minimum: Option<f64>,
    /// `exclusiveMinimum`
    pub exclusive_minimum: bool,
    /// `maximum`
    pub maximum: Option<f64>,
    /// `exclusiveMaximum`
    pub exclusive_maximum: bool,
    /// `multipleOf`
    pub multiple_of: Option<f64>,
    /// `minItems`
    pub min_items: Option<u64>,
    /// `maxItems`
    pub max_items: Option<u64>,
    /// `uniqueItems`
    pub unique_items: bool,
    /// `minProperties`
    pub min_properties: Option<u64>,
    /// `maxProperties`
    pub max_properties: Option<u64>,
    /// `allOf`
    pub all_of: Vec<Arc<Schema>>,
    /// `anyOf`
    pub any_of: Vec<Arc<Schema>>,
    /// `oneOf`
    pub one_of: Vec<Arc<Schema>>,
    /// `not`
    pub not: Option<Arc<Schema>>,
    /// `x-kubernetes-validations`, in order.
    pub cel: Vec<CelRule>,
}

/// One entry of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CelRule {
    /// The expression; true means valid. `self` is the node, `oldSelf` the same node before the update.
    pub rule: String,
    /// What to say when it is false.
    pub message: Option<String>,
    /// An expression that makes the message.
    pub message_expression: Option<String>,
    /// `FieldValueInvalid` (default), `FieldValueForbidden`, `FieldValueRequired`, `FieldValueDuplicate`.
    pub reason: Option<String>,
    /// A path below the node to report instead of the node.
    pub field_path: Option<String>,
    /// `oldSelf` is an optional value and the rule also runs on create.
    pub optional_old_self: bool,
}

impl Schema {
    /// Any value at all, kept as it is.
    #[must_use]
    pub fn any() -> Self {
        Self { preserve_unknown: true, ..Self::default() }
    }

    /// The schema of the field `name`: its property, else the map's value schema.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Arc<Schema>> {
        self.properties.get(name).or(self.additional.as_ref())
    }

    /// Says nothing about its value, not even that it is not null.
    #[must_use]
    pub fn preserve_any(&self) -> bool {
        self.preserve_unknown && self.kind.is_none()
    }

    /// A map from strings to values, not a struct.
    #[must_use]
    pub fn is_map(&self) -> bool {
        self.kind == Some(Type::Object) && self.properties.is_empty() && self.additional.is_some()
    }
}

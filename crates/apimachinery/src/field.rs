//! Field paths and field errors, worded as Kubernetes words them.
//!
//! Source of the wording: `k8s.io/apimachinery/pkg/util/validation/field`.

use std::{fmt, ops::Deref};

use serde_json::Value;

use crate::go;

/// The place of a value inside an object: `spec.containers[0].ports[name=http]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldPath(String);

impl FieldPath {
    /// The path of the object itself; it prints as `<nil>` when nothing is added to it.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// `self.name`
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { self.with(&[".", name]) }
    }

    /// `self[index]`
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(&["[", &index.to_string(), "]"])
    }

    /// `self[key]`, for maps.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(&["[", key, "]"])
    }

    /// The same with more behind it. Validation makes many paths that nobody prints: one allocation, no formatting.
    fn with(&self, parts: &[&str]) -> Self {
        let mut path =
            String::with_capacity(self.0.len() + parts.iter().map(|part| part.len()).sum::<usize>());
        path.push_str(&self.0);
        parts.iter().for_each(|part| path.push_str(part));
        Self(path)
    }

    /// The path as text; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for FieldPath {
    fn from(path: &str) -> Self {
        Self(path.to_owned())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// The steps of a dotted path. Names are short: a plain loop finds their end sooner than a search of the whole text.
pub fn steps(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let text = rest?;
        let dot = text.bytes().position(|byte| byte == b'.');
        let (step, behind) = match dot {
            Some(dot) => (&text[..dot], Some(&text[dot + 1..])),
            None => (text, None),
        };
        rest = behind;
        Some(step)
    })
}

/// What is wrong with a field. Each is one `reason` of a `StatusCause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FieldErrorKind {
    /// A reference to something that does not exist.
    NotFound,
    /// A value that has to be given is missing.
    Required,
    /// A value that has to be unique is there twice.
    Duplicate,
    /// A malformed value.
    Invalid,
    /// A value outside a known set.
    NotSupported,
    /// A well-formed value that is not allowed here and now.
    Forbidden,
    /// A string or list over its limit (length in bytes).
    TooLong,
    /// A list with more items than its limit.
    TooMany,
    /// A value of another type than the field's.
    TypeInvalid,
    /// A failure that is not the user's.
    Internal,
}

impl FieldErrorKind {
    /// The `reason` of the cause.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One thing wrong with one field. [`fmt::Display`] gives upstream's text, `spec.x: Invalid value: 3: why`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// Where.
    pub field: FieldPath,
    /// The offending value; `None` where upstream prints none (Required, Forbidden, TooLong, TooMany, Internal).
    pub value: Option<Value>,
    /// Why, in words; may be empty.
    pub detail: String,
}

impl FieldError {
    /// A missing value.
    #[must_use]
    pub fn required(field: &FieldPath, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Required, field: field.clone(), value: None, detail: detail.into() }
    }

    /// A malformed value.
    #[must_use]
    pub fn invalid(field: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self {
            kind: FieldErrorKind::Invalid,
            field: field.clone(),
            value: Some(value.into()),
            detail: detail.into(),
        }
    }

    /// A value of the wrong type.
    #[must_use]
    pub fn type_invalid(field: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::TypeInvalid, ..Self::invalid(field, value, detail) }
    }

    /// A value that occurs twice.
    #[must_use]
    pub fn duplicate(field: &FieldPath, value: impl Into<Value>) -> Self {
        Self { kind: FieldErrorKind::Duplicate, ..Self::invalid(field, value, "") }
    }

    /// A reference to nothing.
    #[must_use]
    pub fn not_found(field: &FieldPath, value: impl Into<Value>) -> Self {
        Self { kind: FieldErrorKind::NotFound, ..Self::invalid(field, value, "") }
    }

    /// A value that is not allowed.
    #[must_use]
    pub fn forbidden(field: &FieldPath, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Forbidden, ..Self::required(field, detail) }
    }

    /// A value outside `supported`, which is named in the given order.
    #[must_use]
    pub fn not_supported(field: &FieldPath, value: impl Into<Value>, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        Self { kind: FieldErrorKind::NotSupported, ..Self::invalid(field, value, detail) }
    }

    /// A string longer than `max` bytes.
    #[must_use]
    pub fn too_long(field: &FieldPath, max: usize) -> Self {
        Self {
            kind: FieldErrorKind::TooLong,
            ..Self::required(field, format!("may not be more than {max} bytes"))
        }
    }

    /// A string of more than `max` characters.
    #[must_use]
    pub fn too_long_characters(field: &FieldPath, max: usize) -> Self {
        Self {
            kind: FieldErrorKind::TooLong,
            ..Self::required(field, format!("may not be more than {max} characters"))
        }
    }

    /// A list of `actual` items where `max` are allowed.
    #[must_use]
    pub fn too_many(field: &FieldPath, actual: usize, max: usize) -> Self {
        Self {
            kind: FieldErrorKind::TooMany,
            value: Some(actual.into()),
            ..Self::required(field, format!("must have at most {max} items"))
        }
    }

    /// That there is more to tell.
    pub(crate) fn untold() -> Self {
        let kind = FieldErrorKind::TooMany;
        Self { kind, ..Self::required(&FieldPath::root(), "there are more errors than are listed here") }
    }

    /// About as many bytes as the error takes in an answer.
    fn size(&self) -> usize {
        self.field.as_str().len() + self.detail.len() + self.value.as_ref().map_or(0, printed_size)
    }

    /// The message without the field's name, as a `StatusCause` carries it.
    #[must_use]
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if let Some(value) = &self.value {
            text.push_str(": ");
            text.push_str(&print_value(value));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

/// Strings in quotes, null as `null`, the rest as JSON.
fn print_value(value: &Value) -> String {
    match value {
        Value::String(text) => go::quoted(text),
        other => other.to_string(),
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// What is wrong with one object, as far as it is worth telling: who sends a body full of faults learns of those found
/// first, so that neither the answer nor the memory for it grows with the body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldErrors {
    found: Vec<FieldError>,
    size: usize,
    full: bool,
}

impl FieldErrors {
    /// So many errors are told.
    pub const MOST: usize = 1_000;
    /// No other error is told after so many bytes of them. The last may be as large as the object.
    pub const LARGEST: usize = 1 << 20;

    /// Notes an error, unless there are already more than can be told.
    pub fn push(&mut self, error: FieldError) {
        if self.full {
            return;
        }
        // The first one too many is kept: by it is known that there are more.
        self.full = self.found.len() >= Self::MOST || self.size >= Self::LARGEST;
        self.size += error.size();
        self.found.push(error);
    }

    /// No other error will be told: there is no need to look for more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// The errors, with at most one more than are told.
    #[must_use]
    pub fn into_vec(self) -> Vec<FieldError> {
        self.found
    }

    /// Those that are told, and whether there are more.
    pub(crate) fn told(&self) -> (&[FieldError], bool) {
        (&self.found[..self.found.len() - usize::from(self.full)], self.full)
    }
}

impl Deref for FieldErrors {
    type Target = [FieldError];

    fn deref(&self) -> &[FieldError] {
        &self.found
    }
}

impl Extend<FieldError> for FieldErrors {
    fn extend<I: IntoIterator<Item = FieldError>>(&mut self, errors: I) {
        for error in errors {
            if self.full {
                return;
            }
            self.push(error);
        }
    }
}

impl FromIterator<FieldError> for FieldErrors {
    fn from_iter<I: IntoIterator<Item = FieldError>>(errors: I) -> Self {
        let mut found = Self::default();
        found.extend(errors);
        found
    }
}

/// About as many bytes as the value has when it is printed.
fn printed_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 4,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| printed_size(item) + 1).sum::<usize>() + 2,
        Value::Object(map) => {
            map.iter().map(|(key, value)| key.len() + printed_size(value) + 4).sum::<usize>() + 2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_errors_without_number_the_first_ones_are_kept_and_one_more() {
        let path = FieldPath::root().child("a");
        let errors: FieldErrors = (0..5_000).map(|n| FieldError::duplicate(&path.index(n), n)).collect();
        let (told, more) = errors.told();
        assert_eq!((told.len(), more), (FieldErrors::MOST, true));
        assert_eq!(told[999].field.as_str(), "a[999]");
        assert_eq!(errors.len(), FieldErrors::MOST + 1);
        let few: FieldErrors = (0..1_000).map(|n| FieldError::duplicate(&path.index(n), n)).collect();
        assert_eq!((few.told().0.len(), few.is_full()), (1_000, false));
    }

    #[test]
    fn errors_that_show_large_values_are_few() {
        let path = FieldPath::root().child("a");
        let large = Value::Array(vec!["x".repeat(100).into(); 3_000]);
        let errors: FieldErrors = (0..100).map(|_| FieldError::duplicate(&path, large.clone())).collect();
        assert_eq!((errors.told().0.len(), errors.is_full()), (4, true));
    }
}

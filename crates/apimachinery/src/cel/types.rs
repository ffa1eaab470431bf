//! Types of expressions, and how one passes for another. The names are those of cel-go's messages.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::schema::{Schema, Type as Kind};

/// The type of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Ty {
    /// Anything.
    Dyn,
    /// What is wrong already; passes for anything, so that one mistake is told once.
    Error,
    /// `null`
    Null,
    /// `bool`, `int`, `uint`, `double`, `string`, `bytes`, `timestamp`, `duration`
    Plain(&'static str),
    /// A type constructor with its parameters: `list(A)`, `map(A, B)`, `type(A)`, `optional_type(A)`; the pairs that loops
    /// with two variables run over.
    Of(&'static str, Vec<Ty>),
    /// A type of Kubernetes without fields: `net.IP`.
    Named(Arc<str>),
    /// An object with fields.
    Object(Arc<Fields>),
    /// A type that is not known yet, numbered.
    Param(usize),
}

/// The fields of an object.
#[derive(Debug, PartialEq)]
pub struct Fields {
    /// The name in messages.
    pub name: String,
    /// What is known about them.
    pub known: Known,
}

/// What is known about fields.
#[derive(Debug, PartialEq)]
pub enum Known {
    /// These there are.
    These(BTreeMap<String, Ty>),
    /// Those of a schema, named as CEL names them.
    Schema(Arc<Schema>),
    /// Any name is a field of any type.
    Any,
}

impl Fields {
    /// The type of a field.
    pub(super) fn get(&self, field: &str) -> Option<Ty> {
        match &self.known {
            Known::These(fields) => fields.get(field).cloned(),
            Known::Any => Some(Ty::Dyn),
            Known::Schema(schema) => {
                let found = schema.properties.iter().find(|(name, _)| super::escape(name) == field);
                found.map(|(name, below)| Ty::of_schema(below, &format!("{}.{name}", self.name)))
            }
        }
    }
}

impl Ty {
    pub(super) const BOOL: Self = Self::Plain("bool");
    pub(super) const INT: Self = Self::Plain("int");
    pub(super) const STRING: Self = Self::Plain("string");

    /// `list(A)`
    #[must_use]
    pub fn list(of: Self) -> Self {
        Self::Of("list", vec![of])
    }

    /// `map(string, A)`
    #[must_use]
    pub fn map(of: Self) -> Self {
        Self::Of("map", vec![Self::STRING, of])
    }

    /// An object with these fields.
    #[must_use]
    pub fn object(name: &str, fields: impl IntoIterator<Item = (String, Self)>) -> Self {
        let known = Known::These(fields.into_iter().collect());
        Self::Object(Arc::new(Fields { name: name.to_owned(), known }))
    }

    /// The type of a whole object of a kind. Of what its schema leaves out, type and metadata are there.
    #[must_use]
    pub fn of_kind(schema: &Arc<Schema>, name: &str) -> Self {
        let mut fields: BTreeMap<String, Self> = schema
            .properties
            .iter()
            .map(|(field, below)| (super::escape(field), Self::of_schema(below, &format!("{name}.{field}"))))
            .collect();
        for field in ["apiVersion", "kind"] {
            fields.insert(field.to_owned(), Self::STRING);
        }
        fields.entry("metadata".to_owned()).or_insert(Self::Dyn);
        Self::object(name, fields)
    }

    /// The type of what a schema describes; `name` is what an object is called. What may be of several types is `dyn`.
    #[must_use]
    pub fn of_schema(schema: &Arc<Schema>, name: &str) -> Self {
        if schema.int_or_string || schema.preserve_unknown && schema.properties.is_empty() {
            return Self::Dyn;
        }
        match schema.kind {
            Some(Kind::Boolean) => Self::BOOL,
            Some(Kind::Integer) => Self::INT,
            Some(Kind::Number) => Self::Plain("double"),
            Some(Kind::String) => match schema.format.as_deref() {
                Some("date-time" | "date") => Self::Plain("timestamp"),
                Some("duration") => Self::Plain("duration"),
                Some("byte") => Self::Plain("bytes"),
                _ => Self::STRING,
            },
            Some(Kind::Array) => match &schema.items {
                Some(items) => Self::list(Self::of_schema(items, &format!("{name}.@idx"))),
                None => Self::Dyn,
            },
            Some(Kind::Object) => match &schema.additional {
                Some(values) => Self::map(Self::of_schema(values, &format!("{name}.@elem"))),
                None if schema.properties.is_empty() => Self::Dyn,
                None => {
                    let known = Known::Schema(schema.clone());
                    Self::Object(Arc::new(Fields { name: name.to_owned(), known }))
                }
            },
            _ => Self::Dyn,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    fn parameters(&self) -> &[Self] {
        match self {
            Self::Of(_, parameters) => parameters,
            _ => &[],
        }
    }

    /// Whether it says no more than the other.
    fn is_as_general_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn | Self::Param(_), _) => true,
            (_, Self::Dyn | Self::Param(_)) => false,
            (Self::Of("type", _), Self::Of("type", _)) => true,
            (Self::Of(a, mine), Self::Of(b, others)) => {
                a == b
                    && mine.len() == others.len()
                    && mine.iter().zip(others).all(|(a, b)| a.is_as_general_as(b))
            }
            (a, b) => a == b,
        }
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Plain(name) => f.write_str(name),
            Self::Of(name, parameters) => {
                let shown: Vec<String> = parameters.iter().map(ToString::to_string).collect();
                if shown.is_empty() { f.write_str(name) } else { write!(f, "{name}({})", shown.join(", ")) }
            }
            Self::Named(name) => f.write_str(name),
            Self::Object(fields) => f.write_str(&fields.name),
            Self::Param(number) => write!(f, "_var{number}"),
        }
    }
}

/// What the numbered types have turned out to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Found(BTreeMap<usize, Ty>);

impl Found {
    /// Whether each value may stand where the type beside it is wanted. Nothing is learned unless all may.
    pub(super) fn all_fit(&mut self, values: &[Ty], wanted: &[Ty]) -> bool {
        let mut tried = self.clone();
        let fit = values.len() == wanted.len() && values.iter().zip(wanted).all(|(v, w)| tried.fits(v, w));
        if fit {
            *self = tried;
        }
        fit
    }

    /// The type with everything put in that was found.
    pub(super) fn resolve(&self, ty: &Ty) -> Ty {
        match ty {
            Ty::Param(number) => self.0.get(number).map_or_else(|| ty.clone(), |found| self.resolve(found)),
            Ty::Of(name, parameters) => {
                Ty::Of(name, parameters.iter().map(|parameter| self.resolve(parameter)).collect())
            }
            other => other.clone(),
        }
    }

    /// The same, with `dyn` for what was never found.
    pub(super) fn settle(&self, ty: &Ty) -> Ty {
        match self.resolve(ty) {
            Ty::Param(_) => Ty::Dyn,
            Ty::Of(name, parameters) => Ty::Of(name, parameters.iter().map(|p| self.settle(p)).collect()),
            other => other,
        }
    }

    fn fits(&mut self, value: &Ty, wanted: &Ty) -> bool {
        if let Ty::Param(number) = wanted {
            let (valid, known) = self.learn(value, *number);
            if valid || known {
                return valid;
            }
        }
        if let Ty::Param(number) = value {
            return self.learn(wanted, *number).0;
        }
        match (value, wanted) {
            (a, b) if a.is_open() || b.is_open() => true,
            (Ty::Null, other) | (other, Ty::Null) => {
                matches!(other, Ty::Null | Ty::Named(_) | Ty::Object(_) | Ty::Of("optional_type", _))
                    || matches!(other, Ty::Plain("timestamp" | "duration"))
            }
            (Ty::Of("type", _), Ty::Of("type", _)) => true,
            (Ty::Of(a, mine), Ty::Of(b, others)) => {
                a == b && mine.len() == others.len() && mine.iter().zip(others).all(|(m, o)| self.fits(m, o))
            }
            (Ty::Object(a), Ty::Object(b)) => Arc::ptr_eq(a, b) || a.name == b.name,
            (a, b) => a == b,
        }
    }

    /// Whether a numbered type may be this one, and whether something was known about it before.
    fn learn(&mut self, ty: &Ty, number: usize) -> (bool, bool) {
        if *ty == Ty::Param(number) {
            return (true, true);
        }
        if let Some(before) = self.0.get(&number).cloned() {
            if *ty == before {
                return (true, true);
            }
            if !self.fits(ty, &before) {
                return (false, true);
            }
            let general = if ty.is_as_general_as(&before) { ty.clone() } else { before };
            if !self.mentions(&general, number) {
                self.0.insert(number, general);
            }
            return (true, true);
        }
        if self.mentions(ty, number) {
            return (false, false);
        }
        self.0.insert(number, ty.clone());
        (true, false)
    }

    fn mentions(&self, ty: &Ty, number: usize) -> bool {
        match ty {
            Ty::Param(other) if *other == number => true,
            Ty::Param(other) => self.0.get(other).is_some_and(|found| self.mentions(found, number)),
            other => other.parameters().iter().any(|parameter| self.mentions(parameter, number)),
        }
    }

    /// The more general of two types that fit.
    pub(super) fn join(&self, a: &Ty, b: &Ty) -> Ty {
        if a.is_as_general_as(b) { a.clone() } else { b.clone() }
    }
}

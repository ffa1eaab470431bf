//! Label selectors and field selectors: parsed, matched, printed.
//!
//! Source of grammar and wording: `k8s.io/apimachinery/pkg/{labels,fields}`.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use crate::{
    field::{FieldError, FieldPath},
    names,
};

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `key=value`
    Equals,
    /// `key==value`
    DoubleEquals,
    /// `key!=value`; also true when the key is absent.
    NotEquals,
    /// `key in (a,b)`
    In,
    /// `key notin (a,b)`; also true when the key is absent.
    NotIn,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>5`
    GreaterThan,
    /// `key<5`
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// What it is compared with; sorted when parsed from text.
    pub values: Vec<String>,
}

fn joined(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn bad_key(path: &FieldPath, key: &str) -> Option<FieldError> {
    let errors = names::is_qualified_name(key);
    (!errors.is_empty()).then(|| FieldError::invalid(path, key, errors.join("; ")))
}

impl Requirement {
    /// A checked requirement.
    ///
    /// # Errors
    /// Upstream's text for a bad key, bad values or the wrong number of values.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, String> {
        use Operator::{
            DoesNotExist, DoubleEquals, Equals, Exists, GreaterThan, In, LessThan, NotEquals, NotIn,
        };
        let (key_path, values_path) = (FieldPath::from("key"), FieldPath::from("values"));
        let mut errors: Vec<FieldError> = bad_key(&key_path, key).into_iter().collect();
        let words = match operator {
            In | NotIn if values.is_empty() => "for 'in', 'notin' operators, values set can't be empty",
            Equals | DoubleEquals | NotEquals if values.len() != 1 => {
                "exact-match compatibility requires one single value"
            }
            Exists | DoesNotExist if !values.is_empty() => {
                "values set must be empty for exists and does not exist"
            }
            GreaterThan | LessThan if values.len() != 1 => {
                "for 'Gt', 'Lt' operators, exactly one value is required"
            }
            _ => "",
        };
        if !words.is_empty() {
            errors.push(FieldError::invalid(&values_path, values.clone(), words));
        }
        for (index, value) in values.iter().enumerate() {
            let path = values_path.index(index);
            if matches!(operator, GreaterThan | LessThan) && value.parse::<i64>().is_err() {
                let words = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(&path, value.as_str(), words));
            }
        }
        for (index, value) in values.iter().enumerate() {
            let found = names::is_label_value(value);
            if !found.is_empty() {
                let path = values_path.index(index).key(key);
                errors.push(FieldError::invalid(&path, value.as_str(), found.join("; ")));
            }
        }
        if errors.is_empty() {
            Ok(Self { key: key.to_owned(), operator, values })
        } else {
            Err(joined(&errors))
        }
    }

    fn has(&self, value: &str) -> bool {
        self.values.iter().any(|v| v == value)
    }

    /// Whether a label's value (`None`: no such label) satisfies it.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        use Operator::{
            DoesNotExist, DoubleEquals, Equals, Exists, GreaterThan, In, LessThan, NotEquals, NotIn,
        };
        let number = || Some((value?.parse::<i64>().ok()?, self.values.first()?.parse::<i64>().ok()?));
        match self.operator {
            In | Equals | DoubleEquals => value.is_some_and(|v| self.has(v)),
            NotIn | NotEquals => value.is_none_or(|v| !self.has(v)),
            Exists => value.is_some(),
            DoesNotExist => value.is_none(),
            GreaterThan => number().is_some_and(|(a, b)| a > b),
            LessThan => number().is_some_and(|(a, b)| a < b),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values = self.values.clone();
        values.sort();
        let values = values.join(",");
        match self.operator {
            Operator::Equals => write!(f, "{}={values}", self.key),
            Operator::DoubleEquals => write!(f, "{}=={values}", self.key),
            Operator::NotEquals => write!(f, "{}!={values}", self.key),
            Operator::In => write!(f, "{} in ({values})", self.key),
            Operator::NotIn => write!(f, "{} notin ({values})", self.key),
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::GreaterThan => write!(f, "{}>{values}", self.key),
            Operator::LessThan => write!(f, "{}<{values}", self.key),
        }
    }
}

/// All of its requirements have to hold; without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Matches every object.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Reads `a=b,c in (d,e),!f`. Requirements are sorted by key.
    ///
    /// # Errors
    /// Upstream's text, `unable to parse requirement: …` or `found '…', expected: …`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Parser { tokens: scan(text), at: 0 }.selector()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Reads `{matchLabels, matchExpressions}`. As upstream: null selects nothing, `{}` everything.
    ///
    /// # Errors
    /// Upstream's text for an unknown operator, a bad key or bad values.
    pub fn from_object(object: &Value) -> Result<Self, String> {
        if object.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        for (key, value) in object["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in object["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.map(|v| v.as_str().unwrap_or_default().to_owned()).collect();
            requirements.push(Requirement::new(
                expression["key"].as_str().unwrap_or_default(),
                operator,
                values,
            )?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a plain map of labels (Service, ReplicationController); an empty map or null selects everything.
    #[must_use]
    pub fn from_map(map: &Value) -> Self {
        let requirements = map.as_object().into_iter().flatten().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        });
        Self { requirements: requirements.collect(), nothing: false }
    }

    /// Whether labels, looked up with `label`, match.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }

    /// Whether an object's `metadata.labels` match.
    #[must_use]
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|m| m.get("labels"));
        self.matches(|key| labels?.get(key)?.as_str())
    }

    /// The conditions, sorted by key.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// It is true of everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.requirements.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Token {
    Error,
    End,
    Close,
    Comma,
    Not,
    Open,
    In,
    NotIn,
    Compare(Operator),
    Word,
}

/// Cuts a selector into tokens with their texts; the last one is [`Token::End`].
fn scan(text: &str) -> Vec<(Token, String)> {
    // Upstream's lexer stops at a zero byte.
    let text = text.split('\0').next().unwrap_or_default();
    let special = |c: char| "=!(),><".contains(c);
    let blank = |c: char| " \t\r\n".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(blank);
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, String::new()));
            return tokens;
        };
        let (token, length) = if special(first) {
            match (first, rest.as_bytes().get(1)) {
                ('=', Some(b'=')) => (Token::Compare(Operator::DoubleEquals), 2),
                ('=', _) => (Token::Compare(Operator::Equals), 1),
                ('!', Some(b'=')) => (Token::Compare(Operator::NotEquals), 2),
                ('!', _) => (Token::Not, 1),
                ('>', _) => (Token::Compare(Operator::GreaterThan), 1),
                ('<', _) => (Token::Compare(Operator::LessThan), 1),
                ('(', _) => (Token::Open, 1),
                (')', _) => (Token::Close, 1),
                (',', _) => (Token::Comma, 1),
                _ => (Token::Error, 1),
            }
        } else {
            let length = rest.find(|c| special(c) || blank(c)).unwrap_or(rest.len());
            let token = match &rest[..length] {
                "in" => Token::In,
                "notin" => Token::NotIn,
                _ => Token::Word,
            };
            (token, length)
        };
        tokens.push((token, rest[..length].to_owned()));
        rest = &rest[length..];
    }
}

struct Parser {
    tokens: Vec<(Token, String)>,
    at: usize,
}

impl Parser {
    /// The next token, where `in` and `notin` are words.
    fn look(&self) -> (Token, &str) {
        let (token, text) = &self.tokens[self.at.min(self.tokens.len() - 1)];
        let word = matches!(token, Token::In | Token::NotIn);
        (if word { Token::Word } else { *token }, text)
    }

    fn take(&mut self) -> (Token, String) {
        let (token, text) = self.look();
        let taken = (token, text.to_owned());
        self.at += 1;
        taken
    }

    fn selector(mut self) -> Result<Vec<Requirement>, String> {
        let mut found = Vec::new();
        loop {
            match self.look() {
                (Token::Word | Token::Not, _) => {
                    found.push(self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?);
                    match self.take() {
                        (Token::End, _) => return Ok(found),
                        (Token::Comma, _) => {
                            let (next, text) = self.look();
                            if !matches!(next, Token::Word | Token::Not) {
                                return Err(format!("found '{text}', expected: identifier after ','"));
                            }
                        }
                        (_, text) => {
                            return Err(format!("found '{text}', expected: ',' or 'end of string'"));
                        }
                    }
                }
                (Token::End, _) => return Ok(found),
                (_, text) => {
                    return Err(format!("found '{text}', expected: !, identifier, or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.take();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.take();
        }
        if token != Token::Word {
            return Err(format!("found '{key}', expected: identifier"));
        }
        if let Some(error) = bad_key(&FieldPath::root(), &key) {
            return Err(error.to_string());
        }
        if negated {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.look().0, Token::End | Token::Comma) {
            return Requirement::new(&key, Operator::Exists, Vec::new());
        }
        let operator = match &self.tokens[self.at] {
            (Token::In, _) => Operator::In,
            (Token::NotIn, _) => Operator::NotIn,
            (Token::Compare(operator), _) => *operator,
            (_, text) => return Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        self.at += 1;
        let values = match operator {
            Operator::In | Operator::NotIn => self.list()?,
            _ => self.single()?,
        };
        Requirement::new(&key, operator, values.into_iter().collect())
    }

    fn single(&mut self) -> Result<BTreeSet<String>, String> {
        if matches!(self.look().0, Token::End | Token::Comma) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.take() {
            (Token::Word, text) => Ok(BTreeSet::from([text])),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }

    fn list(&mut self) -> Result<BTreeSet<String>, String> {
        let (token, text) = self.take();
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        match self.look() {
            (Token::Close, _) => {
                self.at += 1;
                return Ok(BTreeSet::from([String::new()]));
            }
            (Token::Word | Token::Comma, _) => {}
            (_, text) => return Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
        let mut values = BTreeSet::new();
        loop {
            match self.take() {
                (Token::Word, text) => {
                    values.insert(text);
                    match self.look() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => break,
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    // An empty item: `(,a)`, `(a,,b)`, `(a,)`.
                    let next = self.look().0;
                    if values.is_empty() || matches!(next, Token::Comma | Token::Close) {
                        values.insert(String::new());
                    }
                    if next == Token::Close {
                        break;
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
        self.at += 1;
        Ok(values)
    }
}

/// One condition of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// `spec.nodeName`
    pub field: String,
    /// True for `=` and `==`, false for `!=`.
    pub equal: bool,
    /// The value, unescaped.
    pub value: String,
}

/// All of its terms have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The conditions, in the order of their texts.
    pub terms: Vec<FieldTerm>,
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let shown = other.map_or_else(|| "\\".to_owned(), |c| format!("\\{c}"));
                    return Err(format!("invalid field selector: invalid escape sequence: {shown}"));
                }
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                ));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

impl FieldSelector {
    /// Reads `metadata.name=x,status.phase!=Running`; a backslash escapes `,`, `=` and itself.
    ///
    /// # Errors
    /// Upstream's text, `invalid selector: …` or `invalid field selector: …`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let (mut start, mut escaped) = (0, false);
        for (at, c) in text.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                ',' => {
                    parts.push(&text[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&text[start..]);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            let found = part.char_indices().find_map(|(at, _)| {
                let rest = &part[at..];
                ["!=", "==", "="].iter().find(|op| rest.starts_with(**op)).map(|op| (at, *op))
            });
            let Some((at, operator)) = found else {
                return Err(format!("invalid selector: '{text}'; can't understand '{part}'"));
            };
            terms.push(FieldTerm {
                field: part[..at].to_owned(),
                equal: operator != "!=",
                value: unescape(&part[at + operator.len()..])?,
            });
        }
        Ok(Self { terms })
    }

    /// Whether the fields, looked up with `field` (empty when absent), match.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> &'a str) -> bool {
        self.terms.iter().all(|t| (field(&t.field) == t.value) == t.equal)
    }

    /// The value that `field` must have, if some term says so.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    /// It is true of everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn error(text: &str) -> String {
        LabelSelector::parse(text).expect_err("must be refused")
    }

    #[test]
    fn a_selector_is_parsed_and_printed() {
        for (text, printed) in [
            ("", ""),
            ("a=b", "a=b"),
            ("x in (b, a),!y , z", "x in (a,b),!y,z"),
            ("a==b,c!=d", "a==b,c!=d"),
            ("a>1,b<2", "a>1,b<2"),
            ("a=", "a="),
            ("a in (,b)", "a in (,b)"),
            ("a notin ()", "a notin ()"),
            ("in in (in,notin)", "in in (in,notin)"),
            ("b,a", "a,b"),
        ] {
            assert_eq!(LabelSelector::parse(text).expect(text).to_string(), printed);
        }
    }

    #[test]
    fn a_bad_selector_is_told_in_upstreams_words() {
        assert_eq!(error("a=b=c"), "found '=', expected: ',' or 'end of string'");
        assert_eq!(error("a,"), "found '', expected: identifier after ','");
        assert_eq!(error("=a"), "found '=', expected: !, identifier, or 'end of string'");
        assert_eq!(
            error("a b"),
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
        );
        assert_eq!(error("a in b"), "unable to parse requirement: found 'b' expected: '('");
        assert_eq!(error("a in (b"), "unable to parse requirement: found '', expected: ',' or ')'");
        assert!(error("-a").starts_with(
            "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of"
        ));
        assert!(error("a=-").starts_with(
            "unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be"
        ));
    }

    #[test]
    fn operators_match_as_documented() {
        let selects = |text: &str, labels: Value| {
            LabelSelector::parse(text).expect(text).matches_object(&json!({"metadata": {"labels": labels}}))
        };
        assert!(selects("a in (1,2)", json!({"a": "2"})));
        assert!(!selects("a in (1,2)", json!({})));
        assert!(selects("a!=1", json!({})));
        assert!(selects("a notin (1)", json!({"a": "2"})));
        assert!(selects("!a", json!({"b": ""})));
        assert!(selects("a>5", json!({"a": "6"})));
        assert!(!selects("a>5", json!({"a": "x"})));
    }

    #[test]
    fn the_object_form_selects_nothing_when_null_and_everything_when_empty() {
        assert!(LabelSelector::from_object(&json!({})).expect("valid").matches(|_| None));
        assert!(!LabelSelector::from_object(&Value::Null).expect("valid").matches(|_| None));
        let selector =
            json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]});
        assert_eq!(LabelSelector::from_object(&selector).expect("valid").to_string(), "a=b,c");
        let unknown = json!({"matchExpressions": [{"key": "c", "operator": "Near"}]});
        assert_eq!(
            LabelSelector::from_object(&unknown),
            Err("\"Near\" is not a valid label selector operator".to_owned())
        );
    }

    #[test]
    fn field_selectors_are_split_and_unescaped() {
        let selector = FieldSelector::parse(r"status.phase!=Running,metadata.name=a\,b\=c").expect("valid");
        assert_eq!(selector.exact("metadata.name"), Some("a,b=c"));
        assert!(!selector.terms[1].equal);
        assert_eq!(
            FieldSelector::parse("abc"),
            Err("invalid selector: 'abc'; can't understand 'abc'".to_owned())
        );
        assert!(FieldSelector::parse("a=b=c").is_err());
        assert!(FieldSelector::parse("a=b\\").is_err());
    }

    proptest! {
        #[test]
        fn printing_and_parsing_a_selector_keeps_it(text in "[a-c]{1,2}( in \\([a-c,]{1,6}\\)|=[a-c]?|!=[a-c]|)(,![d-f])?") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                let again = LabelSelector::parse(&selector.to_string());
                prop_assert_eq!(again.as_ref(), Ok(&selector));
            }
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "[a-c=!<>(),\\\\ é\0]{0,30}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }
    }
}

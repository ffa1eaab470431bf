//! What expressions are estimated to cost, and what is wrong with their types, against cases that upstream tests.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::openapi::from_json_schema;

/// What is known of a rule at the root of a schema with these fields.
fn known(fields: Value, rule: &str) -> Known {
    let json = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}});
    let schema = from_json_schema(&json).unwrap();
    let spec = Arc::clone(&schema.properties["spec"]);
    let declared = Declared::of(&spec, false).unwrap();
    look(&Program::compile(rule).unwrap(), &declared, false)
}

/// A value's schema; `most` bounds what can be bounded.
fn plain(kind: &str, most: Option<u64>) -> Value {
    let mut schema = match kind {
        "int-or-string" => json!({"x-kubernetes-int-or-string": true}),
        "duration" | "date" | "date-time" | "byte" => json!({"type": "string", "format": kind}),
        kind => json!({"type": kind}),
    };
    let key = match kind {
        "array" => "maxItems",
        "object" => "maxProperties",
        _ => "maxLength",
    };
    if let Some(most) = most {
        schema[key] = most.into();
    }
    schema
}

fn list(items: Value, most: Option<u64>) -> Value {
    let mut schema = plain("array", most);
    schema["items"] = items;
    schema
}

fn map(values: Value, most: Option<u64>) -> Value {
    let mut schema = plain("object", most);
    schema["additionalProperties"] = values;
    schema
}

fn pair() -> Value {
    json!({"type": "object", "required": ["required"], "properties": {"required": {"type": "string"}, "optional": {"type": "string"}}})
}

#[test]
fn costs_are_those_of_upstreams_own_tests() {
    // TestCostEstimation of k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel: the cost without bounds, and with.
    type Made = fn(Option<u64>) -> Value;
    let numbers: Made = |m| list(plain("number", None), m);
    let strings: Made = |m| list(plain("string", None), m);
    let text: Made = |m| plain("string", m);
    let all = "self.all(x, true)";
    let cases: [(Made, &str, u64, u64, u64); 43] = [
        (numbers, all, 4_718_591, 10, 32),
        (strings, all, 3_145_727, 20, 62),
        (|m| list(plain("boolean", None), m), all, 1_887_437, 5, 17),
        (|m| list(list(plain("number", None), None), m), all, 3_145_727, 100, 302),
        (|m| map(plain("number", None), m), all, 1_348_169, 10, 32),
        (|m| map(plain("string", None), m), all, 1_179_647, 3, 11),
        (|m| map(plain("boolean", None), m), all, 943_718, 100, 302),
        (text, "self.contains('test')", 314_574, 10, 5),
        (text, "self.startsWith('test')", 2, 15, 2),
        (text, "self.endsWith('test')", 2, 30, 2),
        (text, "size(self + \"hello\") > size(\"hello\")", 314_578, 4, 7),
        (numbers, "self[1] == 0.0", 2, 5000, 2),
        (strings, "self[1] == self[1]", 314_577, 8, 314_577),
        (numbers, "self.all(x, self.all(y, true))", u64::MAX, 10, 352),
        (numbers, "self.all(x, self.all(y, self.all(z, true)))", u64::MAX, 10, 3552),
        (text, "self.matches(\"x\")", 314_574, 50, 22),
        (text, "\"\".matches(\"(((((((((())))))))))[0-9]\")", 7, 10, 7),
        (text, "self.matches(\"\")", 1, 100, 1),
        (|m| map(plain("string", m), m), "self.all(x, x.contains(self[x]))", 2_752_507, 10, 72),
        (numbers, "self[3] == 0.0", 2, 0, 2),
        (|m| map(plain("number", None), m), "self[\"x\"] == 0.0", 2, 0, 2),
        (text, "self == \"x\"", 2, 0, 1),
        (|m| plain("byte", m), "self == b\"x\"", 2, 0, 1),
        (numbers, "self.all(x, x == 0.0)", 6_291_454, 3 * 1024 * 2048, 25_165_826),
        (|m| list(map(pair(), m), m), "self.all(x, x[\"y\"].required == \"z\")", 7_340_027, 10, 72),
        (|m| list(map(pair(), m), None), "self.all(x, x[\"y\"].required == \"z\")", 7_340_027, 10, 7_340_027),
        (|m| list(plain("int-or-string", None), m), all, 4_718_591, 10, 32),
        (|m| list(plain("int-or-string", None), m), "self[0] == 5", 3, 10, 3),
        (|m| list(plain("boolean", None), m), "self[0] == false", 2, 25, 2),
        (|m| list(list(plain("number", None), None), m), "self[0][0] == -1.0", 3, 51, 3),
        (|m| list(map(plain("number", None), None), m), "self.all(x, x.y == 25.2)", 6_291_452, 12, 74),
        (|m| list(map(plain("number", None), None), m), "self[0].x > 2.0", 4, 3000, 4),
        (|m| list(plain("duration", None), m), all, 2_359_295, 5, 17),
        (|m| list(plain("duration", None), m), "self[0].getHours() == 2", 4, 525, 4),
        (|m| list(plain("date", None), m), all, 725_936, 15, 47),
        (|m| list(plain("date-time", None), m), "self[2].getMinutes() == 45", 4, 99, 4),
        (|m| map(plain("int-or-string", None), m), all, 1_348_169, 15, 47),
        (|m| map(pair(), m), all, 428_963, 20, 62),
        (|m| map(map(plain("number", None), None), m), all, 1_179_647, 10, 32),
        (|m| map(plain("date-time", None), m), all, 349_526, 25, 77),
        (text, "self.find('[0-9]+') == ''", 629_147, 10, 11),
        (|m| list(plain("string", m), m), "self.join(' ') == 'aa bb'", 329_853_068_905, 10, 43),
        (|m| list(plain("string", m), m), "self.isSorted() == true", 329_854_432_052, 10, 52),
    ];
    for (made, rule, without, most, with) in cases {
        for (bound, wanted) in [(None, without), (Some(most), with)] {
            let json = json!({"type": "object", "properties": {"v": made(bound)}});
            let schema = from_json_schema(&json).unwrap();
            let declared = Declared::of(&schema.properties["v"], false).unwrap();
            let known = look(&Program::compile(rule).unwrap(), &declared, false);
            assert_eq!(known.wrong, [""; 0], "{rule}");
            if wanted == u64::MAX {
                assert!(known.cost > RULE_LIMIT, "{rule}: {}", known.cost);
            } else {
                assert_eq!(known.cost, wanted, "{rule} within {bound:?} of {json}");
            }
        }
    }
}

#[test]
fn a_result_is_as_large_as_what_it_is_made_of() {
    let fields = |most: Option<u64>| json!({"str": plain("string", most), "before": plain("string", Some(2)), "after": plain("string", Some(4))});
    let rule = "self.str.replace(self.before, self.after) == 'does not matter'";
    assert_eq!(known(fields(None), rule).cost, 629_154);
    assert_eq!(known(fields(Some(4)), rule).cost, 12);
}

#[test]
fn what_does_not_fit_the_schema_is_told_as_cel_go_tells_it() {
    let fields = || json!({"x": {"type": "integer"}, "s": {"type": "string"}, "p": {"x-kubernetes-int-or-string": true}});
    for (rule, words) in [
        ("self.z == 100", "undefined field 'z'"),
        ("self.x > 's'", "found no matching overload for '_>_' applied to '(int, string)'"),
        ("self.s + self.x == 's'", "found no matching overload for '_+_' applied to '(string, int)'"),
        ("nothing == 1", "undeclared reference to 'nothing' (in container '')"),
        ("self.x.y == 1", "type 'int' does not support field selection"),
    ] {
        let found = known(fields(), rule).wrong;
        assert!(found.len() == 1 && found[0].contains(words), "{rule}: {found:?}");
    }
    let found = known(fields(), "self.z == 100").wrong;
    assert_eq!(found[0], "ERROR: <input>:1:5: undefined field 'z'\n | self.z == 100\n | ....^");
    for rule in [
        "self.x + 1 > 2 && self.s.startsWith('a')",
        "type(self.p) == int ? self.p < 5 : self.p.matches('[0-9]+')",
        "has(self.x) || !has(self.s)",
        "[1, 2].exists(y, y == self.x)",
        "[self.s].map(t, t + 'x').join(',') != ''",
        "self.x > 1.5",
        "sets.contains([1], [self.x])",
        "self == oldSelf",
    ] {
        assert_eq!(known(fields(), rule).wrong, [""; 0], "{rule}");
    }
}

#[test]
fn the_factor_is_told_as_upstream_rounds_it() {
    let words = |cost: u64| too_expensive("estimated rule cost", cost, RULE_LIMIT);
    assert!(words(12_345_678).starts_with("estimated rule cost exceeds budget by factor of 1.234568x (try"));
    assert!(words(25_000_000).contains("factor of 2.5x "));
    assert!(words(u64::MAX).contains("factor of more than 100x "));
}

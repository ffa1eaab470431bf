//! The facts as text; `crates/kinds/src/facts/` reads it and its documentation describes the form.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::upstream::{GoField, GoTypes, Published, list, text};

/// OpenAPI's prefixes and how the table spells them.
const PREFIXES: [(&str, &str); 4] = [
    ("io.k8s.apimachinery.pkg.apis.meta.", "meta."),
    ("io.k8s.apiextensions-apiserver.pkg.apis.", ""),
    ("io.k8s.kube-aggregator.pkg.apis.", ""),
    ("io.k8s.api.", ""),
];

fn short(name: &str) -> String {
    for (long, prefix) in PREFIXES {
        if let Some(rest) = name.strip_prefix(long) {
            return format!("{prefix}{rest}");
        }
    }
    name.to_owned()
}

/// The table.
pub fn write(published: &Published, go: &GoTypes) -> Result<String> {
    let mut out = String::new();
    writeln!(out, "# Written by `cargo xtask facts`; the form is described in crates/kinds/src/facts.rs.")?;
    writeln!(out, "version {}", published.version)?;
    // Which struct a kind is, from the schema's own declaration.
    let mut by_kind: BTreeMap<(String, String, String), String> = BTreeMap::new();
    for (name, schema) in &published.schemas {
        for gvk in list(&schema["x-kubernetes-group-version-kind"]) {
            let key = |field: &str| text(&gvk[field]).to_owned();
            by_kind.insert((key("group"), key("version"), key("kind")), short(name));
        }
    }
    for group in &published.groups {
        let group_name = text(&group["metadata"]["name"]);
        for version in list(&group["versions"]) {
            for resource in list(&version["resources"]) {
                write_resource(
                    &mut out,
                    published,
                    &by_kind,
                    group_name,
                    text(&version["version"]),
                    resource,
                )?;
            }
        }
    }
    // Published schemas, the options of connect subresources (which are published as parameters only), discovery's
    // documents, and all that these name.
    let others = go.keys().filter(|name| {
        let options = name.starts_with("io.k8s.api.core.v1.") && name.ends_with("Options");
        options || name.starts_with("io.k8s.apimachinery.pkg.apis.meta.v1.API")
    });
    let mut open: Vec<&str> = published.schemas.keys().chain(others).map(String::as_str).collect();
    let mut wanted: BTreeSet<&str> = BTreeSet::new();
    while let Some(name) = open.pop() {
        if let Some((name, Some(fields))) = go.get_key_value(name)
            && wanted.insert(name)
        {
            open.extend(fields.iter().map(|field| base(&field.kind)));
        }
    }
    for name in wanted {
        let Some(fields) = &go[name] else { continue };
        write_type(&mut out, name, published.schemas.get(name).unwrap_or(&Value::Null), fields)?;
    }
    Ok(out)
}

fn joined(value: &Value) -> String {
    list(value).iter().map(text).collect::<Vec<_>>().join(",")
}

fn write_resource(
    out: &mut String,
    published: &Published,
    by_kind: &BTreeMap<(String, String, String), String>,
    group: &str,
    version: &str,
    resource: &Value,
) -> Result<()> {
    let gv = |group: &str, version: &str| {
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
    };
    // A response kind of the resource's own group and version is published without them.
    let response = |value: &Value| {
        let kind = &value["responseKind"];
        match (text(&kind["group"]), text(&kind["version"])) {
            ("", "") => (group.to_owned(), version.to_owned(), text(&kind["kind"]).to_owned()),
            (group, version) => (group.to_owned(), version.to_owned(), text(&kind["kind"]).to_owned()),
        }
    };
    let plural = text(&resource["resource"]);
    let key = response(resource);
    let scope = if resource["scope"] == "Namespaced" { "namespaced" } else { "cluster" };
    let schema = by_kind.get(&key).with_context(|| format!("no schema for {key:?}"))?;
    write!(
        out,
        "\nresource {} {plural} {} {} {scope} {schema}",
        gv(group, version),
        text(&resource["singularResource"]),
        key.2
    )?;
    for (word, field) in [("short", "shortNames"), ("categories", "categories"), ("verbs", "verbs")] {
        let names = joined(&resource[field]);
        if !names.is_empty() {
            write!(out, " {word}={names}")?;
        }
    }
    writeln!(out)?;
    for sub in list(&resource["subresources"]) {
        let (group, version, kind) = response(sub);
        writeln!(
            out,
            " sub {} {} {kind} {}",
            text(&sub["subresource"]),
            gv(&group, &version),
            joined(&sub["verbs"])
        )?;
    }
    if let Some(columns) = published.columns.get(&format!("{} {plural}", gv(group, version))) {
        for column in list(columns) {
            let format = Some(text(&column["format"])).filter(|f| !f.is_empty()).unwrap_or("-");
            writeln!(
                out,
                " col {} {} {format} {}",
                text(&column["type"]),
                column["priority"],
                text(&column["name"])
            )?;
        }
    }
    Ok(())
}

fn write_type(out: &mut String, name: &str, schema: &Value, fields: &[GoField]) -> Result<()> {
    write!(out, "\ntype {}", short(name))?;
    if schema["x-kubernetes-map-type"] == "atomic" {
        write!(out, " atomic")?;
    }
    for union in list(&schema["x-kubernetes-unions"]) {
        let fields = union["fields-to-discriminateBy"].as_object().into_iter().flatten();
        let fields: Vec<String> = fields.map(|(field, value)| format!("{field}:{}", text(value))).collect();
        write!(out, " union={}({})", text(&union["discriminator"]), fields.join(","))?;
    }
    writeln!(out)?;
    let required: BTreeSet<&str> = list(&schema["required"]).iter().map(text).collect();
    for field in fields {
        let published = &schema["properties"][&field.name];
        write!(out, " {} {}", field.name, field_type(&field.kind))?;
        if !field.tag.is_empty() {
            write!(out, " #{}", field.tag)?;
        }
        if field.pointer {
            write!(out, " ptr")?;
        }
        if required.contains(field.name.as_str()) {
            write!(out, " req")?;
        }
        if let Some(always) = &field.always {
            write!(out, " !{always}")?;
        }
        if let Some(default) = real_default(field, &published["default"]) {
            write!(out, " ={default}")?;
        } else if field.always.is_none() && !published["default"].is_null() {
            write!(out, " shown={}", published["default"])?;
        }
        match text(&published["x-kubernetes-list-type"]) {
            "map" => write!(out, " list=map({})", joined(&published["x-kubernetes-list-map-keys"]))?,
            "set" => write!(out, " list=set")?,
            "atomic" if field.kind == "bytes" => write!(out, " list=atomic")?,
            _ => {}
        }
        if published["x-kubernetes-map-type"] == "atomic" {
            write!(out, " atomic")?;
        }
        if published["x-kubernetes-map-type"] == "granular" {
            write!(out, " granular")?;
        }
        if published["$ref"].is_string() {
            write!(out, " bare")?;
        }
        if !field.go.is_empty() {
            write!(out, " go={}", field.go)?;
        }
        if !field.within.is_empty() {
            write!(out, " in={}", field.within)?;
        }
        if !field.patch.is_empty() {
            write!(out, " patch={}({})", field.patch.replace(',', "+"), field.key)?;
        }
        let holders = [published, &published["items"], &published["additionalProperties"]];
        if let Some(holder) = holders.into_iter().find(|holder| holder["enum"].is_array()) {
            write!(out, " enum={}", joined(&holder["enum"]).replace(' ', "~"))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// OpenAPI publishes the zero of every field that Go always encodes as its default; those are none.
fn real_default<'a>(field: &GoField, default: &'a Value) -> Option<&'a Value> {
    let zero = match default {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.is_empty(),
    };
    (!default.is_null() && (field.pointer || !zero)).then_some(default)
}

/// A type expression without its lists and maps.
fn base(kind: &str) -> &str {
    kind.trim_start_matches(['[', ']', '{', '}'])
}

fn field_type(kind: &str) -> String {
    let base = base(kind);
    format!("{}{}", &kind[..kind.len() - base.len()], short(base))
}

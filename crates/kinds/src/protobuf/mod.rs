//! Kubernetes' protobuf form of built-in objects, read and written by the facts table.
//!
//! The envelope is `k8s\0` and a `runtime.Unknown`; the message in it has the field numbers of the kind's type. Source:
//! `k8s.io/apimachinery pkg/runtime/serializer/protobuf`, protobuf's wire format.

mod plan;
mod read;
mod transcode;
pub mod wire;
mod write;

use std::sync::OnceLock;

pub use read::decode;
pub use write::{ObjectWriter, encode, encode_json, encode_watch_event, enveloped, list_head, list_tail};

use crate::facts::{TABLE, Table};

/// The first bytes of the envelope.
pub const MAGIC: &[u8] = b"k8s\0";

/// What the fields hold that may hold a schema or something else.
const SCHEMA: &str = "apiextensions.v1.JSONSchemaProps";

fn table() -> &'static Table<'static> {
    static PARSED: OnceLock<Table<'static>> = OnceLock::new();
    PARSED.get_or_init(|| Table::parse(TABLE))
}

/// Whether upstream knows an object of this kind.
#[must_use]
pub fn is_registered(api_version: &str, kind: &str) -> bool {
    type_name(api_version, kind).is_some()
}

/// `apps/v1 Deployment` → `apps.v1.Deployment`
fn type_name(api_version: &str, kind: &str) -> Option<String> {
    let resource = table().resources.iter().find(|r| r.api_version == api_version && r.kind == kind);
    if let Some(resource) = resource {
        return Some(resource.type_name.to_owned());
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let group = group.split('.').next().unwrap_or(group);
    [format!("{group}.{version}.{kind}"), format!("meta.v1.{kind}")]
        .into_iter()
        .find(|name| table().type_of(name).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_schema_or_something_else_comes_back_as_it_was() {
        let string = json!({"type": "string"});
        let schemas = json!({
            "type": "object",
            "properties": {
                "list": {"type": "array", "items": string},
                "tuple": {"type": "array", "items": [string, {"type": "integer"}], "additionalItems": false},
                "map": {"type": "object", "additionalProperties": string},
                "open": {"type": "object", "additionalProperties": true},
            },
            "dependencies": {"a": ["b", "c"], "d": string},
            "default": {"x": [1, null]},
        });
        let version =
            json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schemas}});
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "a.b.c"}, "spec": {"group": "b.c", "versions": [version]},
        });
        let bytes =
            super::encode(&definition, "apiextensions.k8s.io/v1", "CustomResourceDefinition").unwrap();
        let back = super::decode(&bytes).unwrap();
        assert_eq!(back["spec"]["versions"][0]["schema"], version["schema"]);
    }
}

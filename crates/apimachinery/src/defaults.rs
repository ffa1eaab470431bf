//! Values of absent fields, as the schema gives them.

use serde_json::Value;

use crate::schema::Schema;

/// Sets every absent field that has a default, and replaces null where null is not allowed. An absent object is not
/// made for the sake of defaults inside it.
pub fn apply(value: &mut Value, schema: &Schema) {
    let below = schema.below();
    if !below.defaults {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, property) in &below.defaulted {
                let Some(default) = &property.default else { continue };
                match map.get_mut(&**name) {
                    None => {
                        map.insert(name.to_string(), default.clone());
                    }
                    Some(present) => replace_null(present, property),
                }
            }
            for (name, child) in map.iter_mut() {
                if let Some(property) = schema.properties.get(name.as_str()) {
                    apply(child, property);
                } else if let Some(values) = &schema.additional {
                    replace_null(child, values);
                    apply(child, values);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for item in list {
                    replace_null(item, items);
                    apply(item, items);
                }
            }
        }
        _ => {}
    }
}

fn replace_null(value: &mut Value, schema: &Schema) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::schema::Type;

    fn with_default(default: Value) -> Arc<Schema> {
        Arc::new(Schema { default: Some(default), ..Schema::default() })
    }

    fn object(fields: &[(&str, Arc<Schema>)]) -> Schema {
        Schema {
            kind: Some(Type::Object),
            properties: fields.iter().map(|(n, s)| (Arc::from(*n), s.clone())).collect(),
            ..Schema::default()
        }
    }

    #[test]
    fn absent_fields_get_their_default_but_absent_parents_stay_absent() {
        let port = Arc::new(object(&[("protocol", with_default(json!("TCP")))]));
        let ports =
            Arc::new(Schema { kind: Some(Type::Array), items: Some(port.clone()), ..Schema::default() });
        let schema = object(&[("ports", ports), ("one", port), ("replicas", with_default(json!(1)))]);
        let mut value = json!({"ports": [{}, {"protocol": "UDP"}]});
        apply(&mut value, &schema);
        assert_eq!(value, json!({"ports": [{"protocol": "TCP"}, {"protocol": "UDP"}], "replicas": 1}));
    }

    #[test]
    fn a_null_that_is_not_allowed_becomes_the_default() {
        let schema = object(&[("a", with_default(json!("x")))]);
        let mut value = json!({"a": null});
        apply(&mut value, &schema);
        assert_eq!(value, json!({"a": "x"}));
    }
}

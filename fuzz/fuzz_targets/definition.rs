//! A CustomResourceDefinition, its checks, the schemas it makes, and objects under them. Input: definition NUL object NUL
//! older object.
#![no_main]

use apimachinery::{defaults, openapi, structure, validate};
use chrono::DateTime;
use kinds::apiextensions;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [definition, object, older] = fuzz::parts(input);
    let Some(definition) = fuzz::json(definition) else { return };
    let Some(kind) = kinds::find("apiextensions.k8s.io", "v1", "customresourcedefinitions") else { return };
    let Some(mut definition) = fuzz::shaped(kind, definition) else { return };
    kind.strategy.prepare_create(&mut definition, DateTime::UNIX_EPOCH);
    let wrong = kind.strategy.validate(&definition);
    let versions = match apiextensions::define(&definition) {
        Ok(versions) => versions,
        // Whatever was accepted can be served.
        Err(errors) => return assert!(!wrong.is_empty(), "{errors:?}"),
    };
    let (object, older) = (fuzz::json(object), fuzz::json(older));
    for version in versions {
        let schema = &version.resource.schema;
        let _ = openapi::to_json(schema, 3);
        let _ = openapi::to_json(schema, 2);
        let [object, older] = [&object, &older].map(|object| {
            let mut object = object.clone()?;
            structure::prune(&mut object, schema);
            structure::drop_nulls(&mut object, schema);
            defaults::apply(&mut object, schema);
            assert!(structure::prune(&mut object, schema).is_empty(), "pruned once is pruned");
            Some(object)
        });
        let Some(object) = object else { continue };
        if !wrong.is_empty() {
            continue;
        }
        let _ = validate::create(&object, schema);
        if let Some(older) = older {
            let _ = validate::update(&object, &older, schema);
        }
    }
});

//! Server-side apply of a built-in object. Input: live object NUL configuration.
#![no_main]

use std::sync::OnceLock;

use apimachinery::{apply, structure};
use chrono::DateTime;
use serde_json::Value;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    static EMPTY: OnceLock<Value> = OnceLock::new();
    let empty = EMPTY.get_or_init(|| Value::Object(serde_json::Map::new()));
    let [live, config] = fuzz::parts(input);
    let Some(config) = fuzz::json(config) else { return };
    let Some(kind) = fuzz::kind_of(&config) else { return };
    let live = fuzz::json(live).filter(|live| {
        live.is_object() && live["metadata"].is_object() && structure::check(live, &kind.schema).is_ok()
    });
    let api_version = kind.api_version();
    let write = apply::Write {
        manager: "fuzz",
        api_version: &api_version,
        subresource: "",
        schema: &kind.schema,
        others: &[],
        empty,
        reach: apply::Reach::All,
        now: DateTime::UNIX_EPOCH,
    };
    for force in [false, true] {
        let Ok(applied) = apply::apply(live.as_ref(), &config, &write, force) else { continue };
        let again = apply::apply(Some(&applied.object), &config, &write, false);
        let again = again.expect("what was applied can be applied again");
        assert!(again.unchanged, "{} became {}", applied.object, again.object);
    }
    if let Some(live) = live {
        let mut new = config;
        apply::update(Some(&live), &mut new, &write);
    }
});

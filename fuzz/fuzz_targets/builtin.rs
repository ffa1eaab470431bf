//! An object of any built-in kind: shape, defaults, checks, warnings, table row. Input: object NUL older object.
#![no_main]

use apimachinery::{defaults, structure};
use chrono::DateTime;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [object, older] = fuzz::parts(input);
    let Some(object) = fuzz::json(object) else { return };
    let Some(kind) = fuzz::kind_of(&object) else { return };
    let Some(object) = fuzz::shaped(kind, object) else { return };
    let now = DateTime::UNIX_EPOCH;
    let mut again = object.clone();
    structure::canonicalize(&mut again, &kind.schema).expect("canonical already");
    structure::always(&mut again, &kind.schema);
    defaults::apply(&mut again, &kind.schema);
    assert_eq!(again, object, "a second time changes nothing");

    let mut new = object.clone();
    kind.strategy.prepare_create(&mut new, now);
    let _ = kind.strategy.validate(&new);
    let _ = kind.strategy.warnings(&new, None);
    let _ = kind.strategy.row(&new, now);
    let Some(older) = fuzz::json(older).and_then(|older| fuzz::shaped(kind, older)) else { return };
    let below = kind.subresources.iter().map(|sub| &*sub.name);
    for subresource in below.chain([""]) {
        let mut new = object.clone();
        kind.strategy.prepare_update_at(&mut new, &older, subresource, now);
        let _ = kind.strategy.validate(&new);
        let _ = kind.strategy.validate_update_at(&new, &older, subresource, now);
    }
    let _ = kind.strategy.warnings(&object, Some(&older));
});

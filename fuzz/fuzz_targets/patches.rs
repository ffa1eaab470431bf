//! JSON, merge and strategic merge patches of a built-in object. Input: object NUL patch.
#![no_main]

use apimachinery::{decode, patch};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [object, change] = fuzz::parts(input);
    let Some(object) = fuzz::json(object) else { return };
    let _ = patch::json(object.clone(), change);
    let _ = patch::json_strict(change);
    let Ok(change) = decode::yaml(change) else { return };
    if let Ok(merged) = patch::merge(object.clone(), change.value.clone()) {
        // A second time changes nothing, unless the patch is no object.
        let again = patch::merge(merged.clone(), change.value.clone()).expect("as the first time");
        assert_eq!(again, merged);
    }
    let Some(kind) = fuzz::kind_of(&object) else { return };
    let _ = patch::strategic(object, change.value, &kind.schema);
});

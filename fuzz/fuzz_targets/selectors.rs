//! Label and field selectors, from a query and from an object. Input: text NUL JSON.
#![no_main]

use apimachinery::selector::{FieldSelector, LabelSelector};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [text, object] = fuzz::parts(input);
    if let Ok(text) = std::str::from_utf8(text) {
        if let Ok(selector) = LabelSelector::parse(text) {
            let shown = selector.to_string();
            let again = LabelSelector::parse(&shown).expect("what is shown is read");
            assert_eq!(again.to_string(), shown);
            let _ = selector.matches(|key| (key.len() % 2 == 0).then_some("5"));
        }
        if let Ok(selector) = FieldSelector::parse(text) {
            let _ = (selector.matches(|field| if field.len() % 2 == 0 { "5" } else { "" }), selector.exact("metadata.name"));
        }
    }
    let Some(object) = fuzz::json(object) else { return };
    if let Ok(selector) = LabelSelector::from_object(&object) {
        let _ = selector.matches_object(&object);
    }
    let _ = LabelSelector::from_map(&object).matches_object(&object);
});

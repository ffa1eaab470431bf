//! JSON: what is read can be written and read again as the same.
#![no_main]

use apimachinery::decode;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(decoded) = decode::json(input) else { return };
    let written = decoded.value.to_string();
    let again = decode::json(written.as_bytes()).expect("what was written is read");
    assert_eq!(again.value.to_string(), written);
    assert!(again.duplicates.is_empty());
});

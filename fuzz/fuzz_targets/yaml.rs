//! YAML: what is read is JSON, and bounded in what its aliases make of it.
#![no_main]

use apimachinery::decode;

/// What one byte of YAML may become, at most, beside what all of a document's aliases may.
const GROWTH: usize = 16;
const ALIASED: usize = 64 << 20;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(decoded) = decode::yaml(input) else { return };
    let written = decoded.value.to_string();
    assert!(written.len() <= ALIASED + GROWTH * input.len(), "{} bytes of {}", written.len(), input.len());
    decode::json(written.as_bytes()).expect("what was written is read");
});

//! What a URL says: path, query, the options of lists and watches, continue tokens. Input: path?query
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        apiserver::fuzzing::request(text);
    }
});

//! Quantities, times, names, JSON paths: short texts of their own syntax. Input: text NUL text.
#![no_main]

use apimachinery::{columns::JsonPath, names, quantity, time};
use quantity::Quantity;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [one, other] = fuzz::parts(input).map(|part| std::str::from_utf8(part).unwrap_or_default());
    if let Ok(quantity) = Quantity::parse(one) {
        let shown = quantity.to_string();
        let again = Quantity::parse(&shown).expect("what is shown is read");
        assert_eq!(again.nanos(), quantity.nanos(), "{one} {shown}");
        let _ = (quantity.units(), quantity.milli(), quantity.exact_units(), quantity.to_f64());
        let _ = (quantity.rounded_to_milli().to_string(), quantity.sign());
        if let Ok(other) = Quantity::parse(other) {
            let _ = (quantity.plus(&other).to_string(), quantity.minus(&other).to_string());
        }
    }
    if let Ok(Some(canonical)) = quantity::canonical(one) {
        assert!(matches!(quantity::canonical(&canonical), Ok(None)), "{one} {canonical}");
    }
    let _ = (time::parse_rfc3339(one), time::parse_micro_time(one));
    let _ = (time::canonical(one), time::canonical_micro(one));
    let _ = (names::is_qualified_name(one), names::is_dns1123_subdomain(one), names::is_label_value(one));
    let _ = (names::is_percent(one), names::is_env_var_name(one), names::is_http_header_name(one));
    if let (Some(path), Some(object)) = (JsonPath::parse(one), fuzz::json(other.as_bytes())) {
        let _ = path.find(&object);
    }
});

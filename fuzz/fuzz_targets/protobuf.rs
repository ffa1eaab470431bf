//! Protobuf: what is read can be written and read again as the same.
#![no_main]

use kinds::protobuf;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(object) = protobuf::decode(input) else { return };
    let kind = fuzz::kind_of(&object);
    let Some(written) =
        kind.and_then(|kind| protobuf::encode(&object, &kind.api_version(), &kind.kind))
    else {
        return;
    };
    let again = protobuf::decode(&written).expect("what was written is read");
    let last = kind.and_then(|kind| protobuf::encode(&again, &kind.api_version(), &kind.kind));
    assert_eq!(last.as_deref(), Some(&*written));
});

//! WebSocket frames of a client, for every protocol of channels. Input: number of the protocol, then bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some((protocol, bytes)) = input.split_first() {
        runtime::streaming::fuzzing::websocket(*protocol, bytes);
    }
});

//! SPDY frames of a client, in pieces as a network cuts them. Input: size of the pieces, then bytes.
#![no_main]

use bytes::BytesMut;
use runtime::streaming::spdy::{Decoder, Encoder, Frame};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((size, bytes)) = input.split_first() else { return };
    let (mut decoder, mut buffer, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(usize::from(*size).max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    // What was read can be written, and is read as the same.
    let (mut encoder, mut written) = (Encoder::default(), BytesMut::new());
    frames.iter().for_each(|frame| encoder.encode(frame, &mut written));
    let mut decoder = Decoder::default();
    for frame in frames {
        assert_eq!(decoder.decode(&mut written).expect("our own frame"), Some::<Frame>(frame));
    }
});

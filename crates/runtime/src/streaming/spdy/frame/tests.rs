use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn all(bytes: &[u8]) -> Result<Vec<Frame>, Error> {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::from(bytes));
    let mut frames = Vec::new();
    while let Some(frame) = decoder.decode(&mut buffer)? {
        frames.push(frame);
    }
    Ok(frames)
}

/// Bytes after section 2.6 of the draft.
const PLAIN: [(&str, Frame); 6] = [
    ("80030003 00000008 00000005 00000001", Frame::RstStream { id: 5, status: 1 }),
    ("80030004 00000004 00000000", Frame::Settings),
    ("80030006 00000004 00000007", Frame::Ping(7)),
    ("80030007 00000008 00000003 00000002", Frame::GoAway { last: 3, status: 2 }),
    ("80030009 00000008 00000001 00010000", Frame::WindowUpdate { id: 1, delta: 0x10000 }),
    ("00000009 01000005 68656c6c6f", Frame::Data { id: 9, fin: true, bytes: Bytes::from_static(b"hello") }),
];

#[test]
fn frames_have_the_drafts_bytes() {
    for (text, frame) in PLAIN {
        assert_eq!(all(&hex(text)).unwrap(), std::slice::from_ref(&frame));
        let mut bytes = BytesMut::new();
        Encoder::default().encode(&frame, &mut bytes);
        assert_eq!(bytes, hex(text), "{frame:?}");
    }
}

#[test]
fn header_blocks_of_the_reference_zlib_are_read() {
    // made with zlib 1.3 (level 9, a sync flush after each block) from the draft's dictionary
    let bytes = hex(
        "80030001 0000003d 00000001 00000000 0000 78f9e3c6a7c202253a48f95b044eea16061606409ab308125f99a074cc6800
         4e892545a989b9d0c2863515141500000000ffff
         80030001 00000016 00000003 00000000 0000 225333a8a44a04000000ffff",
    );
    let syn = |id, kind| Frame::SynStream {
        id,
        associated: 0,
        priority: 0,
        fin: false,
        unidirectional: false,
        headers: [("port", "8080"), ("requestid", "0"), ("streamtype", kind)].into_iter().collect(),
    };
    assert_eq!(all(&bytes).unwrap(), [syn(1, "error"), syn(3, "data")]);
}

#[test]
fn a_large_data_frame_is_given_on_in_parts() {
    let mut bytes = hex("00000001 01010000");
    bytes.extend([7; 0x10000]);
    let frames = all(&bytes).unwrap();
    let sizes = frames.iter().map(|f| match f {
        Frame::Data { id: 1, fin, bytes } => (*fin, bytes.len()),
        other => panic!("{other:?}"),
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [(false, CHUNK), (true, CHUNK)]);
}

#[test]
fn unknown_control_frames_are_passed_over_whatever_their_size() {
    let mut bytes = hex("8003000a 00010000");
    bytes.extend([7; 0x10000]);
    bytes.extend(hex("80030006 00000004 00000001"));
    assert_eq!(all(&bytes).unwrap(), [Frame::Ping(1)]);
}

#[test]
fn frames_that_contradict_themselves_are_refused() {
    for (text, error) in [
        ("80020006 00000004 00000001", "version 2"),
        ("80030001 00ffffff", "a control frame of 16777215 bytes"),
        ("80030006 00000005 00000001 00", "malformed"),
        ("80030006 00000003 000000", "malformed PING"),
        ("80030003 00000008 00000000 00000001", "malformed RST_STREAM"),
        ("80030004 00000008 00000002 00000000", "malformed SETTINGS"),
        ("80030004 00000004 20000001", "malformed SETTINGS"),
        ("80030001 0000000c 00000001 00000000 0000 ffff", "decompressed"),
    ] {
        let got = all(&hex(text)).unwrap_err().to_string();
        assert!(got.contains(error), "{text}: {got}");
    }
}

fn frame() -> impl Strategy<Value = Frame> {
    let id = 1u32..0x8000_0000;
    let headers = || {
        prop::collection::btree_map("[a-z-]{1,12}", "\\PC{0,20}", 0..4)
            .prop_map(|h| h.into_iter().collect::<Headers>())
    };
    prop_oneof![
        (id.clone(), 0u8..8, any::<bool>(), any::<bool>(), headers()).prop_map(
            |(id, priority, fin, unidirectional, headers)| Frame::SynStream {
                id,
                associated: 0,
                priority,
                fin,
                unidirectional,
                headers
            }
        ),
        (id.clone(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::SynReply {
            id,
            fin,
            headers
        }),
        (id.clone(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::Headers {
            id,
            fin,
            headers
        }),
        (id.clone(), any::<u32>()).prop_map(|(id, status)| Frame::RstStream { id, status }),
        any::<u32>().prop_map(Frame::Ping),
        (id.clone(), 0u32..0x8000_0000).prop_map(|(id, delta)| Frame::WindowUpdate { id, delta }),
        (id.clone(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
        (id, any::<bool>(), any::<Vec<u8>>()).prop_map(|(id, fin, bytes)| Frame::Data {
            id,
            fin,
            bytes: bytes.into()
        }),
    ]
}

/// Parts of data put together again.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut joined: Vec<Frame> = Vec::new();
    for frame in frames {
        match (joined.last_mut(), frame) {
            (Some(Frame::Data { id, fin, bytes }), Frame::Data { id: more, fin: end, bytes: part })
                if *id == more =>
            {
                *bytes = [bytes.as_ref(), part.as_ref()].concat().into();
                *fin = end;
            }
            (_, frame) => joined.push(frame),
        }
    }
    joined
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_however_it_is_cut(
        frames in prop::collection::vec(frame(), 1..8), cuts in prop::collection::vec(1usize..40, 1..20),
    ) {
        // a ping after each frame keeps data frames of one stream apart
        let frames: Vec<Frame> = frames.into_iter().flat_map(|f| [f, Frame::Ping(1)]).collect();
        let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
        for frame in &frames {
            encoder.encode(frame, &mut bytes);
        }
        let (mut decoder, mut buffer, mut decoded) = (Decoder::default(), BytesMut::new(), Vec::new());
        for cut in cuts.into_iter().cycle() {
            if bytes.is_empty() {
                break;
            }
            buffer.extend_from_slice(&bytes.split_to(cut.min(bytes.len())));
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                decoded.push(frame);
            }
        }
        prop_assert_eq!(joined(decoded), frames);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = all(&bytes);
    }

    #[test]
    fn any_control_frame_is_read_or_refused(kind in 0u16..12, flags: u8, body: Vec<u8>) {
        let mut bytes = BytesMut::new();
        bytes.put_u16(0x8003);
        bytes.put_u16(kind);
        bytes.put_u32(u32::from(flags) << 24 | body.len() as u32);
        bytes.put_slice(&body);
        let _ = all(&bytes);
    }
}

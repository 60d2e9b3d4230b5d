use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::*;

fn packet(build: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut bytes = BytesMut::new();
    build(&mut bytes);
    bytes.freeze()
}

fn put_string(bytes: &mut BytesMut, string: &[u8]) {
    bytes.put_u32(string.len() as u32);
    bytes.put_slice(string);
}

fn status(code: u32, text: &'static [u8]) -> Reply {
    Reply::Status(Status { code, text: Bytes::from_static(text) })
}

#[test]
fn the_length_of_a_packet_is_bounded() {
    assert_eq!(packet_length(&[0, 0, 1]), Ok(None));
    assert_eq!(packet_length(&[0, 0, 1, 0]), Ok(Some(256)));
    assert_eq!(packet_length(&[0, 0, 0, 0, 9]), Err(DecodeError::Short));
    assert_eq!(packet_length(&[0xff; 4]), Err(DecodeError::TooLong));
    let most = u32::try_from(MAX_REPLY_BYTES).unwrap();
    assert_eq!(packet_length(&most.to_be_bytes()), Ok(Some(MAX_REPLY_BYTES)));
    assert_eq!(packet_length(&(most + 1).to_be_bytes()), Err(DecodeError::TooLong));
}

#[test]
fn a_greeting_with_extensions() {
    let greeting = packet(|bytes| {
        bytes.put_u8(VERSION);
        bytes.put_u32(3);
        for string in ["a@b", "1", "c", ""] {
            put_string(bytes, string.as_bytes());
        }
    });
    let decoded = decode_greeting(greeting.clone()).unwrap();
    assert_eq!(decoded.version, 3);
    assert_eq!(decoded.extensions, [("a@b".into(), "1".into()), ("c".into(), Bytes::new())]);
    assert_eq!(decode_greeting(greeting.slice(..greeting.len() - 1)), Err(DecodeError::Short));
    assert_eq!(decode_greeting(Bytes::from_static(b"e\0\0\0\x03")), Err(DecodeError::UnknownType(b'e')));
}

#[test]
fn a_status_may_lack_its_trailing_fields() {
    let head = [STATUS, 0, 0, 0, 7, 0, 0, 0, 4];
    let words = packet(|bytes| {
        bytes.put_slice(&head);
        put_string(bytes, b"no");
    });
    assert_eq!(decode_reply(Bytes::copy_from_slice(&head)), Ok((7, status(4, b""))));
    assert_eq!(decode_reply(words), Ok((7, status(4, b"no"))));
    assert_eq!(decode_reply(Bytes::copy_from_slice(&head[..8])), Err(DecodeError::Short));
}

#[test]
fn handles_are_opaque_and_bounded() {
    let handle = |length: usize| {
        decode_reply(packet(|bytes| {
            bytes.put_slice(&[HANDLE, 0, 0, 0, 1]);
            put_string(bytes, &vec![0x80; length]);
        }))
    };
    assert_eq!(handle(256), Ok((1, Reply::Handle(vec![0x80; 256].into()))));
    assert_eq!(handle(257), Err(DecodeError::TooLong));
}

#[test]
fn attributes_in_every_combination() {
    for flags in 0..16_u32 {
        let reply = decode_reply(packet(|bytes| {
            bytes.put_slice(&[ATTRS, 0, 0, 0, 1]);
            bytes.put_u32(flags | ATTR_EXTENDED);
            if flags & ATTR_SIZE != 0 {
                bytes.put_u64(1 << 40);
            }
            if flags & ATTR_OWNER != 0 {
                bytes.put_u64((5 << 32) | 6);
            }
            if flags & ATTR_MODE != 0 {
                bytes.put_u32(0o104_755);
            }
            if flags & ATTR_TIMES != 0 {
                bytes.put_u64((7 << 32) | 8);
            }
            bytes.put_u32(1);
            put_string(bytes, b"x@y");
            put_string(bytes, b"z");
        }));
        let Ok((1, Reply::Attributes(attributes))) = reply else { panic!("{reply:?}") };
        let has = |flag, value: bool| assert_eq!(flags & flag != 0, value, "{flags}");
        has(ATTR_SIZE, attributes.size == Some(1 << 40));
        has(ATTR_OWNER, attributes.owner == Some(Owner { uid: 5, gid: 6 }));
        has(ATTR_MODE, attributes.mode == Some(0o4755) && attributes.kind == FileKind::File);
        has(ATTR_TIMES, attributes.times == Some(Times { accessed: 7, modified: 8 }));
        has(ATTR_MODE, attributes.kind != FileKind::Unknown);
    }
    assert_eq!(kind_of(0o020_600), FileKind::Other);
    assert_eq!(kind_of(0o600), FileKind::Unknown);
}

#[test]
fn names_and_a_count_that_lies() {
    let names = |count: u32, with_attributes: bool| {
        decode_reply(packet(|bytes| {
            bytes.put_slice(&[NAME, 0, 0, 0, 1]);
            bytes.put_u32(count);
            put_string(bytes, b"a\xff");
            if with_attributes {
                put_string(bytes, b"-rw-r--r--");
                bytes.put_u32(0);
            }
        }))
    };
    let one = Reply::Names(vec![Name { name: b"a\xff".to_vec(), attributes: Attributes::UNKNOWN }]);
    assert_eq!(names(1, true), Ok((1, one.clone())));
    assert_eq!(names(1, false), Ok((1, one)));
    assert_eq!(names(u32::MAX, true), Err(DecodeError::Short));
}

#[test]
fn long_data_is_not_copied() {
    let whole = packet(|bytes| {
        bytes.put_slice(&[DATA, 0, 0, 0, 1]);
        put_string(bytes, &[7; SHARE_FROM_BYTES]);
    });
    let Ok((1, Reply::Data(data))) = decode_reply(whole.clone()) else { panic!("no data") };
    assert_eq!(data.as_ptr(), whole[9..].as_ptr());
}

proptest! {
    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let bytes = Bytes::from(bytes);
        let _ = packet_length(&bytes);
        let _ = decode_greeting(bytes.clone());
        let _ = decode_limits(bytes.clone());
        let _ = decode_file_system(bytes.clone());
        let _ = decode_reply(bytes);
    }

    #[test]
    fn no_body_of_a_known_type_panics(
        kind in prop::sample::select(vec![STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY]),
        counts in prop::collection::vec(0_u32..6, 0..40),
    ) {
        // Small counts and lengths reach deep into a packet before it ends.
        let body = packet(|bytes| {
            bytes.put_slice(&[kind, 0, 0, 0, 1]);
            counts.iter().for_each(|count| bytes.put_u32(*count));
        });
        let decoded = decode_reply(body);
        if let Ok((id, _)) = decoded {
            prop_assert_eq!(id, 1);
        }
    }

    #[test]
    fn names_come_back_as_they_were_sent(
        sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..40),
    ) {
        let reply = packet(|bytes| {
            bytes.put_slice(&[NAME, 0, 0, 0, 9]);
            bytes.put_u32(sent.len() as u32);
            for name in &sent {
                put_string(bytes, name);
                put_string(bytes, b"long");
                bytes.put_u32(ATTR_MODE);
                bytes.put_u32(0o040_755);
            }
        });
        let Ok((9, Reply::Names(names))) = decode_reply(reply) else { panic!("no names") };
        prop_assert_eq!(names.iter().map(|name| &name.name).collect::<Vec<_>>(), sent.iter().collect::<Vec<_>>());
        prop_assert!(names.iter().all(|name| name.attributes.kind == FileKind::Directory));
    }
}

//! The checks that every message passes, for the tests beside the messages: it encodes to the bytes given, decodes from
//! exactly these, and neither from a prefix nor from one byte more.

use crate::{DecodeError, Frame, HEADER_LEN, Header, backend, frontend};

/// What a message does with a body that is cut or extended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// The body says itself where it ends.
    Fixed,
    /// The last field takes what is there.
    Open,
}

/// Checks a frontend message.
#[track_caller]
pub(crate) fn frontend(message: frontend::Message<'_>, bytes: &[u8]) {
    use frontend::Message as M;
    let tail = match message {
        M::CopyData(_) | M::Password(_) => Tail::Open,
        _ => Tail::Fixed,
    };
    let mut out = Vec::new();
    message.encode(&mut out);
    assert_eq!(out, bytes);
    assert_eq!(message.tag(), bytes[0]);
    assert!(frontend::tag::name(bytes[0]).is_some());
    assert_eq!(frontend::Message::decode(frame(bytes)), Ok(message));
    check(bytes, tail, |frame| {
        frontend::Message::decode(frame).map(drop)
    });
}

/// Checks a backend message.
#[track_caller]
pub(crate) fn backend(message: backend::Message<'_>, bytes: &[u8]) {
    use backend::{Authentication as A, Message as M};
    let tail = match message {
        M::CopyData(_)
        | M::BackendKeyData(_)
        | M::Authentication(A::SaslContinue { .. } | A::SaslFinal { .. } | A::GssContinue { .. }) => {
            Tail::Open
        }
        _ => Tail::Fixed,
    };
    let mut out = Vec::new();
    message.encode(&mut out);
    assert_eq!(out, bytes);
    assert_eq!(message.tag(), bytes[0]);
    assert!(backend::tag::name(bytes[0]).is_some());
    assert_eq!(backend::Message::decode(frame(bytes)), Ok(message));
    check(bytes, tail, |frame| {
        backend::Message::decode(frame).map(drop)
    });
}

fn frame(bytes: &[u8]) -> Frame<'_> {
    Frame {
        tag: bytes[0],
        bytes,
    }
}

#[track_caller]
fn check(bytes: &[u8], tail: Tail, decode: impl Fn(Frame<'_>) -> Result<(), DecodeError>) {
    let header = Header::peek(bytes)
        .expect("a good length")
        .expect("a header");
    assert_eq!(header.frame_len(), bytes.len());
    for len in HEADER_LEN..bytes.len() {
        let cut = decode(frame(&bytes[..len]));
        assert!(
            cut.is_err() || tail == Tail::Open,
            "{len} of {} bytes decode",
            bytes.len()
        );
    }
    let mut extended = bytes.to_vec();
    extended.push(0);
    let extended = decode(frame(&extended));
    match tail {
        Tail::Open => assert_eq!(extended, Ok(())),
        Tail::Fixed => assert!(
            matches!(extended, Err(DecodeError::Trailing { bytes: 1, .. })),
            "{extended:?}"
        ),
    }
    // Every number in the body, replaced by hostile ones, is an error or a value, never a panic or an allocation.
    for at in HEADER_LEN..bytes.len() {
        for hostile in [
            &[0xff; 4][..],
            &[0; 4],
            &[0, 0, 0, 3],
            &[0x7f, 0xff, 0xff, 0xff],
            &[0x80, 0, 0, 0],
        ] {
            let mut changed = bytes.to_vec();
            for (byte, new) in changed.iter_mut().skip(at).zip(hostile) {
                *byte = *new;
            }
            let _outcome = decode(frame(&changed));
        }
    }
}

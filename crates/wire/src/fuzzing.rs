//! The bodies of the fuzz targets, shared by libFuzzer (`tests/fuzz`) and the seeded smoke test, which needs no nightly compiler.
//!
//! Each takes any bytes. A panic is a finding: the decoders never panic themselves, and what decodes must encode back to
//! the same bytes.

use crate::{
    DecodeError, Deframer, Frame, Frames, Header, StartupPacket, backend, frontend, limits,
    pgoutput::{LogicalMessage, ServerPayload, StandbyStatusUpdate},
    trace::{Direction, Line, Values},
    writer,
};

/// The startup packet at the front of any bytes.
pub fn startup(data: &[u8]) {
    let Ok(Some((packet, consumed))) = StartupPacket::decode(data, limits::MAX_STARTUP_PACKET)
    else {
        return;
    };
    if let StartupPacket::Startup(message) = packet {
        let _value = message.parameter(b"user");
        assert_eq!(
            message.parameters.iter().count(),
            message.parameters.len(),
            "a list that lies about its length"
        );
    }
    let mut out = Vec::new();
    packet.encode(&mut out);
    if !matches!(packet, StartupPacket::Other { .. }) {
        assert_eq!(
            data.get(..consumed),
            Some(&out[..]),
            "{packet:?} does not encode to what it was decoded from"
        );
    }
}

/// One frontend message: a tag byte and a body.
pub fn frontend(data: &[u8]) {
    with_frame(data, |frame| {
        let body = frame.body();
        if let Ok(message) = frontend::Message::decode(frame) {
            let mut out = Vec::new();
            message.encode(&mut out);
            assert_eq!(
                frame.bytes, out,
                "{message:?} does not encode to what it was decoded from"
            );
            if let frontend::Message::Bind(bind) = message {
                assert_eq!(
                    bind.parameters.iter().count(),
                    bind.parameters.len(),
                    "a list that lies about its length"
                );
            }
        }
        let _head = frontend::BindHead::decode(body);
        let _head = frontend::ParseHead::decode(body);
        let _password = frontend::Password { raw: body }.password();
        let _sasl = frontend::SaslInitialResponse::decode(body);
        trace(Direction::Frontend, frame);
    });
}

/// One backend message: a tag byte and a body.
pub fn backend(data: &[u8]) {
    with_frame(data, |frame| {
        if let Ok(message) = backend::Message::decode(frame) {
            let mut out = Vec::new();
            message.encode(&mut out);
            assert_eq!(
                frame.bytes, out,
                "{message:?} does not encode to what it was decoded from"
            );
            match message {
                backend::Message::DataRow(row) => {
                    assert_eq!(
                        row.columns.iter().count(),
                        row.columns.len(),
                        "a list that lies about its length"
                    );
                }
                backend::Message::ErrorResponse(error) => {
                    let _text = (error.severity(), error.sqlstate(), error.message());
                }
                backend::Message::CommandComplete(complete) => {
                    let _rows = complete.rows();
                }
                _ => {}
            }
        }
        trace(Direction::Backend, frame);
    });
}

/// A stream, in pieces as large as its first byte says: pieces and whole give the same frames or the same error.
pub fn deframer(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else {
        return;
    };
    let mut deframer = Deframer::new(usize::MAX);
    let mut pieces = Vec::new();
    let mut pieces_error = None;
    for piece in stream.chunks(usize::from(*size).max(1)) {
        deframer.push(piece);
        while pieces_error.is_none() {
            match deframer.next() {
                Ok(Some(frame)) => pieces.push(frame),
                Ok(None) => break,
                Err(error) => pieces_error = Some(error),
            }
        }
    }
    let mut frames = Frames::new(stream);
    let mut owned = pieces.iter();
    let whole_error: Option<DecodeError> = loop {
        match frames.next() {
            Ok(Some(frame)) => {
                let other = owned.next().map(crate::OwnedFrame::as_frame);
                assert_eq!(Some(frame), other, "a frame that depends on fragmentation");
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert!(
        owned.next().is_none(),
        "more frames in pieces than in the whole"
    );
    assert_eq!(
        whole_error, pieces_error,
        "an error that depends on fragmentation"
    );
    assert_eq!(
        frames.consumed() + frames.rest().len(),
        stream.len(),
        "bytes that are neither taken nor left"
    );
}

/// The payloads of a replication stream.
pub fn pgoutput(data: &[u8]) {
    let mut out = Vec::new();
    if let Ok(message) = LogicalMessage::decode(data) {
        message.encode(&mut out);
        assert_eq!(
            data, out,
            "{message:?} does not encode to what it was decoded from"
        );
    }
    out.clear();
    if let Ok(payload) = ServerPayload::decode(data) {
        payload.encode(&mut out);
        assert_eq!(
            data, out,
            "{payload:?} does not encode to what it was decoded from"
        );
    }
    out.clear();
    if let Ok(update) = StandbyStatusUpdate::decode(data) {
        update.encode(&mut out);
        assert_eq!(
            data, out,
            "{update:?} does not encode to what it was decoded from"
        );
    }
}

fn with_frame(data: &[u8], check: impl FnOnce(Frame<'_>)) {
    let Some((&tag, body)) = data.split_first() else {
        return;
    };
    let mut bytes = Vec::new();
    writer::message(&mut bytes, tag, |w| w.bytes(body));
    if let Ok(Some(header)) = Header::peek(&bytes) {
        assert_eq!(
            header.frame_len(),
            bytes.len(),
            "a frame that lies about its length"
        );
    }
    check(Frame { tag, bytes: &bytes });
}

fn trace(direction: Direction, frame: Frame<'_>) {
    for values in [Values::Redacted, Values::Shown] {
        let line = Line::new(direction, frame).values(values).to_string();
        assert!(!line.contains('\n'), "a line of a trace that breaks");
    }
}

//! Fragmentation changes nothing: a stream cut at every position, or into single bytes, gives the same frames.

use pgweir_wire::{Deframer, Frames, OwnedFrame, StartupPacket, limits};

fn whole(stream: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Frames::new(stream);
    std::iter::from_fn(|| frames.next().expect("good lengths"))
        .map(|frame| (frame.tag, frame.bytes))
        .collect()
}

fn pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<OwnedFrame> {
    let mut deframer = Deframer::new(limits::MAX_MESSAGE);
    let mut frames = Vec::new();
    for piece in pieces {
        deframer.push(piece);
        while let Some(frame) = deframer.next().expect("good lengths") {
            frames.push(frame);
        }
    }
    frames
}

fn same(whole: &[(u8, &[u8])], pieces: &[OwnedFrame]) -> bool {
    whole.len() == pieces.len()
        && whole
            .iter()
            .zip(pieces)
            .all(|(a, b)| *a == (b.tag, &b.bytes[..]))
}

/// The captured streams of the corpus, cut off where a test over all positions would become slow.
fn streams() -> Vec<(String, Vec<u8>)> {
    let mut files = super::corpus::files();
    files.retain(|(name, _)| name.starts_with("frontend-") || name.starts_with("backend-"));
    files
        .iter_mut()
        .for_each(|(_, content)| content.truncate(1500));
    files
}

#[test]
fn a_stream_cut_at_every_position_gives_the_same_frames() {
    for (name, stream) in streams() {
        let expected = whole(&stream);
        assert!(expected.len() > 2, "{name} has frames");
        for at in 0..=stream.len() {
            let (front, back) = stream.split_at(at);
            assert!(
                same(&expected, &pieces([front, back])),
                "{name} cut at {at}"
            );
        }
    }
}

#[test]
fn a_stream_in_single_bytes_gives_the_same_frames() {
    for (name, stream) in streams() {
        assert!(same(&whole(&stream), &pieces(stream.chunks(1))), "{name}");
    }
}

#[test]
fn frames_resume_after_any_cut() {
    for (name, stream) in streams() {
        let expected = whole(&stream);
        for at in 0..=stream.len() {
            let mut first = Frames::new(&stream[..at]);
            let mut seen = Vec::new();
            while let Some(frame) = first.next().expect("good lengths") {
                seen.push((frame.tag, frame.bytes));
            }
            // What a relay does: it keeps the rest, reads more, and starts over at the border.
            seen.extend(whole(&stream[first.consumed()..]));
            assert_eq!(seen, expected, "{name} cut at {at}");
        }
    }
}

#[test]
fn a_startup_packet_cut_at_every_position_waits_for_the_rest() {
    for (name, packet) in super::corpus::files() {
        if !name.starts_with("startup-") {
            continue;
        }
        for at in 0..packet.len() {
            assert_eq!(
                StartupPacket::decode(&packet[..at], limits::MAX_STARTUP_PACKET),
                Ok(None),
                "{name} cut at {at}"
            );
        }
    }
}

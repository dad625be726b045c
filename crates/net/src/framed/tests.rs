//! Tests of gathered output, on real socket pairs.

use std::future::poll_fn;
use std::io::Read;
use std::task::Waker;

use socket2::SockRef;

use super::*;
use crate::stream::StdStream;

/// A connected pair, the first end with a send buffer so small that writes are cut into pieces.
fn pair() -> (Stream, std::os::unix::net::UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
    (Stream::from_std(StdStream::Unix(ours)).unwrap(), theirs)
}

fn bytes(count: usize) -> Vec<u8> {
    (0..=250).cycle().take(count).collect()
}

fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[test]
fn what_follows_starts_in_the_middle_of_a_slice() {
    let slices = [b"abc" as &[u8], b"", b"de", b"f"];
    for done in 0..=6 {
        let rest = after(slices.iter().copied(), done)
            .collect::<Vec<_>>()
            .concat();
        assert_eq!(rest, b"abcdef"[done..], "after {done}");
    }
}

#[tokio::test]
async fn a_fresh_connection_is_written_to_at_once_though_the_runtime_has_not_heard_of_it() {
    let (mut stream, mut peer) = pair();
    let mut outgoing = Outgoing::new();
    outgoing
        .send_slice(&mut stream, &mut noop(), b"hello")
        .unwrap();
    assert!(outgoing.is_empty());
    let mut read = [0; 5];
    peer.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"hello");
}

#[tokio::test]
async fn more_pieces_than_one_call_takes_are_all_written() {
    let (mut stream, mut peer) = pair();
    let Stream::Unix(socket) = &stream else {
        panic!("it is a Unix socket")
    };
    SockRef::from(socket).set_send_buffer_size(1 << 18).unwrap();
    let (input, mut gather, mut outgoing) = (bytes(200), Gather::new(), Outgoing::new());
    let mut expected = Vec::new();
    for place in 0..100 {
        gather.input(place * 2..place * 2 + 1);
        gather.scratch(b"-");
        expected.extend_from_slice(&[input[place * 2], b'-']);
    }
    outgoing
        .send(&mut stream, &mut noop(), &input, &gather)
        .unwrap();
    assert!(outgoing.is_empty());
    let mut read = vec![0; expected.len()];
    peer.read_exact(&mut read).unwrap();
    assert_eq!(read, expected);
}

#[tokio::test]
async fn what_a_slow_peer_does_not_take_is_kept_in_order_and_freed_afterwards() {
    let (mut stream, mut peer) = pair();
    let input = bytes(300_000);
    let (mut gather, mut outgoing) = (Gather::new(), Outgoing::new());
    let mut expected = Vec::new();
    for place in 0..30 {
        let range = place * 10_000..place * 10_000 + 9_999;
        expected.extend_from_slice(&input[range.clone()]);
        gather.input(range);
        gather.scratch(b"|");
        expected.push(b'|');
    }
    poll_fn(|cx| Poll::Ready(outgoing.send(&mut stream, cx, &input, &gather)))
        .await
        .unwrap();
    assert!(
        !outgoing.is_empty() && outgoing.len() < expected.len(),
        "a part was taken"
    );
    outgoing
        .send_slice(&mut stream, &mut noop(), b"the end")
        .unwrap();
    outgoing.push(b".");
    expected.extend_from_slice(b"the end.");
    let reader = std::thread::spawn(move || {
        let mut read = Vec::new();
        peer.read_to_end(&mut read).unwrap();
        read
    });
    poll_fn(|cx| outgoing.poll_flush(&mut stream, cx))
        .await
        .unwrap();
    assert_eq!(
        (outgoing.len(), outgoing.bytes.capacity()),
        (0, 0),
        "an idle connection holds nothing"
    );
    drop(stream);
    assert!(
        reader.join().unwrap() == expected,
        "other bytes, or another order"
    );
}

#[tokio::test]
async fn the_task_that_sent_is_woken_when_the_socket_takes_more() {
    let (mut stream, mut peer) = pair();
    let mut outgoing = Outgoing::new();
    let input = bytes(200_000);
    let reader = std::thread::spawn(move || {
        let mut read = vec![0; 200_000];
        peer.read_exact(&mut read).unwrap();
        read
    });
    let mut is_sent = false;
    // Only the waker that `send` registered gets the second poll going.
    poll_fn(|cx| {
        if !is_sent {
            is_sent = true;
            outgoing.send_slice(&mut stream, cx, &input).unwrap();
            if !outgoing.is_empty() {
                return Poll::Pending;
            }
        }
        outgoing.poll_flush(&mut stream, cx)
    })
    .await
    .unwrap();
    assert!(reader.join().unwrap() == input);
}

#[tokio::test]
async fn a_peer_that_is_gone_is_a_disconnect() {
    let (mut stream, peer) = pair();
    drop(peer);
    let error = Outgoing::new()
        .send_slice(&mut stream, &mut noop(), b"hello")
        .unwrap_err();
    assert!(error.is_disconnect(), "{error}");
}

//! A raw TCP relay: the least that a proxy on this runtime can cost, as a yardstick.
//!
//! One thread, one connection to the target per client, one read and one write per piece of data, and no look at the
//! bytes. It runs as a process of its own (`bench relay LISTEN TARGET`), so that its CPU can be read.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Of one direction. Chosen: a read takes what the socket has, so that a large result is bound by copying, not by calls.
const BUFFER_BYTES: usize = 64 * 1024;

/// Relays connections from `listen` to `target` until the process ends.
pub(super) fn run(listen: &str, target: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| format!("the relay's runtime: {error}"))?;
    runtime
        .block_on(serve(listen, target))
        .map_err(|error| format!("relay {listen} to {target}: {error}"))
}

async fn serve(listen: &str, target: &str) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (client, _) = listener.accept().await?;
        let target = target.to_owned();
        // A connection that fails ends; its client sees that.
        drop(tokio::spawn(async move { pair(client, &target).await }));
    }
}

/// Moves bytes both ways until both sides have ended.
async fn pair(mut client: TcpStream, target: &str) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let mut forth = pin!(pump(from_client, to_server));
    let mut back = pin!(pump(from_server, to_client));
    let (mut forth_ended, mut back_ended) = (false, false);
    // Both directions are one task: a wake-up costs one poll and no queue.
    poll_fn(|context| {
        forth_ended = forth_ended || forth.as_mut().poll(context).is_ready();
        back_ended = back_ended || back.as_mut().poll(context).is_ready();
        match forth_ended && back_ended {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    Ok(())
}

/// Moves bytes one way to their end, which it passes on.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return to.shutdown().await;
        };
        to.write_all(bytes).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::run;
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener, TcpStream};

    #[test]
    fn bytes_and_ends_pass_both_ways() {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let target_address = target.local_addr().unwrap().to_string();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = free.local_addr().unwrap().to_string();
        drop(free);
        let address = listen.clone();
        std::thread::spawn(move || run(&address, &target_address));
        let mut client = (0..1_000_000)
            .find_map(|_| TcpStream::connect(&listen).ok())
            .unwrap();
        let (mut server, _) = target.accept().unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let question = sent.clone();
        let asking = std::thread::spawn(move || {
            client.write_all(&question).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            answer
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).unwrap();
        assert!(received == sent);
        server.write_all(b"answer").unwrap();
        drop(server);
        assert_eq!(asking.join().unwrap(), b"answer");
    }
}

//! A TCP relay in front of a server: the network between the proxy and it, which can be cut or swallow everything.
//!
//! ## Why
//! A server that is stopped closes its connections, and one that is frozen keeps them; neither is what a network does. The
//! relay leaves the server and its replication alone and breaks only the way to it, and it heals in a moment.
//!
//! ## Limits
//! What was under way when the network swallowed it arrives when it heals, as TCP's own retransmissions would bring it.
//! One thread serves all connections of a relay.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::error::ClusterError;

/// Of one direction. Chosen: more than a message of the tests, so that a relay adds no round trips.
const BUFFER_BYTES: usize = 64 * 1024;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// It passes everything.
    Open,
    /// It closes what is there, and what comes.
    Cut,
    /// It keeps connections, takes new ones, and passes nothing.
    Silent,
    /// The relay has been dropped.
    Gone,
}

/// A relay on a port of its own. Dropping it closes its connections.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    link: watch::Sender<Link>,
}

impl Relay {
    /// Starts to relay connections to a port of the IPv4 loopback.
    ///
    /// # Errors
    /// [`ClusterError::Io`] if there is no port or thread for it.
    pub fn start(target: u16) -> Result<Self, ClusterError> {
        let address = (Ipv4Addr::LOCALHOST, 0);
        let listener = std::net::TcpListener::bind(address)
            .map_err(ClusterError::io("bind", "127.0.0.1:0"))?;
        let port = listener
            .local_addr()
            .map_err(ClusterError::io("bind", "127.0.0.1:0"))?
            .port();
        let failed = || ClusterError::io("start the relay of", format!("127.0.0.1:{target}"));
        listener.set_nonblocking(true).map_err(failed())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(failed())?;
        let (link, seen) = watch::channel(Link::Open);
        std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || runtime.block_on(serve(listener, target, seen)))
            .map_err(failed())?;
        Ok(Self { port, link })
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections, and each new one at once.
    pub fn cut(&self) {
        self.link.send_replace(Link::Cut);
    }

    /// Keeps all connections, takes new ones, and passes nothing.
    pub fn silence(&self) {
        self.link.send_replace(Link::Silent);
    }

    /// Passes everything again, what was held back too.
    pub fn heal(&self) {
        self.link.send_replace(Link::Open);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.link.send_replace(Link::Gone);
    }
}

async fn serve(listener: std::net::TcpListener, target: u16, link: watch::Receiver<Link>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let mut gone = link.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = gone.wait_for(|link| *link == Link::Gone) => return,
        };
        if let Ok((client, _)) = accepted {
            // A connection that fails ends; its client sees that.
            drop(tokio::spawn(connection(client, target, link.clone())));
        }
    }
}

/// Serves one connection until either side ends it or the network is cut.
async fn connection(client: TcpStream, target: u16, link: watch::Receiver<Link>) {
    let mut cut = link.clone();
    tokio::select! {
        _ = cut.wait_for(|link| matches!(link, Link::Cut | Link::Gone)) => {}
        _ = pair(client, target, link) => {}
    }
}

async fn pair(mut client: TcpStream, target: u16, link: watch::Receiver<Link>) -> io::Result<()> {
    let mut server = {
        let mut link = link.clone();
        pass(&mut link).await?;
        TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await?
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    // PostgreSQL's protocol has no half-closed connections: the end of one direction is the end of both.
    tokio::select! {
        ended = pump(from_client, to_server, link.clone()) => ended,
        ended = pump(from_server, to_client, link) => ended,
    }
}

/// Moves bytes one way to their end.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut link: watch::Receiver<Link>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        // The end, too, is known on the other side only when the network passes it.
        pass(&mut link).await?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        to.write_all(bytes).await?;
    }
}

/// Waits while nothing passes.
async fn pass(link: &mut watch::Receiver<Link>) -> io::Result<()> {
    match link.wait_for(|link| *link != Link::Silent).await {
        Ok(_) => Ok(()),
        Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

//! A connection: TCP or Unix socket, one enum, no trait object, so that its poll methods inline into the relay.
//!
//! A TLS variant joins the enum later; callers that match on it must expect that.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::error::{NetError, Peer};
use crate::socket_options::SocketOptions;

/// Bytes that [`Stream::read_some`] takes at once: startup and authentication messages are smaller.
const SOME_BYTES: usize = 4096;

/// A connection that is registered with the runtime of the thread that it was made on.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// A connection between two runtimes: an accepted one on its way to its worker, or a server connection that another
/// thread takes over.
#[derive(Debug)]
pub enum StdStream {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

/// What an idle connection has in store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiet {
    /// Nothing, as far as the runtime has heard.
    Quiet,
    /// Bytes that nobody asked for.
    Data,
    /// The peer closed it, or it failed.
    Closed,
}

impl Stream {
    /// Reads what is there, at most `buf.len()` bytes; 0 is the end of the stream. `buf` must not be empty.
    ///
    /// A read that does not fill `buf` tells the runtime that the socket is drained, so the next call waits for the
    /// reactor and costs no system call that returns nothing.
    ///
    /// # Errors
    /// [`NetError::Io`]; the connection is of no more use.
    #[inline]
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<usize, NetError>> {
        debug_assert!(
            !buf.is_empty(),
            "an empty buffer would read as the end of the stream"
        );
        let mut buf = ReadBuf::new(buf);
        loop {
            let polled = match self {
                Stream::Tcp(tcp) => Pin::new(tcp).poll_read(cx, &mut buf),
                Stream::Unix(unix) => Pin::new(unix).poll_read(cx, &mut buf),
            };
            return match ready!(polled) {
                Ok(()) => Poll::Ready(Ok(buf.filled().len())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Poll::Ready(Err(self.failed("read", error))),
            };
        }
    }

    /// Writes as much of `bytes` as the socket takes now.
    ///
    /// # Errors
    /// [`NetError::Io`]; the connection is of no more use.
    #[inline]
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, NetError>> {
        loop {
            let polled = match self {
                Stream::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
                Stream::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
            };
            return match ready!(polled) {
                Ok(count) => Poll::Ready(Ok(count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Poll::Ready(Err(self.failed("write", error))),
            };
        }
    }

    /// Writes at once, without asking the runtime whether the socket is writable, which it nearly always is; `None`
    /// where it is full.
    ///
    /// The runtime's idea of readiness is left alone. That is safe: whoever waits afterwards polls, and a poll that
    /// believes in readiness writes again, meets the full socket and only then waits.
    ///
    /// # Errors
    /// [`NetError::Io`]; the connection is of no more use.
    #[inline]
    pub(crate) fn write_now(&mut self, slices: &[IoSlice<'_>]) -> Result<Option<usize>, NetError> {
        loop {
            let socket = self.socket();
            let written = match slices {
                // One slice is the common case, and `send` has less to unpack than `sendmsg`.
                [slice] => socket.send(slice),
                _ => socket.send_vectored(slices),
            };
            match written {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("write", error)),
            }
        }
    }

    /// Tells whether an idle connection is as it was left. No system call unless the reactor has heard something;
    /// what it has not heard yet (this turn of the loop) goes unseen.
    ///
    /// A waker that waits on this connection is not disturbed.
    #[inline]
    pub fn try_is_quiet(&mut self) -> Quiet {
        let peek = |socket: SockRef<'_>| socket.peek(&mut [MaybeUninit::uninit()]);
        // `try_io` looks at the readiness flag first, and clears it when the peek finds nothing after all.
        let peeked = match self {
            Stream::Tcp(tcp) => tcp.try_io(Interest::READABLE, || peek(SockRef::from(&*tcp))),
            Stream::Unix(unix) => unix.try_io(Interest::READABLE, || peek(SockRef::from(&*unix))),
        };
        match peeked {
            Ok(0) => Quiet::Closed,
            Ok(_) => Quiet::Data,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Quiet::Quiet,
            Err(_) => Quiet::Closed,
        }
    }

    /// Returns whether the reactor has heard of something to be read, or of the end of the stream. No system call, and no task is
    /// registered: it is far cheaper than a [`Stream::poll_read`] that has to wait.
    #[inline]
    pub fn has_input(&self) -> bool {
        // The closure says nothing that could clear the readiness.
        let is_ready = match self {
            Stream::Tcp(tcp) => tcp.try_io(Interest::READABLE, || Ok(())),
            Stream::Unix(unix) => unix.try_io(Interest::READABLE, || Ok(())),
        };
        is_ready.is_ok()
    }

    /// Appends what is there, at most 4 KiB, to `buf`; 0 is the end of the stream. For startup and authentication; the
    /// relay uses [`Stream::poll_read`].
    ///
    /// # Errors
    /// [`NetError::Io`]; the connection is of no more use.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped call has read nothing.
    pub async fn read_some(&mut self, buf: &mut impl BufMut) -> Result<usize, NetError> {
        poll_fn(|cx| {
            let mut chunk = [0; SOME_BYTES];
            let count = ready!(self.poll_read(cx, &mut chunk))?;
            buf.put_slice(chunk.get(..count).unwrap_or_default());
            Poll::Ready(Ok(count))
        })
        .await
    }

    /// Fills `buf`.
    ///
    /// # Errors
    /// [`NetError::Closed`] when the stream ends first, else [`NetError::Io`].
    ///
    /// # Cancel safety
    /// Not cancel safe: what was read is lost with the call.
    pub async fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), NetError> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match poll_fn(|cx| self.poll_read(cx, rest)).await? {
                0 => {
                    return Err(NetError::Closed {
                        op: "read",
                        peer: self.peer(),
                    });
                }
                count => filled += count,
            }
        }
        Ok(())
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// [`NetError::Io`]; the connection is of no more use.
    ///
    /// # Cancel safety
    /// Not cancel safe: some bytes may have been written, and nobody knows how many.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), NetError> {
        while !bytes.is_empty() {
            let count = poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Says to the peer that nothing more will be written; what it sends can still be read.
    ///
    /// # Errors
    /// [`NetError::Io`], usually because the peer has gone already.
    pub fn shutdown_write(&self) -> Result<(), NetError> {
        self.socket()
            .shutdown(Shutdown::Write)
            .map_err(|error| self.failed("shut down", error))
    }

    /// Makes closing abort the connection (a reset on TCP), so that the peer cannot take a half-sent reply for a whole
    /// one and no unsent bytes linger.
    ///
    /// # Errors
    /// [`NetError::Io`].
    pub fn set_linger_zero(&self) -> Result<(), NetError> {
        let linger = self.socket().set_linger(Some(std::time::Duration::ZERO));
        linger.map_err(|error| self.failed("set linger of", error))
    }

    /// Sets the TCP options; does nothing on a Unix socket.
    ///
    /// # Errors
    /// [`NetError::Io`].
    pub fn set_options(&self, options: &SocketOptions) -> Result<(), NetError> {
        match self {
            Stream::Tcp(tcp) => options
                .apply(SockRef::from(tcp))
                .map_err(|error| self.failed("set options of", error)),
            Stream::Unix(_) => Ok(()),
        }
    }

    /// Takes the connection out of this thread's runtime.
    ///
    /// # Errors
    /// [`NetError::Io`]; the connection is closed then.
    pub fn into_std(self) -> Result<StdStream, NetError> {
        let taken = match self {
            Stream::Tcp(tcp) => tcp.into_std().map(StdStream::Tcp),
            Stream::Unix(unix) => unix.into_std().map(StdStream::Unix),
        };
        taken.map_err(|source| NetError::Io {
            op: "deregister",
            peer: Peer::Unknown,
            source,
        })
    }

    /// Registers a connection, which must be non-blocking, with this thread's runtime.
    ///
    /// # Errors
    /// [`NetError::Io`]; the connection is closed then.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn from_std(stream: StdStream) -> Result<Stream, NetError> {
        let registered = match stream {
            StdStream::Tcp(tcp) => TcpStream::from_std(tcp).map(Stream::Tcp),
            StdStream::Unix(unix) => UnixStream::from_std(unix).map(Stream::Unix),
        };
        registered.map_err(|source| NetError::Io {
            op: "register",
            peer: Peer::Unknown,
            source,
        })
    }

    /// Returns who is on the other end. One system call: for messages.
    pub fn peer(&self) -> Peer {
        match self {
            Stream::Tcp(tcp) => tcp.peer_addr().map_or(Peer::Unknown, Peer::Tcp),
            Stream::Unix(unix) => match unix.peer_addr() {
                Ok(address) => address
                    .as_pathname()
                    .map_or(Peer::UnixClient, |path| Peer::Unix(path.into())),
                Err(_) => Peer::Unknown,
            },
        }
    }

    /// Returns the address on this side that the peer is connected to. One system call: for messages.
    pub fn local(&self) -> Peer {
        match self {
            Stream::Tcp(tcp) => tcp.local_addr().map_or(Peer::Unknown, Peer::Tcp),
            Stream::Unix(unix) => match unix.local_addr() {
                Ok(address) => address
                    .as_pathname()
                    .map_or(Peer::UnixClient, |path| Peer::Unix(path.into())),
                Err(_) => Peer::Unknown,
            },
        }
    }

    /// Returns true for a Unix socket: the peer is on this machine.
    pub fn is_unix(&self) -> bool {
        matches!(self, Stream::Unix(_))
    }

    fn socket(&self) -> SockRef<'_> {
        match self {
            Stream::Tcp(tcp) => SockRef::from(tcp),
            Stream::Unix(unix) => SockRef::from(unix),
        }
    }

    #[cold]
    fn failed(&self, op: &'static str, source: io::Error) -> NetError {
        NetError::Io {
            op,
            peer: self.peer(),
            source,
        }
    }
}

impl StdStream {
    /// Returns who is on the other end.
    pub fn peer(&self) -> Peer {
        match self {
            StdStream::Tcp(tcp) => tcp.peer_addr().map_or(Peer::Unknown, Peer::Tcp),
            StdStream::Unix(unix) => match unix.peer_addr() {
                Ok(address) => address
                    .as_pathname()
                    .map_or(Peer::UnixClient, |path| Peer::Unix(path.into())),
                Err(_) => Peer::Unknown,
            },
        }
    }

    /// Returns true for a Unix socket: the peer is on this machine.
    pub fn is_unix(&self) -> bool {
        matches!(self, StdStream::Unix(_))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::task::Waker;

    use super::*;

    /// A connected pair over TCP, and one over a Unix socket; the peers block.
    fn tcp_pair() -> (StdStream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = listener.accept().unwrap().0;
        ours.set_nonblocking(true).unwrap();
        (StdStream::Tcp(ours), peer)
    }

    fn unix_pair() -> (StdStream, std::os::unix::net::UnixStream) {
        let (ours, peer) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (StdStream::Unix(ours), peer)
    }

    async fn hear(stream: &mut Stream) -> Quiet {
        // The reactor hears of it in a later turn of the loop.
        for _ in 0..10_000 {
            match stream.try_is_quiet() {
                Quiet::Quiet => tokio::task::yield_now().await,
                heard => return heard,
            }
        }
        Quiet::Quiet
    }

    async fn tells_quiet_from_data_and_data_from_the_end(
        stream: StdStream,
        mut peer: impl Read + Write,
    ) {
        let mut stream = Stream::from_std(stream).unwrap();
        assert_eq!(stream.try_is_quiet(), Quiet::Quiet);
        assert!(!stream.has_input());
        peer.write_all(b"hello").unwrap();
        assert_eq!(hear(&mut stream).await, Quiet::Data);
        assert!(stream.has_input());
        let mut buf = Vec::new();
        assert_eq!(stream.read_some(&mut buf).await.unwrap(), 5);
        assert!(!stream.has_input());
        assert_eq!(
            stream.try_is_quiet(),
            Quiet::Quiet,
            "the peek took nothing, the read took all"
        );
        peer.write_all(b"x").unwrap();
        drop(peer);
        assert_eq!(hear(&mut stream).await, Quiet::Data);
        stream.read_exact(&mut [0]).await.unwrap();
        assert_eq!(hear(&mut stream).await, Quiet::Closed);
        assert!(stream.has_input(), "the end is to be read, too");
        assert_eq!(stream.read_some(&mut buf).await.unwrap(), 0);
        assert!(matches!(
            stream.read_exact(&mut [0]).await,
            Err(NetError::Closed { .. })
        ));
    }

    #[tokio::test]
    async fn tells_quiet_from_data_and_data_from_the_end_on_tcp() {
        let (stream, peer) = tcp_pair();
        tells_quiet_from_data_and_data_from_the_end(stream, peer).await;
    }

    #[tokio::test]
    async fn tells_quiet_from_data_and_data_from_the_end_on_unix() {
        let (stream, peer) = unix_pair();
        tells_quiet_from_data_and_data_from_the_end(stream, peer).await;
    }

    #[tokio::test]
    async fn a_look_at_an_idle_connection_does_not_disturb_who_waits_on_it() {
        let (stream, mut peer) = tcp_pair();
        let mut stream = Stream::from_std(stream).unwrap();
        let mut polls = 0;
        let count = poll_fn(|cx| {
            polls += 1;
            let read = stream.poll_read(cx, &mut [0; 8]);
            if read.is_pending() {
                assert_eq!(stream.try_is_quiet(), Quiet::Quiet);
                assert!(!stream.has_input());
                peer.write_all(b"ping").unwrap();
            }
            read
        });
        assert_eq!(count.await.unwrap(), 4);
        assert!(polls >= 2);
    }

    #[test]
    fn a_connection_moves_to_another_thread_with_what_it_has_received() {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .unwrap()
        };
        let (stream, mut peer) = tcp_pair();
        peer.write_all(b"early").unwrap();
        let moved = runtime().block_on(async {
            let mut stream = Stream::from_std(stream).unwrap();
            stream.write_all(b"one").await.unwrap();
            stream.into_std().unwrap()
        });
        let worker = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut stream = Stream::from_std(moved).unwrap();
                let mut read = [0; 5];
                stream.read_exact(&mut read).await.unwrap();
                stream.write_all(b"two").await.unwrap();
                stream.shutdown_write().unwrap();
                read
            })
        });
        assert_eq!(&worker.join().unwrap(), b"early");
        let mut read = String::new();
        peer.read_to_string(&mut read).unwrap();
        assert_eq!(read, "onetwo");
    }

    #[tokio::test]
    async fn options_reach_the_socket() {
        let (stream, _peer) = tcp_pair();
        let stream = Stream::from_std(stream).unwrap();
        let user_timeout = Some(std::time::Duration::from_secs(30));
        stream
            .set_options(&SocketOptions {
                user_timeout,
                ..SocketOptions::default()
            })
            .unwrap();
        let socket = stream.socket();
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), user_timeout);
        assert!(matches!(stream.peer(), Peer::Tcp(_)));
    }

    #[tokio::test]
    async fn a_reset_close_is_seen_as_a_disconnect() {
        let (stream, mut peer) = tcp_pair();
        let stream = Stream::from_std(stream).unwrap();
        stream.set_linger_zero().unwrap();
        drop(stream);
        assert_eq!(
            peer.read(&mut [0]).unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
    }

    #[tokio::test]
    async fn a_write_that_does_not_fit_is_pending() {
        let (stream, _peer) = unix_pair();
        let mut stream = Stream::from_std(stream).unwrap();
        let bytes = vec![0; 1 << 16];
        let slices = [IoSlice::new(&bytes), IoSlice::new(&bytes)];
        let mut rounds = 0;
        while stream.write_now(&slices).unwrap().is_some() {
            rounds += 1;
            assert!(rounds < 10_000, "no buffer is that large");
        }
        let mut cx = Context::from_waker(Waker::noop());
        assert!(stream.poll_write(&mut cx, &bytes).is_pending());
    }
}

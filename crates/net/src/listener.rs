//! Listening sockets: TCP addresses and Unix socket files.
//!
//! An accepted connection is returned in its thread-free form ([`StdStream`]), because one thread accepts and the
//! thread with the fewest clients serves. It is never registered with the accepting thread's reactor.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::lookup_host;

use crate::error::{NetError, Peer, socket_file};
use crate::stream::StdStream;

/// Connections that the system holds until they are accepted. A burst of new clients must not be refused; the system
/// lowers it to its own limit (`net.core.somaxconn`, 4096 on current Linux).
const BACKLOG: i32 = 4096;

/// Mode of a socket file: who may connect is a matter of authentication, as with PostgreSQL
/// (<https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-UNIX-SOCKET-PERMISSIONS>).
const SOCKET_FILE_MODE: u32 = 0o777;

/// A listening socket; a socket file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<Socket>,
    bound: Bound,
}

#[derive(Debug)]
enum Bound {
    Tcp(SocketAddr),
    Unix(SocketFile),
}

/// A socket file that we made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: a successor may have put its own file in the same place.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Listens on `host`, which is a name, an address, `*` for every interface, or (beginning with `/`) a folder that
    /// gets the socket file `.s.PGSQL.<port>`. A name yields a listener for each of its addresses; with port 0, where
    /// the system chooses, only for the first.
    ///
    /// A socket file on which nobody listens is replaced.
    ///
    /// # Errors
    /// [`NetError::Io`] (`AddrInUse` where somebody listens), [`NetError::NoAddress`].
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped call listens nowhere.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn bind(host: &str, port: u16) -> Result<Vec<Listener>, NetError> {
        if host.starts_with('/') {
            return Ok(vec![Listener::bind_unix(Path::new(host), port)?]);
        }
        if host == "*" {
            let every = |ip: IpAddr| Listener::bind_tcp(SocketAddr::new(ip, port));
            // The first serves both families where the system has IPv6.
            let listener = every(Ipv6Addr::UNSPECIFIED.into())
                .or_else(|_| every(Ipv4Addr::UNSPECIFIED.into()))?;
            return Ok(vec![listener]);
        }
        let failed = |source| NetError::Io {
            op: "resolve",
            peer: Peer::named(host, port),
            source,
        };
        let mut listeners = Vec::new();
        for address in lookup_host((host, port)).await.map_err(failed)? {
            listeners.push(Listener::bind_tcp(address)?);
            if port == 0 {
                break;
            }
        }
        if listeners.is_empty() {
            Err(NetError::NoAddress { host: host.into() })
        } else {
            Ok(listeners)
        }
    }

    fn bind_tcp(address: SocketAddr) -> Result<Listener, NetError> {
        let listen = || -> io::Result<Listener> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            // A restart must not wait for the connections of the last run to be forgotten.
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(!address.ip().is_unspecified())?;
            }
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let bound = socket.local_addr()?.as_socket().unwrap_or(address);
            let socket = register(socket)?;
            Ok(Listener {
                socket,
                bound: Bound::Tcp(bound),
            })
        };
        listen().map_err(|source| NetError::Io {
            op: "listen on",
            peer: Peer::Tcp(address),
            source,
        })
    }

    fn bind_unix(folder: &Path, port: u16) -> Result<Listener, NetError> {
        let path = socket_file(folder, port);
        let listen = || -> io::Result<Listener> {
            let address = SockAddr::unix(&path)?;
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            remove_stale(&path, &address)?;
            socket.bind(&address)?;
            // From here on the file is ours, also to remove when what follows fails.
            let identity = fs::metadata(&path)
                .ok()
                .map(|file| (file.dev(), file.ino()));
            let file = SocketFile {
                path: path.clone(),
                identity,
            };
            fs::set_permissions(&path, fs::Permissions::from_mode(SOCKET_FILE_MODE))?;
            socket.listen(BACKLOG)?;
            let socket = register(socket)?;
            Ok(Listener {
                socket,
                bound: Bound::Unix(file),
            })
        };
        listen().map_err(|source| NetError::Io {
            op: "listen on",
            peer: Peer::Unix(path.clone()),
            source,
        })
    }

    /// Returns the next connection, non-blocking and registered nowhere. Connections that broke while they waited are
    /// passed over.
    ///
    /// # Errors
    /// [`NetError::Io`]: the listener stays good. Out of file descriptors or memory it fails again at once, so the
    /// caller waits a little before the next call.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped call has accepted nothing.
    pub async fn accept(&self) -> Result<StdStream, NetError> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// [`Listener::accept`] for a caller that polls.
    ///
    /// # Errors
    /// As [`Listener::accept`].
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<StdStream, NetError>> {
        loop {
            let accepted = match ready!(self.socket.poll_read_ready(cx)) {
                Ok(mut ready) => match ready.try_io(|socket| self.accept_now(socket.get_ref())) {
                    Ok(accepted) => accepted,
                    Err(_would_block) => continue,
                },
                Err(error) => Err(error),
            };
            match accepted {
                Ok(stream) => return Poll::Ready(Ok(stream)),
                Err(error) if is_of_that_connection(&error) => {}
                Err(source) => {
                    return Poll::Ready(Err(NetError::Io {
                        op: "accept on",
                        peer: self.bound_to(),
                        source,
                    }));
                }
            }
        }
    }

    /// Returns what it listens on; with port 0 the port that the system chose.
    pub fn bound_to(&self) -> Peer {
        match &self.bound {
            Bound::Tcp(address) => Peer::Tcp(*address),
            Bound::Unix(file) => Peer::Unix(file.path.clone()),
        }
    }

    fn accept_now(&self, socket: &Socket) -> io::Result<StdStream> {
        let (connection, _address) = socket.accept()?;
        connection.set_nonblocking(true)?;
        Ok(match self.bound {
            Bound::Tcp(_) => StdStream::Tcp(connection.into()),
            Bound::Unix(_) => StdStream::Unix(connection.into()),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let now = fs::metadata(&self.path)
            .ok()
            .map(|file| (file.dev(), file.ino()));
        if now.is_some() && now == self.identity {
            // A file that stays behind is replaced by the next start, so there is nobody to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Registers a listening socket with the runtime.
///
/// The runtime's own listener types register each accepted connection at once, which costs two system calls for a
/// connection that moves on to another thread.
#[expect(
    unsafe_code,
    reason = "the runtime offers the registration of a foreign descriptor only so"
)]
fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the descriptor must stay open, and must stay the same, for as long as it is registered. `Socket` owns it
    // and closes it only when dropped, `AsyncFd` owns the `Socket` and deregisters first, and nothing here replaces the
    // `Socket` inside.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// Removes the socket file of a process that is gone.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    match Socket::new(Domain::UNIX, Type::STREAM, None)?.connect(address) {
        Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Nothing there; anything else is better told by `bind`.
        Err(_) => Ok(()),
    }
}

/// Returns true where `accept` reports the fate of one waiting connection and not of the listener (`accept(2)`, Notes).
fn is_of_that_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::connect::connect;
    use crate::stream::Stream;

    const LIMIT: Duration = Duration::from_secs(20);

    async fn bind_one(host: &str, port: u16) -> Listener {
        Listener::bind(host, port).await.unwrap().pop().unwrap()
    }

    fn port_of(listener: &Listener) -> u16 {
        match listener.bound_to() {
            Peer::Tcp(address) => address.port(),
            other => panic!("not TCP: {other}"),
        }
    }

    async fn passes_bytes(listener: &Listener, host: &str, port: u16) {
        let (client, server) = tokio::join!(connect(host, port, LIMIT), listener.accept());
        let (mut client, mut server) =
            (client.unwrap(), Stream::from_std(server.unwrap()).unwrap());
        client.write_all(b"ping").await.unwrap();
        let mut read = [0; 4];
        server.read_exact(&mut read).await.unwrap();
        server.write_all(&read).await.unwrap();
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ping");
    }

    #[tokio::test]
    async fn connects_over_tcp_by_name_and_by_address() {
        let listener = bind_one("127.0.0.1", 0).await;
        passes_bytes(&listener, "127.0.0.1", port_of(&listener)).await;
        passes_bytes(&listener, "localhost", port_of(&listener)).await;
        let every = bind_one("*", 0).await;
        passes_bytes(&every, "127.0.0.1", port_of(&every)).await;
    }

    #[tokio::test]
    async fn connects_over_a_socket_file_that_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let host = folder.path().to_str().unwrap();
        let listener = bind_one(host, 6432).await;
        let file = folder.path().join(".s.PGSQL.6432");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            SOCKET_FILE_MODE
        );
        passes_bytes(&listener, host, 6432).await;
        drop(listener);
        assert!(!file.exists());
    }

    #[tokio::test]
    async fn replaces_the_socket_file_of_the_dead_and_not_that_of_the_living() {
        let folder = tempfile::tempdir().unwrap();
        let host = folder.path().to_str().unwrap();
        let file = folder.path().join(".s.PGSQL.6432");
        drop(std::os::unix::net::UnixListener::bind(&file).unwrap());
        assert!(
            file.exists(),
            "the standard library leaves it behind, as a killed process does"
        );
        let listener = bind_one(host, 6432).await;
        match Listener::bind(host, 6432).await {
            Err(NetError::Io { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::AddrInUse),
            other => panic!("{other:?}"),
        }
        // The other's question whether anybody listens.
        drop(listener.accept().await.unwrap());
        passes_bytes(&listener, host, 6432).await;
    }

    #[tokio::test]
    async fn leaves_the_socket_file_of_a_successor() {
        let folder = tempfile::tempdir().unwrap();
        let host = folder.path().to_str().unwrap();
        let file = folder.path().join(".s.PGSQL.6432");
        let listener = bind_one(host, 6432).await;
        fs::rename(&file, folder.path().join("old")).unwrap();
        let successor = bind_one(host, 6432).await;
        drop(listener);
        passes_bytes(&successor, host, 6432).await;
    }

    #[tokio::test]
    async fn a_taken_port_is_named_in_the_error() {
        let listener = bind_one("127.0.0.1", 0).await;
        let error = Listener::bind("127.0.0.1", port_of(&listener))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("listen on {}: ", listener.bound_to())),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_refused_connection_names_the_target() {
        let port = port_of(&bind_one("127.0.0.1", 0).await);
        let error = connect("127.0.0.1", port, LIMIT).await.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("connect to 127.0.0.1:{port}: ")),
            "{error}"
        );
        let error = connect("/nowhere", port, LIMIT).await.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("connect to /nowhere/.s.PGSQL.{port}: ")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_server_that_does_not_take_the_connection_meets_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".s.PGSQL.1");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&file).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let host = folder.path().to_str().unwrap();
        let _first = connect(host, 1, LIMIT).await.unwrap();
        let error = connect(host, 1, Duration::from_millis(30))
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                NetError::Deadline {
                    op: "connect to",
                    peer: Peer::Unix(_),
                    ..
                }
            ),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn waits_for_a_connection_without_blocking_the_thread() {
        let listener = bind_one("127.0.0.1", 0).await;
        assert!(
            tokio::time::timeout(Duration::from_millis(1), listener.accept())
                .await
                .is_err()
        );
        passes_bytes(&listener, "127.0.0.1", port_of(&listener)).await;
    }
}

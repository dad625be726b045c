//! Options of TCP sockets: no delay, keepalive, user timeout.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Probes that tell a dead peer from a silent one (`tcp(7)`: `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe; whole seconds.
    pub idle: Duration,
    /// Time between probes; whole seconds.
    pub interval: Duration,
    /// Unanswered probes after which the connection counts as dead.
    pub count: u32,
}

/// What is set on each TCP connection. Unix sockets have none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOptions {
    /// `TCP_NODELAY`: what is written leaves at once. We write whole runs of messages, so holding back only adds delay.
    pub nodelay: bool,
    /// Keepalive probes, or none.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT`: how long written data may stay unacknowledged; `None` leaves it to the system.
    pub user_timeout: Option<Duration>,
}

impl Default for SocketOptions {
    /// No delay; probes after 60 s of silence, 10 s apart, 6 of them: a dead peer is known within two minutes, where the
    /// system's own default takes more than two hours.
    fn default() -> Self {
        let keepalive = Keepalive {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            count: 6,
        };
        SocketOptions {
            nodelay: true,
            keepalive: Some(keepalive),
            user_timeout: None,
        }
    }
}

impl SocketOptions {
    pub(crate) fn apply(&self, socket: SockRef<'_>) -> io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay)?;
        if let Some(keepalive) = self.keepalive {
            let probes = TcpKeepalive::new()
                .with_time(keepalive.idle)
                .with_interval(keepalive.interval)
                .with_retries(keepalive.count);
            socket.set_tcp_keepalive(&probes)?;
        }
        #[cfg(target_os = "linux")]
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
    }
}

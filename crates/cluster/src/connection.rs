//! The control plane's connections: a small pool per node.
//!
//! deadpool's own way of connecting logs each broken connection; the monitor logs a node's health once, when it changes.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls, error::SqlState};

use crate::error::{ProbeError, StartError};
use crate::settings::{NodeSettings, Settings};

/// Connections per node: one asks, and one is left for a question beside it.
const POOL_SIZE: usize = 2;

/// Returns the pool of a node; it connects when it is first used.
pub(crate) fn pool(settings: &Settings, node: &NodeSettings) -> Result<Pool, StartError> {
    let config = config(settings, node, "pgweir monitor");
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = Manager::from_connect(config, Quietly, recycling);
    Ok(Pool::builder(manager).max_size(POOL_SIZE).build()?)
}

/// Returns how to log in on a node.
pub(crate) fn config(settings: &Settings, node: &NodeSettings, application_name: &str) -> Config {
    let mut config = Config::new();
    config
        .host(&*node.host)
        .port(node.port)
        .user(&*settings.user)
        .dbname(&*settings.database)
        .application_name(application_name)
        .connect_timeout(settings.connect_timeout)
        .tcp_user_timeout(settings.query_timeout())
        .keepalives_idle(Duration::from_secs(10));
    if let Some(password) = &settings.password {
        config.password(password.as_bytes());
    }
    config
}

/// Connects without TLS; what a connection ends with is told by the question that it fails.
struct Quietly;

impl Connect for Quietly {
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        let config = config.clone();
        Box::pin(async move {
            let (client, connection) = config.connect(NoTls).await?;
            let task = tokio::spawn(async move {
                let _told_to_the_client = connection.await;
            });
            Ok((client, task))
        })
    }
}

impl From<PoolError> for ProbeError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => ProbeError::from(error),
            other => ProbeError::Connection {
                what: other.to_string(),
                definite: false,
            },
        }
    }
}

impl From<Error> for ProbeError {
    fn from(error: Error) -> Self {
        if let Some(answer) = error.as_db_error() {
            let code = answer.code();
            let definite = [
                SqlState::CANNOT_CONNECT_NOW,
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
            ];
            let what = format!("{} ({})", answer.message(), code.code());
            return ProbeError::Connection {
                what,
                definite: definite.contains(code),
            };
        }
        let cause = std::error::Error::source(&error);
        let definite = cause
            .and_then(|cause| cause.downcast_ref::<std::io::Error>())
            .is_some_and(|io| {
                matches!(
                    io.kind(),
                    std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound
                )
            });
        let what = match cause {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        ProbeError::Connection { what, definite }
    }
}

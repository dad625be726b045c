//! Takes new connections and gives each to the worker with the fewest clients.

use std::sync::Arc;
use std::thread::JoinHandle;

use pgweir_admin::Phase;
use pgweir_config::{ListenAddress, Server};
use pgweir_net::Listener;
use tokio::runtime::Runtime;

use crate::proxy::{Shared, StartError};
use crate::worker::Mail;

/// The listening sockets and the runtime that they are registered with.
pub(crate) struct Acceptor {
    runtime: Runtime,
    listeners: Vec<Listener>,
}

impl Acceptor {
    /// Binds every configured address; returns the acceptor and the addresses as bound.
    pub(crate) fn bind(server: &Server) -> Result<(Acceptor, Vec<String>), StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let mut listeners = Vec::new();
        for address in &server.listen {
            let (host, port) = match address {
                ListenAddress::Tcp(host, port) => (host.clone(), *port),
                ListenAddress::Unix(folder) => (folder.display().to_string(), server.unix_port()),
            };
            let bound = runtime
                .block_on(Listener::bind(&host, port))
                .map_err(|source| StartError::Listen {
                    address: address.to_string(),
                    source,
                })?;
            listeners.extend(bound);
        }
        let addresses = listeners
            .iter()
            .map(|listener| listener.bound_to().to_string())
            .collect();
        Ok((Acceptor { runtime, listeners }, addresses))
    }

    pub(crate) fn spawn(self, shared: Arc<Shared>) -> Result<JoinHandle<()>, std::io::Error> {
        let thread = std::thread::Builder::new().name("pgweir-accept".to_owned());
        thread.spawn(move || {
            let Acceptor { runtime, listeners } = self;
            let tasks: Vec<_> = listeners
                .into_iter()
                .map(|listener| runtime.spawn(accept(listener, Arc::clone(&shared))))
                .collect();
            runtime.block_on(async {
                for task in tasks {
                    // A panic has been reported by its hook.
                    let _panicked = task.await;
                }
            });
        })
    }
}

/// Accepts until the proxy drains. The listening socket is closed then, so that clients go elsewhere at once.
async fn accept(listener: Listener, shared: Arc<Shared>) {
    let mut phase = shared.phase.subscribe();
    // The proxy may have been told to stop before this task listened.
    phase.mark_changed();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    let worker = shared.least_busy();
                    if let Some(handle) = shared.workers().get(worker) {
                        // Counted here, so that a burst is spread before its first client has begun.
                        handle.clients.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                    shared.send(worker, Mail::Client(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Usually the limit of open files: wait for some to close rather than burn the processor.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
            changed = phase.changed() => {
                if changed.is_err() || shared.phase() >= Phase::Draining {
                    return;
                }
            }
        }
    }
}

//! SIGTERM, SIGINT and SIGHUP, as events of the main thread.
//!
//! The proxy has threads and runtimes of its own; the main thread has nothing to do but wait for these.

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::failure::Failure;

/// What was asked of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// SIGTERM.
    Terminate,
    /// SIGINT, which is Ctrl-C on a terminal.
    Interrupt,
    /// SIGHUP, also when the terminal is closed.
    Hangup,
}

/// The signals from the moment of [`Signals::listen`] on; what they did before, they do no longer.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over, and returns them with the runtime to wait in.
    pub(crate) fn listen() -> Result<(Runtime, Signals), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::io("start the main runtime"))?;
        let entered = runtime.enter();
        let on = |kind| signal(kind).map_err(Failure::io("take over a signal"));
        let signals = Signals {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        };
        drop(entered);
        Ok((runtime, signals))
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    /// Safe: a signal that comes in between is seen by the next call.
    pub(crate) async fn next(&mut self) -> Request {
        tokio::select! {
            Some(()) = self.terminate.recv() => Request::Terminate,
            Some(()) = self.interrupt.recv() => Request::Interrupt,
            Some(()) = self.hangup.recv() => Request::Hangup,
            // The runtime never closes these streams while it runs.
            else => std::future::pending().await,
        }
    }
}

/// Work on a thread of its own, so that signals are heard meanwhile.
#[derive(Debug)]
pub(crate) struct Work<T> {
    what: &'static str,
    done: oneshot::Receiver<T>,
}

impl<T: Send + 'static> Work<T> {
    /// Starts it.
    pub(crate) fn start(
        what: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Self, Failure> {
        let (sender, done) = oneshot::channel();
        let thread = std::thread::Builder::new().name(what.to_owned());
        let run = move || {
            // Nobody listens any more when the process is about to end.
            let _unheard = sender.send(work());
        };
        thread.spawn(run).map_err(Failure::io("start a thread"))?;
        Ok(Work { what, done })
    }

    /// Waits for its end.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn ended(&mut self) -> Result<T, Failure> {
        (&mut self.done)
            .await
            .map_err(|_gone| Failure::Panicked(self.what))
    }

    /// Waits for its end; a signal that comes first ends the process at once.
    pub(crate) fn end_or_exit(
        mut self,
        runtime: &Runtime,
        signals: &mut Signals,
    ) -> Result<T, Failure> {
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = self.ended() => Some(outcome),
                // A hangup often comes with another signal, as when a terminal is closed: it hurries nobody.
                () = hurried(signals) => None,
            }
        });
        outcome.unwrap_or_else(|| std::process::exit(130))
    }
}

async fn hurried(signals: &mut Signals) {
    while signals.next().await == Request::Hangup {}
}

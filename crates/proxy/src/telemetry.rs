//! OpenTelemetry: a span for each batch, handed to a thread that exports it.
//!
//! ```text
//!   a session                               the exporter's thread
//!   a batch is sent ── begins ─┐
//!   a batch is answered ── StatementSpan ──► queue ──► SpanData ──► OTLP over HTTP ──► collector
//! ```
//!
//! ## Why it never holds a session up
//! The queue is bounded, and a span that does not fit is dropped and counted. Whatever the collector does, or does not, happens to
//! the exporter's thread alone. Where nothing is configured, a batch costs a look at one `Option`.
//!
//! ## What a span shows
//! The names are those of the semantic conventions for databases. Of the statement there is the shape, never the text or a value.
//! - The span of the batch, from the moment that it was looked at until it had been answered (`SERVER`).
//! - Within it the time at the server, if one was asked (`CLIENT`).
//!
//! ## Limits
//! - What the proxy answers itself (a BEGIN that is held back, `SHOW pgweir.*`) has no span, and neither has a batch whose client
//!   went before the answer.
//! - Batches of a pipeline that are under way at once end together, when the last of them has been answered.
//! - Of a transaction's batches each has a span of its own; what joins them is the caller's trace.

mod convert;
mod export;
mod follow;
mod traceparent;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use pgweir_backend::Address;
use pgweir_metrics::SpanCounts;
use pgweir_model::{Reason, Role, Sqlstate};

use crate::proxy::StartError;

pub(crate) use follow::{Flight as SpanFlight, SpanEnd, SpanStart, Spans};
pub(crate) use traceparent::TraceParent;

/// Spans that wait for the exporter. Chosen: what a few thousand batches per second bring while one export takes its time, some
/// MiB at most.
const QUEUE_LIMIT: usize = 4096;

/// So many spans end the exporter's wait for more: half the queue, so that there is room for those that come while it wakes up.
const WAKE_AT: usize = QUEUE_LIMIT / 2;

/// A batch that has ended.
#[derive(Debug)]
pub(crate) struct StatementSpan {
    /// When it was first looked at.
    pub(crate) started_at: Instant,
    /// When it had been answered.
    pub(crate) ended_at: Instant,
    /// How long it waited before it was sent; `None` where no server was asked.
    pub(crate) wait: Option<Duration>,
    /// The caller's span.
    pub(crate) parent: Option<TraceParent>,
    /// What it does, in few words.
    pub(crate) kind: StatementName,
    /// Its shape.
    pub(crate) shape: Option<Arc<str>>,
    /// The database as the client named it.
    pub(crate) database: Arc<str>,
    /// The role of the client.
    pub(crate) user: Arc<str>,
    /// The server that was asked.
    pub(crate) backend: Option<Backend>,
    /// Where it went and why.
    pub(crate) route: Option<(Role, Reason)>,
    /// Rows returned or changed.
    pub(crate) rows: Option<u64>,
    /// Whether it has failed.
    pub(crate) outcome: Outcome,
}

/// Whether a batch has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not that anybody knows.
    Done,
    /// With this error, where it is known.
    Failed(Option<Sqlstate>),
}

/// A server.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    pub(crate) name: Arc<str>,
    pub(crate) address: Arc<Address>,
}

/// What a batch does, in few words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct StatementName {
    /// The command: `SELECT`.
    pub(crate) operation: Option<Cow<'static, str>>,
    /// The table, where it names one alone.
    pub(crate) table: Option<Box<str>>,
}

/// What the sessions and the exporter share.
#[derive(Debug, Default)]
struct Tally {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    /// Spans that wait in the queue.
    waiting: AtomicUsize,
    is_ending: AtomicBool,
}

/// `None` is the end.
type Job = Option<Box<StatementSpan>>;

/// The way to the collector.
#[derive(Debug)]
pub(crate) struct Telemetry {
    queue: SyncSender<Job>,
    tally: Arc<Tally>,
    one_in: AtomicU32,
    /// The exporter, to be woken.
    exporter: Thread,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Telemetry {
    /// Starts the exporter, if a collector is configured.
    ///
    /// # Errors
    /// [`StartError`]: the address of the collector is no URL, or there is no thread to be had.
    pub(crate) fn start(config: &pgweir_config::Telemetry) -> Result<Option<Self>, StartError> {
        let Some(endpoint) = &config.endpoint else {
            return Ok(None);
        };
        let (queue, jobs) = std::sync::mpsc::sync_channel(QUEUE_LIMIT);
        let tally = Arc::<Tally>::default();
        let exporter = export::Exporter::new(endpoint, &config.service_name, Arc::clone(&tally))?;
        let thread = std::thread::Builder::new()
            .name("pgweir-spans".to_owned())
            .spawn(move || exporter.run(&jobs))
            .map_err(StartError::Thread)?;
        Ok(Some(Telemetry {
            queue,
            tally,
            one_in: AtomicU32::new(config.sample_one_in),
            exporter: thread.thread().clone(),
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Takes over what can be taken over of a new configuration.
    pub(crate) fn follow(&self, config: &pgweir_config::Telemetry) {
        self.one_in.store(config.sample_one_in, Ordering::Relaxed);
    }

    /// Draws whether a batch is traced that its caller says nothing about.
    pub(crate) fn draws(&self) -> bool {
        match self.one_in.load(Ordering::Relaxed) {
            0 | 1 => true,
            one_in => rand::random_range(0..one_in) == 0,
        }
    }

    /// Hands a span to the exporter, or drops it where too many wait.
    pub(crate) fn record(&self, span: StatementSpan) {
        // Before it is there to be taken, so that the number never falls below zero.
        let before = self.tally.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = self.queue.try_send(Some(Box::new(span)));
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = sent {
            self.tally.waiting.fetch_sub(1, Ordering::Relaxed);
            self.tally.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if before + 1 == WAKE_AT {
            self.exporter.unpark();
        }
    }

    /// Returns how many there have been.
    pub(crate) fn counts(&self) -> SpanCounts {
        SpanCounts {
            exported: self.tally.exported.load(Ordering::Relaxed),
            dropped: self.tally.dropped.load(Ordering::Relaxed),
            failed: self.tally.failed.load(Ordering::Relaxed),
        }
    }

    /// Has what waits exported, unless the collector does not take it, and ends the thread. Blocks for as long as that takes,
    /// some seconds at most.
    pub(crate) fn finish(&self) {
        self.tally.is_ending.store(true, Ordering::Relaxed);
        // Where it is full, the thread is awake and looks for itself.
        let _full = self.queue.try_send(None);
        self.exporter.unpark();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A thread that panicked has said so.
            let _panicked = thread.join();
        }
    }
}

//! The exporter's thread: takes spans from the queue, some at a time, and sends them by OTLP over HTTP.
//!
//! ## Why by a client of its own
//! The thread has nothing else to do, so that it may block: no runtime and no TLS is needed to send one request after the other.
//!
//! ## Why it does not wait at the queue
//! Whoever hands over a span has to wake a thread that waits there, which is a system call on the way of a query. So the thread
//! waits there only for the first span of a while, then beside the queue until the others are gathered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{RandomIdGenerator, SpanData, SpanExporter as _};

use super::convert::{Moment, spans};
use super::{Job, StatementSpan, Tally, WAKE_AT};
use crate::proxy::StartError;

/// Batches per export: what the SDK's own processor takes.
const EXPORT_LIMIT: usize = 512;

/// How long a span waits for others. Chosen: seen soon by whoever looks, and few requests.
const GATHER: Duration = Duration::from_secs(1);

/// How long an export may take. Not shorter, as a collector may be far away; not longer, as the end of the process waits for it.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long what waits may take at the end of the process.
const END_LIMIT: Duration = Duration::from_secs(3);

/// How much of an answer is read: there is nothing in it but what was refused.
const ANSWER_BYTES_LIMIT: u64 = 64 * 1024;

/// Where traces are taken, under the address of a collector.
const TRACES_PATH: &str = "/v1/traces";

/// What the thread works with.
#[derive(Debug)]
pub(super) struct Exporter {
    exporter: SpanExporter,
    runtime: tokio::runtime::Runtime,
    ids: RandomIdGenerator,
    tally: Arc<Tally>,
}

/// What is behind the spans that were taken from the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Perhaps others.
    More,
    /// Nothing, for now.
    Nothing,
    /// Nothing will come any more.
    End,
}

/// How the exports go, for the log.
#[derive(Debug, Default)]
struct Course {
    is_failing: bool,
    /// Spans dropped, as last said.
    dropped_said: u64,
}

impl Exporter {
    pub(super) fn new(
        endpoint: &str,
        service_name: &Arc<str>,
        tally: Arc<Tally>,
    ) -> Result<Self, StartError> {
        let url = match endpoint.ends_with(TRACES_PATH) {
            true => endpoint.to_owned(),
            false => format!("{}{TRACES_PATH}", endpoint.trim_end_matches('/')),
        };
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Blocking::new())
            .with_endpoint(url)
            .with_timeout(EXPORT_TIMEOUT)
            // What fails is lost and counted: the queue behind it is short, and the end must not wait for long.
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .map_err(|error| StartError::Telemetry {
                endpoint: endpoint.to_owned(),
                reason: error.to_string(),
            })?;
        let resource = Resource::builder()
            .with_service_name(service_name.to_string())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        exporter.set_resource(&resource);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(StartError::Thread)?;
        Ok(Exporter {
            exporter,
            runtime,
            ids: RandomIdGenerator::default(),
            tally,
        })
    }

    /// Exports until the end.
    pub(super) fn run(self, jobs: &Receiver<Job>) {
        let mut course = Course::default();
        let mut ends_at: Option<Instant> = None;
        let mut left = Left::Nothing;
        loop {
            let gathered;
            (gathered, left) = self.gather(jobs, left);
            let has_gathered = !gathered.is_empty();
            if has_gathered {
                self.export(&gathered, &mut course);
            }
            if left != Left::End && !self.is_ending() {
                continue;
            }
            let end = *ends_at.get_or_insert_with(|| Instant::now() + END_LIMIT);
            // A collector that is away will not be there in time.
            if !has_gathered || course.is_failing || Instant::now() >= end {
                break;
            }
        }
        self.say_what_was_lost();
    }

    /// Returns spans, and what is behind them. Where nothing was left the last time, it waits for the first and gathers those
    /// that come within a moment of that.
    fn gather(&self, jobs: &Receiver<Job>, left: Left) -> (Vec<StatementSpan>, Left) {
        let mut gathered = Vec::new();
        if left == Left::Nothing && !self.is_ending() {
            let Ok(Some(first)) = jobs.recv() else {
                return (gathered, Left::End);
            };
            gathered.push(*first);
            self.await_others(Instant::now() + GATHER);
        }
        let mut left = Left::More;
        while left == Left::More && gathered.len() < EXPORT_LIMIT {
            match jobs.try_recv() {
                Ok(Some(span)) => gathered.push(*span),
                Err(TryRecvError::Empty) => left = Left::Nothing,
                Ok(None) | Err(TryRecvError::Disconnected) => left = Left::End,
            }
        }
        (self.tally.waiting).fetch_sub(gathered.len(), Ordering::Relaxed);
        (gathered, left)
    }

    /// Waits until it is time, or the queue is half full, or this is the end.
    fn await_others(&self, until: Instant) {
        while !self.is_ending() && self.tally.waiting.load(Ordering::Relaxed) < WAKE_AT {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return;
            }
            std::thread::park_timeout(rest);
        }
    }

    fn is_ending(&self) -> bool {
        self.tally.is_ending.load(Ordering::Relaxed)
    }

    fn export(&self, gathered: &[StatementSpan], course: &mut Course) {
        let now = Moment {
            instant: Instant::now(),
            system: SystemTime::now(),
        };
        let data: Vec<SpanData> = gathered
            .iter()
            .flat_map(|span| spans(span, now, &self.ids))
            .collect();
        let outcome = self.runtime.block_on(self.exporter.export(data));
        let count = u64::try_from(gathered.len()).unwrap_or(u64::MAX);
        let dropped = self.tally.dropped.load(Ordering::Relaxed);
        match outcome {
            Ok(()) => {
                self.tally.exported.fetch_add(count, Ordering::Relaxed);
                if std::mem::take(&mut course.is_failing) {
                    let failed = self.tally.failed.load(Ordering::Relaxed);
                    tracing::info!(failed, dropped, "the collector takes spans again");
                }
            }
            Err(error) => {
                self.tally.failed.fetch_add(count, Ordering::Relaxed);
                if !std::mem::replace(&mut course.is_failing, true) {
                    tracing::warn!(%error, "the collector does not take spans; they are dropped");
                }
            }
        }
        // Once per order of magnitude: a queue that is full stays so for a while.
        if dropped > course.dropped_said.saturating_mul(10) {
            course.dropped_said = dropped;
            tracing::warn!(
                dropped,
                "spans were dropped, as too many waited to be exported"
            );
        }
    }

    fn say_what_was_lost(&self) {
        let failed = self.tally.failed.load(Ordering::Relaxed);
        let dropped = self.tally.dropped.load(Ordering::Relaxed);
        if failed + dropped > 0 {
            tracing::warn!(failed, dropped, "spans were lost");
        }
    }
}

/// Sends a request and waits for the answer, on the thread that asks.
#[derive(Debug)]
struct Blocking(ureq::Agent);

impl Blocking {
    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(EXPORT_TIMEOUT))
            .http_status_as_error(false)
            // The address is the operator's; nothing in the environment is to lead elsewhere.
            .proxy(None)
            .max_redirects(0)
            .build();
        Blocking(config.into())
    }
}

#[async_trait]
impl HttpClient for Blocking {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let response = self.0.run(Request::from_parts(head, body.as_ref()))?;
        let (head, mut body) = response.into_parts();
        let answer = body.with_config().limit(ANSWER_BYTES_LIMIT).read_to_vec()?;
        Ok(Response::from_parts(head, Bytes::from(answer)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{SyncSender, sync_channel};

    use pgweir_testkit::{eventually, patience::PATIENCE};

    use super::super::{Outcome, QUEUE_LIMIT, StatementName, Telemetry};
    use super::*;

    fn span() -> StatementSpan {
        StatementSpan {
            started_at: Instant::now(),
            ended_at: Instant::now(),
            wait: None,
            parent: None,
            kind: StatementName::default(),
            shape: None,
            database: "app".into(),
            user: "u".into(),
            backend: None,
            route: None,
            rows: None,
            outcome: Outcome::Done,
        }
    }

    /// Returns an exporter, and the way to it, which wakes this thread.
    fn exporter() -> (Exporter, Telemetry, Receiver<Job>) {
        let tally = Arc::<Tally>::default();
        let exporter = Exporter::new("http://127.0.0.1:1", &"p".into(), Arc::clone(&tally));
        let (queue, jobs): (SyncSender<Job>, _) = sync_channel(QUEUE_LIMIT);
        let telemetry = Telemetry {
            queue,
            tally,
            one_in: 1.into(),
            exporter: std::thread::current(),
            thread: Mutex::default(),
        };
        (exporter.expect("an exporter"), telemetry, jobs)
    }

    #[test]
    fn what_one_export_does_not_take_is_left_for_the_next() {
        let (exporter, telemetry, jobs) = exporter();
        (0..=EXPORT_LIMIT).for_each(|_| telemetry.record(span()));
        let gather = |left| {
            let (gathered, left) = exporter.gather(&jobs, left);
            (gathered.len(), left)
        };
        assert_eq!(gather(Left::More), (EXPORT_LIMIT, Left::More));
        assert_eq!(gather(Left::More), (1, Left::Nothing));
        assert_eq!(exporter.tally.waiting.load(Ordering::Relaxed), 0);
        telemetry.finish();
        assert_eq!(gather(Left::Nothing), (0, Left::End));
    }

    #[test]
    fn spans_that_find_no_room_are_dropped_and_do_not_count_as_waiting() {
        let (exporter, telemetry, jobs) = exporter();
        (0..QUEUE_LIMIT + 3).for_each(|_| telemetry.record(span()));
        assert_eq!(telemetry.counts().dropped, 3);
        assert_eq!(exporter.tally.waiting.load(Ordering::Relaxed), QUEUE_LIMIT);
        drop(jobs);
        telemetry.record(span());
        assert_eq!(telemetry.counts().dropped, 4);
    }

    #[test]
    fn the_wait_for_more_spans_ends_when_half_the_queue_is_taken() {
        let (exporter, mut telemetry, _jobs) = exporter();
        let late = Instant::now() + 10 * PATIENCE;
        let thread = std::thread::spawn(move || exporter.await_others(late));
        telemetry.exporter = thread.thread().clone();
        (1..WAKE_AT).for_each(|_| telemetry.record(span()));
        assert!(!thread.is_finished());
        telemetry.record(span());
        eventually!(thread.is_finished());
    }

    #[test]
    fn the_wait_for_more_spans_ends_with_the_proxy() {
        let (exporter, mut telemetry, _jobs) = exporter();
        let late = Instant::now() + 10 * PATIENCE;
        let thread = std::thread::spawn(move || exporter.await_others(late));
        telemetry.exporter = thread.thread().clone();
        telemetry.finish();
        eventually!(thread.is_finished());
    }
}

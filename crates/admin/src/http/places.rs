//! The connections that there may be at once, and which of them goes when another one comes.
//!
//! ## Why
//! A connection that has sent no whole request costs its client nothing. If such ones could keep all places until they time
//! out, a handful of them would shut out the check that asks whether the proxy lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

/// What stands for a connection whose request is being answered.
const ANSWERING: u64 = u64::MAX;

/// The connections there are.
pub(super) struct Places {
    limit: usize,
    line: Arc<Line>,
    tasks: JoinSet<()>,
    taken: Vec<(AbortHandle, Place)>,
}

/// The order in which connections began to wait for a request.
#[derive(Default)]
struct Line {
    next: AtomicU64,
    /// Somebody has begun to wait.
    begun: Notify,
}

/// One connection's.
#[derive(Clone)]
pub(super) struct Place {
    /// Its number in the line, or [`ANSWERING`].
    number: Arc<AtomicU64>,
    line: Arc<Line>,
}

impl Place {
    /// Notes that a whole request has come. Until what is returned is dropped, the connection keeps its place.
    pub(super) fn answering(&self) -> Answering {
        self.number.store(ANSWERING, Ordering::Relaxed);
        Answering(self.clone())
    }

    fn wait(&self) {
        let number = self.line.next.fetch_add(1, Ordering::Relaxed);
        self.number.store(number, Ordering::Relaxed);
        self.line.begun.notify_one();
    }
}

/// An answer that is being made.
pub(super) struct Answering(Place);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.wait();
    }
}

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Places {
            limit,
            line: Arc::default(),
            tasks: JoinSet::new(),
            taken: Vec::new(),
        }
    }

    /// Waits until a connection has ended; for ever while there is none.
    pub(super) async fn ended(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
        self.taken.retain(|(handle, _)| !handle.is_finished());
    }

    /// Makes room for another connection: closes the one that has waited longest without a whole request, or waits while
    /// there is none such.
    pub(super) async fn make_room(&mut self) {
        while self.taken.len() >= self.limit {
            let number = |place: &Place| place.number.load(Ordering::Relaxed);
            let waiting = self
                .taken
                .iter()
                .map(|(_, place)| number(place))
                .enumerate();
            let first = waiting.filter(|(_, number)| *number != ANSWERING);
            if let Some((index, _)) = first.min_by_key(|(_, number)| *number) {
                self.taken.swap_remove(index).0.abort();
                return;
            }
            let line = Arc::clone(&self.line);
            tokio::select! {
                () = self.ended() => {}
                () = line.begun.notified() => {}
            }
        }
    }

    /// Serves a connection.
    pub(super) fn take<F>(&mut self, serve: impl FnOnce(Place) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let place = Place {
            number: Arc::default(),
            line: Arc::clone(&self.line),
        };
        place.wait();
        let handle = self.tasks.spawn(serve(place.clone()));
        self.taken.push((handle, place));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Takes a place that is kept until it is closed.
    fn taken(places: &mut Places) -> Place {
        let kept = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&kept);
        places.take(|place| {
            keep.lock().unwrap().replace(place);
            std::future::pending()
        });
        let place = kept.lock().unwrap().take();
        place.unwrap()
    }

    #[tokio::test]
    async fn who_has_waited_longest_for_a_request_makes_room_and_who_is_answered_stays() {
        let mut places = Places::new(3);
        let (first, second, third) = (taken(&mut places), taken(&mut places), taken(&mut places));
        let answering = first.answering();
        let numbers = |places: &Places| -> Vec<_> {
            let taken = places.taken.iter();
            taken.map(|(_, place)| Arc::as_ptr(&place.number)).collect()
        };
        places.make_room().await;
        places.ended().await;
        assert!(!numbers(&places).contains(&Arc::as_ptr(&second.number)));
        assert!(numbers(&places).contains(&Arc::as_ptr(&first.number)));
        let fourth = taken(&mut places);
        let others = [third.answering(), fourth.answering()];
        // All are being answered: the first one that is done goes.
        let ((), ()) = tokio::join!(places.make_room(), async { drop(answering) });
        assert!(!numbers(&places).contains(&Arc::as_ptr(&first.number)));
        assert_eq!(places.taken.len(), others.len());
    }
}

//! Replication connections, which pass through beside the pools: how many there are, and how an order ends them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::holds::{Scope, Target};

/// The connections that pass through, over all workers.
#[derive(Debug, Default)]
pub(crate) struct Passes {
    groups: Mutex<BTreeMap<Target, Group>>,
}

/// Those to one database. There is none where there are no connections.
#[derive(Debug, Default)]
struct Group {
    count: usize,
    /// Told of each order to end them. Each database has its own, so that an order about one never hides one about another.
    ended: watch::Sender<()>,
}

/// One connection's place in the count.
#[derive(Debug)]
pub(crate) struct Pass {
    passes: Arc<Passes>,
    target: Target,
    ended: watch::Receiver<()>,
}

impl Passes {
    /// Counts a connection until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>, target: Target) -> Pass {
        let mut groups = self.lock();
        let group = groups.entry(target.clone()).or_default();
        group.count += 1;
        let ended = group.ended.subscribe();
        drop(groups);
        Pass {
            passes: Arc::clone(self),
            target,
            ended,
        }
    }

    /// Returns how many there are.
    pub(crate) fn count(&self, scope: &Scope) -> usize {
        let groups = self.lock();
        let covered =
            (groups.iter()).filter(|(target, _)| scope.covers(target.cluster, &target.database));
        covered.map(|(_, group)| group.count).sum()
    }

    /// Ends those that there are.
    pub(crate) fn end(&self, scope: &Scope) {
        for (target, group) in &*self.lock() {
            if scope.covers(target.cluster, &target.database) {
                group.ended.send_replace(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Target, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Waits until an order ends this connection.
    ///
    /// # Cancel safety
    /// Safe: an order that has been given is seen by the next call.
    pub(crate) async fn ended(&mut self) {
        if self.ended.changed().await.is_err() {
            // There is nobody left to give an order, which is not while this is counted.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut groups = self.passes.lock();
        if let Some(group) = groups.get_mut(&self.target) {
            group.count -= 1;
            if group.count == 0 {
                groups.remove(&self.target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(database: &str) -> Target {
        Target {
            cluster: 0,
            database: database.into(),
        }
    }

    #[tokio::test]
    async fn an_order_ends_those_that_it_is_about_and_they_are_counted_until_they_go() {
        let passes = Arc::new(Passes::default());
        let (mut a, mut b) = (passes.begin(target("a")), passes.begin(target("b")));
        let of_a = Scope::One(target("a"));
        assert_eq!((passes.count(&of_a), passes.count(&Scope::All)), (1, 2));
        passes.end(&of_a);
        a.ended().await;
        drop(a);
        assert_eq!((passes.count(&of_a), passes.count(&Scope::All)), (0, 1));
        // One that came later is not meant.
        let mut late = passes.begin(target("a"));
        tokio::select! {
            biased;
            () = b.ended() => panic!("it is another database"),
            () = late.ended() => panic!("it came later"),
            () = tokio::task::yield_now() => {}
        }
        passes.end(&Scope::All);
        b.ended().await;
        late.ended().await;
    }

    #[tokio::test]
    async fn orders_that_follow_each_other_at_once_are_all_heard() {
        let passes = Arc::new(Passes::default());
        let (mut a, mut b) = (passes.begin(target("a")), passes.begin(target("b")));
        passes.end(&Scope::One(target("a")));
        passes.end(&Scope::One(target("b")));
        let both = async { tokio::join!(a.ended(), b.ended()) };
        tokio::time::timeout(pgweir_testkit::patience::PATIENCE, both)
            .await
            .expect("both end");
    }
}

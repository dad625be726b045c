//! What an operator orders on the console, carried out: `PAUSE`, `RESUME`, `DISABLE`, `ENABLE`, `RECONNECT`, `WAIT_CLOSE`, `DRAIN`,
//! `UNDRAIN`, `KILL`, `CANCEL`, `SHUTDOWN`, `RELOAD CATALOG`.
//!
//! ## Why it is so
//! Where PgBouncer has the command, it means what it means there, see <https://www.pgbouncer.org/usage.html>:
//! - `PAUSE` lets transactions end (in session pooling, and of pinned sessions, the session), and returns when no server connection
//!   is left. Batches and logins wait, at most `query_wait_timeout`; so does a transaction that the proxy has held back, or that
//!   has read on a replica and goes on at the primary: no server has any of it. Only `RESUME` ends a pause, also where whoever
//!   gave the order has gone. The connections of the monitor and of the catalogs stay: they are no client's.
//! - `RESUME` without a name takes back what was ordered without one.
//! - `KILL` of a database, or of all, holds it back as well.
//!
//! ## How `PAUSE` knows that none is left
//! All workers are told first, and say so: from then on no session takes a connection. Then those that there are are retired, so
//! that each is closed when it is given back. What was being opened meanwhile for a login is retired again when it shows up idle.
//!
//! ## Limits
//! Other than PgBouncer, a second `PAUSE` of one database is refused, and `KILL` of a database works during a pause: it ends what
//! the pause waits for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_admin::{EventKind, Operator, Order, Refusal, Shutdown, Target as Whom};
use pgweir_cluster::Handle;
use pgweir_model::{NodeId, PoolKey};
use tokio::sync::oneshot;

use crate::cancel::Slots;
use crate::client_task::CANCEL_LIMIT;
use crate::holds::{Scope, Target};
use crate::proxy::Shared;
use crate::tables::SharedPool;
use crate::worker::{Mail, Worker};

/// How often an order that waits looks again. Chosen: nobody sees the difference, and it costs some counters.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// How long a worker has to take an order, and a monitor to publish what came of it. It is usually a turn of its thread.
const TAKE_LIMIT: Duration = Duration::from_secs(5);

/// A part of an order, for one worker.
#[derive(Debug)]
pub(crate) enum Chore {
    /// Take over what is held back now.
    Holds,
    /// End one client.
    KillClient(u32),
    /// End the clients of databases.
    KillAll(Scope),
    /// Cancel what a client runs.
    Cancel {
        /// The process ID that we gave it.
        process_id: u32,
        /// Dropped when that has been dealt with.
        done: oneshot::Sender<()>,
    },
    /// Let the sessions look at the servers that they use, or wait for.
    LookAtServers,
    /// Nothing: whoever waits for it knows that what was sent before has been taken over.
    Nothing,
}

impl Worker {
    /// Does its part of an order; returns how many clients that concerns.
    pub(crate) fn do_chore(&self, chore: Chore) -> usize {
        match chore {
            Chore::Holds => {
                self.take_holds();
                0
            }
            Chore::KillClient(process_id) => usize::from(self.slots.kill(process_id)),
            Chore::KillAll(scope) => self.slots.kill_all(&scope),
            Chore::Cancel { process_id, done } => usize::from(self.slots.cancel(process_id, done)),
            Chore::LookAtServers => {
                self.wake_for_roles();
                0
            }
            Chore::Nothing => 0,
        }
    }
}

impl Shared {
    /// Carries out an order; returns the tag of the command, or what there is to say.
    ///
    /// # Errors
    /// [`Refusal`]: nothing has been done, or it was taken back.
    ///
    /// # Cancel safety
    /// What an order waits for goes on without it: a pause lasts, and what is drained is emptied.
    pub(crate) async fn order(
        self: &Arc<Self>,
        order: Order,
        operator: &Operator,
    ) -> Result<String, Refusal> {
        let (text, subject) = described(&order);
        let user = &operator.user;
        tracing::info!(user = &**user, "{text}");
        let message = format!("{text} by {user}");
        self.events.record(EventKind::Console, &subject, message);
        let outcome = self.carry_out(order).await;
        if let Err(refusal) = &outcome {
            let message = format!("{text} by {user} has failed: {refusal}");
            self.events.record(EventKind::Console, &subject, message);
        }
        outcome
    }

    async fn carry_out(&self, order: Order) -> Result<String, Refusal> {
        let done = match order {
            Order::Pause { database } => self.pause(database.as_deref()).await,
            Order::Resume { database } => self.resume(database.as_deref()).await,
            Order::Disable { database } => self.set_disabled(&database, true),
            Order::Enable { database } => self.set_disabled(&database, false),
            Order::Reconnect { database } => {
                self.retire(&self.scope(database.as_deref())?);
                Ok("RECONNECT")
            }
            Order::WaitClose { database } => self.wait_close(database.as_deref()).await,
            Order::Drain { backend } => self.drain(&backend).await,
            Order::Undrain { backend } => self.undrain(&backend).await,
            Order::Kill(Whom::Client(id)) => self.kill_client(id).await,
            Order::Kill(Whom::Database(name)) => self.kill_all(Some(&name)).await,
            Order::Kill(Whom::Everybody) => self.kill_all(None).await,
            Order::Cancel { client } => self.cancel(client).await,
            Order::ReloadCatalog => {
                let counts = self.clusters.iter().map(Handle::refresh_catalogs);
                tracing::info!("{} catalogs are read anew", counts.sum::<usize>());
                Ok("RELOAD CATALOG")
            }
            Order::Shutdown(how) => {
                self.ending.send_replace(Some(how));
                Ok("SHUTDOWN")
            }
            Order::Reload => {
                let reloaded = self.reload()?;
                if let Err(late) = self.wait_until_followed().await {
                    tracing::warn!("the file is not in force everywhere yet: {late}");
                }
                return Ok(reloaded.to_string());
            }
            Order::SaveConfig => {
                self.save()?;
                Ok("SAVE CONFIG")
            }
            Order::ResetStatements => {
                for worker in 0..self.workers().len() {
                    self.send(worker, Mail::ResetStatements);
                }
                Ok("RESET STATEMENTS")
            }
        };
        done.map(str::to_owned)
    }

    /// Waits until every worker has taken over a configuration that it was told of: what begins then is decided by it.
    pub(crate) async fn wait_until_followed(&self) -> Result<(), Refusal> {
        self.tell_all(|| Chore::Nothing).await.map(drop)
    }

    async fn pause(&self, name: Option<&str>) -> Result<&'static str, Refusal> {
        let scope = self.scope(name)?;
        let hold = |held: &mut crate::holds::Held| held.hold(&scope, name.unwrap_or_default());
        let Some(number) = self.holds.change(hold) else {
            let what = called(name);
            return Err(refusal(*b"55000", format!("{what} paused already")));
        };
        self.tell_of_hold(&scope, number).await?;
        for pool in self.pools_of(&scope) {
            pool.retire_all();
        }
        loop {
            if self.holds.load().number(&scope) != Some(number) {
                return Err(refusal(*b"57014", "the pause was taken back by RESUME"));
            }
            let pools = self.pools_of(&scope);
            let stats = pools.iter().map(|pool| (pool, pool.stats()));
            let mut left = self.passes.count(&scope);
            for (pool, stats) in stats {
                left += stats.open;
                if stats.idle > 0 {
                    pool.retire_all();
                }
            }
            if left == 0 {
                return Ok("PAUSE");
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }

    /// Tells the workers of a hold; takes it back where one of them does not answer.
    async fn tell_of_hold(&self, scope: &Scope, number: u64) -> Result<(), Refusal> {
        let told = self.tell_all(|| Chore::Holds).await;
        if told.is_err() {
            self.holds.change(|held| {
                if held.number(scope) == Some(number) {
                    held.resume(scope);
                }
            });
            // Whoever has taken it over hears of it when he can.
            for worker in 0..self.workers().len() {
                drop(self.leave(worker, Chore::Holds));
            }
        }
        told.map(drop)
    }

    async fn resume(&self, name: Option<&str>) -> Result<&'static str, Refusal> {
        let scope = self.held_scope(name)?;
        if !self.holds.change(|held| held.resume(&scope)) {
            let held = self.holds.load();
            let names = held.single_names();
            let refused = refusal(*b"55000", format!("{} not paused", called(name)));
            return Err(match name {
                None if !names.is_empty() => Refusal {
                    hint: Some(format!("By their names are: {}.", names.join(", "))),
                    ..refused
                },
                Some(_) if held.number(&Scope::All).is_some() => Refusal {
                    hint: Some("All are: RESUME without a name.".to_owned()),
                    ..refused
                },
                None | Some(_) => refused,
            });
        }
        self.tell_all(|| Chore::Holds).await?;
        Ok("RESUME")
    }

    fn set_disabled(&self, name: &str, is_disabled: bool) -> Result<&'static str, Refusal> {
        // One that is gone from the configuration can still be enabled.
        if is_disabled || !self.holds.load().is_disabled(name) {
            self.scope(Some(name))?;
        }
        let _is_news = self.holds.change(|held| held.disable(name, is_disabled));
        Ok(match is_disabled {
            true => "DISABLE",
            false => "ENABLE",
        })
    }

    async fn wait_close(&self, name: Option<&str>) -> Result<&'static str, Refusal> {
        let scope = self.scope(name)?;
        let is_retired = |pool: Arc<SharedPool>| pool.retired() > 0;
        while self.pools_of(&scope).into_iter().any(is_retired) {
            tokio::time::sleep(LOOK_PERIOD).await;
        }
        Ok("WAIT_CLOSE")
    }

    async fn kill_client(&self, id: u32) -> Result<&'static str, Refusal> {
        let told = self.tell(Slots::worker_of(id), Chore::KillClient(id)).await;
        match told? {
            0 => Err(no_client(id)),
            _ => Ok("KILL"),
        }
    }

    async fn kill_all(&self, name: Option<&str>) -> Result<&'static str, Refusal> {
        let scope = self.scope(name)?;
        let hold = |held: &mut crate::holds::Held| held.hold(&scope, name.unwrap_or_default());
        // Where it is paused, its clients are ended all the same.
        match self.holds.change(hold) {
            Some(number) => self.tell_of_hold(&scope, number).await?,
            None => self.tell_all(|| Chore::Holds).await.map(drop)?,
        }
        let count = self.tell_all(|| Chore::KillAll(scope.clone())).await?;
        self.retire(&scope);
        tracing::info!("{count} clients are disconnected");
        Ok("KILL")
    }

    async fn cancel(&self, id: u32) -> Result<&'static str, Refusal> {
        let (done, is_done) = oneshot::channel();
        let process_id = id;
        let chore = Chore::Cancel { process_id, done };
        if self.tell(Slots::worker_of(id), chore).await? == 0 {
            return Err(no_client(id));
        }
        // An error means that nobody has the request any more, which is what is waited for.
        let _dealt_with = tokio::time::timeout(CANCEL_LIMIT, is_done).await;
        Ok("CANCEL")
    }

    async fn drain(&self, name: &str) -> Result<&'static str, Refusal> {
        let (handle, node) = self.node(name)?;
        if handle.topology().primary == Some(usize::from(node.node)) {
            return Err(Refusal {
                hint: Some(
                    "PAUSE holds all statements back; or make another server the primary first."
                        .to_owned(),
                ),
                ..refusal(*b"55006", format!("backend \"{name}\" is the primary"))
            });
        }
        if !handle.set_drained(node, true) {
            let message = format!("backend \"{name}\" is drained already");
            return Err(refusal(*b"55000", message));
        }
        if let Err(refused) = published(handle, node, true).await {
            handle.set_drained(node, false);
            return Err(refused);
        }
        if let Err(late) = self.tell_all(|| Chore::LookAtServers).await {
            tracing::warn!("sessions leave a drained server late: {late}");
        }
        for (_, pool) in self.pools_where(|key| key.node == node) {
            pool.retire_all();
        }
        Ok("DRAIN")
    }

    async fn undrain(&self, name: &str) -> Result<&'static str, Refusal> {
        let (handle, node) = self.node(name)?;
        if !handle.set_drained(node, false) {
            let message = format!("backend \"{name}\" is not drained");
            return Err(refusal(*b"55000", message));
        }
        published(handle, node, false).await?;
        Ok("UNDRAIN")
    }

    /// Closes the connections of databases as they become free, and those that pass through at once.
    fn retire(&self, scope: &Scope) {
        for pool in self.pools_of(scope) {
            pool.retire_all();
        }
        self.passes.end(scope);
    }

    fn pools_of(&self, scope: &Scope) -> Vec<Arc<SharedPool>> {
        let found = self.pools_where(|key| scope.has_pool(key));
        found.into_iter().map(|(_, pool)| pool).collect()
    }

    fn pools_where(&self, is_meant: impl Fn(&PoolKey) -> bool) -> Vec<(PoolKey, Arc<SharedPool>)> {
        let mut pools = self.tables.pools.all();
        pools.retain(|(key, _)| is_meant(key));
        pools
    }

    /// Returns what a database's name is about; every database without one.
    fn scope(&self, name: Option<&str>) -> Result<Scope, Refusal> {
        let Some(name) = name else {
            return Ok(Scope::All);
        };
        let config = self.config.load();
        let target = Target::of(&config, name).map(Scope::One);
        target.ok_or_else(|| Refusal {
            hint: config.nearest_database(name).map(perhaps),
            ..refusal(*b"3D000", format!("database \"{name}\" does not exist"))
        })
    }

    /// Likewise, also of one that is gone from the configuration and still held back.
    fn held_scope(&self, name: Option<&str>) -> Result<Scope, Refusal> {
        let known = name.and_then(|name| self.holds.load().named(name));
        known.map_or_else(|| self.scope(name), |target| Ok(Scope::One(target)))
    }

    /// Finds a server by its name; `cluster.name` where several clusters have one of that name.
    fn node(&self, name: &str) -> Result<(&Handle, NodeId), Refusal> {
        let topologies = self.clusters.iter().map(Handle::topology);
        let nodes: Vec<_> = (topologies.zip(&self.config.load().clusters))
            .flat_map(|(topology, cluster)| {
                let node = |node: &pgweir_model::Node| {
                    let full = format!("{}.{}", cluster.name, node.name);
                    (Arc::clone(&node.name), full, node.id)
                };
                topology.nodes.iter().map(node).collect::<Vec<_>>()
            })
            .collect();
        let is_meant = |(short, full, _): &&(Arc<str>, String, NodeId)| {
            **short == *name || full.as_str() == name
        };
        let mut meant = nodes.iter().filter(is_meant);
        let (found, second) = (meant.next(), meant.next());
        if let (Some((_, full, _)), Some(_)) = (found, second) {
            let message = format!("several clusters have a backend \"{name}\"");
            return Err(Refusal {
                hint: Some(format!("Write \"{full}\".")),
                ..refusal(*b"42704", message)
            });
        }
        let handle = |id: &NodeId| self.clusters.get(usize::from(id.cluster));
        let known = found.and_then(|(_, _, id)| Some((handle(id)?, *id)));
        known.ok_or_else(|| {
            let names = nodes.iter().map(|(short, _, _)| &**short);
            Refusal {
                hint: pgweir_config::reference::nearest(name, names).map(perhaps),
                ..refusal(*b"42704", format!("backend \"{name}\" does not exist"))
            }
        })
    }

    /// Has every worker do something; returns how many clients that concerned when all have.
    async fn tell_all(&self, chore: impl Fn() -> Chore) -> Result<usize, Refusal> {
        let told: Vec<_> = (0..self.workers().len())
            .map(|worker| self.leave(worker, chore()))
            .collect();
        let mut count = 0;
        for done in told {
            count += taken(done).await?;
        }
        Ok(count)
    }

    /// Has one worker do something; returns how many clients that concerned.
    async fn tell(&self, worker: usize, chore: Chore) -> Result<usize, Refusal> {
        taken(self.leave(worker, chore)).await
    }

    fn leave(&self, worker: usize, chore: Chore) -> oneshot::Receiver<usize> {
        let (done, is_done) = oneshot::channel();
        self.send(worker, Mail::Order { chore, done });
        is_done
    }
}

/// Waits until a worker has done something. One that has ended, or never was, has no clients.
async fn taken(done: oneshot::Receiver<usize>) -> Result<usize, Refusal> {
    match tokio::time::timeout(TAKE_LIMIT, done).await {
        Ok(told) => Ok(told.unwrap_or_default()),
        Err(_) => Err(refusal(*b"58000", "a worker thread does not answer")),
    }
}

/// Waits until everybody can see whether a server is drained.
async fn published(handle: &Handle, node: NodeId, is_drained: bool) -> Result<(), Refusal> {
    let deadline = Instant::now() + TAKE_LIMIT;
    let says_so = |topology: &pgweir_model::Topology| {
        let node = topology.nodes.get(usize::from(node.node));
        node.is_some_and(|node| node.is_drained == is_drained)
    };
    let seen = handle.wait_until(deadline, says_so).await;
    seen.map(|_| ())
        .ok_or_else(|| refusal(*b"58000", "the monitor does not answer"))
}

/// Returns an order as an operator would write it, and what it is about.
fn described(order: &Order) -> (String, String) {
    let on = |verb: &str, about: &Option<String>| {
        let about = about.clone().unwrap_or_default();
        (format!("{verb} {about}").trim_end().to_owned(), about)
    };
    let one = |verb: &str, about: &String| (format!("{verb} {about}"), about.clone());
    let alone = |verb: &str| (verb.to_owned(), String::new());
    match order {
        Order::Pause { database } => on("PAUSE", database),
        Order::Resume { database } => on("RESUME", database),
        Order::Disable { database } => one("DISABLE", database),
        Order::Enable { database } => one("ENABLE", database),
        Order::Reconnect { database } => on("RECONNECT", database),
        Order::WaitClose { database } => on("WAIT_CLOSE", database),
        Order::Drain { backend } => one("DRAIN", backend),
        Order::Undrain { backend } => one("UNDRAIN", backend),
        Order::Kill(Whom::Client(id)) => one("KILL", &id.to_string()),
        Order::Kill(Whom::Database(database)) => one("KILL", database),
        Order::Kill(Whom::Everybody) => alone("KILL"),
        Order::Cancel { client } => one("CANCEL", &client.to_string()),
        Order::Reload => alone("RELOAD"),
        Order::ReloadCatalog => alone("RELOAD CATALOG"),
        Order::SaveConfig => alone("SAVE CONFIG"),
        Order::ResetStatements => alone("RESET STATEMENTS"),
        Order::Shutdown(Shutdown::Now) => alone("SHUTDOWN"),
        Order::Shutdown(Shutdown::WaitForClients) => alone("SHUTDOWN WAIT_FOR_CLIENTS"),
        Order::Shutdown(Shutdown::WaitForServers) => alone("SHUTDOWN WAIT_FOR_SERVERS"),
    }
}

fn called(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("database \"{name}\" is"),
        None => "the proxy as a whole is".to_owned(),
    }
}

fn perhaps(name: &str) -> String {
    format!("Perhaps you meant \"{name}\".")
}

fn no_client(id: u32) -> Refusal {
    refusal(*b"42704", format!("client {id} does not exist"))
}

fn refusal(sqlstate: [u8; 5], message: impl Into<String>) -> Refusal {
    Refusal {
        sqlstate,
        message: message.into(),
        detail: None,
        hint: None,
    }
}

#[cfg(test)]
mod tests;

//! The pools of server connections as the configuration sizes them: made, resized, filled, and looked through now and then.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use pgweir_admin::Phase;
use pgweir_backend::ServerConnection;
use pgweir_config::{AuthMethod, Config, Database, User};
use pgweir_model::{Health, NodeId, PoolKey};
use pgweir_pool::{Cap, LocalPool, Permit, Reserve, Settings};

use crate::checkout::login_of;
use crate::proxy::Shared;
use crate::tables::SharedPool;
use crate::worker::{Mail, Worker};

/// What the pools of one database under one node share.
pub(crate) type PoolCap = Cap<ServerConnection>;

/// The sizes of a database's pools.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolSizes {
    /// Connections of one pool.
    limit: usize,
    /// Connections of one pool that stay open.
    min: usize,
    reserve: Reserve,
    /// Connections of all pools of the database on one node.
    cap: Option<usize>,
}

impl PoolSizes {
    pub(crate) fn new(database: &Database) -> Self {
        let size = |size: u32| usize::try_from(size).unwrap_or(usize::MAX);
        PoolSizes {
            limit: size(database.pool_size),
            min: size(database.pool_min),
            reserve: Reserve {
                count: size(database.pool_reserve),
                after: database.pool_reserve_after,
            },
            cap: database.max_backend_connections.map(size),
        }
    }

    /// Returns what the configuration says of a pool; `None` where its database is gone.
    fn of(config: &Config, key: &PoolKey) -> Option<Self> {
        let is_of = |database: &&Database| {
            let name = database.dbname.as_ref().unwrap_or(&database.name);
            database.cluster_index == key.node.cluster && *name == key.database
        };
        let is_any = |database: &&Database| {
            &*database.name == "*" && database.cluster_index == key.node.cluster
        };
        let found = config.databases.iter().find(is_of);
        let found = found.or_else(|| config.databases.iter().find(is_any));
        found.map(PoolSizes::new)
    }
}

impl Shared {
    /// Returns the pool that all workers share for a key. One that is not there yet is made with the sizes that the
    /// configuration gives it now; `sizes` are those of a session whose database is gone.
    pub(crate) fn pool(self: &Arc<Self>, key: &PoolKey, sizes: PoolSizes) -> Arc<SharedPool> {
        self.tables.pools.get_or_insert_with(key.clone(), || {
            let config = self.config.load();
            let sizes = PoolSizes::of(&config, key).unwrap_or(sizes);
            let settings = Settings {
                threads: self.workers().len(),
                limit: sizes.limit,
                queue_limit: config.server.max_queue,
                overtaking: Some(0),
                lifetime: config.server.server_lifetime,
                reserve: sizes.reserve,
            };
            let group = (key.node, Arc::clone(&key.database));
            let cap = (self.tables.caps).get_or_insert_with(group, || PoolCap::new(sizes.cap));
            let shared = Arc::downgrade(self);
            let key = key.clone();
            SharedPool::under(
                cap,
                settings,
                Box::new(move |thread| {
                    if let Some(shared) = shared.upgrade() {
                        shared.send(thread, Mail::Serve(key.clone()));
                    }
                }),
            )
        })
    }
}

/// This thread's parts of the pools that it uses.
pub(crate) type Pools = HashMap<PoolKey, LocalPool<ServerConnection>>;

impl Worker {
    /// Returns this thread's part of a pool.
    pub(crate) fn pool(&self, key: &PoolKey, sizes: PoolSizes) -> LocalPool<ServerConnection> {
        if let Some(pool) = self.pools.borrow().get(key) {
            return pool.clone();
        }
        let pool = LocalPool::new(self.shared.pool(key, sizes), self.index);
        self.pools.borrow_mut().insert(key.clone(), pool.clone());
        pool
    }

    pub(crate) fn serve_pool(&self, key: &PoolKey) {
        // A thread that has no part of the pool has nothing to hand out, and is not asked: it publishes nothing.
        let pool = self.pools.borrow().get(key).cloned();
        if let Some(pool) = pool {
            pool.serve();
        }
    }

    pub(crate) fn all_pools(&self) -> Vec<(PoolKey, LocalPool<ServerConnection>)> {
        let pools = self.pools.borrow();
        (pools.iter())
            .map(|(key, pool)| (key.clone(), pool.clone()))
            .collect()
    }

    /// Takes the sizes of the present configuration over.
    pub(crate) fn resize_pools(&self, config: &Config) {
        for (key, pool) in self.all_pools() {
            let shared = pool.shared();
            if let Some(sizes) = PoolSizes::of(config, &key) {
                shared.set_reserve(sizes.reserve);
                shared.set_limit(sizes.limit);
                shared.cap().set_limit(sizes.cap);
            }
            shared.set_lifetime(config.server.server_lifetime);
            shared.set_queue_limit(config.server.max_queue);
        }
    }

    /// Lets those who have waited long have connections beyond the limit.
    pub(crate) fn relieve_waiters(&self) {
        let has_waiters = |pool: &&LocalPool<ServerConnection>| pool.shared().waiting() > 0;
        let waited_for: Vec<_> = (self.pools.borrow().values())
            .filter(has_waiters)
            .cloned()
            .collect();
        for pool in waited_for {
            pool.relieve(self.coarse_now());
        }
    }

    /// Closes idle connections that have had their time, and opens those that are to be there.
    pub(crate) fn tend_pools(self: &Rc<Self>) {
        let config = self.shared.config.load();
        for (key, pool) in self.all_pools() {
            let min = kept_open(&config, &key);
            if !self.may_keep(&key) {
                // What was taken before that was said, or comes back from a session that may go on.
                pool.close_idle();
                continue;
            }
            pool.reap(self.coarse_now(), config.server.server_idle_timeout, min);
            if self.phase() != Phase::Serving || !self.is_up(key.node) {
                continue;
            }
            while let Some(permit) = pool.try_fill(min) {
                let (worker, key) = (Rc::clone(self), key.clone());
                drop(tokio::task::spawn_local(fill(worker, key, permit)));
            }
        }
    }

    /// Returns whether a pool may have connections that nobody uses: its database is not held back, and its server not drained,
    /// unless it is the primary by now.
    fn may_keep(&self, key: &PoolKey) -> bool {
        let topology = self.topology(key.node.cluster);
        let is_drained = |node: &pgweir_model::Node| node.is_drained;
        let node = usize::from(key.node.node);
        let is_left =
            topology.primary != Some(node) && topology.nodes.get(node).is_some_and(is_drained);
        !is_left && !self.is_held_back(key.node.cluster, &key.database)
    }

    fn is_up(&self, node: NodeId) -> bool {
        let topology = self.topology(node.cluster);
        let node = topology.nodes.get(usize::from(node.node));
        node.is_some_and(|node| node.health == Health::Up)
    }
}

/// Returns how many connections of a pool are to stay open: none where nobody can log in any more as whom they are.
fn kept_open(config: &Config, key: &PoolKey) -> usize {
    let serves_everybody = config.users.is_empty() && config.auth.method == AuthMethod::Trust;
    match serves_everybody || user_of(config, key).is_some() {
        true => PoolSizes::of(config, key).map_or(0, |sizes| sizes.min),
        false => 0,
    }
}

/// Returns a user whose server connections a pool may hold.
fn user_of<'a>(config: &'a Config, key: &PoolKey) -> Option<&'a User> {
    (config.users.iter()).find(|user| *user.login() == key.user)
}

/// Opens a connection that nobody waits for. Where that fails, the next look at the pools tries again.
async fn fill(worker: Rc<Worker>, key: PoolKey, permit: Permit<ServerConnection>) {
    let config = worker.shared.config.load_full();
    match login_of(&worker, &key, user_of(&config, &key), permit).await {
        Ok(lease) => lease.checkin(worker.coarse_now()),
        Err(error) => tracing::debug!(node = %key.node, %error, "cannot fill a pool"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "auth.method = 'trust'\nclusters.main.backends = [{ host = 'a' }]\n\
        [databases.small]\npool_size = 1\n\
        [databases.renamed]\ndbname = 'real'\npool_size = 2\n\
        [databases.'*']\npool_size = 3\npool_min = 2\nmax_backend_connections = 7\n";

    fn key(database: &str) -> PoolKey {
        PoolKey {
            node: NodeId {
                cluster: 0,
                node: 0,
            },
            database: database.into(),
            user: "app".into(),
        }
    }

    fn of(text: &str, database: &str) -> Option<PoolSizes> {
        PoolSizes::of(&pgweir_config::parse(text, "f").unwrap(), &key(database))
    }

    #[test]
    fn a_pool_is_kept_filled_as_long_as_somebody_can_log_in_as_its_role() {
        let kept = |users: &str| {
            let config = pgweir_config::parse(&format!("{TEXT}{users}"), "f").unwrap();
            kept_open(&config, &key("other"))
        };
        assert_eq!(kept(""), 2);
        assert_eq!(kept("[[users]]\nname = 'app'\n"), 2);
        assert_eq!(kept("[[users]]\nname = 'b'\nserver_user = 'app'\n"), 2);
        assert_eq!(kept("[[users]]\nname = 'b'\n"), 0);
        // It logs in as another one by now.
        let moved = "[[users]]\nname = 'app'\nserver_user = 'c'\n";
        assert_eq!(kept(moved), 0);
    }

    #[test]
    fn a_pool_has_the_sizes_of_its_own_database_and_else_of_all_others() {
        let limit = |database| of(TEXT, database).unwrap().limit;
        assert_eq!((limit("small"), limit("real")), (1, 2));
        // Nobody is served under that name.
        assert_eq!((limit("renamed"), limit("other")), (3, 3));
        let sizes = of(TEXT, "other").unwrap();
        assert_eq!((sizes.min, sizes.cap), (2, Some(7)));
        assert_eq!(of(TEXT, "small").unwrap().cap, None);
        assert!(of(&TEXT.replace("'*'", "last"), "other").is_none());
    }
}

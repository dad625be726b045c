//! How sessions that exist follow the configuration: its rules at once, the settings of their database between transactions.
//!
//! ## Why
//! A session has its own copy of what it asks of the configuration for every batch, and compares one number per batch to
//! know that there is another one. A transaction ends as it began: how much of it is held back, and where it has read, rests
//! on what its settings were.
//!
//! ## Limits
//! What belongs to the login stays: the roles on both sides, the database on the servers, the pooling mode. A session whose
//! database is not in the file any more, or means another one there, keeps what was said of it last.

use std::time::Instant;

use pgweir_config::{Config, Database};
use pgweir_session::client::Limits;
use pgweir_sql::Lens;
use pgweir_wire::TransactionStatus;

use crate::client_task::{Client, Identity};

/// Replies that one client may have waiting: bounds what a pipeline makes us remember, about 64 bytes each.
const PIPELINE_LIMIT: usize = 65_536;

/// Returns the bounds on what one client may make the proxy hold.
pub(crate) fn limits(config: &Config) -> Limits {
    Limits {
        max_message: usize::try_from(config.server.max_message).unwrap_or(usize::MAX),
        route_buffer: config.server.route_buffer,
        pipeline: PIPELINE_LIMIT,
    }
}

impl Identity {
    /// Returns the identity of a session that exists, with what the configuration says now of its database.
    fn renewed(&self, config: &Config, database: &Database) -> Identity {
        Identity {
            server_user: self.server_user.clone(),
            application: self.application.clone(),
            reads_text: self.reads_text,
            defaults: self.defaults.clone(),
            ..Identity::new(config, database, &self.database, &self.user)
        }
    }

    /// Returns what the configuration says of the session's database, if that is still the same one on the servers.
    fn database_now<'a>(&self, config: &'a Config) -> Option<&'a Database> {
        let is_same = |database: &&Database| {
            database.cluster_index == self.cluster
                && database.server_name(&self.database) == &*self.server_database
                && database.pool_mode == self.pool_mode
        };
        config.database(&self.database).filter(is_same)
    }
}

impl Client {
    /// Takes the present configuration over, if it is another than before: for every batch, so it compares and does nothing
    /// more in the steady state.
    pub(crate) fn follow_config(&mut self) {
        let generation = self.worker().config_generation();
        if self.config_seen == generation {
            return;
        }
        self.follow_rules();
        if self.is_between_transactions() {
            self.config_seen = generation;
            self.follow_settings();
        }
    }

    fn is_between_transactions(&self) -> bool {
        self.client_status() == TransactionStatus::Idle
            && self.block.is_none()
            && self.aside.is_none()
            && self.session.is_settled()
            && !self.session.is_in_mid_batch()
    }

    #[cold]
    fn follow_settings(&mut self) {
        let config = self.worker().shared.config.load_full();
        self.session.set_limits(limits(&config));
        let Some(database) = self.identity.database_now(&config) else {
            return;
        };
        let new = self.identity.renewed(&config, database);
        let old = std::mem::replace(&mut self.identity, new);
        if old.decides() != self.identity.decides() || old.policy != self.identity.policy {
            self.look_at_catalog();
        }
        if old.observes() && !self.identity.observes() {
            // What it has read there was not counted as seen.
            let mut token = self.token.get();
            token.used_primary(Instant::now());
            self.token.set(token);
        }
    }

    /// Follows the catalog of the session's database from now on, where what its names stand for is asked at all.
    pub(crate) fn look_at_catalog(&mut self) {
        let clusters = &self.worker().shared.clusters;
        let cluster = clusters.get(usize::from(self.identity.cluster));
        let identity = &self.identity;
        self.sight.reader = cluster
            .filter(|_| identity.decides())
            .map(|cluster| cluster.catalog(&identity.server_database, &identity.policy));
        if self.sight.reader.is_none() {
            self.session.set_lens(Lens::blind());
        }
    }
}

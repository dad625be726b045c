//! `EXPLAIN ROUTE` on the console: where a statement of somebody else would go now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_admin::Refusal;
use pgweir_config::{Config, PoolMode, Splitting};
use pgweir_consistency::Token;
use pgweir_route::{
    Asks, Facts, Held, Loads, Login, RouteSetting, SessionView, Subject, View, explain, observed,
};
use pgweir_sql::{Fingerprint, Lens, PlanTable, SearchPath};

use crate::proxy::Shared;

/// The search_path of a session that has not chosen one, as PostgreSQL's default is.
const USUAL_PATH: &str = "\"$user\", public";

impl Shared {
    /// Explains a statement as a session would that has just logged in and has written nothing, with the servers as they are
    /// and all workers idle.
    pub(super) fn explain(
        &self,
        sql: &str,
        database: Option<&str>,
        user: Option<&str>,
    ) -> Result<Vec<[String; 4]>, Refusal> {
        let config = self.config.load();
        let found = match database {
            Some(name) => config.database(name),
            None => config.databases.first(),
        };
        let cluster = |database: &pgweir_config::Database| {
            self.clusters.get(usize::from(database.cluster_index))
        };
        let Some((found, cluster)) = found.and_then(|found| Some((found, cluster(found)?))) else {
            return Err(unknown(&config, database.unwrap_or_default()));
        };
        let first_user = config.users.first().map(|user| &*user.name);
        let user = user.or(first_user).unwrap_or_default();
        let name = match database {
            Some(name) => name,
            None => &found.name,
        };
        let mut reader = cluster.catalog(found.server_name(name), &found.policy);
        let path = SearchPath::parse(USUAL_PATH, user).map(Arc::new);
        let lens = Lens::new(reader.load().cloned(), path);
        let plan = PlanTable::new(1).get(sql.as_bytes());
        let rules = crate::rules::compile(&config, 1);
        let applicable = rules.for_login(Login {
            user,
            database: name,
            application: "",
        });
        let facts = Facts {
            rule: rules.ruling(std::iter::once(&plan), &applicable),
            reason: plan.verdict(&lens).reason,
            ..Facts::of(&plan.classified, false)
        };
        let topology = cluster.topology();
        let newest = topology.primary().and_then(|node| node.replayed_through);
        let session = SessionView {
            held: Held::Nothing,
            route: &RouteSetting::Auto,
            token: Token::default(),
            min_lsn: None,
            // As if it had waited for a replica with the newest sample.
            arrived_at: newest.and_then(|at| at.checked_sub(Duration::from_nanos(1))),
            asks: Asks::default(),
            consistency: found.consistency,
            splitting: found.splitting != Splitting::Off,
            session_pooling: found.pool_mode == PoolMode::Session,
        };
        let view = View {
            topology: &topology,
            loads: &Loads::new(),
            now: Instant::now(),
        };
        let subject = Subject {
            classified: &plan.classified,
            fingerprint: Fingerprint::of_shape(&plan.shape),
        };
        let mut steps = explain(subject, &facts, &session, &view, None);
        if found.splitting == Splitting::Observe {
            steps = observed(steps, &facts, &topology);
        }
        Ok(steps.into_iter().map(row).collect())
    }
}

fn unknown(config: &Config, asked: &str) -> Refusal {
    let nearest = config.nearest_database(asked);
    Refusal {
        sqlstate: *b"3D000",
        message: format!("database \"{asked}\" does not exist"),
        detail: None,
        hint: nearest.map(|name| format!("Did you mean \"{name}\"?")),
    }
}

fn row(step: pgweir_route::Step) -> [String; 4] {
    [
        step.step.to_owned(),
        step.decision.into_owned(),
        step.reason.to_owned(),
        step.detail,
    ]
}

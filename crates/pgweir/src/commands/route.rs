//! `pgweir route`: where a statement would go and why, without a server.
//!
//! It asks the proxy's own decision on a made-up moment: everyone healthy, no lag, a session that has written nothing. So
//! what it shows is the statement's classification, the rules and the configuration, not the state of the servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_config::{BackendRole, Cluster, Config, PoolMode, Splitting};
use pgweir_consistency::Token;
use pgweir_model::catalog::Policy;
use pgweir_model::{Consistency, Health, Lsn, Node, NodeId, Role, Topology};
use pgweir_route::{
    Applicable, Asks, Facts, Held, Loads, Login, RouteSetting, RuleSet, SessionView, Subject, View,
    explain, observed,
};
use pgweir_sql::{Fingerprint, Lens, PlanTable, SearchPath};

mod schema;

use crate::args::{self, Route};
use crate::failure::Failure;
use crate::{output, table};

/// Prints the steps of the decision.
pub(crate) fn run(arguments: &Route) -> Result<(), Failure> {
    let mut policy = Arc::default();
    let mut scene = match args::config_or_default(arguments.config.as_deref()) {
        Some(file) => {
            let config = pgweir_config::load(&file)?;
            let mut scene = Scene::configured(&config, arguments.database.as_deref())?;
            policy = Scene::policy(&config, arguments.database.as_deref());
            scene.log_in(
                &config,
                arguments.user.as_deref(),
                arguments.database.as_deref(),
                &arguments.application,
            );
            scene
        }
        None => Scene::made_up(),
    };
    if let Some(schema) = &arguments.schema {
        let user = arguments.user.as_deref().unwrap_or_default();
        let path = SearchPath::parse(&arguments.search_path, user).map(Arc::new);
        scene.lens = Lens::new(Some(schema::load(schema, &policy)?), path);
    }
    output::say(scene.explain(&arguments.sql).trim_end());
    output::say(format!("\n({})", scene.assumption()));
    Ok(())
}

/// What a decision depends on besides the statement.
struct Scene {
    topology: Topology,
    consistency: Consistency,
    splitting: Splitting,
    session_pooling: bool,
    rules: RuleSet,
    applicable: Applicable,
    /// What the names of the statement mean.
    lens: Lens,
    now: Instant,
}

impl Scene {
    /// A primary and two replicas, with the defaults of a database.
    fn made_up() -> Self {
        let now = Instant::now();
        let nodes = (0..3_u16).map(|node| {
            let (role, name) = match node {
                0 => (Role::Primary, "primary".to_owned()),
                _ => (Role::Replica, format!("replica{node}")),
            };
            healthy(NodeId { cluster: 0, node }, name.into(), 100, role, now)
        });
        Scene {
            topology: topology(nodes.collect(), now),
            consistency: Consistency::Session,
            splitting: Splitting::On,
            session_pooling: false,
            rules: RuleSet::default(),
            applicable: Applicable::default(),
            lens: Lens::blind(),
            now,
        }
    }

    /// The servers and the settings of one database of a configuration.
    fn configured(config: &Config, database: Option<&str>) -> Result<Self, Failure> {
        let found = match database {
            Some(name) => config.database(name),
            None => config.databases.first(),
        };
        let named = found.and_then(|database| Some((database, config.cluster_of(database)?)));
        let Some((database, cluster)) = named else {
            let name = database.unwrap_or_default().to_owned();
            let nearest = config.nearest_database(&name).map(str::to_owned);
            return Err(Failure::UnknownDatabase { name, nearest });
        };
        let now = Instant::now();
        let (index, zone) = (database.cluster_index, config.server.zone.as_deref());
        let settings = pgweir_cluster::Settings::new(cluster, index, zone);
        let mut nodes = nodes(cluster, index, now);
        for (node, settings) in nodes.iter_mut().zip(&settings.nodes) {
            node.is_near = settings.is_near;
        }
        Ok(Scene {
            topology: Topology {
                selection: settings.selection,
                ..topology(nodes, now)
            },
            consistency: database.consistency,
            splitting: database.splitting,
            session_pooling: database.pool_mode == PoolMode::Session,
            rules: RuleSet::default(),
            applicable: Applicable::default(),
            lens: Lens::blind(),
            now,
        })
    }

    /// Returns what the configuration says of the functions of a database.
    fn policy(config: &Config, database: Option<&str>) -> Arc<Policy> {
        let found = match database {
            Some(name) => config.database(name),
            None => config.databases.first(),
        };
        found
            .map(|database| Arc::clone(&database.policy))
            .unwrap_or_default()
    }

    /// Lets the rules of the configuration speak of this client.
    fn log_in(
        &mut self,
        config: &Config,
        user: Option<&str>,
        database: Option<&str>,
        application: &str,
    ) {
        let first_user = config.users.first().map(|user| &*user.name);
        let first_database = config.databases.first().map(|database| &*database.name);
        self.rules = pgweir_proxy::rules::compile(config, 1);
        self.applicable = self.rules.for_login(Login {
            user: user.or(first_user).unwrap_or_default(),
            database: database.or(first_database).unwrap_or_default(),
            application,
        });
    }

    fn explain(&self, sql: &str) -> String {
        let plan = PlanTable::new(1).get(sql.as_bytes());
        let facts = Facts {
            rule: self.rules.ruling(std::iter::once(&plan), &self.applicable),
            reason: plan.verdict(&self.lens).reason,
            ..Facts::of(&plan.classified, false)
        };
        let subject = Subject {
            classified: &plan.classified,
            fingerprint: Fingerprint::of_shape(&plan.shape),
        };
        let session = SessionView {
            held: Held::Nothing,
            route: &RouteSetting::Auto,
            token: Token::default(),
            min_lsn: None,
            // A replica that is caught up, as these are, shows what was committed before.
            arrived_at: self.now.checked_sub(Duration::from_nanos(1)),
            asks: Asks::default(),
            consistency: self.consistency,
            splitting: self.splitting != Splitting::Off,
            session_pooling: self.session_pooling,
        };
        let view = View {
            topology: &self.topology,
            loads: &Loads::new(),
            now: self.now,
        };
        let mut steps = explain(subject, &facts, &session, &view, None);
        if self.splitting == Splitting::Observe {
            steps = observed(steps, &facts, &self.topology);
        }
        let rows: Vec<_> = steps
            .into_iter()
            .map(|step| {
                [
                    step.step.to_owned(),
                    step.decision.into_owned(),
                    step.reason.to_owned(),
                    step.detail,
                ]
            })
            .collect();
        table::render(["step", "decision", "reason", "detail"], &rows)
    }

    fn assumption(&self) -> String {
        let primary = self
            .topology
            .primary()
            .map_or("no server", |node| &*node.name);
        let replicas: Vec<_> = self.topology.replicas().map(|node| &*node.name).collect();
        match replicas.as_slice() {
            [] => format!("as if {primary} were the primary, with no replica"),
            names => format!(
                "as if {primary} were the primary, with the replicas {} healthy and without lag",
                names.join(", ")
            ),
        }
    }
}

/// Gives each server the role that it has in the configuration, and makes the first that may be the primary so.
fn nodes(cluster: &Cluster, cluster_index: u16, now: Instant) -> Vec<Node> {
    let backends = &cluster.backends;
    let position = |role| backends.iter().position(|backend| backend.role == role);
    let primary = position(BackendRole::Primary).or_else(|| position(BackendRole::Auto));
    let indexed = backends.iter().zip(0_u16..).enumerate();
    let node = indexed.map(|(index, (backend, node))| {
        let role = if primary == Some(index) {
            Role::Primary
        } else {
            Role::Replica
        };
        let id = NodeId {
            cluster: cluster_index,
            node,
        };
        let node = healthy(id, Arc::clone(&backend.name), backend.weight, role, now);
        match (backend.role, role) {
            // Out of use: a second one that is only ever used as the primary.
            (BackendRole::Primary, Role::Replica) => Node {
                health: Health::Unknown,
                role: None,
                ..node
            },
            _ => node,
        }
    });
    node.collect()
}

fn healthy(id: NodeId, name: Arc<str>, weight: u32, role: Role, now: Instant) -> Node {
    Node {
        role: Some(role),
        health: Health::Up,
        timeline: 1,
        position: Lsn(1),
        lag_bytes: Some(0),
        lag: Some(Duration::ZERO),
        replayed_through: Some(now),
        within_max_lag: true,
        // Nothing connects to it.
        ..Node::unseen(id, name, Arc::from(""), 0, weight)
    }
}

fn topology(nodes: Vec<Node>, now: Instant) -> Topology {
    let primary = nodes
        .iter()
        .position(|node| node.role == Some(Role::Primary));
    Topology {
        version: 1,
        published_at: Some(now),
        expires_at: None,
        nodes,
        primary,
        ..Topology::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "auth.method = 'trust'\n\
        [clusters.main]\n\
        backends = [{ name = 'a', host = 'h1', role = 'replica' }, { name = 'b', host = 'h2' }, { name = 'c', host = 'h3' }]\n\
        [databases.app]\n\
        [databases.plain]\nsplitting = 'off'\n\
        [databases.new]\nsplitting = 'observe'\n";

    fn last_row(scene: &Scene, sql: &str) -> String {
        let shown = scene.explain(sql);
        let row = shown.trim_end().lines().last().unwrap_or_default();
        row.split('|').map(str::trim).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn reads_go_to_the_replicas_and_writes_to_the_primary() {
        let scene = Scene::made_up();
        assert_eq!(
            last_row(&scene, "SELECT 1"),
            "route|replica|read|replica1, replica2"
        );
        assert_eq!(
            last_row(&scene, "DELETE FROM t"),
            "route|primary|write|primary"
        );
    }

    #[test]
    fn roles_and_settings_are_those_of_the_configuration() {
        let config = pgweir_config::parse(CONFIG, "f").unwrap();
        let scene = Scene::configured(&config, None).unwrap();
        assert_eq!(last_row(&scene, "SELECT 1"), "route|replica|read|a, c");
        assert_eq!(
            last_row(&scene, "SELECT 1 FOR UPDATE"),
            "route|primary|row_lock|b"
        );
        let plain = Scene::configured(&config, Some("plain")).unwrap();
        assert_eq!(
            last_row(&plain, "SELECT 1"),
            "route|primary|splitting_off|b"
        );
        let new = Scene::configured(&config, Some("new")).unwrap();
        assert_eq!(last_row(&new, "SELECT 1"), "route|primary|observed|b");
        assert!(new.explain("SELECT 1").contains("observed"));
        assert_eq!(
            scene.assumption(),
            "as if b were the primary, with the replicas a, c healthy and without lag"
        );
    }

    #[test]
    fn the_rules_of_the_file_speak_of_the_client() {
        let rules = "[[rules]]\nname = 'reports'\n\
            match = { user = 'report', application = 'nightly', database = 'app', tables = ['t'] }\naction.route = 'c'\n\
            [[rules]]\nmatch = { fingerprint = '28146a707030cb58' }\naction.block = 'use a page'\n";
        let config = pgweir_config::parse(&format!("{CONFIG}{rules}"), "f").unwrap();
        let mut scene = Scene::configured(&config, None).unwrap();
        scene.log_in(&config, Some("report"), None, "nightly");
        assert_eq!(last_row(&scene, "TABLE t"), "route|replica|rule|c");
        let blocked = "SELECT * FROM users WHERE id = 5";
        assert_eq!(
            last_row(&scene, blocked),
            "route|primary|rule|refused (42501): use a page"
        );
        assert!(scene.explain(blocked).contains("28146a707030cb58"));
        scene.log_in(&config, Some("other"), None, "nightly");
        assert_eq!(
            last_row(&scene, "SELECT * FROM t"),
            "route|replica|read|a, c"
        );
    }

    #[test]
    fn a_misspelt_database_gets_a_suggestion() {
        let config = pgweir_config::parse(CONFIG, "f").unwrap();
        let failure = Scene::configured(&config, Some("plan")).err().unwrap();
        assert_eq!(
            failure.to_string(),
            "pgweir: there is no database plan in the configuration; did you mean plain?"
        );
    }
}

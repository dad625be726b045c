//! The rules of the configuration as the router asks them, and what they say of the batch at hand.

use std::sync::Arc;
use std::time::Duration;

use pgweir_config::{Config, RuleKind, RuleRoute};
use pgweir_consistency::MaxLag;
use pgweir_route::rules::{Action, ClientMatch, StatementMatch};
use pgweir_route::{Asks, Login, RouteError, RouteSetting, Rule, RuleSet};
use pgweir_sql::{Fingerprint, Name, StatementKind};

use crate::client_task::Client;
use crate::fault::Fault;

/// Returns the rules of a configuration. `generation` is another one for each set of a thread, and is not 0.
pub fn compile(config: &Config, generation: u64) -> RuleSet {
    RuleSet::new(generation, config.rules.iter().map(rule).collect())
}

fn rule(rule: &pgweir_config::Rule) -> Rule {
    let (matches, action) = (&rule.matches, &rule.action);
    let table = |table: &pgweir_config::TableName| Name {
        schema: table.schema.clone(),
        name: table.name.clone(),
    };
    Rule {
        name: Arc::clone(&rule.name),
        client: ClientMatch {
            user: matches.user.clone(),
            database: matches.database.clone(),
            application: matches.application.clone(),
        },
        statement: StatementMatch {
            tables: matches.tables.iter().map(table).collect(),
            regex: matches.regex.as_ref().map(|regex| regex.regex().clone()),
            fingerprint: matches.fingerprint.map(Fingerprint),
            kinds: matches.kind.map(kinds).unwrap_or_default(),
        },
        action: Action {
            route: action.route.as_ref().map(route).unwrap_or_default(),
            asks: Asks {
                max_lag: action.max_lag.map(|limit| match limit {
                    pgweir_config::MaxLag::Time(age) => MaxLag::Time(age),
                    pgweir_config::MaxLag::Bytes(bytes) => MaxLag::Bytes(bytes),
                }),
                consistency: action.consistency,
            },
            timeout: action.timeout,
            block: action.block.clone(),
        },
    }
}

fn route(route: &RuleRoute) -> RouteSetting {
    match route {
        RuleRoute::Auto => RouteSetting::Auto,
        RuleRoute::Primary => RouteSetting::Primary,
        RuleRoute::Replica => RouteSetting::Replica,
        RuleRoute::Backend(name) => RouteSetting::Backend(Arc::clone(name)),
    }
}

fn kinds(kind: RuleKind) -> &'static [StatementKind] {
    match kind {
        RuleKind::Select => &[StatementKind::Query],
        RuleKind::Insert => &[StatementKind::Insert],
        RuleKind::Update => &[StatementKind::Update],
        RuleKind::Delete => &[StatementKind::Delete],
        RuleKind::Merge => &[StatementKind::Merge],
        RuleKind::Copy => &[StatementKind::CopyTo, StatementKind::CopyFrom],
        RuleKind::Call => &[StatementKind::Call],
        RuleKind::Do => &[StatementKind::Do],
        RuleKind::Ddl => &[StatementKind::Ddl],
    }
}

impl Client {
    /// Takes the rules that hold now over, if they are others than before.
    pub(crate) fn follow_rules(&mut self) {
        let generation = self.worker().rules_generation();
        if self.applicable.generation() == generation {
            return;
        }
        let rules = self.worker().rules();
        self.applicable = rules.for_login(Login {
            user: &self.identity.user,
            database: &self.identity.database,
            application: &self.identity.application,
        });
        self.session.keep_plans(generation != 0);
    }

    /// Returns how long a rule lets the batch at hand run on a server.
    pub(crate) fn timeout_by_rule(&self) -> Option<Duration> {
        if self.applicable.generation() == 0 {
            return None;
        }
        let rules = self.worker().rules();
        if !rules.has_timeouts() {
            return None;
        }
        rules
            .ruling(self.session.facts().plans.iter(), &self.applicable)?
            .timeout
    }

    /// Returns what a rule says that refuses the batch at hand.
    pub(crate) fn blocked(&self) -> Option<Fault> {
        if self.applicable.generation() == 0 {
            return None;
        }
        let rules = self.worker().rules();
        let ruling = rules.ruling(self.session.facts().plans.iter(), &self.applicable)?;
        let message = ruling.block?;
        Some(Fault::from_route(&RouteError::Blocked {
            rule: ruling.name.into(),
            message: message.into(),
        }))
    }
}

//! The operator's rules: which one speaks of a batch, and what it says.
//!
//! ## Why
//! What a rule asks of the statement (tables, pattern, fingerprint, kind) depends on the shape alone, and what it asks of the
//! client (user, database, application) on the login alone. So each is worked out once: the first is kept with the plan,
//! the second with the session, and a batch costs one look for the first rule that is in both. Without rules it costs a
//! comparison of [`RuleSet::generation`] with 0.
//!
//! A batch goes to one server as a whole, so one rule speaks for all of it: the first in the order of the file that speaks of
//! any of its statements, but one that blocks comes before all others.
//!
//! ## Limits
//! A rule sees what the client sends: neither what a view or a function does, nor the tables of a statement that is prepared by
//! SQL. It guides, and stops accidents; rights are granted in the database.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pgweir_sql::{Fingerprint, Name, Plan, StatementKind};
use regex::bytes::Regex;

use crate::session_view::{Asks, Instruction, RouteSetting};

/// All rules, in the order in which they are asked.
#[derive(Debug, Default)]
pub struct RuleSet {
    generation: u64,
    rules: Vec<Rule>,
    has_timeouts: bool,
}

/// One rule.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// What it is called.
    pub name: Arc<str>,
    /// What it asks of the client.
    pub client: ClientMatch,
    /// What it asks of the statement.
    pub statement: StatementMatch,
    /// What it says.
    pub action: Action,
}

/// What a rule asks of the client; what is `None` is not asked.
#[derive(Debug, Clone, Default)]
pub struct ClientMatch {
    /// The role that it logged in as.
    pub user: Option<Arc<str>>,
    /// The database, as it named it.
    pub database: Option<Arc<str>>,
    /// The `application_name` of its startup packet.
    pub application: Option<Arc<str>>,
}

/// What a rule asks of the statement; what is empty or `None` is not asked.
#[derive(Debug, Clone, Default)]
pub struct StatementMatch {
    /// It names one of these.
    pub tables: Vec<Name>,
    /// It is found in the shape.
    pub regex: Option<Regex>,
    /// That of the shape.
    pub fingerprint: Option<Fingerprint>,
    /// It is, or one of a text of several is, of one of these.
    pub kinds: &'static [StatementKind],
}

/// What a rule says.
#[derive(Debug, Clone, Default)]
pub struct Action {
    /// Where the batch goes.
    pub route: RouteSetting,
    /// What its reads may see.
    pub asks: Asks,
    /// How long it may run on a server.
    pub timeout: Option<Duration>,
    /// It is refused with this message.
    pub block: Option<Arc<str>>,
}

/// A client, as rules see it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Login<'a> {
    /// The role that it logged in as.
    pub user: &'a str,
    /// The database, as it named it.
    pub database: &'a str,
    /// The `application_name` of its startup packet; empty where it gave none.
    pub application: &'a str,
}

/// The rules that may speak of a client.
#[derive(Debug, Clone, Default)]
pub struct Applicable {
    generation: u64,
    rules: Box<[bool]>,
}

impl Applicable {
    /// Returns the generation of rules that it was worked out from; 0 if from none.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// What the rule that speaks of a batch says. Copied rather than built: one is made for every batch where there are rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling<'a> {
    /// What the rule is called.
    pub name: &'a str,
    /// Where the batch goes.
    pub route: Instruction<'a>,
    /// What its reads may see.
    pub asks: Asks,
    /// How long it may run on a server.
    pub timeout: Option<Duration>,
    /// The message with which it is refused.
    pub block: Option<&'a str>,
    /// Whether the rule asks nothing of the statement, so that it speaks of all that the session will send.
    pub is_for_session: bool,
}

impl RuleSet {
    /// Returns the set of these rules. `generation` is another one for each set of a thread, and is not 0.
    pub fn new(generation: u64, rules: Vec<Rule>) -> Self {
        let generation = if rules.is_empty() { 0 } else { generation };
        RuleSet {
            generation,
            has_timeouts: rules.iter().any(|rule| rule.action.timeout.is_some()),
            rules,
        }
    }

    /// Returns whether any of them has a timeout.
    pub fn has_timeouts(&self) -> bool {
        self.has_timeouts
    }

    /// Returns the generation; 0 where there are no rules.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns which rules may speak of a client.
    pub fn for_login(&self, login: Login<'_>) -> Applicable {
        let applies = |rule: &Rule| rule.client.holds(login);
        Applicable {
            generation: self.generation,
            rules: self.rules.iter().map(applies).collect(),
        }
    }

    /// Returns what is said of a batch of these statements. Whom the rules of another set apply to says nothing here.
    pub fn ruling<'a>(
        &'a self,
        plans: impl Iterator<Item = &'a Rc<Plan>>,
        applicable: &Applicable,
    ) -> Option<Ruling<'a>> {
        if self.generation == 0 || self.generation != applicable.generation {
            return None;
        }
        let first = |plan: &Rc<Plan>| {
            let of_plan = plan.rules.of(self.generation, || self.of_plan(plan));
            let applies = |index: &usize| applicable.rules.get(*index).copied().unwrap_or(false);
            let mut indexes = of_plan.iter().map(|index| usize::from(*index));
            indexes.find(applies)
        };
        let rank = |index: &usize| {
            let blocks = self.rules.get(*index).is_some_and(Rule::blocks);
            (!blocks, *index)
        };
        let index = plans.filter_map(first).min_by_key(rank)?;
        self.rules.get(index).map(Rule::ruling)
    }

    /// Returns the indexes of the rules whose conditions on the statement hold for a shape.
    fn of_plan(&self, plan: &Plan) -> Rc<[u16]> {
        let holds = |(index, rule): (u16, &Rule)| rule.statement.holds(plan).then_some(index);
        (0..).zip(&self.rules).filter_map(holds).collect()
    }
}

impl Rule {
    fn blocks(&self) -> bool {
        self.action.block.is_some()
    }

    fn ruling(&self) -> Ruling<'_> {
        Ruling {
            name: &self.name,
            route: self.action.route.instruction(),
            asks: self.action.asks,
            timeout: self.action.timeout,
            block: self.action.block.as_deref(),
            is_for_session: self.statement.asks_nothing(),
        }
    }
}

impl ClientMatch {
    fn holds(&self, login: Login<'_>) -> bool {
        let is = |wanted: &Option<Arc<str>>, got: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == got)
        };
        is(&self.user, login.user)
            && is(&self.database, login.database)
            && is(&self.application, login.application)
    }
}

impl StatementMatch {
    fn asks_nothing(&self) -> bool {
        self.tables.is_empty()
            && self.regex.is_none()
            && self.fingerprint.is_none()
            && self.kinds.is_empty()
    }

    fn holds(&self, plan: &Plan) -> bool {
        let classified = &plan.classified;
        let is_named = |wanted: &Name| classified.tables.iter().any(|named| is_it(wanted, named));
        let is_of_kind = || {
            let statements = &classified.statements;
            statements
                .iter()
                .any(|statement| self.kinds.contains(&statement.kind))
        };
        (self.tables.is_empty() || self.tables.iter().any(is_named))
            && (self.kinds.is_empty() || is_of_kind())
            && self
                .fingerprint
                .is_none_or(|wanted| Fingerprint::of_shape(&plan.shape) == wanted)
            && self
                .regex
                .as_ref()
                .is_none_or(|regex| regex.is_match(&plan.shape))
    }
}

/// Returns whether a table that a statement names may be the one that a rule means. Which schema a bare name stands for
/// depends on the session's `search_path`, so it may be any.
fn is_it(wanted: &Name, named: &Name) -> bool {
    let same_schema = match (&wanted.schema, &named.schema) {
        (Some(wanted), Some(named)) => wanted == named,
        (None, _) | (_, None) => true,
    };
    same_schema && wanted.name == named.name
}

#[cfg(test)]
mod tests;

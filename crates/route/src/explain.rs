//! The decision as rows, for `EXPLAIN ROUTE` and `pgweir route`.
//!
//! It shows what the decision saw, step by step, and asks the decision itself for the last row: the two cannot differ.

use std::borrow::Cow;
use std::fmt::Write as _;

use pgweir_consistency::MaxLag;
use pgweir_model::{Balance, Health, Node, Reason, Topology};
use pgweir_sql::classify::Name;
use pgweir_sql::{Classified, Fingerprint, Hint};

use crate::balance::Balancer;
use crate::decide::{Standing, Target, View, Wants, decide, instruction, shares};
use crate::error::RouteError;
use crate::facts::Facts;
use crate::rules::Ruling;
use crate::session_view::{Asks, Instruction, SessionView};

/// One row: all text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What was looked at: `classification`, `fingerprint`, `tables`, `functions`, `shards`, `rule`, `instruction`,
    /// `primary` (where it takes reads by its weight), `replica`, `cache`, `observed`, `route`.
    pub step: &'static str,
    /// What was found; for `route`: `primary`, `replica` or `local`.
    pub decision: Cow<'static, str>,
    /// One of the names of [`Reason`], or empty.
    pub reason: &'static str,
    /// Names and numbers.
    pub detail: String,
}

/// What is explained.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The statement.
    pub classified: &'a Classified,
    /// That of its shape.
    pub fingerprint: Fingerprint,
}

/// Returns the steps of a decision; exactly one, the last, has step `route`.
///
/// `held_node` is the node of the server connection that the session has, if it has one. A statement that would be
/// refused has the error in the detail of that row.
pub fn explain(
    subject: Subject<'_>,
    facts: &Facts<'_>,
    session: &SessionView<'_>,
    view: &View<'_>,
    held_node: Option<usize>,
) -> Vec<Step> {
    let classified = subject.classified;
    let mut steps = vec![classification(facts)];
    steps.push(plain(
        "fingerprint",
        subject.fingerprint.to_string(),
        String::new(),
    ));
    steps.extend(names("tables", &classified.tables));
    steps.extend(names("functions", &classified.functions));
    steps.push(plain("shards", "none", "the database is not sharded"));
    steps.extend(facts.rule.as_ref().map(rule));
    steps.extend(asked(facts, session));
    let ignored = classified.hint.iter().flat_map(ignored);
    steps.extend(ignored);
    for (index, node) in view.topology.nodes.iter().enumerate() {
        if shares(node, view.topology) {
            steps.push(Step {
                step: "primary",
                decision: Cow::Borrowed("eligible"),
                reason: "",
                detail: server(index, node, view),
            });
        } else if view.topology.primary != Some(index) {
            steps.push(replica(index, node, facts, session, view));
        }
    }
    steps.push(plain("cache", "no", "the cache is off"));
    steps.push(route(facts, session, view, held_node));
    steps
}

/// Returns the steps of a decision that is only counted: the one that it would have been, and then the primary's. What a rule
/// blocks is refused all the same.
pub fn observed(mut steps: Vec<Step>, facts: &Facts<'_>, topology: &Topology) -> Vec<Step> {
    let is_blocked = facts.rule.is_some_and(|rule| rule.block.is_some());
    let is_final = |last: &&mut Step| is_blocked || last.decision == "local";
    if let Some(last) = steps.last_mut().filter(|last| !is_final(last)) {
        last.step = "observed";
        steps.push(Step {
            step: "route",
            decision: Cow::Borrowed("primary"),
            reason: Reason::Observed.name(),
            detail: name_of(topology, topology.primary.unwrap_or(usize::MAX)),
        });
    }
    steps
}

fn plain(
    step: &'static str,
    decision: impl Into<Cow<'static, str>>,
    detail: impl Into<String>,
) -> Step {
    Step {
        step,
        decision: decision.into(),
        reason: "",
        detail: detail.into(),
    }
}

/// The rule that speaks of the statement, whether or not something stands above it.
fn rule(rule: &Ruling<'_>) -> Step {
    let mut says = Vec::new();
    if rule.block.is_some() {
        says.push("block".to_owned());
    }
    if rule.route != Instruction::Auto {
        says.push(format!("route = {}", rule.route));
    }
    says.extend(asks_as_text(rule.asks));
    says.extend(
        rule.timeout
            .map(|limit| format!("timeout = {} ms", limit.as_millis())),
    );
    if says.is_empty() {
        says.push("route = auto".to_owned());
    }
    Step {
        step: "rule",
        decision: says.join(", ").into(),
        reason: Reason::Rule.name(),
        detail: format!("rule \"{}\"", rule.name),
    }
}

fn asks_as_text(asks: Asks) -> impl Iterator<Item = String> {
    let limit = asks.max_lag.map(|limit| match limit {
        MaxLag::Time(age) => format!("max_lag = {} ms", age.as_millis()),
        MaxLag::Bytes(bytes) => format!("max_lag = {bytes} bytes"),
    });
    let sees = asks
        .consistency
        .map(|consistency| format!("consistency = {consistency}"));
    limit.into_iter().chain(sees)
}

/// What the hint and the session ask, one row each.
fn asked(facts: &Facts<'_>, session: &SessionView<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut add = |decision: String, by: Reason| {
        steps.push(Step {
            step: "instruction",
            decision: decision.into(),
            reason: by.name(),
            detail: String::new(),
        });
    };
    if let Some((instruction, by)) = instruction(facts, session)
        && by != Reason::Rule
    {
        add(format!("route = {instruction}"), by);
    }
    asks_as_text(facts.asks).for_each(|text| add(text, Reason::Hint));
    asks_as_text(session.asks).for_each(|text| add(text, Reason::SessionSetting));
    steps
}

/// What of a hint is not followed.
fn ignored(hint: &Hint) -> impl Iterator<Item = Step> {
    let step = |detail: String| Step {
        step: "instruction",
        decision: Cow::Borrowed("ignored"),
        reason: Reason::Hint.name(),
        detail,
    };
    let errors = hint.errors.iter().map(|error| error.to_string());
    let others = hint.others.iter().map(|(key, _)| match &**key {
        "cache" => "cache: the cache is off".to_owned(),
        "shard_key" => "shard_key: the database is not sharded".to_owned(),
        key => format!("{key}: not used"),
    });
    errors.chain(others).map(step)
}

fn classification(facts: &Facts<'_>) -> Step {
    let decision = match facts.reason {
        Reason::Local => "local",
        _ if facts.is_read() && !facts.learned => "replica",
        _ => "primary",
    };
    let detail = if facts.learned {
        "failed on a replica before".to_owned()
    } else {
        String::new()
    };
    Step {
        step: "classification",
        decision: Cow::Borrowed(decision),
        reason: facts.reason.name(),
        detail,
    }
}

fn names(step: &'static str, names: &[Name]) -> Option<Step> {
    let full = |name: &Name| match &name.schema {
        Some(schema) => format!("{schema}.{}", name.name),
        None => name.name.to_string(),
    };
    let detail = names.iter().map(full).collect::<Vec<_>>().join(", ");
    let decision = Cow::Owned(names.len().to_string());
    (!names.is_empty()).then_some(Step {
        step,
        decision,
        reason: "",
        detail,
    })
}

fn replica(
    index: usize,
    node: &Node,
    facts: &Facts<'_>,
    session: &SessionView<'_>,
    view: &View<'_>,
) -> Step {
    let standing = Wants::of(facts, session).standing(node, view);
    let (decision, reason) = match standing {
        Standing::Eligible => ("eligible", ""),
        lacking => ("not eligible", lacking.reason().name()),
    };
    Step {
        step: "replica",
        decision: Cow::Borrowed(decision),
        reason,
        detail: server(index, node, view),
    }
}

/// What the choice knows of a server.
fn server(index: usize, node: &Node, view: &View<'_>) -> String {
    let mut detail = format!("{}:", node.name);
    // Writing to a String cannot fail.
    let _ = match (node.health, node.lag, node.lag_bytes) {
        (Health::Up, Some(lag), Some(bytes)) => {
            write!(detail, " lag {} ms, {bytes} bytes", lag.as_millis())
        }
        (Health::Up, None, Some(bytes)) => write!(detail, " lag unknown, {bytes} bytes"),
        (Health::Up, _, _) => write!(detail, " lag unknown"),
        (Health::Down, _, _) => write!(detail, " down"),
        (Health::Unknown, _, _) => write!(detail, " not seen yet"),
    };
    let effective = f64::from(node.effective_weight) / f64::from(Node::WEIGHT_SCALE);
    let in_flight = view.loads.in_flight(index);
    let _ = write!(
        detail,
        ", weight {}, effective {effective:.3}, in flight {in_flight}",
        node.weight
    );
    if node.is_drained {
        let _ = write!(detail, ", drained");
    }
    if let Some(latency) = view.loads.latency(index) {
        let _ = write!(detail, ", latency {} ms", latency.as_millis());
    }
    if view.topology.selection.balance == Balance::Nearest {
        detail.push_str(if node.is_near {
            ", near"
        } else {
            ", elsewhere"
        });
    }
    detail
}

fn route(
    facts: &Facts<'_>,
    session: &SessionView<'_>,
    view: &View<'_>,
    held_node: Option<usize>,
) -> Step {
    let topology = view.topology;
    let step = |decision, reason: Reason, detail| Step {
        step: "route",
        decision: Cow::Borrowed(decision),
        reason: reason.name(),
        detail,
    };
    let decided = match decide(facts, session, view, &mut Balancer::new(0)) {
        Ok(decided) => decided,
        Err(RouteError::NoReplica { reason }) => {
            let detail = "waits until a replica is eligible: primary_reads is never";
            return step("replica", reason, detail.to_owned());
        }
        Err(error) => {
            let by = match error {
                RouteError::Blocked { .. } => Reason::Rule,
                _ => instruction(facts, session).map_or(facts.reason, |(_, by)| by),
            };
            return step(
                "primary",
                by,
                format!("refused ({}): {error}", error.sqlstate()),
            );
        }
    };
    match decided.target {
        Target::Local => step("local", decided.reason, String::new()),
        Target::Same => {
            let node = held_node.unwrap_or(topology.primary.unwrap_or(usize::MAX));
            step(
                place(topology, node),
                decided.reason,
                name_of(topology, node),
            )
        }
        Target::Node(index) if topology.primary == Some(index) => {
            let is_one_of_many = decided.reason == facts.reason
                && facts.is_read()
                && topology.nodes.iter().any(|node| shares(node, topology));
            let detail = if is_one_of_many {
                eligible(facts, session, view)
            } else {
                name_of(topology, index)
            };
            step("primary", decided.reason, detail)
        }
        Target::Node(index) => {
            let balanced = !matches!(
                instruction(facts, session),
                Some((Instruction::Backend(_), _))
            );
            let detail = if balanced {
                eligible(facts, session, view)
            } else {
                name_of(topology, index)
            };
            step("replica", decided.reason, detail)
        }
    }
}

fn place(topology: &Topology, index: usize) -> &'static str {
    let is_primary = topology.primary == Some(index) || topology.nodes.get(index).is_none();
    if is_primary { "primary" } else { "replica" }
}

fn name_of(topology: &Topology, index: usize) -> String {
    topology
        .nodes
        .get(index)
        .map(|node| node.name.to_string())
        .unwrap_or_default()
}

/// Returns the names among which the balancer chooses. Where it prefers those of the own zone, only these, as long as none of
/// them is overloaded.
fn eligible(facts: &Facts<'_>, session: &SessionView<'_>, view: &View<'_>) -> String {
    let wants = Wants::of(facts, session);
    let shares_reads =
        |node: &Node| shares(node, view.topology) && instruction(facts, session).is_none();
    let all = view
        .topology
        .nodes
        .iter()
        .filter(|node| shares_reads(node) || wants.standing(node, view) == Standing::Eligible);
    let prefers_near =
        view.topology.selection.balance == Balance::Nearest && all.clone().any(|node| node.is_near);
    let chosen_from = all.filter(|node| !prefers_near || node.is_near);
    chosen_from
        .map(|node| &*node.name)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests;

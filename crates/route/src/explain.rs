//! The decision as rows, for `EXPLAIN ROUTE` and `pgweir route`.
//!
//! It shows what the decision saw, step by step, and asks the decision itself for the last row: the two cannot differ.

use std::borrow::Cow;
use std::fmt::Write as _;

use pgweir_model::{Health, Node, Reason, Topology};
use pgweir_sql::Classified;
use pgweir_sql::classify::Name;

use crate::balance::Balancer;
use crate::decide::{Standing, Target, View, decide, instruction, standing};
use crate::facts::Facts;
use crate::session_view::{Instruction, SessionView};

/// One row: all text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What was looked at: `classification`, `tables`, `functions`, `instruction`, `replica`, `route`.
    pub step: &'static str,
    /// What was found; for `route`: `primary`, `replica` or `local`.
    pub decision: Cow<'static, str>,
    /// One of the names of [`Reason`], or empty.
    pub reason: &'static str,
    /// Names and numbers.
    pub detail: String,
}

/// Returns the steps of a decision; exactly one, the last, has step `route`.
///
/// `held_node` is the node of the server connection that the session has, if it has one. A statement that would be
/// refused has the error in the detail of that row.
pub fn explain(
    classified: &Classified,
    facts: &Facts<'_>,
    session: &SessionView<'_>,
    view: &View<'_>,
    held_node: Option<usize>,
) -> Vec<Step> {
    let mut steps = vec![classification(facts)];
    steps.extend(names("tables", &classified.tables));
    steps.extend(names("functions", &classified.functions));
    steps.extend(instruction(facts, session).map(|(asked, by)| Step {
        step: "instruction",
        decision: match asked {
            Instruction::Auto => Cow::Borrowed("auto"),
            Instruction::Primary => Cow::Borrowed("primary"),
            Instruction::Replica => Cow::Borrowed("replica"),
            Instruction::Backend(name) => Cow::Owned(name.to_owned()),
        },
        reason: by.name(),
        detail: String::new(),
    }));
    let hint_errors = classified.hint.iter().flat_map(|hint| &hint.errors);
    steps.extend(hint_errors.map(|error| Step {
        step: "instruction",
        decision: Cow::Borrowed("ignored"),
        reason: Reason::Hint.name(),
        detail: error.to_string(),
    }));
    for (index, node) in view.topology.nodes.iter().enumerate() {
        if view.topology.primary != Some(index) {
            steps.push(replica(index, node, facts, session, view));
        }
    }
    steps.push(route(facts, session, view, held_node));
    steps
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
    let standing = standing(node, facts, session, view);
    let (decision, reason) = match standing {
        Standing::Eligible => ("eligible", ""),
        lacking => ("not eligible", lacking.reason().name()),
    };
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
    Step {
        step: "replica",
        decision: Cow::Borrowed(decision),
        reason,
        detail,
    }
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
        Err(error) => {
            let by = instruction(facts, session).map_or(facts.reason, |(_, by)| by);
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
            step("primary", decided.reason, name_of(topology, index))
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

/// Returns the names among which the balancer chooses.
fn eligible(facts: &Facts<'_>, session: &SessionView<'_>, view: &View<'_>) -> String {
    let nodes = view.topology.nodes.iter();
    let chosen_from =
        nodes.filter(|node| standing(node, facts, session, view) == Standing::Eligible);
    chosen_from
        .map(|node| &*node.name)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests;

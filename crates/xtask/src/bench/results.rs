//! The numbers of a bench: raw, and as medians over the rounds.
//!
//! Ratios are taken within a round, where both sides saw the same machine, and only then is the median taken.

use serde_json::{Value, json};

use super::extra::{Idle, Transfer};
use super::process::Usage;
use super::scenario::{Figures, Scenario};
use super::target::Kind;

/// One run of one scenario against one target.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) scenario: Scenario,
    pub(super) target: Kind,
    pub(super) round: u32,
    pub(super) figures: Figures,
    /// What the proxy used meanwhile, if there is one and the system says.
    pub(super) usage: Option<Usage>,
    /// The part of the transactions that was committed on the primary, where there was a choice.
    pub(super) primary_share: Option<f64>,
}

impl Run {
    fn per_transaction(&self, of: impl Fn(&Usage) -> u64) -> Option<f64> {
        let used = of(self.usage.as_ref()?);
        Some(used as f64 / self.figures.transactions as f64)
    }

    /// CPU microseconds of the proxy per transaction.
    pub(super) fn cpu_us(&self) -> Option<f64> {
        self.per_transaction(|usage| usage.user_us.saturating_add(usage.system_us))
    }

    pub(super) fn user_us(&self) -> Option<f64> {
        self.per_transaction(|usage| usage.user_us)
    }

    pub(super) fn system_us(&self) -> Option<f64> {
        self.per_transaction(|usage| usage.system_us)
    }

    pub(super) fn switches(&self) -> Option<f64> {
        self.per_transaction(|usage| usage.switches)
    }

    fn json(&self) -> Value {
        json!({
            "scenario": self.scenario.name(),
            "target": self.target.name(),
            "round": self.round,
            "tps": self.figures.tps,
            "transactions": self.figures.transactions,
            "latency_ms": self.figures.latency_ms,
            "p50_ms": self.figures.p50_ms,
            "p99_ms": self.figures.p99_ms,
            "user_us": self.usage.map(|usage| usage.user_us),
            "system_us": self.usage.map(|usage| usage.system_us),
            "voluntary_switches": self.usage.map(|usage| usage.switches),
            "primary_share": self.primary_share,
        })
    }
}

/// All that a bench found.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// What was compared where: name and value.
    pub(super) header: Vec<(&'static str, String)>,
    /// What was left out or is different somewhere, and why.
    pub(super) notes: Vec<String>,
    pub(super) scenarios: Vec<Scenario>,
    pub(super) targets: Vec<Kind>,
    pub(super) runs: Vec<Run>,
    pub(super) transfers: Vec<Transfer>,
    pub(super) idle: Vec<Idle>,
}

impl Results {
    /// Adds a note, once.
    pub(super) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The runs of a scenario against a target.
    pub(super) fn of(&self, scenario: Scenario, target: Kind) -> impl Iterator<Item = &Run> {
        let is_one = move |run: &&Run| run.scenario == scenario && run.target == target;
        self.runs.iter().filter(is_one)
    }

    /// The median of a figure.
    pub(super) fn median(
        &self,
        scenario: Scenario,
        target: Kind,
        figure: impl Fn(&Run) -> Option<f64>,
    ) -> Option<f64> {
        median(self.of(scenario, target).filter_map(figure))
    }

    /// The median of a figure's ratio to that of another target in the same round.
    pub(super) fn ratio(
        &self,
        scenario: Scenario,
        (target, other): (Kind, Kind),
        figure: impl Fn(&Run) -> Option<f64>,
    ) -> Option<f64> {
        let ratio = |run: &Run| {
            let same_round = |beside: &&Run| beside.round == run.round;
            let beside = self.of(scenario, other).find(same_round)?;
            Some(figure(run)? / figure(beside)?).filter(|ratio| ratio.is_finite())
        };
        median(self.of(scenario, target).filter_map(ratio))
    }

    /// Everything, unrounded.
    pub(super) fn json(&self) -> Value {
        let header: serde_json::Map<String, Value> = self
            .header
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
            .collect();
        let transfers: Vec<Value> = self
            .transfers
            .iter()
            .map(|transfer| {
                json!({
                    "way": transfer.way.name(),
                    "target": transfer.target,
                    "round": transfer.round,
                    "mib": transfer.mib,
                    "seconds": transfer.seconds,
                    "user_us": transfer.usage.map(|usage| usage.user_us),
                    "system_us": transfer.usage.map(|usage| usage.system_us),
                })
            })
            .collect();
        let idle: Vec<Value> = self
            .idle
            .iter()
            .map(|idle| {
                json!({
                    "target": idle.target,
                    "clients": idle.clients,
                    "before_kib": idle.before_kib,
                    "after_kib": idle.after_kib,
                })
            })
            .collect();
        json!({
            "header": header,
            "notes": self.notes,
            "runs": self.runs.iter().map(Run::json).collect::<Vec<_>>(),
            "transfers": transfers,
            "idle": idle,
        })
    }
}

/// The middle of the values, or the mean of the two in the middle.
pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get(values.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Results, Run, median};
    use crate::bench::process::Usage;
    use crate::bench::scenario::{Figures, Scenario};
    use crate::bench::target::Kind;

    /// Three rounds, of which the last ran on a machine half as fast; the proxy costs 1.5 times `PgBouncer` in each.
    pub(in crate::bench) fn example() -> Results {
        let scenarios = Scenario::set(&[16]);
        let mut results = Results {
            targets: vec![Kind::Direct, Kind::PgBouncer, Kind::Pgweir3],
            scenarios: scenarios.clone(),
            ..Results::default()
        };
        for (round, slowness) in [(1, 1), (2, 1), (3, 2)] {
            for (target, cost_us) in [(Kind::PgBouncer, 20), (Kind::Pgweir3, 30)] {
                results.runs.push(Run {
                    scenario: scenarios[0],
                    target,
                    round,
                    figures: Figures {
                        tps: 1000.0 / slowness as f64,
                        transactions: 1000,
                        latency_ms: 1.0,
                        ..Figures::default()
                    },
                    usage: Some(Usage {
                        user_us: 400 * cost_us * slowness,
                        system_us: 600 * cost_us * slowness,
                        switches: 500,
                    }),
                    primary_share: (target == Kind::Pgweir3).then_some(0.01),
                });
            }
        }
        results
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        let results = example();
        let scenario = results.scenarios[0];
        let pair = (Kind::Pgweir3, Kind::PgBouncer);
        assert_eq!(results.ratio(scenario, pair, Run::cpu_us), Some(1.5));
        assert_eq!(
            results.median(scenario, Kind::Pgweir3, Run::cpu_us),
            Some(30.0)
        );
        let absent = (Kind::Pgweir3, Kind::Direct);
        assert_eq!(results.ratio(scenario, absent, Run::cpu_us), None);
    }
}

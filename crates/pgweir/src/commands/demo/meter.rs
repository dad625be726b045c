//! Where the load went, as each server itself counts it.
//!
//! ## Why
//! Counters of the proxy would show what it believes. `pg_stat_database` is the servers' own: transactions that ended in
//! the sample database, and rows written there, of which the load writes one per transaction. The monitor and this meter
//! connect to another database and are not in it.
//!
//! ## Limits
//! A server process reports about once a second, so that single lines waver; and the few transactions of autovacuum count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_devcluster::{Cluster, Node};

use super::load::Tally;
use super::sample::DATABASE;
use crate::output;

/// The header comes again after so many lines: about a screen.
const HEADER_EVERY: u32 = 20;

/// How long a server may take to tell its counters; one that is frozen must not hold up the others for long.
const ASKED_WITHIN: Duration = Duration::from_millis(500);

/// The counters of one server at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    commits: u64,
    written: u64,
}

/// What happened per second between two samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    reads: u64,
    writes: u64,
}

/// The samples of the last line.
#[derive(Debug)]
pub(super) struct Meter {
    tally: Arc<Tally>,
    started_at: Instant,
    sampled_at: Instant,
    samples: Vec<Option<Sample>>,
    lines: u32,
}

impl Meter {
    /// Takes the first samples.
    pub(super) fn new(cluster: &Cluster, tally: Arc<Tally>) -> Self {
        let now = Instant::now();
        let samples = cluster.nodes().iter().map(sample).collect();
        Meter {
            tally,
            started_at: now,
            sampled_at: now,
            samples,
            lines: 0,
        }
    }

    /// Prints a line about the time since the last one.
    pub(super) fn show(&mut self, cluster: &Cluster) {
        let (now, nodes) = (Instant::now(), cluster.nodes());
        let elapsed = now.duration_since(self.sampled_at);
        let samples: Vec<_> = nodes.iter().map(sample).collect();
        let both = self.samples.iter().zip(&samples);
        let rates: Vec<_> = both
            .map(|(before, after)| Some(rate((*before)?, (*after)?, elapsed)))
            .collect();
        if self.lines.is_multiple_of(HEADER_EVERY) {
            output::say(header(nodes.iter().map(Node::name)));
        }
        let seconds = now.duration_since(self.started_at).as_secs();
        output::say(line(seconds, &rates, &self.tally));
        self.sampled_at = now;
        self.samples = samples;
        self.lines = self.lines.wrapping_add(1);
    }
}

/// Asks a server for its counters; `None` if it does not answer.
fn sample(node: &Node) -> Option<Sample> {
    let query = format!(
        "SELECT xact_commit, tup_inserted + tup_updated + tup_deleted FROM pg_stat_database WHERE datname = '{DATABASE}'"
    );
    let row = node.sql_within(ASKED_WITHIN, "postgres", &query).ok()?;
    let (commits, written) = row.split_once('|')?;
    Some(Sample {
        commits: commits.parse().ok()?,
        written: written.parse().ok()?,
    })
}

fn rate(before: Sample, after: Sample, elapsed: Duration) -> Rate {
    let millis = u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let per_second = |count: u64| count.saturating_mul(1000).saturating_add(millis / 2) / millis;
    let writes = after.written.saturating_sub(before.written);
    let commits = after.commits.saturating_sub(before.commits);
    Rate {
        reads: per_second(commits.saturating_sub(writes)),
        writes: per_second(writes),
    }
}

fn header<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let (mut first, mut second) = (" ".repeat(7), format!("{:>7}", "time"));
    for name in names {
        first.push_str(&format!("   {name:^17}"));
        second.push_str(&format!("   {:>8} {:>8}", "reads/s", "writes/s"));
    }
    format!(
        "\n{}\n{second}   {:>6} {:>6}",
        first.trim_end(),
        "errors",
        "missed"
    )
}

fn line(seconds: u64, rates: &[Option<Rate>], tally: &Tally) -> String {
    let mut line = format!("{seconds:>5} s");
    for rate in rates {
        line.push_str(&match rate {
            Some(Rate { reads, writes }) => format!("   {reads:>8} {writes:>8}"),
            None => format!("   {:^17}", "no answer"),
        });
    }
    format!("{line}   {:>6} {:>6}", tally.errors(), tally.missed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_write_is_a_read() {
        let before = Sample {
            commits: 100,
            written: 10,
        };
        let after = Sample {
            commits: 300,
            written: 50,
        };
        let rate = rate(before, after, Duration::from_millis(2000));
        assert_eq!(
            rate,
            Rate {
                reads: 80,
                writes: 20
            }
        );
    }

    #[test]
    fn a_server_that_was_restarted_with_new_counters_shows_nothing_negative() {
        let before = Sample {
            commits: 100,
            written: 10,
        };
        let after = Sample {
            commits: 3,
            written: 0,
        };
        assert_eq!(
            rate(before, after, Duration::from_secs(1)),
            Rate {
                reads: 0,
                writes: 0
            }
        );
    }

    #[test]
    fn lines_stand_under_their_header() {
        let rates = [
            Some(Rate {
                reads: 12,
                writes: 100,
            }),
            None,
        ];
        let shown = format!(
            "{}\n{}",
            header(["primary", "replica1"].into_iter()),
            line(3, &rates, &Tally::default())
        );
        assert_eq!(
            shown,
            "\n               primary            replica1\n   \
                time    reads/s writes/s    reads/s writes/s   errors missed\n    \
                 3 s         12      100       no answer            0      0"
        );
    }
}

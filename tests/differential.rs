//! The differential test: random scripts on a direct connection to the primary and through the proxy, in transaction mode on a
//! pool of two with several interleaved clients. Results, errors, command tags, reported parameters and transaction states must be
//! the same.
//!
//! `SEED` replays a run or draws another (`random`), `PGWEIR_DIFFERENTIAL_STATEMENTS` sets its length, `PGWEIR_DIFFERENTIAL_FAILURES` after how many
//! failures it ends. A script that fails is played again with fewer and
//! fewer steps; what is left belongs into `differential/regressions.txt`.

mod grammar;
mod heard;
mod shrink;
mod step;
mod twins;

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use pgweir_testkit::Rng;

use self::{
    grammar::Grammar,
    shrink::{Failing, replay, shrink},
    step::{Step, parse_scripts},
    twins::{FIRST_SUPERUSER, Failure, Stage, Twins, schema_of, user_of},
};

/// Statements of a usual run, which takes less than a minute.
const STATEMENTS: usize = 10_000;
/// The seed of a usual run: what is said is the same each time, so that what fails is what was changed. New differences are found
/// with `SEED=random`.
const USUAL_SEED: u64 = 20_261_122;
/// Steps between two fresh starts: many enough for states to pile up, few enough for a failure to be replayed often.
const ROUND_STEPS: usize = 400;
/// Clients of a round; the last ones are superusers.
const CLIENTS: usize = 8;
/// Transactions that the replicas have run at least, of a hundred statements: otherwise the run has shown little.
const REPLICA_PERCENT: u64 = 5;

/// How long an answer is waited for: a step takes a millisecond; this is for a machine that does other things at the same time.
const STEP_PATIENCE: Duration = Duration::from_secs(20);
/// The same where a script may hang hundreds of times.
const REPLAY_PATIENCE: Duration = Duration::from_secs(5);

const STATEMENT_RULES: &str = include_str!("differential/statements.txt");
const REGRESSIONS: &str = include_str!("differential/regressions.txt");

/// Draws the steps of a round.
struct Director<'a> {
    grammar: &'a Grammar,
    rng: &'a mut Rng,
    /// Sessions so far, by client: each has advisory locks of its own, since those of a past session go a moment after it.
    sessions: Vec<usize>,
    steps: Vec<Step>,
    statements: usize,
}

impl Director<'_> {
    /// Plays a round; returns the script that failed.
    fn round(&mut self, twins: &Twins) -> Result<(), Failing> {
        let mut stage = match twins.stage(0..CLIENTS) {
            Ok(stage) => stage,
            Err(failure) => return Err(Failing::new(failure, &self.steps)),
        };
        while self.steps.len() < ROUND_STEPS {
            let turn = self.turn(&mut stage);
            turn.map_err(|failure| Failing::new(failure, &self.steps))?;
        }
        let last = self.farewell(&mut stage);
        last.map_err(|failure| Failing::new(failure, &self.steps))
    }

    /// Ends all sessions, whatever they are in the middle of; those who come after them must find nothing of it.
    fn farewell(&mut self, stage: &mut Stage<'_>) -> Result<(), Failure> {
        // Those who hold servers go first, or there is none for the others to begin with.
        let mut clients: Vec<usize> = (0..CLIENTS).collect();
        clients.sort_by_key(|client| !stage.holds(*client));
        for client in clients {
            let text = self.connect(client);
            self.play(stage, vec![Step::new(client, &text)])?;
            let text = self.text("probe", client);
            self.play(stage, vec![Step::new(client, &text)])?;
        }
        Ok(())
    }

    /// Lets one client say some steps, or several one each at the same time.
    fn turn(&mut self, stage: &mut Stage<'_>) -> Result<(), Failure> {
        let client = self.rng.below(CLIENTS);
        if self.rng.chance(1, 12) {
            return self.burst(stage, client);
        }
        if !stage.may_play(client) {
            return Ok(());
        }
        for _ in 0..1 + self.rng.below(4) {
            let text = self.draw(stage, client);
            let step = Step::new(client, &text);
            let is_new = step.connect().is_some();
            self.play(stage, vec![step])?;
            if is_new {
                let text = self.text("probe", client);
                self.play(stage, vec![Step::new(client, &text)])?;
            }
        }
        Ok(())
    }

    fn draw(&mut self, stage: &mut Stage<'_>, client: usize) -> String {
        let crowded = stage.holds(client) && stage.free(client) == 0;
        let rule = match stage.status(client) {
            b'I' if crowded && self.rng.chance(1, 4) => return self.connect(client),
            b'I' if self.rng.chance(1, 40) => return self.connect(client),
            b'I' => "idle",
            b'T' if self.may_be_read_only(client) => "open_read_only",
            _ if crowded && self.rng.chance(1, 10) => "ending",
            _ if self.rng.chance(1, 50) => return self.connect(client),
            b'T' => "open",
            _ => "failed",
        };
        self.text(rule, client)
    }

    /// Returns whether the session has said anything about READ ONLY: what such a transaction may do on a replica is less than
    /// on a primary, see the known scripts.
    fn may_be_read_only(&self, client: usize) -> bool {
        let said = self.steps.iter().rev().filter(|step| step.client == client);
        said.take_while(|step| step.connect().is_none())
            .chain(
                self.steps
                    .iter()
                    .rev()
                    .find(|step| step.client == client && step.connect().is_some()),
            )
            .flat_map(|step| &step.lines)
            .any(|line| line.contains("read only") || line.contains("read_only"))
    }

    fn connect(&mut self, client: usize) -> String {
        if let Some(count) = self.sessions.get_mut(client) {
            *count += 1;
        }
        self.text("connect", client)
    }

    fn text(&mut self, rule: &str, client: usize) -> String {
        let base = format!(
            "{}{:04}",
            client + 1,
            self.sessions.get(client).unwrap_or(&0)
        );
        let variables = [
            ("me", &*schema_of(client)),
            ("user", user_of(client)),
            ("base", &base),
        ];
        self.grammar.draw(rule, &variables, self.rng)
    }

    /// Several clients that hold nothing say something at the same time, more of them than there are servers.
    fn burst(&mut self, stage: &mut Stage<'_>, first: usize) -> Result<(), Failure> {
        if stage.free(first) == 0 {
            return Ok(());
        }
        let range = if first < FIRST_SUPERUSER {
            0..FIRST_SUPERUSER
        } else {
            FIRST_SUPERUSER..CLIENTS
        };
        let mut steps = Vec::new();
        for client in range {
            if stage.status(client) == b'I' && !stage.holds(client) && self.rng.chance(3, 4) {
                let mut step = Step::new(client, &self.text("contained", client));
                step.with_next = true;
                steps.push(step);
            }
        }
        let Some(last) = steps.last_mut() else {
            return Ok(());
        };
        last.with_next = false;
        self.play(stage, steps)
    }

    fn play(&mut self, stage: &mut Stage<'_>, steps: Vec<Step>) -> Result<(), Failure> {
        self.statements += steps.iter().map(Step::statements).sum::<usize>();
        self.steps.extend(steps.iter().cloned());
        stage.play(&steps)
    }
}

fn report(text: &str) {
    eprintln!("{text}");
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number"))
    })
}

fn printed(failing: &Failing) -> String {
    let mut text = String::new();
    for step in &failing.steps {
        let _infallible = writeln!(text, "{step}");
    }
    let _infallible = write!(
        text,
        "differs for client {}:\n{}",
        failing.client, failing.text
    );
    text
}

#[test]
fn random_scripts_are_answered_as_on_a_direct_connection() {
    let mut rng = Rng::from_env_or(USUAL_SEED);
    let grammar = Grammar::parse(STATEMENT_RULES, &["me", "user", "base"]);
    let mut twins = Twins::start("random");
    let before = twins.replica_transactions();
    let mut statements = 0;
    let mut failures = Vec::new();
    let mut kinds = BTreeSet::new();
    while statements < number("PGWEIR_DIFFERENTIAL_STATEMENTS", STATEMENTS)
        && failures.len() < number("PGWEIR_DIFFERENTIAL_FAILURES", 1)
    {
        let mut rng = rng.fork();
        let mut director = Director {
            grammar: &grammar,
            rng: &mut rng,
            sessions: vec![0; CLIENTS],
            steps: Vec::new(),
            statements: 0,
        };
        let outcome = director.round(&twins);
        statements += director.statements;
        if let Err(failing) = outcome {
            if !kinds.insert(failing.kind()) {
                continue;
            }
            let first = printed(&failing.last(5));
            twins.set_step_patience(REPLAY_PATIENCE);
            let short = printed(&shrink(&twins, failing));
            twins.set_step_patience(STEP_PATIENCE);
            failures.push(format!(
                "after {statements} statements, at first:\n{first}\nmade short:\n{short}"
            ));
        }
    }
    assert!(
        failures.is_empty(),
        "{} differences\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    let replica_transactions = twins.replica_transactions() - before;
    report(&format!(
        "{statements} statements, {replica_transactions} transactions on replicas"
    ));
    assert!(
        replica_transactions * 100 > REPLICA_PERCENT * u64::try_from(statements).expect("a count"),
        "only {replica_transactions} of {statements} statements ran on replicas"
    );
}

#[test]
fn what_once_differed_stays_equal() {
    let mut twins = Twins::start("regressions");
    twins.set_step_patience(REPLAY_PATIENCE);
    let mut wrong = Vec::new();
    for script in parse_scripts(REGRESSIONS) {
        match (replay(&twins, &script.steps), script.known) {
            (Some(failing), None) => {
                wrong.push(format!("# {}\n{}", script.name, printed(&failing)))
            }
            (None, Some(reason)) => wrong.push(format!(
                "# {}\nis answered rightly now; remove: {reason}\n",
                script.name
            )),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    assert!(
        wrong.is_empty(),
        "{} scripts:\n\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

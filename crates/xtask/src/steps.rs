//! Runs the steps of a task one after the other, shows how long each took, and counts the tests that their programs report.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the steps have come to so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    steps: Vec<(&'static str, Duration, bool)>,
    tests: Tests,
}

/// Tests that ran, by outcome.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tests {
    passed: usize,
    failed: usize,
}

impl Report {
    /// Runs one step. A failure is shown and remembered, and the next steps still run.
    pub(crate) fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<(), String>) {
        println!("\n=== {name}");
        let started_at = Instant::now();
        let outcome = work();
        let took = started_at.elapsed();
        match &outcome {
            Ok(()) => println!("--- {name}: ok, {:.1} s", took.as_secs_f64()),
            Err(message) => println!("{message}\n--- {name}: FAILED, {:.1} s", took.as_secs_f64()),
        }
        self.steps.push((name, took, outcome.is_ok()));
    }

    /// Runs a test program as one step, and counts the tests that its output speaks of.
    pub(crate) fn tests(&mut self, name: &'static str, command: &mut Command) {
        let mut counted = Tests::default();
        self.step(name, || {
            let (outcome, tests) = run_counting(command);
            counted = tests;
            outcome
        });
        self.tests.passed += counted.passed;
        self.tests.failed += counted.failed;
    }

    /// Prints the steps with their times and the closing line `N passed, N failed`: tests, and
    /// the steps that failed otherwise (a lint, a build) as one failure each.
    pub(crate) fn close(self) -> Result<(), String> {
        println!("\n=== steps");
        for (name, took, ok) in &self.steps {
            let verdict = if *ok { "ok" } else { "FAILED" };
            println!("{:>8.1} s  {verdict:<6}  {name}", took.as_secs_f64());
        }
        let failed_steps = self.steps.iter().filter(|(_, _, ok)| !ok).count();
        // The step of a failed test failed with it; it counts once.
        let failed = self.tests.failed.max(failed_steps);
        let closing = format!("{} passed, {failed} failed", self.tests.passed);
        if failed == 0 {
            println!("{closing}");
            Ok(())
        } else {
            Err(closing)
        }
    }
}

/// Runs a command to its end; its output goes where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let shown = shown(command);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown}: {status}")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

fn run_counting(command: &mut Command) -> (Result<(), String>, Tests) {
    let shown = shown(command);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return (Err(format!("{shown}: {error}")), Tests::default()),
    };
    let output = child.stdout.take();
    let tests = output.map_or_else(Tests::default, |output| {
        tee(output, &mut std::io::stdout().lock())
    });
    let outcome = match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown}: {status}")),
        Err(error) => Err(format!("{shown}: {error}")),
    };
    (outcome, tests)
}

/// Passes output on as it comes and counts what its `test result:` lines say.
fn tee(output: impl Read, terminal: &mut impl Write) -> Tests {
    let mut tests = Tests::default();
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    while reader
        .read_until(b'\n', &mut line)
        .is_ok_and(|read| read > 0)
    {
        let _closed_terminal = terminal.write_all(&line);
        if let Some(found) = result_line(&String::from_utf8_lossy(&line)) {
            tests.passed += found.passed;
            tests.failed += found.failed;
        }
        line.clear();
    }
    tests
}

/// Reads a line such as `test result: ok. 5 passed; 0 failed; 0 ignored; …` (possibly coloured).
fn result_line(line: &str) -> Option<Tests> {
    let (_, counts) = line.split_once("test result: ")?;
    let count = |unit: &str| {
        let (before, _) = counts.split_once(unit)?;
        before.split_whitespace().last()?.parse().ok()
    };
    Some(Tests {
        passed: count(" passed")?,
        failed: count(" failed")?,
    })
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Report, result_line, tee};

    #[test]
    fn counts_the_results_of_all_test_programs() {
        let output = "running 2 tests\ntest a ... ok\ntest result: ok. 2 passed; 0 failed; 0 ignored\n\
             test result: \u{1b}[31mFAILED\u{1b}[0m. 10 passed; 3 failed; 0 ignored; finished in 1s\n";
        let mut terminal = Vec::new();
        let tests = tee(output.as_bytes(), &mut terminal);
        assert_eq!((tests.passed, tests.failed), (12, 3));
        assert_eq!(terminal, output.as_bytes());
        assert_eq!(result_line("the test result is near"), None);
    }

    #[test]
    fn a_failed_step_without_tests_is_a_failure() {
        let mut report = Report::default();
        report.step("lint", || Err("no".to_owned()));
        report.step("other", || Ok(()));
        assert_eq!(report.close(), Err("0 passed, 1 failed".to_owned()));
    }
}

//! `cargo xtask test` and `ci`: each check of the project, cheapest first, the tests last.
//!
//! `cargo test` runs them rather than a runner that gives each test a process of its own: the
//! integration tests of one binary share a PostgreSQL cluster, and so start one instead of hundreds.

use std::path::Path;

use crate::steps::{Report, run as command};
use crate::{cargo, graph, setup, tidy};

/// How much to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everything.
    Full,
    /// Everything, with CI's settings.
    Ci,
    /// What needs no PostgreSQL and no driver.
    Fast,
    /// Only tests whose names contain one of these.
    Filtered(Vec<String>),
}

/// Runs the suite and closes with `N passed, N failed`.
pub(crate) fn run(root: &Path, kind: &Kind) -> Result<(), String> {
    all_steps(root, kind).close()
}

fn all_steps(root: &Path, kind: &Kind) -> Report {
    let mut report = Report::default();
    let filters: &[String] = match kind {
        Kind::Filtered(filters) => filters,
        Kind::Full | Kind::Ci | Kind::Fast => &[],
    };
    if *kind != Kind::Fast {
        report.step("setup", || setup::all(root));
    }
    if filters.is_empty() {
        checks(&mut report, root, kind);
    }
    if *kind == Kind::Fast {
        report.tests(
            "unit tests",
            cargo(root).args(["test", "--workspace", "--lib", "--bins", "--no-fail-fast"]),
        );
        return report;
    }
    // The tests run the proxy as a process, and cargo does not build it for another package's tests.
    report.step("build", || {
        command(cargo(root).args(["build", "--package", "pgweir"]))
    });
    let mut tests = cargo(root);
    tests.args(["test", "--workspace", "--no-fail-fast"]);
    if *kind == Kind::Ci {
        tests.arg("--locked").env("CARGO_INCREMENTAL", "0");
    }
    report.tests("tests", tests.arg("--").args(filters));
    report
}

fn checks(report: &mut Report, root: &Path, kind: &Kind) {
    report.step("format", || {
        command(cargo(root).args(["fmt", "--all", "--check"]))
    });
    report.step("tidy", || tidy::check(root));
    report.step("graph", || graph::check(root));
    if *kind == Kind::Fast {
        return;
    }
    report.step("clippy", || {
        command(cargo(root).args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    });
    report.step("docs", || {
        command(
            cargo(root)
                .args(["doc", "--workspace", "--no-deps"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    });
    if *kind == Kind::Ci {
        report.step("dependency audit", || audit(root));
    }
}

/// Licences and sources of dependencies. The advisory database is not asked: it changes without us.
fn audit(root: &Path) -> Result<(), String> {
    let present = cargo(root).args(["deny", "--version"]).output();
    if present.is_ok_and(|output| output.status.success()) {
        command(cargo(root).args(["deny", "check", "licenses", "bans", "sources"]))
    } else {
        println!("cargo-deny is not installed (cargo install cargo-deny); not audited");
        Ok(())
    }
}

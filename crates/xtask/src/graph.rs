//! `cargo xtask graph`: the floors of the house, checked against what cargo says.
//!
//! A crate uses only the crates named for it here (all on lower floors), and only some may use
//! the async runtime. Dev-dependencies are free but for one rule: `devcluster` and `testkit` never see `proxy`,
//! or the thing under test would depend on its test.

use std::path::Path;

use serde_json::Value;

use crate::cargo;

/// One row of the table.
struct Rule {
    krate: &'static str,
    may_use: &'static [&'static str],
    runtime: Runtime,
}

/// Whether a crate may depend on tokio and what stands on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runtime {
    Allowed,
    Forbidden,
}

use Runtime::{Allowed, Forbidden};

/// Short for a table's row.
const fn rule(krate: &'static str, may_use: &'static [&'static str], runtime: Runtime) -> Rule {
    Rule {
        krate,
        may_use,
        runtime,
    }
}

/// All that `proxy` may compose.
const BELOW_PROXY: &[&str] = &[
    "model",
    "wire",
    "sql",
    "auth",
    "config",
    "metrics",
    "consistency",
    "shard",
    "cache",
    "session",
    "route",
    "net",
    "pool",
    "backend",
    "cluster",
    "admin",
];

/// The house's table, floor by floor. `pgweir`'s commands (`check`, `route`, `init`) use the crates that decide.
const RULES: &[Rule] = &[
    rule("model", &[], Forbidden),
    rule("wire", &[], Forbidden),
    rule("auth", &[], Forbidden),
    rule("sql", &["model"], Forbidden),
    rule("config", &["model"], Forbidden),
    rule("metrics", &["model"], Forbidden),
    rule("consistency", &["model"], Forbidden),
    rule("shard", &["model", "wire", "sql"], Forbidden),
    rule("cache", &["model", "wire", "sql"], Forbidden),
    rule("session", &["model", "wire", "auth", "sql"], Forbidden),
    rule(
        "route",
        &["model", "sql", "consistency", "shard"],
        Forbidden,
    ),
    rule("net", &["wire"], Allowed),
    rule("pool", &["model"], Allowed),
    rule(
        "backend",
        &[
            "model", "wire", "auth", "session", "net", "pool", "config", "metrics",
        ],
        Allowed,
    ),
    rule(
        "cluster",
        &[
            "model",
            "wire",
            "auth",
            "backend",
            "net",
            "consistency",
            "config",
            "sql",
            "metrics",
        ],
        Allowed,
    ),
    rule(
        "admin",
        &["model", "wire", "session", "metrics", "config"],
        Allowed,
    ),
    rule("proxy", BELOW_PROXY, Allowed),
    rule(
        "pgweir",
        &[
            "proxy",
            "config",
            "metrics",
            "devcluster",
            "model",
            "sql",
            "route",
            "consistency",
            "cluster",
            "admin",
        ],
        Allowed,
    ),
    rule("devcluster", &["model"], Allowed),
    rule(
        "testkit",
        &[
            "model",
            "wire",
            "sql",
            "auth",
            "session",
            "consistency",
            "devcluster",
        ],
        Allowed,
    ),
];

/// Packages without a row: they may use anything.
const FREE: [&str; 3] = ["tests", "benches", "xtask"];

/// Checks the workspace in `root`.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let output = cargo(root)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo metadata: {said}"));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let problems = problems(&metadata);
    if problems.is_empty() {
        println!("The dependencies keep to the floors of the house.");
        Ok(())
    } else {
        Err(problems.join("\n"))
    }
}

/// The crate's name without the project's prefix.
fn short(name: &str) -> &str {
    name.strip_prefix("pgweir-").unwrap_or(name)
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

fn problems(metadata: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for package in array(metadata, "packages") {
        let krate = short(text(package, "name"));
        if FREE.contains(&krate) {
            continue;
        }
        let Some(rule) = RULES.iter().find(|rule| rule.krate == krate) else {
            problems.push(format!(
                "{krate} has no row in the table of xtask/src/graph.rs"
            ));
            continue;
        };
        for dependency in array(package, "dependencies") {
            problems.extend(problem(rule, dependency));
        }
    }
    problems
}

/// Says what is wrong with one dependency.
fn problem(rule: &Rule, dependency: &Value) -> Option<String> {
    let krate = rule.krate;
    let name = text(dependency, "name");
    let is_dev = text(dependency, "kind") == "dev";
    // Crates of the workspace are the ones with a path.
    if dependency.get("path").is_some_and(Value::is_string) {
        let used = short(name);
        let is_test_side = ["devcluster", "testkit"].contains(&krate);
        let forbidden = if is_dev {
            is_test_side && used == "proxy"
        } else {
            !rule.may_use.contains(&used)
        };
        return forbidden.then(|| format!("{krate} may not depend on {used}"));
    }
    let is_runtime = name == "tokio" || name.starts_with("tokio-") || name.starts_with("deadpool");
    let forbidden = is_runtime && !is_dev && rule.runtime == Forbidden;
    forbidden.then(|| format!("{krate} may not depend on {name}: it does no I/O"))
}

#[cfg(test)]
mod tests {
    use super::{RULES, problems};
    use serde_json::{Value, json};

    fn workspace(name: &str, dependencies: &Value) -> Value {
        json!({ "packages": [{ "name": name, "dependencies": dependencies }] })
    }

    #[test]
    fn a_dependency_on_a_higher_floor_is_named() {
        let up = json!([{ "name": "pgweir-proxy", "kind": null, "path": "/x/crates/proxy" }]);
        assert_eq!(
            problems(&workspace("pgweir-sql", &up)),
            ["sql may not depend on proxy"]
        );
    }

    #[test]
    fn the_runtime_is_kept_out_of_the_lower_floors_but_not_out_of_their_tests() {
        let with = |kind: Value| json!([{ "name": "tokio", "kind": kind, "path": null }]);
        assert_eq!(
            problems(&workspace("pgweir-session", &with(Value::Null))),
            ["session may not depend on tokio: it does no I/O"]
        );
        assert!(problems(&workspace("pgweir-session", &with(json!("dev")))).is_empty());
        assert!(problems(&workspace("pgweir-net", &with(Value::Null))).is_empty());
    }

    #[test]
    fn devcluster_and_testkit_never_see_the_proxy() {
        let dev = json!([{ "name": "pgweir-proxy", "kind": "dev", "path": "/x/crates/proxy" }]);
        assert_eq!(problems(&workspace("pgweir-testkit", &dev)).len(), 1);
        assert!(problems(&workspace("pgweir-cluster", &dev)).is_empty());
    }

    #[test]
    fn a_crate_without_a_row_is_named() {
        assert_eq!(problems(&workspace("pgweir-new", &json!([]))).len(), 1);
    }

    #[test]
    fn the_table_itself_has_no_cycle() {
        let mut settled: Vec<&str> = Vec::new();
        while settled.len() < RULES.len() {
            let before = settled.len();
            for rule in RULES {
                if !settled.contains(&rule.krate)
                    && rule.may_use.iter().all(|used| settled.contains(used))
                {
                    settled.push(rule.krate);
                }
            }
            assert!(
                settled.len() > before,
                "a cycle among those not in {settled:?}"
            );
        }
    }
}

//! PostgreSQL's own tree of a text, walked over every node: what each statement is, and the names in it.
//!
//! The walk is over the serialised tree, so that no kind of node can be forgotten: what is not known here is walked through.
//! It shares no code with the crate under test.

use std::collections::BTreeSet;

use serde_json::Value;

/// A name as it is written: what stands before the last point, and the last part.
pub(crate) type Name = (Option<String>, String);

/// What PostgreSQL's grammar says of one statement.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The kind of the statement's node, `SelectStmt`.
    pub(crate) node: String,
    /// Why it is no read; `None` for a read.
    pub(crate) objection: Option<String>,
    /// The relations, without references to common table expressions, and without those that the statement would create.
    pub(crate) tables: BTreeSet<Name>,
    /// The common table expressions that are referred to.
    pub(crate) common: BTreeSet<Name>,
    /// The functions that are called as such.
    pub(crate) functions: BTreeSet<Name>,
    /// The functions of `pg_catalog` that the grammar makes of other syntax, `EXTRACT(...)`.
    pub(crate) made: BTreeSet<String>,
    pub(crate) types: BTreeSet<Name>,
    pub(crate) operators: BTreeSet<Name>,
    /// Whether it is only planned: an `EXPLAIN` that executes nothing.
    pub(crate) planned: bool,
}

/// Why there are no facts.
#[derive(Debug)]
pub(crate) enum NoTree {
    /// PostgreSQL's grammar refuses the text.
    Refused,
    /// `text $1` instead of `text 'x'`: this build of the grammar accepts it, for texts whose constants were taken out.
    Extension,
    /// The tree is deeper than its encoding allows.
    TooDeep,
}

/// Returns the facts of each statement, or why there is no tree.
pub(crate) fn parse(text: &str) -> Result<Vec<Facts>, NoTree> {
    let parsed = pg_query::parse(text, 0).map_err(|error| match error {
        pg_query::Error::Decode(_) => NoTree::TooDeep,
        _ => NoTree::Refused,
    })?;
    let mut extended = false;
    let statements = parsed.protobuf.stmts.iter().map(|statement| {
        let value = serde_json::to_value(&statement.stmt).unwrap();
        let (node, body) = named(&value).unwrap();
        let mut walk = Walk {
            text,
            facts: Facts::default(),
            objections: Vec::new(),
            scope: Vec::new(),
            extended: false,
        };
        walk.value(&value);
        let Walk {
            mut facts,
            objections,
            extended: found,
            ..
        } = walk;
        extended |= found;
        facts.node = node.to_owned();
        facts.objection = objection(node, body, &objections);
        facts.planned = node == "ExplainStmt" && !analyzes(body);
        facts
    });
    let facts = statements.collect();
    if extended {
        Err(NoTree::Extension)
    } else {
        Ok(facts)
    }
}

/// Takes a node apart: `{"node": {"SelectStmt": {...}}}`.
fn named(value: &Value) -> Option<(&str, &Value)> {
    let node = value.get("node")?.as_object()?;
    node.iter().next().map(|(name, body)| (name.as_str(), body))
}

fn flag(body: &Value, name: &str) -> bool {
    body.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn text<'a>(body: &'a Value, name: &str) -> &'a str {
    body.get(name).and_then(Value::as_str).unwrap_or("")
}

fn number(body: &Value, name: &str) -> i64 {
    body.get(name).and_then(Value::as_i64).unwrap_or(0)
}

fn list<'a>(body: &'a Value, name: &str) -> &'a [Value] {
    body.get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// `CURSOR_OPT_HOLD` of `parsenodes.h`.
const CURSOR_OPT_HOLD: i64 = 0x20;

/// Why a statement is no read, given what the walk found anywhere in it.
fn objection(node: &str, body: &Value, inside: &[String]) -> Option<String> {
    let nested = |value: &Value| {
        let (node, body) = named(value)?;
        objection(node, body, inside)
    };
    match node {
        "SelectStmt" => inside.first().cloned(),
        "VariableShowStmt" | "FetchStmt" | "ClosePortalStmt" | "ConstraintsSetStmt" => None,
        "ExplainStmt" if !analyzes(body) => None,
        "ExplainStmt" => nested(&body["query"]),
        "CopyStmt" if flag(body, "is_from") => Some("COPY FROM".to_owned()),
        "CopyStmt" if flag(body, "is_program") || !text(body, "filename").is_empty() => {
            Some("COPY TO a file".to_owned())
        }
        "CopyStmt" => nested(&body["query"]),
        "DeclareCursorStmt" if number(body, "options") & CURSOR_OPT_HOLD != 0 => {
            Some("a cursor that outlives its transaction".to_owned())
        }
        "DeclareCursorStmt" => nested(&body["query"]),
        "TransactionStmt" => {
            use pg_query::protobuf::TransactionStmtKind as Kind;
            let kind = i32::try_from(number(body, "kind"))
                .ok()
                .and_then(|kind| Kind::try_from(kind).ok());
            let in_doubt = [
                Some(Kind::TransStmtPrepare),
                Some(Kind::TransStmtCommitPrepared),
                Some(Kind::TransStmtRollbackPrepared),
            ];
            in_doubt
                .contains(&kind)
                .then(|| "a prepared transaction".to_owned())
        }
        "VariableSetStmt" => {
            let name = text(body, "name");
            let of_transaction = flag(body, "is_local")
                || matches!(
                    name.to_lowercase().as_str(),
                    "transaction"
                        | "transaction_isolation"
                        | "transaction_read_only"
                        | "transaction_deferrable"
                );
            (!of_transaction || name == "TRANSACTION SNAPSHOT").then(|| format!("SET {name}"))
        }
        other => Some(other.to_owned()),
    }
}

/// Whether an `EXPLAIN` executes its statement. The last of several options counts.
fn analyzes(body: &Value) -> bool {
    let mut analyzes = false;
    for option in list(body, "options") {
        let Some((_, option)) = named(option) else {
            continue;
        };
        if text(option, "defname") == "analyze" {
            let arg = named(&option["arg"]).map(|(_, arg)| arg.to_string().to_lowercase());
            let off = ["\"false\"", "\"off\"", ":false}", "ival\":0"];
            analyzes = arg.is_none_or(|arg| !off.iter().any(|off| arg.contains(off)));
        }
    }
    analyzes
}

struct Walk<'a> {
    text: &'a str,
    facts: Facts,
    /// What no read has: row locks, data-modifying statements, INTO.
    objections: Vec<String>,
    /// The common table expressions in scope.
    scope: Vec<String>,
    /// Whether a parameter stands where only a constant may.
    extended: bool,
}

impl Walk<'_> {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.value(item)),
            Value::Object(_) => self.object(value),
            _ => {}
        }
    }

    fn object(&mut self, body: &Value) {
        if let Some((name @ ("InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt"), _)) =
            named(body)
        {
            self.objections.push(name.to_owned());
        }
        // Names of constraints, in the form of names of tables; and what an EXPLAIN does not even plan.
        if let Some(("ConstraintsSetStmt" | "RefreshMatViewStmt", _)) = named(body) {
            return;
        }
        let is_dml = body.get("relation").is_some() && body.get("returning_clause").is_some()
            || body.get("merge_when_clauses").is_some();
        let has = |names: &[&str]| names.iter().all(|name| body.get(*name).is_some());
        // What a node is shows in its fields: some are reached without their name, as a field of another.
        if has(&["relname", "relpersistence"]) {
            self.relation(body);
        } else if has(&["strength", "locked_rels"]) {
            self.objections.push("a row lock".to_owned());
            return;
        } else if has(&["rel", "on_commit"]) {
            self.objections.push("INTO".to_owned());
            return;
        } else if has(&["funcname", "agg_star"]) {
            self.function(body);
        } else if has(&["method", "repeatable"]) {
            let name = strings(&body["method"]);
            if !matches!(name.1.as_str(), "system" | "bernoulli") || name.0.is_some() {
                self.facts.functions.insert(name);
            }
        } else if has(&["names", "typmods"]) {
            self.facts.types.insert(strings(&body["names"]));
        } else if has(&["arg", "type_name"]) {
            self.cast(body);
        } else if has(&["lexpr", "rexpr", "kind"]) {
            self.operator(&body["name"]);
        } else if has(&["oper_name"]) {
            self.operator(&body["oper_name"]);
        } else if has(&["use_op"]) {
            self.operator(&body["use_op"]);
        }
        if body.get("with_clause").is_some_and(|with| !with.is_null()) {
            self.with(body);
        } else {
            self.fields(body);
        }
        // What is modified is a relation, whatever a common table expression is called.
        if is_dml {
            let scope = std::mem::take(&mut self.scope);
            self.relation(&body["relation"]);
            self.scope = scope;
        }
    }

    fn fields(&mut self, body: &Value) {
        for (name, field) in body.as_object().into_iter().flatten() {
            let is_target = name == "relation" && body.get("returning_clause").is_some();
            if name != "with_clause" && !is_target {
                self.value(field);
            }
        }
    }

    /// A common table expression is in scope behind itself, or in the whole clause if that is `RECURSIVE`.
    fn with(&mut self, body: &Value) {
        let outside = self.scope.len();
        let with = &body["with_clause"];
        let recursive = flag(with, "recursive");
        let expressions: Vec<&Value> = list(with, "ctes")
            .iter()
            .filter_map(|cte| named(cte).map(|cte| cte.1))
            .collect();
        let name = |cte: &Value| text(cte, "ctename").to_owned();
        if recursive {
            self.scope.extend(expressions.iter().copied().map(name));
        }
        for cte in expressions {
            self.value(cte);
            if !recursive {
                self.scope.push(name(cte));
            }
        }
        self.fields(body);
        self.scope.truncate(outside);
    }

    fn relation(&mut self, body: &Value) {
        let part = |name: &str| Some(text(body, name)).filter(|part| !part.is_empty());
        let schema: Vec<&str> = [part("catalogname"), part("schemaname")]
            .into_iter()
            .flatten()
            .collect();
        let name = text(body, "relname").to_owned();
        if schema.is_empty() && self.scope.contains(&name) {
            self.facts.common.insert((None, name));
        } else {
            let schema = (!schema.is_empty()).then(|| schema.join("."));
            self.facts.tables.insert((schema, name));
        }
    }

    fn function(&mut self, body: &Value) {
        let name = strings(&body["funcname"]);
        let at = usize::try_from(number(body, "location")).unwrap_or(0);
        let written = self.text.get(at..).unwrap_or("").to_lowercase();
        let qualifies = ["pg_catalog", "\"pg_catalog\"", "u&\""]
            .iter()
            .any(|prefix| written.starts_with(prefix));
        if name.0.as_deref() == Some("pg_catalog") && !qualifies {
            self.facts.made.insert(name.1);
        } else {
            self.facts.functions.insert(name);
        }
    }

    fn cast(&mut self, body: &Value) {
        if let Some(("ParamRef", parameter)) = named(&body["arg"]) {
            let of_type = number(&body["type_name"], "location");
            self.extended |= of_type < number(parameter, "location") && !self.is_cast(body);
        }
    }

    /// Whether the text says `CAST(` or the like, where the type may stand in front of nothing.
    fn is_cast(&self, body: &Value) -> bool {
        let at = usize::try_from(number(body, "location")).unwrap_or(0);
        self.text
            .get(at..)
            .is_some_and(|text| text.starts_with("::"))
    }

    fn operator(&mut self, name: &Value) {
        let name = strings(name);
        // `BETWEEN SYMMETRIC` is an operator of this name to the grammar.
        if !name.1.is_empty() && !name.1.contains("BETWEEN") {
            self.facts.operators.insert(name);
        }
    }
}

/// A name from its list of strings.
fn strings(list: &Value) -> Name {
    let mut parts: Vec<String> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|part| named(part).map(|(_, body)| text(body, "sval").to_owned()))
        .collect();
    let last = parts.pop().unwrap_or_default();
    ((!parts.is_empty()).then(|| parts.join(".")), last)
}

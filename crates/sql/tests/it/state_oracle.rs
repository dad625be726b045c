//! What PostgreSQL's own grammar says that a text does to the state of a session, in the words of `state`.
//!
//! It reads the tree and shares no code with the crate under test but the rendering of modes.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    DefElem, DiscardMode, Node, TransactionStmt, TransactionStmtKind, VariableSetKind,
    VariableSetStmt, a_const::Val,
};
use pgweir_sql::{Isolation, TransactionModes};

use crate::state::modes;

/// Returns each event with the place of its statement.
pub(crate) fn events(sql: &str) -> Result<Vec<(usize, String)>, pg_query::Error> {
    let parsed = pg_query::parse(sql, 0)?;
    let mut events = Vec::new();
    for (index, raw) in parsed.protobuf.stmts.iter().enumerate() {
        let node = raw.stmt.as_ref().and_then(|node| node.node.as_ref());
        let found = node.map(statement).unwrap_or_default();
        events.extend(found.into_iter().map(|event| (index, event)));
    }
    Ok(events)
}

fn inner(node: Option<&Node>) -> Vec<String> {
    match node.and_then(|node| node.node.as_ref()) {
        Some(node @ (NodeEnum::ExecuteStmt(_) | NodeEnum::CreateTableAsStmt(_))) => statement(node),
        _ => Vec::new(),
    }
}

fn statement(node: &NodeEnum) -> Vec<String> {
    let one = match node {
        NodeEnum::VariableSetStmt(set) => return variable(set),
        NodeEnum::TransactionStmt(control) => match transaction(control) {
            Some(event) => event,
            None => return Vec::new(),
        },
        NodeEnum::ConstraintsSetStmt(_) => "constraints".to_owned(),
        NodeEnum::DiscardStmt(discard) if discard.target() == DiscardMode::DiscardAll => {
            "discard all".to_owned()
        }
        NodeEnum::PrepareStmt(prepare) => format!("prepare <{}>", prepare.name),
        NodeEnum::ExecuteStmt(execute) => format!("execute <{}>", execute.name),
        NodeEnum::DeallocateStmt(it) if it.isall => "deallocate all".to_owned(),
        NodeEnum::DeallocateStmt(it) => format!("deallocate <{}>", it.name),
        NodeEnum::ExplainStmt(explain) => return inner(explain.query.as_deref()),
        NodeEnum::CreateTableAsStmt(create) => return inner(create.query.as_deref()),
        _ => return Vec::new(),
    };
    vec![one]
}

fn transaction(control: &TransactionStmt) -> Option<String> {
    use TransactionStmtKind as Kind;
    let chain = if control.chain { " and chain" } else { "" };
    let savepoint = &control.savepoint_name;
    Some(match control.kind() {
        Kind::TransStmtBegin | Kind::TransStmtStart => {
            format!("begin{}", modes(options(&control.options)))
        }
        Kind::TransStmtCommit => format!("commit{chain}"),
        Kind::TransStmtRollback => format!("rollback{chain}"),
        Kind::TransStmtSavepoint => format!("savepoint <{savepoint}>"),
        Kind::TransStmtRelease => format!("release <{savepoint}>"),
        Kind::TransStmtRollbackTo => format!("rollback to <{savepoint}>"),
        Kind::TransStmtPrepare => "prepare transaction".to_owned(),
        Kind::TransStmtCommitPrepared | Kind::TransStmtRollbackPrepared | Kind::Undefined => {
            return None;
        }
    })
}

fn constant(node: &Node) -> Option<String> {
    let Some(NodeEnum::AConst(constant)) = &node.node else {
        return None;
    };
    match constant.val.as_ref()? {
        Val::Ival(integer) => Some(integer.ival.to_string()),
        Val::Fval(float) => Some(float.fval.clone()),
        Val::Sval(string) => Some(string.sval.clone()),
        Val::Boolval(_) | Val::Bsval(_) => None,
    }
}

fn option(node: &Node) -> Option<(&str, String)> {
    let Some(NodeEnum::DefElem(element)) = &node.node else {
        return None;
    };
    let element: &DefElem = element;
    Some((&element.defname, constant(element.arg.as_deref()?)?))
}

/// The modes that PostgreSQL sets one after the other.
fn options(list: &[Node]) -> TransactionModes {
    let mut modes = TransactionModes::default();
    for (name, value) in list.iter().filter_map(option) {
        match name {
            "transaction_isolation" => modes.isolation = level(&value),
            "transaction_read_only" => modes.read_only = Some(value == "1"),
            "transaction_deferrable" => modes.deferrable = Some(value == "1"),
            other => panic!("a mode named {other}"),
        }
    }
    modes
}

fn level(value: &str) -> Option<Isolation> {
    match value.to_ascii_lowercase().as_str() {
        "serializable" => Some(Isolation::Serializable),
        "repeatable read" => Some(Isolation::RepeatableRead),
        "read committed" => Some(Isolation::ReadCommitted),
        "read uncommitted" => Some(Isolation::ReadUncommitted),
        _ => None,
    }
}

/// `parse_bool`, by listing.
fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => Some(true),
        "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn variable(set: &VariableSetStmt) -> Vec<String> {
    let scope = if set.is_local { "local " } else { "" };
    let name = match set.name.to_ascii_lowercase().as_str() {
        "sort_mem" => "work_mem".to_owned(),
        "vacuum_mem" => "maintenance_work_mem".to_owned(),
        name => name.to_owned(),
    };
    let of_transaction = name.strip_prefix("transaction_").unwrap_or_default();
    let is_mode = ["isolation", "read_only", "deferrable"].contains(&of_transaction);
    match set.kind() {
        VariableSetKind::VarSetMulti => multi(set, scope),
        VariableSetKind::VarSetValue if name == "seed" => Vec::new(),
        VariableSetKind::VarSetValue => {
            let values: Option<Vec<String>> = set.args.iter().map(constant).collect();
            let value = values.as_deref().unwrap_or_default();
            let only = if let [one] = value { one } else { "" };
            let mut given = TransactionModes::default();
            match (is_mode, of_transaction) {
                (true, "isolation") => given.isolation = level(only),
                (true, "read_only") => given.read_only = boolean(only),
                (true, _) => given.deferrable = boolean(only),
                (false, _) => {
                    let value = values.map_or("?".to_owned(), |values| format!("{values:?}"));
                    return vec![format!("set {scope}{name} {value}")];
                }
            }
            // A value that the server refuses is no event.
            let valid = given != TransactionModes::default();
            valid
                .then(|| format!("transaction{}", modes(given)))
                .into_iter()
                .collect()
        }
        VariableSetKind::VarSetDefault | VariableSetKind::VarReset => {
            let event = format!("reset {scope}{name}");
            (!is_mode && name != "seed")
                .then_some(event)
                .into_iter()
                .collect()
        }
        VariableSetKind::VarResetAll => vec!["reset all".to_owned()],
        VariableSetKind::VarSetCurrent | VariableSetKind::Undefined => Vec::new(),
    }
}

fn multi(set: &VariableSetStmt, scope: &str) -> Vec<String> {
    let given = options_of(set);
    match set.name.as_str() {
        "TRANSACTION" => vec![format!("transaction{}", modes(given))],
        "SESSION CHARACTERISTICS" => {
            let mut events = Vec::new();
            if let Some(level) = given.isolation {
                let level = modes(TransactionModes {
                    isolation: Some(level),
                    ..TransactionModes::default()
                });
                let level = level.trim_start();
                events.push(format!(
                    "set {scope}default_transaction_isolation [{level:?}]"
                ));
            }
            let mut push =
                |name: &str, value: Option<bool>| {
                    let word = |on: bool| if on { "on" } else { "off" };
                    events.extend(value.map(|on| {
                        format!("set {scope}default_transaction_{name} [{:?}]", word(on))
                    }));
                };
            push("read_only", given.read_only);
            push("deferrable", given.deferrable);
            events
        }
        _ => Vec::new(),
    }
}

fn options_of(set: &VariableSetStmt) -> TransactionModes {
    match set.name.as_str() {
        "TRANSACTION SNAPSHOT" => TransactionModes::default(),
        _ => options(&set.args),
    }
}

//! What the bodies of functions do together with all that they call.
//!
//! Bodies name what they call, and the types of the arguments are not known: all functions of a name stand for each of them.

use std::collections::HashMap;

use pgweir_model::catalog::Hidden;

use crate::catalog::body::Leaves;
use crate::catalog::{FIRST_USER_OID, FunctionRow};

/// What the body of a function, and all that it calls, may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Does {
    /// It leaves something in the session.
    pub(super) leaves: bool,
    /// It asks what only the primary can answer.
    pub(super) asks_primary: bool,
    /// What else it does that nothing shows.
    pub(super) hidden: Hidden,
}

impl Does {
    fn and(self, other: Does) -> Does {
        Does {
            leaves: self.leaves || other.leaves,
            asks_primary: self.asks_primary || other.asks_primary,
            hidden: self.hidden.union(other.hidden),
        }
    }

    fn alone(row: &FunctionRow) -> Does {
        Does {
            leaves: match row.body.leaves {
                Leaves::Nothing => false,
                Leaves::ByStatement => row.volatile,
                Leaves::ByCall => true,
            },
            asks_primary: row.body.asks_primary,
            hidden: if row.volatile {
                row.body.hidden
            } else {
                // A statement that does such a thing is refused there.
                row.body.hidden_by_call
            },
        }
    }
}

/// Returns what each function does; `builtin` says it of those that are built in.
pub(super) fn follow(rows: &[FunctionRow], builtin: impl Fn(u32) -> Does) -> Vec<Does> {
    let mut does: Vec<Does> = rows.iter().map(Does::alone).collect();
    let by_oid: HashMap<u32, usize> = rows.iter().map(|row| row.oid).zip(0..).collect();
    loop {
        let before = does.clone();
        let mut by_name: HashMap<&str, Does> = HashMap::new();
        for (row, does) in rows.iter().zip(&before) {
            let name = by_name.entry(&row.name).or_default();
            *name = name.and(*does);
        }
        let named = |name: &str| by_name.get(name).copied();
        let identified = |oid: u32| match by_oid.get(&oid) {
            Some(index) => before.get(*index).copied(),
            None => (oid < FIRST_USER_OID).then(|| builtin(oid)),
        };
        for (row, does) in rows.iter().zip(&mut does) {
            let calls = row.body.calls.iter().filter_map(|call| named(call));
            let references = row.body.references.functions.iter();
            let references = references.filter_map(|oid| identified(*oid));
            *does = calls.chain(references).fold(*does, Does::and);
        }
        if before == does {
            return does;
        }
    }
}

//! What is known of a database's objects: plain data, made once per load and never changed.
//!
//! ## Why
//! The text of a statement names functions, relations, operators and types; what these may do stands in the catalog of the
//! database. A snapshot of it says, for every name, the gravest of what everything behind that name may do, so that a
//! statement is judged by a few lookups and nobody follows a view on the way of a query.

use std::collections::HashMap;
use std::sync::Arc;

use crate::reason::Reason;

/// What running something means for routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// [`Reason::Read`] where a replica may run it, else why not.
    pub reason: Reason,
    /// Whether it may change settings of the session out of sight.
    pub suspect: bool,
    /// What it may do besides that nothing shows afterwards.
    pub hidden: Hidden,
}

/// A set of what the body of a function may do without a trace that could be asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hidden(u8);

impl Hidden {
    /// Nothing of the kind.
    pub const NOTHING: Hidden = Hidden(0);
    /// It may set a parameter that no view lists, for longer than a transaction: one of a two-part name.
    pub const SETTING: Hidden = Hidden(1);
    /// It changes the schema.
    pub const SCHEMA: Hidden = Hidden(2);

    /// Returns whether it holds all of `other`.
    pub const fn has(self, other: Hidden) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns what is in either of them.
    #[must_use]
    pub const fn union(self, other: Hidden) -> Hidden {
        Hidden(self.0 | other.0)
    }
}

impl Verdict {
    /// A replica may run it, and it leaves nothing behind.
    pub const HARMLESS: Verdict = Verdict {
        reason: Reason::Read,
        suspect: false,
        hidden: Hidden::NOTHING,
    };

    /// It may do anything.
    pub const UNKNOWN: Verdict = Verdict {
        reason: Reason::VolatileFunction,
        suspect: true,
        // Most are none of that kind, and before the first snapshot every function is unknown: to keep each session where it
        // called one would leave nothing of pooling.
        hidden: Hidden::NOTHING,
    };

    /// Returns a verdict without suspicion.
    pub const fn because(reason: Reason) -> Verdict {
        Verdict {
            reason,
            ..Verdict::HARMLESS
        }
    }
}

/// A snapshot of the catalog of one database. Its identity is that of the `Arc` that holds it.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// Counts the snapshots of this database, from 1.
    pub version: u64,
    /// The schema has changed since it was read: it may still object, but vouches for nothing that can be replaced.
    pub stale: bool,
    /// What was read.
    pub objects: Arc<Objects>,
}

/// The objects of one database.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// The schemas by name. Of `pg_catalog`, relations only, and the functions, operators and types that somebody added.
    pub schemas: HashMap<Box<str>, Schema>,
    /// The gravest of each name in any schema, for a session whose search path is not known.
    pub anywhere: Gravest,
    /// What casts that nobody wrote may do: joined to every statement.
    pub implicit_casts: Verdict,
    /// What casts to built-in types that are written may do.
    pub builtin_casts: Verdict,
    /// What the configuration says of functions.
    pub policy: Arc<Policy>,
}

impl Default for Verdict {
    fn default() -> Self {
        Verdict::HARMLESS
    }
}

/// The objects of one schema by name. Functions (procedures, aggregates) have the gravest verdict of their overloads.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// Tables, views, sequences and whatever else can stand in `FROM`.
    pub relations: HashMap<Box<str>, Relation>,
    /// Functions, procedures and aggregates.
    pub functions: HashMap<Box<str>, Verdict>,
    /// Operators.
    pub operators: HashMap<Box<str>, Verdict>,
    /// Types. The row type of a relation is among them only where making such a row is not harmless.
    pub types: HashMap<Box<str>, Verdict>,
}

/// Names with the gravest verdict that they have in any schema.
#[derive(Debug, Clone, Default)]
pub struct Gravest {
    /// Relations.
    pub relations: HashMap<Box<str>, Verdict>,
    /// Functions, procedures and aggregates.
    pub functions: HashMap<Box<str>, Verdict>,
    /// Operators.
    pub operators: HashMap<Box<str>, Verdict>,
    /// Types, as in [`Schema::types`].
    pub types: HashMap<Box<str>, Verdict>,
}

/// A relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// What it is.
    pub kind: RelationKind,
    /// Where its rows are kept.
    pub persistence: Persistence,
    /// What reading it may do, through views, policies, partitions and functions.
    pub verdict: Verdict,
    /// The names of its columns, in order.
    pub columns: Box<[Arc<str>]>,
    /// The columns of its primary key, as indexes into `columns`. Empty where it has none.
    pub key: Box<[usize]>,
    /// The partitioned table that it is a partition of, or the tables that it inherits from.
    pub parents: Box<[RelationName]>,
}

/// Where a relation is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RelationName {
    /// Its schema.
    pub schema: Arc<str>,
    /// Its name there.
    pub name: Arc<str>,
}

/// What a relation is (`pg_class.relkind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelationKind {
    /// A table.
    Table,
    /// A partitioned table.
    Partitioned,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A foreign table.
    Foreign,
    /// A sequence.
    Sequence,
    /// Anything else that has a name among the relations: an index, a composite type.
    Other,
}

/// Where the rows of a relation are kept (`pg_class.relpersistence`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Persistence {
    /// In the WAL as well: a standby has them.
    Permanent,
    /// Not in the WAL: a standby does not have them.
    Unlogged,
    /// In one session.
    Temporary,
}

/// What the configuration of a database says of its functions and foreign tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Functions that a replica may run, whatever their volatility.
    pub replica_safe: Vec<FunctionName>,
    /// Functions that only the primary may run.
    pub primary_only: Vec<FunctionName>,
    /// Whether foreign tables may be read from a replica.
    pub foreign_on_replica: bool,
}

/// A function as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FunctionName {
    /// The schema; `None` stands for every schema.
    pub schema: Option<Box<str>>,
    /// The name.
    pub name: Box<str>,
}

impl FunctionName {
    /// Returns whether it names the function.
    pub fn is(&self, schema: &str, name: &str) -> bool {
        *self.name == *name && self.schema.as_deref().is_none_or(|own| own == schema)
    }
}

impl Policy {
    /// Returns whether a function is named among those that a replica may run.
    pub fn is_replica_safe(&self, schema: &str, name: &str) -> bool {
        self.replica_safe
            .iter()
            .any(|function| function.is(schema, name))
    }

    /// Returns whether a function is named among those that only the primary may run.
    pub fn is_primary_only(&self, schema: &str, name: &str) -> bool {
        self.primary_only
            .iter()
            .any(|function| function.is(schema, name))
    }
}

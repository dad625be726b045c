//! From the rows of a database's system catalogs to a [`Objects`]: what every name in it may do.
//!
//! ## Why
//! What a view or a function may do is decided by what it reaches. That is followed here, once per load, off the threads that
//! serve clients, so that a lookup is all that a statement costs. This module does no I/O: whoever has a connection fills a
//! [`Source`].
//!
//! | module | does |
//! |---|---|
//! | [`nodes`] | the objects that a stored expression refers to |
//! | [`body`] | what a function's body may leave in the session |
//! | `calls` | what bodies do with all that they call |
//! | `build` | everything together |

pub mod body;
pub mod nodes;

mod build;
mod calls;

use std::collections::HashMap;
use std::sync::Arc;

use pgweir_model::catalog::{Objects, Persistence, Policy, RelationKind};

pub use body::Body;
pub use nodes::{References, references};

/// The first object identifier that PostgreSQL gives to objects of users (`FirstNormalObjectId`).
pub const FIRST_USER_OID: u32 = 16384;

/// The rows of the system catalogs.
#[derive(Debug, Default)]
pub struct Source {
    /// `pg_namespace`: the names of all schemas.
    pub schemas: HashMap<u32, Arc<str>>,
    /// `pg_class`: the tables, views, sequences and foreign tables of all schemas, the system's included, without those of
    /// sessions.
    pub relations: Vec<RelationRow>,
    /// `pg_inherits`: child and parent.
    pub inherits: Vec<(u32, u32)>,
    /// What reading a relation runs: the queries of views, the conditions of policies.
    pub reach: Vec<(u32, Arc<References>)>,
    /// `pg_attribute`: the names of the columns of a relation, in order, with their numbers.
    pub columns: HashMap<u32, Vec<(i16, Arc<str>)>>,
    /// `pg_index`: the numbers of the columns of a primary key.
    pub keys: HashMap<u32, Vec<i16>>,
    /// `pg_proc`: functions, procedures and aggregates that are not built in, and those of `information_schema`.
    pub functions: Vec<FunctionRow>,
    /// `pg_proc`: the names of those that are, and whether they are volatile.
    pub builtins: Arc<HashMap<u32, (Box<str>, bool)>>,
    /// `pg_aggregate`: an aggregate and a function that it calls.
    pub aggregates: Vec<(u32, u32)>,
    /// `pg_operator`: operators that are not built in.
    pub operators: Vec<OperatorRow>,
    /// `pg_type`: types that are not built in, without arrays and row types.
    pub types: Vec<TypeRow>,
    /// A type and one that its values are made of: the base of a domain, the element of an array, the bounds of a range, the
    /// columns of a row. Without those that are built in.
    pub parts: Vec<(u32, u32)>,
    /// `pg_constraint`: a domain and what a check of it refers to.
    pub checks: Vec<(u32, Arc<References>)>,
    /// `pg_cast`: casts by functions that are not built in.
    pub casts: Vec<CastRow>,
}

/// A row of `pg_class`.
#[derive(Debug, Clone)]
pub struct RelationRow {
    /// `oid`
    pub oid: u32,
    /// `relnamespace`
    pub schema: u32,
    /// `relname`
    pub name: Box<str>,
    /// `relkind`
    pub kind: RelationKind,
    /// `relpersistence`
    pub persistence: Persistence,
    /// `reltype`
    pub row_type: u32,
}

/// A row of `pg_proc`.
#[derive(Debug, Clone)]
pub struct FunctionRow {
    /// `oid`
    pub oid: u32,
    /// `pronamespace`
    pub schema: u32,
    /// `proname`
    pub name: Box<str>,
    /// Whether `provolatile` is `v`.
    pub volatile: bool,
    /// What its body may do.
    pub body: Arc<Body>,
}

/// A row of `pg_operator`.
#[derive(Debug, Clone)]
pub struct OperatorRow {
    /// `oid`
    pub oid: u32,
    /// `oprnamespace`
    pub schema: u32,
    /// `oprname`
    pub name: Box<str>,
    /// `oprcode`
    pub function: u32,
}

/// A row of `pg_type`.
#[derive(Debug, Clone)]
pub struct TypeRow {
    /// `oid`
    pub oid: u32,
    /// `typnamespace`
    pub schema: u32,
    /// `typname`
    pub name: Box<str>,
    /// `typinput`
    pub input: u32,
}

/// A row of `pg_cast`.
#[derive(Debug, Clone, Copy)]
pub struct CastRow {
    /// `casttarget`
    pub target: u32,
    /// `castfunc`
    pub function: u32,
    /// Whether `castcontext` is `i`: it is made where nobody has written it.
    pub implicit: bool,
}

impl Source {
    /// Follows everything to its end.
    pub fn build(self, policy: Arc<Policy>) -> Objects {
        build::build(self, policy)
    }
}

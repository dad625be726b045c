//! The verdict on a text where something is known of the catalog: its names, as this session's search path resolves them.
//!
//! ## Why
//! What a function, a view, an operator or a type may do is not in the text. The classification of a shape says what it would
//! be with every name harmless, and which names it rests on; a [`Lens`] says what the names mean to a session. Both together
//! give the verdict, which a plan remembers for the last lenses.
//!
//! ## Limits
//! Operators that the grammar implies by types (`ORDER BY`, `DISTINCT`) are those of operator classes, whose functions
//! PostgreSQL demands to be immutable: they are not looked up. A function that is called as if it were a column (`u.f`) is
//! not seen. A schema of the path that the role may not use is taken for one that it may.

use std::sync::{Arc, Weak};

use pgweir_model::catalog::{Catalog, Hidden, Objects, RelationKind, Schema};
use pgweir_model::{Reason, Verdict};

use crate::classify::{Classified, Name, Usage};
use crate::functions::{self, Call};
use crate::names;
use crate::reading::gravity;

/// The schemas in which a session looks for names without one, in order. `pg_catalog` stands where PostgreSQL looks for it;
/// the schema of temporary tables is left out, since what is in there ties the session to its server anyway.
///
/// See <https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATH>.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SearchPath {
    schemas: Box<[Box<str>]>,
}

impl SearchPath {
    /// Returns the path of these schemas, which are folded already; `$user` stands for the role.
    pub fn from_list<S: AsRef<str>>(schemas: impl IntoIterator<Item = S>, role: &str) -> Self {
        let mut list: Vec<Box<str>> = schemas
            .into_iter()
            .map(|schema| match schema.as_ref() {
                "$user" => role.into(),
                schema => clipped(schema).into(),
            })
            .collect();
        list.retain(|schema| &**schema != "pg_temp" && !schema.is_empty());
        if !list.iter().any(|schema| &**schema == "pg_catalog") {
            list.insert(0, "pg_catalog".into());
        }
        SearchPath {
            schemas: list.into(),
        }
    }

    /// Reads the text that `SHOW search_path` gives and the startup packet takes; `None` where PostgreSQL would refuse it.
    pub fn parse(text: &str, role: &str) -> Option<Self> {
        identifiers(text).map(|list| SearchPath::from_list(list, role))
    }

    /// Returns the schemas in order.
    pub fn schemas(&self) -> impl Iterator<Item = &str> {
        self.schemas.iter().map(|schema| &**schema)
    }
}

/// Splits a list of identifiers as PostgreSQL's `SplitIdentifierString` does.
fn identifiers(text: &str) -> Option<Vec<String>> {
    let mut list = Vec::new();
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    let mut rest = text.trim_matches(is_space);
    if rest.is_empty() {
        return Some(list);
    }
    loop {
        let (name, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_identifier(quoted)?,
            None => {
                let end = rest
                    .find(|c: char| c == ',' || is_space(c))
                    .unwrap_or(rest.len());
                let (name, behind) = rest.split_at(end);
                if name.is_empty() {
                    return None;
                }
                (name.to_ascii_lowercase(), behind)
            }
        };
        list.push(name);
        rest = behind.trim_start_matches(is_space);
        if rest.is_empty() {
            return Some(list);
        }
        rest = rest.strip_prefix(',')?.trim_start_matches(is_space);
    }
}

fn quoted_identifier(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (part, behind) = rest.split_once('"')?;
        name.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, behind)),
        }
    }
}

/// Longest name in bytes: `NAMEDATALEN - 1`. The server cuts longer ones.
const NAME_BYTES_LIMIT: usize = 63;

fn clipped(name: &str) -> &str {
    let end = name.floor_char_boundary(NAME_BYTES_LIMIT);
    name.get(..end).unwrap_or(name)
}

/// What the names of a statement mean to a session: a snapshot of the catalog and a search path. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Lens {
    catalog: Option<Arc<Catalog>>,
    path: Option<Arc<SearchPath>>,
}

impl Lens {
    /// Nothing is known of the catalog: every user's function may do anything, and a relation is a table.
    pub fn blind() -> Self {
        Lens::default()
    }

    /// Returns the lens of a session. Where the path is not known, a name means the gravest of that name in any schema.
    pub fn new(catalog: Option<Arc<Catalog>>, path: Option<Arc<SearchPath>>) -> Self {
        Lens { catalog, path }
    }

    /// Returns the snapshot that it looks at.
    pub fn catalog(&self) -> Option<&Arc<Catalog>> {
        self.catalog.as_ref()
    }

    /// Returns the search path, if it is known.
    pub fn path(&self) -> Option<&Arc<SearchPath>> {
        self.path.as_ref()
    }
}

/// The verdict under one lens. It holds the snapshot weakly: its address stays taken, its content can go.
#[derive(Debug)]
pub(crate) struct Remembered {
    catalog: Weak<Catalog>,
    path: Option<Arc<SearchPath>>,
    pub(crate) verdict: Verdict,
}

impl Remembered {
    pub(crate) fn new(catalog: &Arc<Catalog>, lens: &Lens, verdict: Verdict) -> Self {
        Remembered {
            catalog: Arc::downgrade(catalog),
            path: lens.path.clone(),
            verdict,
        }
    }

    #[inline]
    pub(crate) fn is_of(&self, catalog: &Arc<Catalog>, lens: &Lens) -> bool {
        self.catalog.as_ptr() == Arc::as_ptr(catalog)
            && match (&self.path, &lens.path) {
                (Some(own), Some(other)) => Arc::ptr_eq(own, other) || own == other,
                (None, None) => true,
                _ => false,
            }
    }
}

/// Returns the graver of two verdicts; suspicion stays.
pub(crate) fn join(one: Verdict, other: Verdict) -> Verdict {
    Verdict {
        reason: if gravity(other.reason) > gravity(one.reason) {
            other.reason
        } else {
            one.reason
        },
        suspect: one.suspect || other.suspect,
        hidden: one.hidden.union(other.hidden),
    }
}

impl Classified {
    /// Returns what it is where nothing is known of the catalog.
    pub fn blind_verdict(&self) -> Verdict {
        Verdict {
            reason: self.reason,
            suspect: self.effects.suspect,
            hidden: Hidden::NOTHING,
        }
    }

    /// Returns whether any catalog could change what it is.
    pub(crate) fn asks_catalog(&self) -> bool {
        !self.is_local()
            && (self.blind_verdict() != self.rest
                || !self.tables.is_empty()
                || !self.functions.is_empty()
                || !self.names.operators.is_empty()
                || !self.names.types.is_empty()
                || self.names.casts)
    }

    /// Returns what it is under a lens: why it goes where it goes, and whether it may change settings out of sight.
    pub fn verdict(&self, lens: &Lens) -> Verdict {
        let blind = self.blind_verdict();
        let Some(catalog) = lens.catalog.as_ref().filter(|_| self.asks_catalog()) else {
            return blind;
        };
        let resolver = Resolver {
            objects: &catalog.objects,
            path: lens.path.as_deref(),
            stale: catalog.stale,
        };
        let mut verdict = self.rest;
        for table in &self.tables {
            let found = resolver.relation(table);
            // To plan, a standby must open the relation, which fails for an unlogged one; nothing of a view is run.
            let matters = self.names.usage == Usage::Run || found.reason == Reason::UnloggedTable;
            if matters {
                verdict = join(verdict, found);
            }
        }
        if self.names.usage == Usage::Planned {
            return verdict;
        }
        for function in &self.functions {
            verdict = join(verdict, resolver.function(function));
        }
        for operator in &self.names.operators {
            verdict = join(verdict, resolver.operator(operator));
        }
        for name in &self.names.types {
            let found = resolver.type_of(name);
            verdict = join(verdict, found.unwrap_or(Verdict::UNKNOWN));
        }
        verdict = join(verdict, catalog.objects.implicit_casts);
        // A row that is cast casts each of its columns.
        if self.names.casts || !self.names.types.is_empty() {
            verdict = join(verdict, catalog.objects.builtin_casts);
        }
        if self.names.overflow {
            verdict = join(verdict, Verdict::UNKNOWN);
        }
        if catalog.stale {
            verdict = join(verdict, blind);
        }
        verdict
    }
}

/// Looks names up.
struct Resolver<'a> {
    objects: &'a Objects,
    path: Option<&'a SearchPath>,
    stale: bool,
}

/// The schema of the system, whose objects the names' own tables judge.
const SYSTEM: &str = "pg_catalog";

impl Resolver<'_> {
    fn schema(&self, name: &str) -> Option<&Schema> {
        self.objects.schemas.get(clipped(name))
    }

    /// A relation that is not found is none of the catalog's business: the server says that it does not exist. But while the
    /// snapshot is stale it may be a view that was made a moment ago.
    fn relation(&self, name: &Name) -> Verdict {
        let unknown = if self.stale {
            Verdict::UNKNOWN
        } else {
            Verdict::HARMLESS
        };
        let table = clipped(&name.name);
        let found = |schema: &str| {
            let relation = self.schema(schema)?.relations.get(table)?;
            let replaceable = relation.kind == RelationKind::View && !is_system(schema);
            Some(if replaceable {
                join(relation.verdict, unknown)
            } else {
                relation.verdict
            })
        };
        match (&name.schema, self.path) {
            (Some(schema), _) => found(schema).unwrap_or(unknown),
            (None, Some(path)) => path.schemas().find_map(found).unwrap_or(unknown),
            (None, None) => {
                let gravest = self.objects.anywhere.relations.get(table);
                join(gravest.copied().unwrap_or(unknown), unknown)
            }
        }
    }

    /// Any overload within reach counts, since only the types of the arguments tell which one it is.
    fn function(&self, name: &Name) -> Verdict {
        let function = clipped(&name.name);
        let own = |schema: &str| self.schema(schema)?.functions.get(function).copied();
        let (mut found, system) = match (&name.schema, self.path) {
            (Some(schema), _) => (own(schema), &**schema == SYSTEM),
            (None, Some(path)) => (path.schemas().filter_map(own).reduce(join), true),
            (None, None) => (self.objects.anywhere.functions.get(function).copied(), true),
        };
        if system {
            let builtin = self.builtin(function);
            found = found.into_iter().chain(builtin).reduce(join);
        }
        if function.starts_with("dblink") {
            found = Some(join(found.unwrap_or_default(), PRIMARY_ONLY));
        }
        // A type's name before a parenthesis is a cast where there is no such function.
        found
            .or_else(|| self.type_of(name))
            .unwrap_or(Verdict::UNKNOWN)
    }

    /// Returns what is known of a function of PostgreSQL's own; what the configuration says of it counts more.
    fn builtin(&self, function: &str) -> Option<Verdict> {
        let call = functions::judge(None, function.as_bytes());
        let policy = &self.objects.policy;
        match call {
            Call::Unknown => None,
            _ if policy.is_primary_only(SYSTEM, function) => Some(PRIMARY_ONLY),
            _ if policy.is_replica_safe(SYSTEM, function) => Some(Verdict::HARMLESS),
            Call::Safe => Some(Verdict::HARMLESS),
            Call::PrimaryOnly => Some(PRIMARY_ONLY),
            Call::Volatile => Some(Verdict::because(Reason::VolatileFunction)),
        }
    }

    fn operator(&self, name: &Name) -> Verdict {
        let sign = &*name.name;
        let own = |schema: &str| self.schema(schema)?.operators.get(sign).copied();
        let (found, system) = match (&name.schema, self.path) {
            (Some(schema), _) => (own(schema), &**schema == SYSTEM),
            (None, Some(path)) => (path.schemas().filter_map(own).reduce(join), true),
            (None, None) => (self.objects.anywhere.operators.get(sign).copied(), true),
        };
        let builtin = system && names::is_builtin_operator(sign.as_bytes());
        found
            .or(builtin.then_some(Verdict::HARMLESS))
            .unwrap_or(Verdict::UNKNOWN)
    }

    /// Returns what making a value of a type may run; the row type of a relation is one, too.
    fn type_of(&self, name: &Name) -> Option<Verdict> {
        // `_email` is the array of `email`, unless the name was too long for that.
        let plain = clipped(&name.name);
        let element = plain.strip_prefix('_');
        let anywhere = &self.objects.anywhere;
        let lookup = |schema: &str| {
            let schema = self.schema(schema)?;
            let of = |name: &str| {
                let row = || {
                    let relation = schema.relations.get(name)?;
                    has_row_type(relation.kind).then_some(Verdict::HARMLESS)
                };
                schema.types.get(name).copied().or_else(row)
            };
            of(plain).or_else(|| of(element?))
        };
        match (&name.schema, self.path) {
            (Some(schema), _) => lookup(schema),
            (None, Some(path)) => path.schemas().find_map(lookup),
            (None, None) => {
                let of = |name: &str| {
                    let row = anywhere.relations.contains_key(name);
                    let row = row.then_some(Verdict::HARMLESS);
                    anywhere.types.get(name).copied().or(row)
                };
                of(plain).or_else(|| of(element?))
            }
        }
    }
}

const PRIMARY_ONLY: Verdict = Verdict::because(Reason::PrimaryOnly);

fn is_system(schema: &str) -> bool {
    schema == SYSTEM || schema == "information_schema"
}

fn has_row_type(kind: RelationKind) -> bool {
    !matches!(kind, RelationKind::Sequence)
}

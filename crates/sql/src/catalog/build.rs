//! What everything reaches, and what follows from that for each name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pgweir_model::catalog::{
    Hidden, Objects, Persistence, Policy, Relation, RelationKind, RelationName, Schema,
};
use pgweir_model::{Reason, Verdict};

use crate::catalog::body::{Leaves, leaves_traces};
use crate::catalog::calls::{self, Does};
use crate::catalog::nodes::References;
use crate::catalog::{FIRST_USER_OID, FunctionRow, RelationRow, Source};
use crate::functions::{self, Call};
use crate::names;
use crate::verdict::join;

const SYSTEM: &str = "pg_catalog";

/// The parents of each child.
type Parents = HashMap<u32, Vec<RelationName>>;

pub(super) fn build(source: Source, policy: Arc<Policy>) -> Objects {
    let mut known = Known {
        source: &source,
        policy: &policy,
        functions: HashMap::new(),
        operators: HashMap::new(),
        types: HashMap::new(),
    };
    known.functions();
    known.operators();
    known.types();
    let relations = known.relations();
    let mut objects = known.named(relations);
    objects.policy = policy;
    objects
}

/// What is known so far, by object identifier.
struct Known<'s> {
    source: &'s Source,
    policy: &'s Policy,
    functions: HashMap<u32, Verdict>,
    operators: HashMap<u32, Verdict>,
    /// Without those that are harmless.
    types: HashMap<u32, Verdict>,
}

impl Known<'_> {
    fn schema(&self, oid: u32) -> &str {
        self.source.schemas.get(&oid).map_or("", |name| name)
    }

    /// Returns the verdict on a function, built-in ones included.
    fn function(&self, oid: u32) -> Verdict {
        if let Some(found) = self.functions.get(&oid) {
            return *found;
        }
        let Some((name, volatile)) = self.source.builtins.get(&oid) else {
            return Verdict::UNKNOWN;
        };
        let suspect = leaves_traces(name.as_bytes());
        let reason = match functions::judge(None, name.as_bytes()) {
            _ if self.policy.is_primary_only(SYSTEM, name) => Reason::PrimaryOnly,
            _ if self.policy.is_replica_safe(SYSTEM, name) => Reason::Read,
            Call::Safe => Reason::Read,
            Call::PrimaryOnly => Reason::PrimaryOnly,
            // What the lists do not name is what nobody calls by name: functions behind operators, types and casts.
            Call::Unknown if *volatile => return Verdict::UNKNOWN,
            Call::Volatile => Reason::VolatileFunction,
            Call::Unknown => Reason::Read,
        };
        let hidden = match &**name {
            "set_config" => Hidden::SETTING,
            _ => Hidden::NOTHING,
        };
        Verdict {
            reason,
            suspect,
            hidden,
        }
    }

    fn functions(&mut self) {
        let rows = &self.source.functions;
        let bodies = calls::follow(rows, |oid| {
            let verdict = self.function(oid);
            Does {
                leaves: verdict.suspect,
                asks_primary: verdict.reason == Reason::PrimaryOnly,
                hidden: verdict.hidden,
            }
        });
        for (row, does) in rows.iter().zip(bodies) {
            let verdict = self.own_verdict(row, does);
            self.functions.insert(row.oid, verdict);
        }
        // An aggregate is marked immutable whatever it calls, and the defaults of arguments are the caller's to run.
        for (aggregate, part) in &self.source.aggregates {
            let verdict = join(self.function(*aggregate), self.function(*part));
            self.functions.insert(*aggregate, verdict);
        }
        for row in rows {
            for default in &row.body.defaults.functions {
                let verdict = join(self.function(row.oid), self.function(*default));
                self.functions.insert(row.oid, verdict);
            }
        }
    }

    fn own_verdict(&self, row: &FunctionRow, does: Does) -> Verdict {
        let schema = self.schema(row.schema);
        let by_call = row.body.leaves == Leaves::ByCall;
        let is_dblink = row.name.starts_with("dblink");
        let reason = if is_dblink || self.policy.is_primary_only(schema, &row.name) {
            Reason::PrimaryOnly
        } else if self.policy.is_replica_safe(schema, &row.name) {
            Reason::Read
        } else if row.volatile {
            Reason::VolatileFunction
        } else if does.asks_primary {
            Reason::PrimaryOnly
        } else {
            Reason::Read
        };
        Verdict {
            reason,
            suspect: does.leaves || by_call || is_dblink,
            // Who says that a replica may run it says that it leaves nothing.
            hidden: if self.policy.is_replica_safe(schema, &row.name) {
                Hidden::NOTHING
            } else {
                does.hidden
            },
        }
    }

    fn operators(&mut self) {
        for row in &self.source.operators {
            let verdict = self.function(row.function);
            self.operators.insert(row.oid, verdict);
        }
    }

    fn types(&mut self) {
        let source = self.source;
        for row in &source.types {
            if row.input >= FIRST_USER_OID {
                self.join_type(row.oid, self.function(row.input));
            }
        }
        for cast in &source.casts {
            if cast.target >= FIRST_USER_OID {
                self.join_type(cast.target, self.function(cast.function));
            }
        }
        for (domain, check) in &source.checks {
            self.join_type(*domain, self.references(check));
        }
        self.spread_types();
        // A check may cast to another domain: until nothing changes any more.
        loop {
            let before = self.types.clone();
            for (domain, check) in &source.checks {
                self.join_type(*domain, self.references(check));
            }
            if before == self.types {
                break;
            }
            self.spread_types();
        }
    }

    fn join_type(&mut self, oid: u32, verdict: Verdict) {
        let joined = join(self.type_of(oid), verdict);
        if joined != Verdict::HARMLESS {
            self.types.insert(oid, joined);
        }
    }

    /// Gives each type the verdicts of its parts, to the end.
    fn spread_types(&mut self) {
        let mut wholes: HashMap<u32, Vec<u32>> = HashMap::new();
        for (whole, part) in &self.source.parts {
            wholes.entry(*part).or_default().push(*whole);
        }
        let mut waiting: Vec<u32> = self.types.keys().copied().collect();
        while let Some(part) = waiting.pop() {
            let verdict = self.type_of(part);
            for whole in wholes.get(&part).into_iter().flatten() {
                let known = self.type_of(*whole);
                self.join_type(*whole, verdict);
                if self.type_of(*whole) != known {
                    waiting.push(*whole);
                }
            }
        }
    }

    /// Returns the verdict on a type: those that are not known are made of harmless parts, down to what is built in.
    fn type_of(&self, oid: u32) -> Verdict {
        self.types.get(&oid).copied().unwrap_or_default()
    }

    /// Returns the verdict on what a stored expression refers to, relations left out.
    fn references(&self, references: &References) -> Verdict {
        let functions = references.functions.iter().map(|oid| self.function(*oid));
        let operators = references
            .operators
            .iter()
            .filter_map(|oid| self.operators.get(oid).copied());
        let types = references.types.iter().map(|oid| self.type_of(*oid));
        functions
            .chain(operators)
            .chain(types)
            .fold(Verdict::HARMLESS, join)
    }

    /// Returns the verdict on each relation, in the order of the rows.
    fn relations(&self) -> Vec<Verdict> {
        let source = self.source;
        let rows = &source.relations;
        let by_oid: HashMap<u32, usize> = rows.iter().map(|row| row.oid).zip(0..).collect();
        let mut verdicts: Vec<Verdict> = rows.iter().map(|row| self.own_relation(row)).collect();
        // Who reads whom, from the one that is read.
        let mut readers: HashMap<usize, Vec<usize>> = HashMap::new();
        for (child, parent) in &source.inherits {
            if let (Some(child), Some(parent)) = (by_oid.get(child), by_oid.get(parent)) {
                readers.entry(*child).or_default().push(*parent);
            }
        }
        for (relation, references) in &source.reach {
            let Some(reader) = by_oid.get(relation) else {
                continue;
            };
            if let Some(verdict) = verdicts.get_mut(*reader) {
                *verdict = join(*verdict, self.references(references));
            }
            let read = references
                .relations
                .iter()
                .filter_map(|oid| by_oid.get(oid));
            for read in read.filter(|read| *read != reader) {
                readers.entry(*read).or_default().push(*reader);
            }
        }
        spread(&mut verdicts, &readers);
        verdicts
    }

    fn own_relation(&self, row: &RelationRow) -> Verdict {
        let because = Verdict::because;
        let harmless = Verdict::HARMLESS;
        if self.schema(row.schema) == SYSTEM {
            return if names::is_primary_only_relation(row.name.as_bytes()) {
                because(Reason::PrimaryOnly)
            } else {
                harmless
            };
        }
        match (row.kind, row.persistence) {
            (RelationKind::Sequence, _) => because(Reason::PrimaryOnly),
            (RelationKind::Foreign, _) if !self.policy.foreign_on_replica => {
                because(Reason::PrimaryOnly)
            }
            (_, Persistence::Unlogged) => because(Reason::UnloggedTable),
            (_, Persistence::Temporary) => because(Reason::PrimaryOnly),
            (_, Persistence::Permanent) => harmless,
        }
    }

    /// Puts everything under its name.
    fn named(&self, relations: Vec<Verdict>) -> Objects {
        let source = self.source;
        let mut objects = Objects::default();
        let gravest = &mut objects.anywhere;
        let schemas = source.schemas.values();
        objects.schemas = schemas
            .map(|name| ((**name).into(), Schema::default()))
            .collect();
        let places = self.places();
        for (row, verdict) in source.relations.iter().zip(relations) {
            note(&mut gravest.relations, &row.name, verdict);
            if let Some(schema) = objects.schemas.get_mut(self.schema(row.schema)) {
                let relation = self.relation(row, verdict, &places);
                schema.relations.insert(row.name.clone(), relation);
                if let Some(verdict) = self.types.get(&row.row_type) {
                    note(&mut schema.types, &row.name, *verdict);
                    note(&mut gravest.types, &row.name, *verdict);
                }
            }
        }
        for row in &source.functions {
            let verdict = self.function(row.oid);
            note(&mut gravest.functions, &row.name, verdict);
            if let Some(schema) = objects.schemas.get_mut(self.schema(row.schema)) {
                note(&mut schema.functions, &row.name, verdict);
            }
        }
        for row in &source.operators {
            let verdict = self.function(row.function);
            note(&mut gravest.operators, &row.name, verdict);
            if let Some(schema) = objects.schemas.get_mut(self.schema(row.schema)) {
                note(&mut schema.operators, &row.name, verdict);
            }
        }
        for row in &source.types {
            let verdict = self.type_of(row.oid);
            note(&mut gravest.types, &row.name, verdict);
            if let Some(schema) = objects.schemas.get_mut(self.schema(row.schema)) {
                note(&mut schema.types, &row.name, verdict);
            }
        }
        for cast in &source.casts {
            let verdict = self.function(cast.function);
            if cast.implicit {
                objects.implicit_casts = join(objects.implicit_casts, verdict);
            }
            if cast.target < FIRST_USER_OID {
                objects.builtin_casts = join(objects.builtin_casts, verdict);
            }
        }
        objects
    }

    /// Returns the parents of each child.
    fn places(&self) -> Parents {
        let source = self.source;
        let parents = source.inherits.iter().map(|(_, parent)| *parent);
        let parents: HashSet<u32> = parents.collect();
        let named = source.relations.iter().filter_map(|row| {
            let name = RelationName {
                schema: Arc::clone(source.schemas.get(&row.schema)?),
                name: (*row.name).into(),
            };
            parents.contains(&row.oid).then_some((row.oid, name))
        });
        let named: HashMap<u32, RelationName> = named.collect();
        let mut places = Parents::new();
        for (child, parent) in &source.inherits {
            if let Some(place) = named.get(parent) {
                places.entry(*child).or_default().push(place.clone());
            }
        }
        places
    }

    fn relation(&self, row: &RelationRow, verdict: Verdict, places: &Parents) -> Relation {
        let columns = self.source.columns.get(&row.oid).map_or(&[][..], |all| all);
        let position = |number: &i16| columns.iter().position(|column| column.0 == *number);
        let key = self.source.keys.get(&row.oid).map_or(&[][..], |all| all);
        Relation {
            kind: row.kind,
            persistence: row.persistence,
            verdict,
            columns: columns.iter().map(|column| Arc::clone(&column.1)).collect(),
            key: key.iter().filter_map(position).collect(),
            parents: places.get(&row.oid).cloned().unwrap_or_default().into(),
        }
    }
}

/// Gives each reader the verdict of what it reads, to the end.
fn spread(verdicts: &mut [Verdict], readers: &HashMap<usize, Vec<usize>>) {
    let grave =
        |(index, verdict): (usize, &Verdict)| (*verdict != Verdict::HARMLESS).then_some(index);
    let mut waiting: Vec<usize> = verdicts.iter().enumerate().filter_map(grave).collect();
    while let Some(read) = waiting.pop() {
        let Some(verdict) = verdicts.get(read).copied() else {
            continue;
        };
        for reader in readers.get(&read).into_iter().flatten() {
            let Some(known) = verdicts.get_mut(*reader) else {
                continue;
            };
            let joined = join(*known, verdict);
            if joined != *known {
                *known = joined;
                waiting.push(*reader);
            }
        }
    }
}

fn note(names: &mut HashMap<Box<str>, Verdict>, name: &str, verdict: Verdict) {
    match names.get_mut(name) {
        Some(known) => *known = join(*known, verdict),
        None => {
            names.insert(name.into(), verdict);
        }
    }
}

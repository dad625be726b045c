//! The questions that a load asks, and their answers row by row.
//!
//! See <https://www.postgresql.org/docs/current/catalogs.html>.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use pgweir_model::catalog::{Persistence, RelationKind};
use pgweir_sql::catalog::{
    CastRow, FunctionRow, OperatorRow, References, RelationRow, Source, TypeRow, references,
};
use tokio_postgres::{Client, Error, Row};

use crate::catalog::load::Version;

const SCHEMAS: &str = "SELECT oid, nspname FROM pg_namespace
    WHERE nspname !~ '^pg_(toast_)?temp_' AND nspname <> 'pg_toast'";

const RELATIONS: &str =
    "SELECT oid, relnamespace, relname, relkind::text, relpersistence::text, reltype FROM pg_class
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND relpersistence <> 't'";

const INHERITS: &str =
    "SELECT i.inhrelid, i.inhparent FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE c.relkind IN ('r', 'p', 'f')";

const COLUMNS: &str = "SELECT a.attrelid, array_agg(a.attnum ORDER BY a.attnum), array_agg(a.attname ORDER BY a.attnum)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
      AND a.attrelid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped
    GROUP BY a.attrelid";

const KEYS: &str =
    "SELECT indrelid, indkey::int2[] FROM pg_index WHERE indisprimary AND indrelid >= 16384";

const BUILTINS: &str = "SELECT oid, proname, provolatile = 'v' FROM pg_proc WHERE oid < 16384";

const FUNCTIONS: &str =
    "SELECT oid, xmin::text::int8, pronamespace, proname, provolatile = 'v' FROM pg_proc
    WHERE oid >= 16384 OR pronamespace = 'information_schema'::regnamespace";

const AGGREGATES: &str = "SELECT DISTINCT a.aggfnoid::oid, f.oid FROM pg_aggregate a
    CROSS JOIN LATERAL unnest(ARRAY[a.aggtransfn::oid, a.aggfinalfn::oid, a.aggcombinefn::oid, a.aggserialfn::oid,
        a.aggdeserialfn::oid, a.aggmtransfn::oid, a.aggminvtransfn::oid, a.aggmfinalfn::oid]) AS f (oid)
    WHERE a.aggfnoid >= 16384 AND f.oid <> 0";

const OPERATORS: &str = "SELECT oid, oprnamespace, oprname, oprcode::oid FROM pg_operator
    WHERE oid >= 16384 AND oprcode <> 0";

const TYPES: &str = "SELECT t.oid, t.typnamespace, t.typname, t.typinput::oid FROM pg_type t
    WHERE t.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
      AND (t.typtype <> 'c' OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))";

/// Arrays of rows are left out where no column, and no cast, makes the row worth a look.
const PARTS: &str = "SELECT oid, typbasetype FROM pg_type WHERE typtype = 'd' AND typbasetype >= 16384
    UNION ALL SELECT t.typarray, t.oid FROM pg_type t WHERE t.typarray >= 16384 AND (t.typrelid = 0
        OR t.oid IN (SELECT casttarget FROM pg_cast)
        OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND a.atttypid >= 16384))
    UNION ALL SELECT rngtypid, rngsubtype FROM pg_range WHERE rngtypid >= 16384 AND rngsubtype >= 16384
    UNION SELECT c.reltype, a.atttypid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE a.atttypid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped AND c.reltype <> 0
          AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.relpersistence <> 't'";

const CHECKS: &str = "SELECT contypid, conbin::text FROM pg_constraint WHERE contypid >= 16384 AND conbin IS NOT NULL";

const CASTS: &str =
    "SELECT casttarget, castfunc, castcontext = 'i' FROM pg_cast WHERE castfunc >= 16384";

/// The rules that make views, with their views.
pub(crate) const RULES: &str = "SELECT r.oid, r.xmin::text::int8, r.ev_class FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    WHERE r.ev_class >= 16384 AND r.ev_type = '1' AND c.relkind = 'v' AND c.relpersistence <> 't'";

pub(crate) const RULE_TREES: &str =
    "SELECT oid, ev_action::text FROM pg_rewrite WHERE oid = ANY($1)";

/// The policies that a read is subject to, with their tables.
pub(crate) const POLICIES: &str = "SELECT p.oid, p.xmin::text::int8, p.polrelid FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
    WHERE c.relrowsecurity AND p.polcmd IN ('r', '*')";

pub(crate) const POLICY_TREES: &str =
    "SELECT oid, polqual::text FROM pg_policy WHERE oid = ANY($1)";

/// What changes whenever one of the rows does that a load reads: how many there are, and the sum of their `xmin`, which only
/// grows. Objects of sessions are left out: applications make temporary tables all the time.
pub(crate) const FINGERPRINT: &str = "SELECT string_agg(concat_ws(' ', part, rows, sum), ',' ORDER BY part) FROM (
    SELECT 1 AS part, count(*) AS rows, sum(xmin::text::int8) AS sum FROM pg_class WHERE relpersistence <> 't'
    UNION ALL SELECT 2, count(*), sum(a.xmin::text::int8) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relpersistence <> 't' AND a.attnum > 0
    UNION ALL SELECT 3, count(*), sum(xmin::text::int8) FROM pg_proc
    UNION ALL SELECT 4, count(*), sum(r.xmin::text::int8) FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
        WHERE c.relpersistence <> 't'
    UNION ALL SELECT 5, count(*), sum(xmin::text::int8) FROM pg_policy
    UNION ALL SELECT 6, count(*), sum(i.xmin::text::int8) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE c.relpersistence <> 't'
    UNION ALL SELECT 7, count(*), sum(i.xmin::text::int8) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        WHERE c.relpersistence <> 't' AND i.indisprimary
    UNION ALL SELECT 8, count(*), sum(xmin::text::int8) FROM pg_operator
    UNION ALL SELECT 9, count(*), sum(xmin::text::int8) FROM pg_type WHERE typtype <> 'c' AND typcategory <> 'A'
    UNION ALL SELECT 10, count(*), sum(xmin::text::int8) FROM pg_constraint WHERE contypid <> 0
    UNION ALL SELECT 11, count(*), sum(xmin::text::int8) FROM pg_cast
    UNION ALL SELECT 12, count(*), sum(xmin::text::int8) FROM pg_aggregate
    UNION ALL SELECT 13, count(*), sum(xmin::text::int8) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
    ) AS parts";

/// Returns the question for the bodies of functions. `BEGIN ATOMIC` came with PostgreSQL 14.
pub(crate) fn function_bodies(server_version: i32) -> &'static str {
    if server_version >= 140_000 {
        "SELECT p.oid, l.lanname::text, p.prosrc, p.prosqlbody::text, p.proargdefaults::text
           FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.oid = ANY($1)"
    } else {
        "SELECT p.oid, l.lanname::text, p.prosrc, NULL::text, p.proargdefaults::text
           FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.oid = ANY($1)"
    }
}

/// Reads what is short enough to be read each time.
pub(crate) async fn fill(client: &Client, source: &mut Source) -> Result<(), Error> {
    for row in client.query(SCHEMAS, &[]).await? {
        let name: &str = row.try_get(1)?;
        source.schemas.insert(row.try_get(0)?, name.into());
    }
    for row in client.query(RELATIONS, &[]).await? {
        source.relations.push(relation(&row)?);
    }
    for row in client.query(INHERITS, &[]).await? {
        source.inherits.push((row.try_get(0)?, row.try_get(1)?));
    }
    source.columns = columns(client).await?;
    for row in client.query(KEYS, &[]).await? {
        source.keys.insert(row.try_get(0)?, row.try_get(1)?);
    }
    for row in client.query(AGGREGATES, &[]).await? {
        source.aggregates.push((row.try_get(0)?, row.try_get(1)?));
    }
    for row in client.query(OPERATORS, &[]).await? {
        source.operators.push(OperatorRow {
            oid: row.try_get(0)?,
            schema: row.try_get(1)?,
            name: row.try_get::<_, &str>(2)?.into(),
            function: row.try_get(3)?,
        });
    }
    for row in client.query(TYPES, &[]).await? {
        source.types.push(TypeRow {
            oid: row.try_get(0)?,
            schema: row.try_get(1)?,
            name: row.try_get::<_, &str>(2)?.into(),
            input: row.try_get(3)?,
        });
    }
    for row in client.query(PARTS, &[]).await? {
        source.parts.push((row.try_get(0)?, row.try_get(1)?));
    }
    for row in client.query(CHECKS, &[]).await? {
        let check = Arc::new(tree(&row, 1)?);
        source.checks.push((row.try_get(0)?, check));
    }
    for row in client.query(CASTS, &[]).await? {
        source.casts.push(CastRow {
            target: row.try_get(0)?,
            function: row.try_get(1)?,
            implicit: row.try_get(2)?,
        });
    }
    Ok(())
}

fn relation(row: &Row) -> Result<RelationRow, Error> {
    Ok(RelationRow {
        oid: row.try_get(0)?,
        schema: row.try_get(1)?,
        name: row.try_get::<_, &str>(2)?.into(),
        kind: match row.try_get(3)? {
            "r" => RelationKind::Table,
            "p" => RelationKind::Partitioned,
            "v" => RelationKind::View,
            "m" => RelationKind::MaterializedView,
            "f" => RelationKind::Foreign,
            "S" => RelationKind::Sequence,
            _ => RelationKind::Other,
        },
        persistence: match row.try_get(4)? {
            "u" => Persistence::Unlogged,
            "t" => Persistence::Temporary,
            _ => Persistence::Permanent,
        },
        row_type: row.try_get(5)?,
    })
}

async fn columns(client: &Client) -> Result<HashMap<u32, Vec<(i16, Arc<str>)>>, Error> {
    // The same few names come again and again.
    let mut names: HashSet<Arc<str>> = HashSet::new();
    let mut columns = HashMap::new();
    for row in client.query(COLUMNS, &[]).await? {
        let (numbers, texts): (Vec<i16>, Vec<&str>) = (row.try_get(1)?, row.try_get(2)?);
        let mut list = Vec::with_capacity(numbers.len());
        for (number, text) in numbers.into_iter().zip(texts) {
            let name = match names.get(text) {
                Some(name) => Arc::clone(name),
                None => {
                    let name: Arc<str> = text.into();
                    names.insert(Arc::clone(&name));
                    name
                }
            };
            list.push((number, name));
        }
        columns.insert(row.try_get(0)?, list);
    }
    Ok(columns)
}

pub(crate) async fn builtins(client: &Client) -> Result<HashMap<u32, (Box<str>, bool)>, Error> {
    let rows = client.query(BUILTINS, &[]).await?;
    let builtin = |row: &Row| {
        let name: &str = row.try_get(1)?;
        Ok((row.try_get(0)?, (name.into(), row.try_get(2)?)))
    };
    rows.iter().map(builtin).collect()
}

/// Returns the functions that are not built in, and those of `information_schema`, without their bodies.
pub(crate) async fn functions(client: &Client) -> Result<Vec<(Version, FunctionRow)>, Error> {
    let rows = client.query(FUNCTIONS, &[]).await?;
    let function = |row: &Row| {
        let oid = row.try_get(0)?;
        let function = FunctionRow {
            oid,
            schema: row.try_get(2)?,
            name: row.try_get::<_, &str>(3)?.into(),
            volatile: row.try_get(4)?,
            body: Arc::default(),
        };
        Ok(((oid, row.try_get(1)?), function))
    };
    rows.iter().map(function).collect()
}

/// Returns the versions of long rows, each with the relation that it belongs to.
pub(crate) async fn versions(
    client: &Client,
    question: &str,
) -> Result<Vec<(Version, u32)>, Error> {
    let rows = client.query(question, &[]).await?;
    let version = |row: &Row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?));
    rows.iter().map(version).collect()
}

/// Returns what the stored expression of a column refers to; nothing where it is NULL.
pub(crate) fn tree(row: &Row, column: usize) -> Result<References, Error> {
    let text: Option<&str> = row.try_get(column)?;
    Ok(text
        .map(|text| references(text.as_bytes()))
        .unwrap_or_default())
}

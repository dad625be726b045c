//! Verdicts under catalogs made by hand, and how a plan remembers them.

use std::sync::Arc;

use pgweir_model::catalog::{Catalog, FunctionName, Hidden, Persistence, Policy, RelationKind};
use pgweir_model::{Reason, Verdict};
use pgweir_sql::catalog::{
    Body, CastRow, FunctionRow, OperatorRow, References, RelationRow, Source, TypeRow,
};
use pgweir_sql::{Lens, PlanTable, SearchPath, classify};

const PG_CATALOG: u32 = 11;
const PUBLIC: u32 = 2200;
const APP: u32 = 17000;

/// Functions: 20001 is stable, 20002 volatile, 20003 changes settings.
fn source() -> Source {
    let mut source = Source::default();
    for (oid, name) in [(PG_CATALOG, "pg_catalog"), (PUBLIC, "public"), (APP, "app")] {
        source.schemas.insert(oid, name.into());
    }
    let function = |oid: u32, schema: u32, name: &str, volatile: bool, text: &str| FunctionRow {
        oid,
        schema,
        name: name.into(),
        volatile,
        body: Arc::new(Body::read(
            "sql",
            text,
            References::default(),
            References::default(),
        )),
    };
    source.functions = vec![
        function(20001, PUBLIC, "calm", false, "SELECT 1"),
        function(20002, PUBLIC, "writes", true, "DELETE FROM t"),
        function(20003, PUBLIC, "changes", true, "SET x = 1"),
        function(20004, APP, "calm", true, "DELETE FROM t"),
        function(20005, APP, "upper", true, "DELETE FROM t"),
    ];
    let relation = |oid: u32, schema: u32, name: &str, kind: RelationKind| RelationRow {
        oid,
        schema,
        name: name.into(),
        kind,
        persistence: Persistence::Permanent,
        row_type: oid + 100,
    };
    source.relations = vec![
        relation(21000, PUBLIC, "t", RelationKind::Table),
        relation(21001, PUBLIC, "v", RelationKind::View),
        relation(21002, PUBLIC, "vv", RelationKind::View),
        relation(21003, PUBLIC, "far", RelationKind::Foreign),
        relation(21004, APP, "t", RelationKind::View),
        RelationRow {
            persistence: Persistence::Unlogged,
            ..relation(21005, PUBLIC, &"n".repeat(63), RelationKind::Table)
        },
        relation(1259, PG_CATALOG, "pg_class", RelationKind::Table),
    ];
    let reads = |functions: &[u32], relations: &[u32]| {
        Arc::new(References {
            functions: functions.into(),
            relations: relations.into(),
            ..References::default()
        })
    };
    source.reach = vec![
        (21001, reads(&[20002], &[21000, 21001])),
        (21002, reads(&[], &[21001])),
        (21004, reads(&[20003], &[])),
    ];
    source
}

fn objects(source: Source, policy: Policy) -> Arc<Catalog> {
    Arc::new(Catalog {
        version: 1,
        stale: false,
        objects: Arc::new(source.build(Arc::new(policy))),
    })
}

fn path(text: &str) -> Option<Arc<SearchPath>> {
    SearchPath::parse(text, "me").map(Arc::new)
}

fn verdict(catalog: &Arc<Catalog>, schemas: &str, sql: &str) -> Verdict {
    let lens = Lens::new(Some(Arc::clone(catalog)), path(schemas));
    classify(sql.as_bytes()).verdict(&lens)
}

const fn is(reason: Reason, suspect: bool) -> Verdict {
    Verdict {
        suspect,
        ..Verdict::because(reason)
    }
}

/// Search path, statement, and what it is.
const MEANINGS: &[(&str, &str, Verdict)] = &[
    ("public", "SELECT calm()", is(Reason::Read, false)),
    (
        "app, public",
        "SELECT calm()",
        is(Reason::VolatileFunction, false),
    ),
    ("public", "SELECT upper('a')", is(Reason::Read, false)),
    (
        "public, app",
        "SELECT upper('a')",
        is(Reason::VolatileFunction, false),
    ),
    (
        "app",
        "SELECT pg_catalog.upper('a')",
        is(Reason::Read, false),
    ),
    (
        "public",
        "SELECT changes()",
        is(Reason::VolatileFunction, true),
    ),
    ("public", "SELECT * FROM t", is(Reason::Read, false)),
    (
        "app, public",
        "SELECT * FROM t",
        is(Reason::VolatileFunction, true),
    ),
    (
        "public",
        "SELECT * FROM app.t",
        is(Reason::VolatileFunction, true),
    ),
    (
        "public",
        "SELECT * FROM vv",
        is(Reason::VolatileFunction, false),
    ),
    (
        "public",
        "SELECT * FROM far",
        is(Reason::PrimaryOnly, false),
    ),
    (
        "public",
        "SELECT * FROM missing, pg_class",
        is(Reason::Read, false),
    ),
    (
        "public",
        "SELECT db.public.writes()",
        is(Reason::VolatileFunction, true),
    ),
    (
        "public",
        "SELECT 1; SELECT * FROM v",
        is(Reason::VolatileFunction, false),
    ),
    ("public", "EXPLAIN SELECT * FROM v", is(Reason::Read, false)),
    (
        "public",
        "EXPLAIN ANALYZE SELECT * FROM v",
        is(Reason::VolatileFunction, false),
    ),
    ("public", "CALL writes()", is(Reason::Write, false)),
    ("public", "CALL changes()", is(Reason::Write, true)),
    ("public", "CALL missing()", is(Reason::Write, true)),
    ("public", "SHOW pgweir.route", is(Reason::Local, false)),
    // A row type, and a name that is cut where the server cuts it.
    (
        "public",
        "SELECT NULL::t, '{}'::_t, t(x)",
        is(Reason::Read, false),
    ),
];

#[test]
fn names_mean_what_the_path_says() {
    let catalog = objects(source(), Policy::default());
    for (schemas, sql, expected) in MEANINGS {
        assert_eq!(
            verdict(&catalog, schemas, sql),
            *expected,
            "{schemas}: {sql}"
        );
    }
    let long = format!("SELECT * FROM {}", "n".repeat(70));
    assert_eq!(
        verdict(&catalog, "public", &long).reason,
        Reason::UnloggedTable
    );
}

#[test]
fn without_a_catalog_nothing_changes() {
    for sql in [
        "SELECT 1",
        "SELECT calm()",
        "SELECT * FROM v",
        "INSERT INTO t SELECT calm()",
        "CALL calm()",
    ] {
        let classified = classify(sql.as_bytes());
        assert_eq!(
            classified.verdict(&Lens::blind()),
            is(classified.reason, classified.effects.suspect),
            "{sql}"
        );
    }
}

/// Search path, statement, and what it is with casts and operators.
const CASTS: &[(&str, &str, Reason)] = &[
    ("public", "SELECT 1 === 1", Reason::Read),
    ("app", "SELECT 1 === 1", Reason::VolatileFunction),
    (
        "public",
        "SELECT 1 OPERATOR(app.===) 1",
        Reason::VolatileFunction,
    ),
    ("app", "SELECT 1 OPERATOR(public.===) 1", Reason::Read),
    ("app", "SELECT 1 OPERATOR(pg_catalog.=) 1", Reason::Read),
    (
        "app",
        "SELECT 1 OPERATOR(pg_catalog.===) 1",
        Reason::VolatileFunction,
    ),
    ("app", "SELECT 'a' LIKE 'b'", Reason::VolatileFunction),
    ("public", "SELECT 'a' LIKE 'b'", Reason::Read),
    ("public", "SELECT 1 ==== 1", Reason::VolatileFunction),
    (
        "public",
        "SELECT '1'::plain, plain '1', CAST('1' AS plain)",
        Reason::Read,
    ),
    ("public", "SELECT '1'::odd", Reason::VolatileFunction),
    ("public", "SELECT '1'::checked", Reason::VolatileFunction),
    ("public", "SELECT '1'::above[]", Reason::VolatileFunction),
    ("app", "SELECT '1'::plain", Reason::VolatileFunction),
    // A column of the row is of the checked type.
    ("public", "SELECT NULL::t", Reason::VolatileFunction),
    ("public", "SELECT NULL::t[]", Reason::VolatileFunction),
    ("public", "SELECT ROW(1)::pair", Reason::VolatileFunction),
    ("public", "SELECT ROW(1)::vv, '{}'::far[]", Reason::Read),
    ("public", "SELECT '[1,2]'::span", Reason::VolatileFunction),
];

#[test]
fn casts_and_operators_are_their_functions() {
    let mut source = source();
    let operator = |oid: u32, schema: u32, name: &str, function: u32| OperatorRow {
        oid,
        schema,
        name: name.into(),
        function,
    };
    source.operators = vec![
        operator(22000, PUBLIC, "===", 20001),
        operator(22001, APP, "===", 20002),
        operator(22002, APP, "~~", 20002),
    ];
    let typed = |oid: u32, name: &str| TypeRow {
        oid,
        schema: PUBLIC,
        name: name.into(),
        input: 20001,
    };
    source.types = vec![
        typed(23000, "plain"),
        typed(23001, "odd"),
        typed(23002, "checked"),
        typed(23003, "above"),
        typed(23004, "pair"),
        typed(23005, "span"),
    ];
    // The row of `t` has an array of the domain above the checked one.
    source.parts = vec![
        (21100, 23103),
        (23103, 23003),
        (23003, 23002),
        (23004, 21100),
        (23005, 23001),
    ];
    let check = References {
        functions: [20002].into(),
        ..References::default()
    };
    source.checks = vec![(23002, Arc::new(check))];
    source.casts = vec![CastRow {
        target: 23001,
        function: 20003,
        implicit: false,
    }];
    let catalog = objects(source, Policy::default());
    for (schemas, sql, reason) in CASTS {
        // The other reading does not know such operators.
        let got = match verdict(&catalog, schemas, sql).reason {
            Reason::ReadByTokens => Reason::Read,
            other => other,
        };
        assert_eq!(got, *reason, "{schemas}: {sql}");
    }
}

#[test]
fn what_a_function_hides_is_known_through_all_that_reaches_it() {
    let mut source = source();
    let function = |oid: u32, name: &str, volatile: bool, text: &str| FunctionRow {
        oid,
        schema: PUBLIC,
        name: name.into(),
        volatile,
        body: Arc::new(Body::read(
            "plpgsql",
            text,
            References::default(),
            References::default(),
        )),
    };
    source.functions = vec![
        function(
            20010,
            "tenant",
            true,
            "BEGIN PERFORM set_config('a.b', $1, false); END",
        ),
        function(
            20011,
            "local",
            true,
            "BEGIN PERFORM set_config('a.b', $1, true); END",
        ),
        function(20012, "login", true, "BEGIN PERFORM tenant('x'); END"),
        function(20013, "grows", true, "BEGIN CREATE TABLE t (a int); END"),
        function(
            20014,
            "refused",
            false,
            "BEGIN SET a.b = 1; CREATE TABLE t (a int); END",
        ),
    ];
    let references = |functions: &[u32], relations: &[u32]| {
        Arc::new(References {
            functions: functions.into(),
            relations: relations.into(),
            ..References::default()
        })
    };
    source.reach = vec![
        (21001, references(&[20012], &[])),
        (21002, references(&[], &[21001])),
    ];
    let catalog = objects(source, Policy::default());
    for (sql, hidden) in [
        ("SELECT tenant('x')", Hidden::SETTING),
        ("SELECT local('x')", Hidden::NOTHING),
        ("SELECT login()", Hidden::SETTING),
        ("SELECT * FROM vv", Hidden::SETTING),
        ("INSERT INTO t SELECT login()", Hidden::SETTING),
        ("CALL grows()", Hidden::SCHEMA),
        (
            "SELECT login(), grows()",
            Hidden::SETTING.union(Hidden::SCHEMA),
        ),
        ("SELECT refused()", Hidden::NOTHING),
        ("SELECT nowhere()", Hidden::NOTHING),
        ("EXPLAIN SELECT login()", Hidden::NOTHING),
    ] {
        assert_eq!(verdict(&catalog, "public", sql).hidden, hidden, "{sql}");
    }
}

#[test]
fn casts_that_nobody_wrote_count_for_every_statement() {
    let with = |target: u32, implicit: bool| {
        let mut source = source();
        source.casts = vec![CastRow {
            target,
            function: 20002,
            implicit,
        }];
        objects(source, Policy::default())
    };
    let volatile = Reason::VolatileFunction;
    let implicit = with(25, true);
    assert_eq!(
        verdict(&implicit, "public", "SELECT * FROM t").reason,
        volatile
    );
    let explicit = with(25, false);
    assert_eq!(
        verdict(&explicit, "public", "SELECT * FROM t").reason,
        Reason::Read
    );
    assert_eq!(
        verdict(&explicit, "public", "SELECT a::text FROM t").reason,
        volatile
    );
}

#[test]
fn the_policy_counts_more_than_the_lists_of_what_is_built_in() {
    let name = |name: &str| FunctionName {
        schema: None,
        name: name.into(),
    };
    let policy = Policy {
        replica_safe: vec![
            name("current_setting"),
            name("writes"),
            name("pg_advisory_lock"),
        ],
        primary_only: vec![name("upper")],
        foreign_on_replica: true,
    };
    let catalog = objects(source(), policy);
    for (sql, reason) in [
        ("SELECT current_setting('x')", Reason::Read),
        ("SELECT writes()", Reason::Read),
        ("SELECT * FROM vv", Reason::Read),
        ("SELECT * FROM far", Reason::Read),
        ("SELECT upper('x')", Reason::PrimaryOnly),
        // It ties the session to its server whatever the file says.
        ("SELECT pg_advisory_lock(1)", Reason::PrimaryOnly),
    ] {
        assert_eq!(verdict(&catalog, "public", sql).reason, reason, "{sql}");
    }
}

#[test]
fn a_stale_snapshot_objects_but_does_not_vouch() {
    let fresh = objects(source(), Policy::default());
    let catalog = Arc::new(Catalog {
        stale: true,
        ..(*fresh).clone()
    });
    for (sql, reason) in [
        ("SELECT calm()", Reason::VolatileFunction),
        ("SELECT upper('a')", Reason::Read),
        ("SELECT * FROM t", Reason::Read),
        ("SELECT * FROM v", Reason::VolatileFunction),
        ("SELECT * FROM missing", Reason::VolatileFunction),
        ("SELECT * FROM far", Reason::PrimaryOnly),
        ("SELECT * FROM pg_class", Reason::Read),
    ] {
        assert_eq!(verdict(&catalog, "public", sql).reason, reason, "{sql}");
    }
}

#[test]
fn more_names_than_are_kept_are_not_vouched_for() {
    let catalog = objects(source(), Policy::default());
    let tables = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("t{number}")).collect();
        format!("SELECT 1 FROM {}", names.join(", "))
    };
    assert_eq!(
        verdict(&catalog, "public", &tables(256)).reason,
        Reason::Read
    );
    assert_eq!(
        verdict(&catalog, "public", &tables(257)).reason,
        Reason::VolatileFunction
    );
}

#[test]
fn a_plan_remembers_the_lens_and_not_its_last_verdict() {
    let catalog = objects(source(), Policy::default());
    let mut table = PlanTable::new(4);
    let plan = table.get(b"SELECT calm()");
    let lenses = ["public", "app, public", "app", "public"].map(|schemas| {
        let expected = verdict(&catalog, schemas, "SELECT calm()");
        (
            Lens::new(Some(Arc::clone(&catalog)), path(schemas)),
            expected,
        )
    });
    for _ in 0..3 {
        assert_eq!(
            plan.verdict(&Lens::blind()),
            is(Reason::VolatileFunction, true)
        );
        for (lens, expected) in &lenses {
            assert_eq!(plan.verdict(lens), *expected);
        }
    }
    // Another snapshot is another lens, also where the first is gone and its memory may be used again.
    drop(lenses);
    drop(catalog);
    for round in 0..50 {
        let mut source = source();
        for function in &mut source.functions {
            function.volatile = round % 2 == 0;
        }
        let catalog = objects(source, Policy::default());
        let lens = Lens::new(Some(catalog), path("public"));
        let expected = if round % 2 == 0 {
            Reason::VolatileFunction
        } else {
            Reason::Read
        };
        assert_eq!(plan.verdict(&lens).reason, expected, "{round}");
    }
}

#[test]
fn a_remembered_snapshot_is_not_kept_alive() {
    let catalog = objects(source(), Policy::default());
    let objects = Arc::downgrade(&catalog.objects);
    let mut table = PlanTable::new(4);
    let plan = table.get(b"SELECT calm()");
    plan.verdict(&Lens::new(Some(catalog), path("public")));
    assert!(objects.upgrade().is_none());
}

#[test]
fn a_search_path_is_read_as_the_server_reads_it() {
    let read = |text: &str| {
        SearchPath::parse(text, "me")
            .map(|path| path.schemas().map(str::to_owned).collect::<Vec<_>>())
    };
    let (long, clipped) = ("n".repeat(70), "n".repeat(63));
    for (text, schemas) in [
        ("", &["pg_catalog"][..]),
        (" App , public ", &["pg_catalog", "app", "public"]),
        ("\"$user\", public", &["pg_catalog", "me", "public"]),
        ("$user,public", &["pg_catalog", "me", "public"]),
        ("a,pg_catalog , b", &["a", "pg_catalog", "b"]),
        ("\"A \"\"b\"\", c\"", &["pg_catalog", "A \"b\", c"]),
        ("pg_temp, a", &["pg_catalog", "a"]),
        ("\"\"", &["pg_catalog"]),
        (&long, &["pg_catalog", &clipped]),
    ] {
        assert_eq!(
            read(text).as_deref(),
            Some(&schemas.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]),
            "{text}"
        );
    }
    for text in [",", "a,", ",a", "a b", "\"a", "a,,b"] {
        assert_eq!(read(text), None, "{text}");
    }
    assert_eq!(
        SearchPath::from_list(["$user", "x"], "me"),
        SearchPath::parse("me, x", "other").unwrap()
    );
}

"""psycopg 3 (libpq): everything an application does with it, as a deterministic transcript.

usage: psycopg3.py URL TABLE_PREFIX

One line per step on stdout, nothing that depends on time, process ids or OIDs: a run on a direct
connection and a run through the proxy must print the same lines. Steps that bind a session to one
server connection (temporary tables, LISTEN, SET, ...) come last, so that all before them may move.
"""

import datetime
import decimal
import hashlib
import ipaddress
import sys
import threading
import uuid

import psycopg
from psycopg import pq, sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

URL, PREFIX = sys.argv[1], sys.argv[2]
TABLE = sql.Identifier(f"{PREFIX}_items")
COPIED = sql.Identifier(f"{PREFIX}_copied")


def out(step, *values):
    print(f"{step}: " + " | ".join(str(value) for value in values), flush=True)


def digest(chunks):
    hashed = hashlib.sha256()
    for chunk in chunks:
        hashed.update(chunk if isinstance(chunk, bytes) else repr(chunk).encode())
    return hashed.hexdigest()[:16]


def failure(error):
    diag = error.diag
    fields = (
        type(error).__name__,
        error.sqlstate,
        diag.severity,
        diag.message_primary,
        diag.message_detail,
        diag.message_hint,
        diag.statement_position,
        diag.constraint_name,
        diag.table_name,
        diag.context,
    )
    return " / ".join(str(field) for field in fields)


def expect_error(step, action):
    try:
        result = action()
    except psycopg.Error as error:
        out(step, failure(error))
    else:
        out(step, "UNEXPECTED SUCCESS", result)


def q(text):
    """Puts the table names into a statement."""
    return sql.SQL(text).format(t=TABLE, c=COPIED)


def startup(conn):
    for name in (
        "server_version",
        "server_encoding",
        "client_encoding",
        "is_superuser",
        "session_authorization",
        "DateStyle",
        "IntervalStyle",
        "TimeZone",
        "integer_datetimes",
        "standard_conforming_strings",
        "in_hot_standby",
        "default_transaction_read_only",
        "application_name",
    ):
        out("parameter", name, conn.info.parameter_status(name))
    out("protocol", conn.pgconn.protocol_version, conn.info.transaction_status.name)


def simple_protocol(conn):
    with psycopg.ClientCursor(conn) as cur:
        cur.execute("SELECT 1, 'two', NULL, 3.50")
        out("simple row", cur.fetchone(), cur.statusmessage)
        cur.execute("SELECT 1; SELECT 2, 3; SELECT 'x' WHERE false")
        while True:
            out("multi-statement", cur.fetchall(), cur.statusmessage)
            if not cur.nextset():
                break
        cur.execute(q("DROP TABLE IF EXISTS {t}, {c}"))
        cur.execute(
            q("CREATE TABLE {t} (id int PRIMARY KEY, name text NOT NULL, n numeric, tags text[], at timestamptz)")
        )
        out("create", cur.statusmessage)
        cur.execute(q("INSERT INTO {t} (id, name) VALUES (%s, %s), (%s, %s)"), (1, "it's", 2, "back\\slash"))
        out("insert", cur.statusmessage, cur.rowcount)
        cur.execute(q("INSERT INTO {t} (id, name) VALUES (3, 'c'); SELECT count(*) FROM {t}; UPDATE {t} SET n = id"))
        while True:
            out("write and read in one", cur.description and cur.fetchall(), cur.statusmessage)
            if not cur.nextset():
                break
        expect_error(
            "multi-statement error",
            lambda: cur.execute(q("INSERT INTO {t} (id, name) VALUES (4, 'gone'); SELECT 1/0; SELECT 5")),
        )
        cur.execute(q("SELECT id, name, n FROM {t} ORDER BY id"))
        out("implicit transaction undone", cur.fetchall())
        cur.execute("")
        out("empty query", cur.description, pq.ExecStatus(cur.pgresult.status).name)


def parameters(conn):
    values = [
        ("int2", "%s::int2", 32767),
        ("int8", "%s::int8", -(2**63)),
        ("float8", "%s::float8", 1.5e300),
        ("numeric", "%s::numeric", decimal.Decimal("123456789012345678901234567890.123456789")),
        ("bool", "%s::bool", True),
        ("text", "%s::text", "h\u00e9llo \U0001f418 \n\t"),
        ("bytea", "%s::bytea", bytes(range(256))),
        ("date", "%s::date", datetime.date(2024, 2, 29)),
        ("timestamp", "%s::timestamp", datetime.datetime(2024, 2, 29, 12, 34, 56, 789012)),
        ("interval", "%s::interval", datetime.timedelta(days=3, seconds=7)),
        ("uuid", "%s::uuid", uuid.UUID(int=0x1234567890ABCDEF)),
        ("inet", "%s::inet", ipaddress.ip_address("2001:db8::1")),
        ("jsonb", "%s::jsonb", Jsonb({"a": [1, 2, {"b": None}]})),
        ("array", "%s::int[]", [1, 2, None, 4]),
        ("text array", "%s::text[]", ["a", "b,c", '"', None]),
        ("null", "%s::text", None),
    ]
    for binary in (False, True):
        cur = conn.cursor(binary=binary)
        for name, expression, value in values:
            cur.execute(f"SELECT {expression}", (value,))
            column = cur.description[0]
            out(f"parameter {name}", "binary" if binary else "text", repr(cur.fetchone()[0]), column.type_code, column.internal_size)
    cur = conn.cursor(row_factory=dict_row)
    cur.execute(q("SELECT * FROM {t} WHERE id = %(id)s"), {"id": 1})
    out("named parameters", cur.fetchone())
    cur.execute("SELECT length(%s::text), md5(%s::text)", ("x" * 1_000_000, "y" * 1_000_000))
    out("large parameters", cur.fetchone())
    cur.execute("SELECT repeat('abcdefghij', 300000) AS big")
    out("large value", digest([cur.fetchone()["big"]]))
    many = ", ".join("%s" for _ in range(3000))
    cur.execute(f"SELECT count(*) AS n FROM (SELECT unnest(ARRAY[{many}]::int[])) s", list(range(3000)))
    out("3000 parameters", cur.fetchone())


def prepared(conn):
    cur = conn.cursor()
    total = 0
    for i in range(40):
        cur.execute("SELECT %s::int * 2, %s::text", (i, str(i)), prepare=True)
        total += cur.fetchone()[0]
    out("prepared", total)
    for i in range(12):  # psycopg prepares by itself at the fifth run
        cur.execute(q("SELECT name FROM {t} WHERE id = %s"), (1 + i % 3,))
        out("auto-prepared", i, cur.fetchone())
    for i in range(150):  # more than its cache of 100: the oldest are deallocated
        cur.execute(sql.SQL("SELECT %s::int + {n}").format(n=sql.Literal(i)), (i,), prepare=True)
        total += cur.fetchone()[0]
    out("prepared statements over the cache", total)
    with conn.transaction():
        for i in range(3):
            cur.execute(q("UPDATE {t} SET n = n + %s WHERE id = %s"), (i, 1), prepare=True)
        cur.execute(q("SELECT n FROM {t} WHERE id = %s"), (1,), prepare=True)
        out("prepared in a transaction", cur.fetchone())
    expect_error("prepared error", lambda: cur.execute("SELECT 10 / %s::int", (0,), prepare=True))
    out("prepared after its error", cur.execute("SELECT 10 / %s::int", (5,), prepare=True).fetchone())
    conn.execute(q("ALTER TABLE {t} ADD COLUMN extra int DEFAULT 7"))
    for i in range(7):
        cur.execute(q("SELECT * FROM {t} WHERE id = %s"), (2,))
    out("star before", [c.name for c in cur.description])
    conn.execute(q("ALTER TABLE {t} DROP COLUMN extra"))
    # A server that holds the plan answers 0A000 once; one that never saw the statement answers the rows.
    try:
        cur.execute(q("SELECT * FROM {t} WHERE id = %s"), (2,))
        changed = "extra" not in [c.name for c in cur.description]
    except psycopg.errors.FeatureNotSupported as error:
        changed = error.diag.message_primary == "cached plan must not change result type"
    out("star after", changed)
    conn.execute("DEALLOCATE ALL")
    conn.prepare_threshold = None
    cur.execute(q("SELECT * FROM {t} WHERE id = %s"), (2,))
    out("star at the end", [c.name for c in cur.description], cur.fetchone())
    conn.prepare_threshold = 5


def batches(conn):
    cur = conn.cursor()
    cur.executemany(q("INSERT INTO {t} (id, name) VALUES (%s, %s)"), [(i, f"name {i}") for i in range(100, 600)])
    out("executemany", cur.rowcount)
    cur.executemany(
        q("INSERT INTO {t} (id, name) VALUES (%s, %s) RETURNING id"), [(i, "r") for i in range(600, 605)], returning=True
    )
    returned = []
    while True:
        returned.append(cur.fetchone()[0])
        if not cur.nextset():
            break
    out("executemany returning", returned)
    expect_error(
        "executemany error",
        lambda: cur.executemany(q("INSERT INTO {t} (id, name) VALUES (%s, %s)"), [(700, "a"), (100, "dup"), (701, "b")]),
    )
    out("after executemany error", cur.execute(q("SELECT count(*), sum(id) FROM {t}")).fetchone())


def pipelines(conn):
    with conn.pipeline():
        cursors = [conn.execute("SELECT %s::int, repeat('x', %s)", (i, i % 50)) for i in range(300)]
        rows = [cursor.fetchone() for cursor in cursors]
    out("pipeline", len(rows), digest(rows))
    with conn.pipeline() as pipeline:
        first = conn.execute(q("INSERT INTO {t} (id, name) VALUES (800, 'p') RETURNING id"))
        second = conn.execute(q("SELECT count(*) FROM {t} WHERE id = 800"))
        pipeline.sync()
        third = conn.execute(q("UPDATE {t} SET name = 'q' WHERE id = 800 RETURNING name"))
        out("pipeline writes and reads", first.fetchone(), second.fetchone(), third.fetchone())

    def fail():
        with conn.pipeline() as pipeline:
            conn.execute(q("INSERT INTO {t} (id, name) VALUES (801, 'undone')"))
            conn.execute("SELECT 1 / 0")
            conn.execute(q("INSERT INTO {t} (id, name) VALUES (802, 'skipped')"))
            pipeline.sync()

    expect_error("pipeline error", fail)
    out("after pipeline error", conn.execute(q("SELECT id FROM {t} WHERE id > 800 ORDER BY id")).fetchall())
    out("transaction status", conn.info.transaction_status.name)

    with conn.pipeline():
        with conn.transaction():
            conn.execute(q("UPDATE {t} SET n = 1 WHERE id = 2"))
            cursor = conn.execute(q("SELECT n FROM {t} WHERE id = 2"))
        out("transaction in a pipeline", cursor.fetchone())
    low_level_pipeline(conn.pgconn)


def low_level_pipeline(pgconn):
    """Several batches with errors, sent whole before anything is read."""
    pgconn.enter_pipeline_mode()
    pgconn.nonblocking = 0

    def send(text, *params):
        pgconn.send_query_params(text.encode(), [p.encode() for p in params] or None)

    table = f'"{PREFIX}_items"'
    send("SELECT 1")
    send("SELECT 1 / $1::int", "0")
    send("SELECT 2")
    pgconn.pipeline_sync()
    send("SELECT 3")
    pgconn.pipeline_sync()
    pgconn.send_prepare(b"low", f"SELECT name FROM {table} WHERE id = $1".encode())
    pgconn.send_query_prepared(b"low", [b"1"])
    pgconn.send_describe_prepared(b"low")
    pgconn.send_query_prepared(b"low", [b"not a number"])
    pgconn.send_query_prepared(b"low", [b"2"])
    pgconn.pipeline_sync()
    pgconn.send_query_prepared(b"low", [b"3"])
    send("SELEC")
    pgconn.pipeline_sync()
    pgconn.pipeline_sync()
    send(f"UPDATE {table} SET n = 9 WHERE id = 3")
    send(f"SELECT n FROM {table} WHERE id = $1::int", "3")
    pgconn.send_flush_request()
    pgconn.pipeline_sync()
    syncs = 0
    while syncs < 6:
        result = pgconn.get_result()
        if result is None:
            continue
        status = pq.ExecStatus(result.status)
        state = result.error_field(pq.DiagnosticField.SQLSTATE)
        cells = [[result.get_value(r, c) for c in range(result.nfields)] for r in range(result.ntuples)]
        out("raw pipeline", status.name, cells, state, result.nparams, result.command_status)
        if status == pq.ExecStatus.PIPELINE_SYNC:
            syncs += 1
    pgconn.exit_pipeline_mode()
    out("raw pipeline over", pq.TransactionStatus(pgconn.transaction_status).name)
    pgconn.exec_(b"DEALLOCATE low")


def copies(conn):
    cur = conn.cursor()
    cur.execute(q("CREATE TABLE {c} (id int, name text, amount numeric(12,2))"))
    with cur.copy(q("COPY {c} FROM STDIN")) as copy:
        for i in range(20000):
            copy.write_row((i, f"row\t{i}\\" if i % 7 else None, decimal.Decimal(i) / 4))
    out("copy in rows", cur.rowcount, cur.statusmessage)
    with cur.copy(q("COPY {c} FROM STDIN (FORMAT csv)")) as copy:
        copy.write("20000,\"a,b\",1.00\n20001,,2.00\n")
        copy.write("20002,last,3.00\n")
    out("copy in csv", cur.rowcount)
    with cur.copy(q("COPY {c} FROM STDIN (FORMAT binary)")) as copy:
        copy.set_types(["int4", "text", "numeric"])
        for i in range(1000):
            copy.write_row((30000 + i, f"binary {i}", decimal.Decimal(i)))
    out("copy in binary", cur.rowcount)
    out("copied", cur.execute(q("SELECT count(*), sum(id), sum(amount), count(name), max(name) FROM {c}")).fetchone())
    for options in ("", "(FORMAT csv, HEADER)", "(FORMAT binary)"):
        query = sql.SQL("COPY (SELECT * FROM {c} ORDER BY id) TO STDOUT " + options).format(c=COPIED)
        with cur.copy(query) as copy:
            chunks = [bytes(chunk) for chunk in copy]
        out("copy out", options, len(chunks), digest(chunks), cur.rowcount)
    with cur.copy(q("COPY (SELECT id, name FROM {c} WHERE id < 5 ORDER BY id) TO STDOUT")) as copy:
        out("copy out rows", list(copy.rows()))
    with cur.copy(q("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 50000)) TO STDOUT")) as copy:
        out("copy out large", sum(len(chunk) for chunk in copy))

    def bad_row():
        with cur.copy(q("COPY {c} FROM STDIN")) as copy:
            copy.write("1\tok\t1.00\nnot a number\tx\t1\n")
            for _ in range(1000):
                copy.write("2\tmore\t1.00\n")

    expect_error("copy in error", bad_row)

    def given_up():
        with cur.copy(q("COPY {c} FROM STDIN")) as copy:
            copy.write("1\tok\t1.00\n")
            raise KeyError("the application changed its mind")

    try:
        given_up()
    except KeyError as error:
        out("copy in given up", error)

    def missing():
        with cur.copy("COPY nowhere_at_all FROM STDIN") as copy:
            copy.write("1\n")

    expect_error("copy to a missing table", missing)
    out("after copies", cur.execute(q("SELECT count(*) FROM {c}")).fetchone(), conn.info.transaction_status.name)
    with conn.transaction(force_rollback=True):
        with cur.copy(q("COPY {c} FROM STDIN")) as copy:
            copy.write("1\tok\t1.00\n")
        out("copy in a transaction", cur.execute(q("SELECT count(*) FROM {c}")).fetchone())
    out("copy rolled back", cur.execute(q("SELECT count(*) FROM {c}")).fetchone())


def large(conn):
    cur = conn.cursor()
    cur.execute("SELECT g, md5(g::text), repeat('z', g %% 100) FROM generate_series(1, %s) g", (200_000,))
    rows = cur.fetchall()
    out("large result", len(rows), digest(rows))
    streamed = hashlib.sha256()
    count = 0
    for row in cur.stream("SELECT g, md5(g::text) FROM generate_series(1, %s) g", (50_000,)):
        streamed.update(repr(row).encode())
        count += 1
    out("single-row mode", count, streamed.hexdigest()[:16])
    cur.execute(q("SELECT * FROM {c} ORDER BY id"), binary=True)
    out("large binary", digest(cur.fetchall()))
    cur.execute("SELECT " + ", ".join(f"{i} AS c{i}" for i in range(1600)))
    out("wide row", digest(cur.fetchone()), len(cur.description))

    def breaks():
        cur.execute("SELECT 100000 / (100000 - g) FROM generate_series(1, 200000) g")

    expect_error("error in mid-result", breaks)


def transactions(conn):
    with conn.transaction():
        conn.execute(q("UPDATE {t} SET name = 'one' WHERE id = 1"))
        try:
            with conn.transaction("inner"):
                conn.execute(q("UPDATE {t} SET name = 'two' WHERE id = 1"))
                conn.execute("SELECT 1 / 0")
        except psycopg.errors.DivisionByZero as error:
            out("savepoint", error.sqlstate, conn.info.transaction_status.name)
        with conn.transaction():
            conn.execute(q("UPDATE {t} SET n = 42 WHERE id = 1"))
    out("after savepoints", conn.execute(q("SELECT name, n FROM {t} WHERE id = 1")).fetchone())

    def rolled_back():
        with conn.transaction():
            conn.execute(q("DELETE FROM {t}"))
            out("inside", conn.execute(q("SELECT count(*) FROM {t}")).fetchone())
            raise psycopg.Rollback

    rolled_back()
    out("after rollback", conn.execute(q("SELECT count(*) FROM {t}")).fetchone())
    conn.autocommit = False
    conn.execute(q("INSERT INTO {t} (id, name) VALUES (900, 'x')"))
    out("in transaction", conn.info.transaction_status.name)
    expect_error("error in transaction", lambda: conn.execute(q("INSERT INTO {t} (id, name) VALUES (900, 'x')")))
    out("failed transaction", conn.info.transaction_status.name)
    expect_error("failed transaction refuses", lambda: conn.execute("SELECT 1"))
    conn.rollback()
    out("after failure", conn.execute(q("SELECT count(*) FROM {t} WHERE id = 900")).fetchone())
    conn.commit()
    for level in (psycopg.IsolationLevel.SERIALIZABLE, psycopg.IsolationLevel.REPEATABLE_READ):
        conn.isolation_level = level
        out("isolation", conn.execute("SHOW transaction_isolation").fetchone())
        conn.execute(q("UPDATE {t} SET n = n + 1 WHERE id = 1"))
        conn.commit()
    conn.isolation_level = None
    conn.read_only = True
    out("read only", conn.execute(q("SELECT count(*) FROM {t}")).fetchone())
    expect_error("write in read only", lambda: conn.execute(q("DELETE FROM {t}")))
    conn.rollback()
    conn.read_only = None
    with conn.cursor("scrolling", scrollable=True) as cur:
        cur.execute(q("SELECT id FROM {t} ORDER BY id"))
        cur.itersize = 100
        out("server-side cursor", cur.fetchone(), cur.fetchmany(3), len(list(cur)))
        cur.scroll(5, mode="absolute")
        out("scrolled", cur.fetchone())
    conn.commit()
    conn.autocommit = True


def notices(conn):
    seen = []
    conn.add_notice_handler(lambda diag: seen.append((diag.severity, diag.sqlstate, diag.message_primary, diag.message_hint)))
    conn.execute("DO $$ BEGIN RAISE NOTICE 'first %', 1; RAISE WARNING 'second' USING HINT = 'a hint', ERRCODE = '01ABC'; END $$")
    conn.execute(q("DROP TABLE IF EXISTS {t}_missing".replace("{t}_missing", f"{PREFIX}_missing")))
    conn.execute("BEGIN")
    conn.execute("BEGIN")
    conn.execute("ROLLBACK")
    conn.execute("ROLLBACK")
    for notice in seen:
        out("notice", notice)


def errors(conn):
    expect_error("syntax error", lambda: conn.execute("SELECT * FORM nowhere"))
    expect_error("undefined table", lambda: conn.execute("SELECT * FROM nowhere_at_all"))
    expect_error("undefined column", lambda: conn.execute(q("SELECT nothing FROM {t}")))
    expect_error("unique violation", lambda: conn.execute(q("INSERT INTO {t} (id, name) VALUES (%s, 'x')"), (1,)))
    expect_error("not null violation", lambda: conn.execute(q("INSERT INTO {t} (id) VALUES (9999)")))
    expect_error("bad parameter", lambda: conn.execute("SELECT %s::int", ("x",)))
    expect_error("raised", lambda: conn.execute("DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'ZZ123', DETAIL = 'd', HINT = 'h'; END $$"))
    expect_error("ambiguous parameter", lambda: conn.execute("SELECT $1::text || $2::int"))
    expect_error("two statements with parameters", lambda: conn.execute("SELECT %s::int; SELECT 2", (1,)))
    out("after errors", conn.execute("SELECT 'fine'").fetchone())


def cancelled(conn, step, action):
    """Cancels until the statement ends: a cancel that comes too early hits nothing."""
    ended = threading.Event()

    def canceller():
        while not ended.wait(0.1):
            conn.cancel()

    thread = threading.Thread(target=canceller)
    thread.start()
    try:
        action()
        outcome = "UNEXPECTED SUCCESS"
    except psycopg.Error as error:
        outcome = failure(error)
    finally:
        ended.set()
        thread.join()
    out(step, outcome)


def cancels(conn):
    cancelled(conn, "cancel", lambda: conn.execute("SELECT pg_sleep(120)"))
    out("after cancel", conn.execute("SELECT 'usable'").fetchone(), conn.info.transaction_status.name)

    def in_transaction():
        with conn.transaction():
            conn.execute(q("UPDATE {t} SET n = 0 WHERE id = 1"))
            conn.execute("SELECT pg_sleep(120)")

    cancelled(conn, "cancel in a transaction", in_transaction)
    out("after cancel in a transaction", conn.execute(q("SELECT n FROM {t} WHERE id = 1")).fetchone())
    cancelled(conn, "cancel a write", lambda: conn.execute("DO $$ BEGIN PERFORM pg_sleep(120); END $$"))
    cancelled(
        conn,
        "cancel a large result",
        lambda: conn.execute("SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b"),
    )
    with conn.transaction():
        conn.execute("SET LOCAL statement_timeout = '50ms'")
        expect_error("statement timeout", lambda: conn.execute("SELECT pg_sleep(120)"))
        raise psycopg.Rollback
    conn.cancel()  # nothing runs: nothing happens
    out("cancel of nothing", conn.execute("SELECT 'usable'").fetchone())


def session_state(conn):
    conn.execute("SET search_path = pg_catalog")
    out("set", conn.execute("SHOW search_path").fetchone())
    conn.execute("RESET search_path")
    conn.execute("SET application_name = 'renamed'")
    out("reported set", conn.info.parameter_status("application_name"), conn.execute("SHOW application_name").fetchone())
    conn.execute("SET timezone = 'Asia/Tokyo'")
    out("timezone", conn.execute("SELECT '2024-01-01 00:00:00+00'::timestamptz::text").fetchone(), conn.info.parameter_status("TimeZone"))
    conn.execute("SELECT set_config('my.setting', 'here', false)")
    out("custom setting", conn.execute("SELECT current_setting('my.setting')").fetchone())
    conn.execute("CREATE TEMP TABLE temporary (x int)")
    conn.execute("INSERT INTO temporary SELECT generate_series(1, 10)")
    out("temporary table", conn.execute("SELECT sum(x) FROM temporary").fetchone())
    conn.execute("PREPARE by_hand (int) AS SELECT $1 + 1")
    out("prepare", conn.execute("EXECUTE by_hand(41)").fetchone())
    conn.execute("DEALLOCATE by_hand")
    expect_error("deallocated", lambda: conn.execute("EXECUTE by_hand(41)"))
    out("advisory lock", conn.execute("SELECT pg_try_advisory_lock(42)").fetchone(), conn.execute("SELECT pg_advisory_unlock(42)").fetchone())
    conn.execute(f"LISTEN {PREFIX}_channel")
    conn.execute(f"NOTIFY {PREFIX}_channel, 'payload'")
    for notification in conn.notifies(timeout=10, stop_after=1):
        out("notification", notification.channel, notification.payload, notification.pid != 0)
    conn.execute("UNLISTEN *")
    with conn.cursor("held", withhold=True) as cur:
        cur.execute("SELECT generate_series(1, 10)")
        out("held cursor", cur.fetchmany(3), cur.fetchall()[-1])
    conn.execute("DISCARD ALL")
    expect_error("discarded", lambda: conn.execute("SELECT * FROM temporary"))


def main():
    with psycopg.connect(URL, autocommit=True) as conn:
        startup(conn)
        for step in (
            simple_protocol,
            parameters,
            prepared,
            batches,
            pipelines,
            copies,
            large,
            transactions,
            notices,
            errors,
            cancels,
        ):
            step(conn)
        session_state(conn)
        conn.execute(q("DROP TABLE {t}, {c}"))
    out("closed", conn.closed)
    print("done")


main()

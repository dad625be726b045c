"""asyncpg (its own protocol code, binary format): a deterministic transcript.

usage: asyncpg_script.py URL TABLE_PREFIX

asyncpg prepares everything under a name, describes it, binds and executes with limits, and cancels
by closing over a timeout: other corners of the protocol than libpq's. Steps that bind a session to
one server connection come last.
"""

import asyncio
import datetime
import decimal
import hashlib
import io
import sys
import uuid

import asyncpg

URL, PREFIX = sys.argv[1], sys.argv[2]
TABLE, COPIED = f"{PREFIX}_items", f"{PREFIX}_copied"


def out(step, *values):
    print(f"{step}: " + " | ".join(str(value) for value in values), flush=True)


def digest(value):
    return hashlib.sha256(value if isinstance(value, bytes) else repr(value).encode()).hexdigest()[:16]


def failure(error):
    fields = ("sqlstate", "severity", "message", "detail", "hint", "position", "constraint_name", "table_name", "context")
    return " / ".join([type(error).__name__] + [str(getattr(error, field, None)) for field in fields])


async def expect_error(step, awaitable):
    try:
        result = await awaitable
    except asyncpg.PostgresError as error:
        out(step, failure(error))
    else:
        out(step, "UNEXPECTED SUCCESS", result)


async def startup(conn):
    settings = conn.get_settings()
    for name in ("server_version", "server_encoding", "client_encoding", "is_superuser", "TimeZone", "in_hot_standby"):
        out("parameter", name, getattr(settings, name))
    out("version", conn.get_server_version())


async def simple_protocol(conn):
    out("drop", await conn.execute(f"DROP TABLE IF EXISTS {TABLE}, {COPIED}"))
    out(
        "create",
        await conn.execute(
            f"CREATE TABLE {TABLE} (id int PRIMARY KEY, name text NOT NULL, n numeric, tags text[], at timestamptz);"
            f"CREATE TABLE {COPIED} (id int, name text, amount numeric(12,2), at timestamp)"
        ),
    )
    out("script", await conn.execute(f"INSERT INTO {TABLE} (id, name) VALUES (1, 'a'), (2, 'b'); SELECT 1; UPDATE {TABLE} SET n = id"))
    await expect_error("script error", conn.execute(f"INSERT INTO {TABLE} (id, name) VALUES (3, 'undone'); SELECT 1/0; SELECT 2"))
    out("script undone", await conn.fetchval(f"SELECT count(*) FROM {TABLE}"))


async def parameters(conn):
    values = [
        ("int2", -32768),
        ("int4", 2**31 - 1),
        ("int8", -(2**63)),
        ("float4", 1.5),
        ("float8", 1e-300),
        ("numeric", decimal.Decimal("-98765432109876543210.0123456789")),
        ("bool", False),
        ("text", "h\u00e9llo \U0001f418 \n\t"),
        ("bytea", bytes(range(256))),
        ("date", datetime.date(2024, 2, 29)),
        ("timestamp", datetime.datetime(2024, 2, 29, 12, 34, 56, 789012)),
        ("timestamptz", datetime.datetime(2024, 2, 29, 12, 34, tzinfo=datetime.timezone.utc)),
        ("interval", datetime.timedelta(days=3, seconds=7)),
        ("uuid", uuid.UUID(int=0x1234567890ABCDEF)),
        ("jsonb", '{"a": [1, 2, {"b": null}]}'),
        ("int4[]", [1, 2, None, 4]),
        ("text[]", ["a", "b,c", '"', None]),
        ("int4range", asyncpg.Range(1, 10)),
        ("text", None),
    ]
    for name, value in values:
        out("parameter", name, repr(await conn.fetchval(f"SELECT $1::{name}", value)))
    out("large parameter", await conn.fetchval("SELECT md5($1::text)", "y" * 3_000_000))
    out("large value", digest(await conn.fetchval("SELECT repeat('abcdefghij', 500000)")))
    out("many parameters", await conn.fetchval("SELECT " + "+".join(f"${i + 1}::int8" for i in range(2000)), *range(2000)))
    row = await conn.fetchrow(f"SELECT *, id AS id2 FROM {TABLE} WHERE id = $1", 1)
    out("row", dict(row))
    out("no row", await conn.fetchrow(f"SELECT * FROM {TABLE} WHERE id = $1", -1))


async def prepared(conn):
    by_id = await conn.prepare(f"SELECT name, n FROM {TABLE} WHERE id = $1")
    out("described", [p.name for p in by_id.get_parameters()], [(a.name, a.type.name) for a in by_id.get_attributes()])
    for i in range(5):
        out("prepared", await by_id.fetch(1 + i % 2), by_id.get_statusmsg())
    update = await conn.prepare(f"UPDATE {TABLE} SET n = n + $1 WHERE id = $2 RETURNING n")
    for i in range(5):
        out("write and read back", await update.fetchval(decimal.Decimal(i), 1), await by_id.fetchrow(1))
    for i in range(150):  # over its cache of 100 statements
        if await conn.fetchval(f"SELECT $1::int + {i}", i) != 2 * i:
            out("cache", "WRONG", i)
    out("after 150 statements", await by_id.fetchrow(2))
    await expect_error("prepared error", conn.fetch("SELECT 10 / $1::int", 0))
    out("prepared after its error", await conn.fetchval("SELECT 10 / $1::int", 5))
    await expect_error("prepare error", conn.prepare("SELECT * FROM nowhere_at_all"))
    await expect_error("prepare syntax error", conn.prepare("SELECT * FORM nowhere"))
    out("after prepare errors", await conn.fetchval("SELECT 'fine'"))
    named = await conn.prepare("SELECT $1::int + 1", name=f"{PREFIX}_named")
    out("named", named.get_name(), await named.fetchval(1))
    out("schema change", await conn.execute(f"ALTER TABLE {TABLE} ADD COLUMN extra int DEFAULT 7"))
    out("after schema change", dict(await conn.fetchrow(f"SELECT * FROM {TABLE} WHERE id = 1 AND 1 = 1")))


async def batches(conn):
    insert = f"INSERT INTO {TABLE} (id, name) VALUES ($1, $2)"
    out("executemany", await conn.executemany(insert, [(i, f"name {i}") for i in range(100, 3100)]))
    out("counted", await conn.fetchrow(f"SELECT count(*), sum(id) FROM {TABLE}"))
    await expect_error("executemany error", conn.executemany(insert, [(4000, "a"), (100, "dup"), (4001, "b")]))
    out("undone", await conn.fetchval(f"SELECT count(*) FROM {TABLE} WHERE id >= 4000"))
    out("fetchmany", await conn.fetchmany(f"INSERT INTO {TABLE} (id, name) VALUES ($1, $2) RETURNING id", [(5000, "x"), (5001, "y")]))


async def copies(conn):
    records = [(i, None if i % 7 == 0 else f"row\t{i}\\", decimal.Decimal(i) / 4, datetime.datetime(2024, 1, 1)) for i in range(20000)]
    out("copy records", await conn.copy_records_to_table(COPIED, records=records))
    out("copy text in", await conn.copy_to_table(COPIED, source=io.BytesIO(b"30000\tx\t1.00\t2024-01-01\n" * 5000)))
    out("copy csv in", await conn.copy_to_table(COPIED, source=io.BytesIO(b'1,"a,b",2.00,\n'), format="csv"))
    out("copied", await conn.fetchrow(f"SELECT count(*), sum(id), sum(amount), max(name) FROM {COPIED}"))
    for options in ({}, {"format": "csv", "header": True}, {"format": "binary"}):
        sink = io.BytesIO()
        status = await conn.copy_from_query(f"SELECT * FROM {COPIED} WHERE id > $1 ORDER BY id", 10, output=sink, **options)
        out("copy out", options, status, len(sink.getvalue()), digest(sink.getvalue()))
    sink = io.BytesIO()
    out("copy table out", await conn.copy_from_table(COPIED, output=sink, columns=["id"]), digest(b"".join(sorted(sink.getvalue().splitlines()))))
    await expect_error("copy in error", conn.copy_to_table(COPIED, source=io.BytesIO(b"x\ty\t1\t\n" * 100000)))

    async def broken_source():
        yield b"1\tok\t1.00\t\n"
        raise KeyError("the source broke")

    try:
        await conn.copy_to_table(COPIED, source=broken_source())
    except KeyError as error:
        out("copy in given up", error)
    await expect_error("copy to a missing table", conn.copy_to_table("nowhere_at_all", source=io.BytesIO(b"1\n")))
    out("after copies", await conn.fetchval(f"SELECT count(*) FROM {COPIED}"))


async def large(conn):
    rows = await conn.fetch("SELECT g, md5(g::text), repeat('z', g % 100) FROM generate_series(1, $1::int) g", 200_000)
    out("large result", len(rows), digest([tuple(row) for row in rows]))
    await expect_error("error in mid-result", conn.fetch("SELECT 100000 / (100000 - g) FROM generate_series(1, 200000) g"))
    wide = await conn.fetchrow("SELECT " + ", ".join(f"{i} AS c{i}" for i in range(1600)))
    out("wide row", len(wide), digest(tuple(wide)))


async def cursors(conn):
    async with conn.transaction():
        seen = []
        async for row in conn.cursor(f"SELECT id FROM {TABLE} WHERE id > $1 ORDER BY id", 1, prefetch=37):
            seen.append(row["id"])
        out("cursor", len(seen), digest(seen))
        cursor = await conn.cursor("SELECT generate_series(1, 1000)")
        out("portal", await cursor.fetchrow(), await cursor.fetch(3), await cursor.forward(10), await cursor.fetchrow())
        other = await conn.cursor("SELECT generate_series(1, 5)")
        out("second portal", await other.fetch(10), await cursor.fetch(2))
        out("between", await conn.fetchval("SELECT 'still here'"))
        out("end of the first", len(await cursor.fetch(5000)))


async def transactions(conn):
    async with conn.transaction():
        await conn.execute(f"UPDATE {TABLE} SET name = 'one' WHERE id = 1")
        try:
            async with conn.transaction():
                await conn.execute(f"UPDATE {TABLE} SET name = 'two' WHERE id = 1")
                await conn.execute("SELECT 1 / 0")
        except asyncpg.DivisionByZeroError as error:
            out("savepoint", error.sqlstate, conn.is_in_transaction())
        out("inside", await conn.fetchval(f"SELECT name FROM {TABLE} WHERE id = 1"))
    out("outside", await conn.fetchval(f"SELECT name FROM {TABLE} WHERE id = 1"), conn.is_in_transaction())
    transaction = conn.transaction(isolation="serializable")
    await transaction.start()
    await conn.execute(f"DELETE FROM {TABLE}")
    out("deleted", await conn.fetchval(f"SELECT count(*) FROM {TABLE}"))
    await expect_error("failed transaction", conn.execute("SELEC"))
    await expect_error("failed transaction refuses", conn.fetch("SELECT 1"))
    await transaction.rollback()
    out("rolled back", await conn.fetchval(f"SELECT count(*) FROM {TABLE}"))
    async with conn.transaction(readonly=True, isolation="repeatable_read"):
        out("read only", await conn.fetchval(f"SELECT count(*) FROM {TABLE}"), await conn.fetchval("SHOW transaction_isolation"))
    async with conn.transaction(readonly=True):
        await expect_error("write in read only", conn.execute(f"DELETE FROM {TABLE}"))


async def notices(conn):
    seen = []
    conn.add_log_listener(lambda _, message: seen.append((message.severity, message.sqlstate, message.message)))
    await conn.execute("DO $$ BEGIN RAISE NOTICE 'first %', 1; RAISE WARNING 'second'; END $$")
    await asyncio.sleep(0)
    for notice in seen:
        out("notice", notice)


async def errors(conn):
    await expect_error("undefined table", conn.fetch("SELECT * FROM nowhere_at_all"))
    await expect_error("unique violation", conn.execute(f"INSERT INTO {TABLE} (id, name) VALUES ($1, 'x')", 1))
    await expect_error("not null violation", conn.execute(f"INSERT INTO {TABLE} (id) VALUES (9999)"))
    await expect_error("bad input", conn.fetch("SELECT $1::text::int", "x"))
    await expect_error("several statements", conn.fetch("SELECT $1::int; SELECT 2", 1))
    await expect_error("raised", conn.execute("DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'ZZ123', HINT = 'h'; END $$"))
    out("after errors", await conn.fetchval("SELECT 'fine'"))


async def cancels(conn):
    async def timed_out(step, awaitable):
        try:
            await awaitable
            out(step, "UNEXPECTED SUCCESS")
        except asyncio.TimeoutError:
            out(step, "timed out")

    await timed_out("timeout", conn.fetch("SELECT pg_sleep(120)", timeout=0.5))
    out("after timeout", await conn.fetchval("SELECT 'usable'"))
    await timed_out("timeout of a write", conn.execute("DO $$ BEGIN PERFORM pg_sleep(120); END $$", timeout=0.5))
    out("after timeout of a write", await conn.fetchval("SELECT 'usable'"))
    task = asyncio.create_task(conn.fetchval("SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b"))
    await asyncio.wait([task], timeout=0.5)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        out("task cancelled", "cancelled")
    out("after task cancelled", await conn.fetchval("SELECT 'usable'"))
    async with conn.transaction():
        await conn.execute(f"UPDATE {TABLE} SET name = 'kept?' WHERE id = 2")
        try:
            async with conn.transaction():
                await conn.execute("SELECT pg_sleep(120)", timeout=0.5)
        except asyncio.TimeoutError:
            out("timeout in a savepoint", await conn.fetchval(f"SELECT name FROM {TABLE} WHERE id = 2"))
    out("committed", await conn.fetchval(f"SELECT name FROM {TABLE} WHERE id = 2"))


async def session_state(conn):
    await conn.execute(f"DROP TYPE IF EXISTS {PREFIX}_mood, {PREFIX}_pair CASCADE")
    await conn.execute(f"CREATE TYPE {PREFIX}_mood AS ENUM ('happy', 'sad'); CREATE TYPE {PREFIX}_pair AS (a int, b {PREFIX}_mood)")
    # Looks the types up in the catalog, with `jit` switched off by set_config meanwhile.
    out("composite", tuple(await conn.fetchval(f"SELECT ROW(1, 'sad')::{PREFIX}_pair")))
    out("enum array", await conn.fetchval(f"SELECT $1::{PREFIX}_mood[]", ["happy", "sad", None]))
    await conn.execute(f"DROP TYPE {PREFIX}_pair; DROP TYPE {PREFIX}_mood")
    await conn.execute("CREATE TEMP TABLE temporary AS SELECT generate_series(1, 10) AS x")
    out("temporary table", await conn.fetchval("SELECT sum(x) FROM temporary"))
    got = asyncio.get_running_loop().create_future()
    await conn.add_listener(f"{PREFIX}_channel", lambda _, pid, channel, payload: got.done() or got.set_result((channel, payload)))
    await conn.execute(f"SELECT pg_notify('{PREFIX}_channel', 'payload')")
    out("notification", await asyncio.wait_for(got, 10))
    out("advisory lock", await conn.fetchval("SELECT pg_try_advisory_lock(43)"), await conn.fetchval("SELECT pg_advisory_unlock(43)"))
    await conn.execute("SET TIME ZONE 'Asia/Tokyo'")
    out("set", await conn.fetchval("SHOW timezone"), await conn.fetchval("SELECT '2024-01-01 00:00+00'::timestamptz::text"))
    await conn.reset()
    out("reset", await conn.fetchval("SHOW timezone"))


async def pooled():
    """Its pool resets each connection at release; many tasks share few of them."""
    async with asyncpg.create_pool(URL, min_size=2, max_size=4) as pool:

        async def one(i):
            async with pool.acquire() as conn:
                return await conn.fetchval("SELECT $1::int * 2", i)

        out("pool", sum(await asyncio.gather(*(one(i) for i in range(200)))))


async def main():
    conn = await asyncpg.connect(URL)
    for step in (startup, simple_protocol, parameters, prepared, batches, copies, large, cursors, transactions, notices, errors, cancels):
        await step(conn)
    await pooled()
    await session_state(conn)
    await conn.execute(f"DROP TABLE {TABLE}, {COPIED}")
    await conn.close()
    out("closed", conn.is_closed())
    print("done")


asyncio.run(main())

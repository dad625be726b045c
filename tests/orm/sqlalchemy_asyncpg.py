"""SQLAlchemy 2 on asyncpg, whose every statement is a named prepared one: the shop with an async engine.

usage: sqlalchemy_asyncpg.py steps|views URL NAME
"""

import asyncio
import datetime
import decimal
import pathlib
import sys

import alembic.command
import alembic.config
import alembic.migration
import sqlalchemy as sa
from sqlalchemy import delete, func, insert, inspect, select, text, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import shop_tables as shop
from shop_tables import Base, Customer, Line, Order, Product, State
from transcript import digest, failure, out, run_steps, run_views

URL = sa.make_url(sys.argv[2]).set(drivername="postgresql+asyncpg")
# What one connection wrote, another may not read at once from a replica: the last connection used is the next.
ENGINE = create_async_engine(URL, pool_use_lifo=True)
AUTOCOMMIT = ENGINE.execution_options(isolation_level="AUTOCOMMIT")
HERE = pathlib.Path(__file__).parent


def new_session(**options):
    return AsyncSession(ENGINE, expire_on_commit=False, **options)


async def expect_error(step, awaitable):
    try:
        result = await awaitable
    except Exception as error:  # noqa: BLE001: whatever it is, it is printed
        out(step, failure(error))
    else:
        out(step, "no error", result)


async def migrations():
    def run(connection, command, revision):
        config = alembic.config.Config()
        config.set_main_option("script_location", str(HERE / "alembic_migrations"))
        config.attributes["connection"] = connection
        getattr(alembic.command, command)(config, revision)
        return alembic.migration.MigrationContext.configure(connection).get_current_revision()

    for command, revision in (("upgrade", "0001"), ("upgrade", "0002"), ("downgrade", "base"), ("upgrade", "head")):
        async with ENGINE.connect() as connection:
            out("migrations", command, await connection.run_sync(run, command, revision))
            await connection.commit()


async def create_all():
    """Tables made from the models, in a schema of their own, with autocommit and within a transaction."""
    async with AUTOCOMMIT.connect() as connection:
        await connection.execute(text("CREATE SCHEMA twice"))
        mapped = await connection.execution_options(schema_translate_map={None: "twice"})
        await mapped.run_sync(Base.metadata.create_all)
        await mapped.run_sync(Base.metadata.create_all)
        out("create_all", await connection.run_sync(lambda plain: sorted(inspect(plain).get_table_names("twice"))))
    async with ENGINE.begin() as connection:
        await connection.execution_options(schema_translate_map={None: "twice"})
        await connection.run_sync(Base.metadata.drop_all)
    async with ENGINE.begin() as connection:
        out("drop_all", await connection.run_sync(lambda plain: inspect(plain).get_table_names("twice")))
        await connection.execute(text("DROP SCHEMA twice"))


async def reflection():
    def look(connection):
        inspector = inspect(connection)
        for table in sorted(inspector.get_table_names()):
            names = [(column["name"], str(column["type"]), column["nullable"], column["default"]) for column in inspector.get_columns(table)]
            out("reflected", table, names, inspector.get_pk_constraint(table)["name"])
            out("its keys", [key["name"] for key in inspector.get_foreign_keys(table)], inspector.get_check_constraints(table))
            out("its indexes", sorted((index["name"], index["unique"]) for index in inspector.get_indexes(table)))
        metadata = sa.MetaData()
        metadata.reflect(connection)
        out("in order", [table.name for table in metadata.sorted_tables])
        out("enums", inspector.get_enums())

    async with ENGINE.connect() as connection:
        await connection.run_sync(look)


async def bulk_writes():
    async with new_session() as session:
        await session.execute(delete(Customer))
        ids = (await session.scalars(insert(Customer).returning(Customer.id, sort_by_parameter_order=True), shop.customers(300))).all()
        out("insertmanyvalues", len(ids), ids == sorted(ids))
        await session.execute(insert(Product), shop.products(50))
        await session.commit()
    async with new_session() as session, session.begin():
        first = await session.scalar(select(func.min(Customer.id)))
        session.add_all(
            Order(
                customer_id=first + number % 40,
                state=list(State)[number % 3],
                placed_at=datetime.datetime(2024, 5, 1, number % 24, tzinfo=datetime.timezone.utc),
                lines=[Line(product_id=1 + (number + step) % 50, quantity=step + 1) for step in range(number % 4)],
            )
            for number in range(120)
        )
    async with ENGINE.begin() as connection:
        statement = text("UPDATE product SET stock = stock + :more WHERE id = :id")
        await connection.execute(statement, [{"id": number, "more": number * 2} for number in range(1, 51)])
        out("executemany", await connection.scalar(select(func.sum(Product.stock))))
    async with new_session() as session:
        await session.execute(update(Customer), [{"id": first + number, "credit": number, "version": 1} for number in range(100)])
        await session.commit()
        out("bulk update by key", await session.scalar(select(func.sum(Customer.credit))))


async def driver(connection):
    return (await connection.get_raw_connection()).driver_connection


async def copies():
    async with ENGINE.connect() as connection:
        raw = await driver(connection)
        records = [(f"copy{number}@example.org", f"Copied {number}") for number in range(2000)]
        # In a transaction of SQLAlchemy's, and by the driver in autocommit.
        await connection.execute(text("SELECT 1"))
        out("copied in", await raw.copy_records_to_table("customer", records=records, columns=["email", "name"]))
        out("counted", await connection.scalar(select(func.count()).where(Customer.email.like("copy%"))))
        await connection.rollback()
        out("rolled back", await connection.scalar(select(func.count()).where(Customer.email.like("copy%"))))
        await connection.rollback()
        out("copied in again", await raw.copy_records_to_table("customer", records=records, columns=["email", "name"]))
        chunks = []

        async def keep(data):
            chunks.append(data)

        out("copied out", await raw.copy_from_query("SELECT email FROM customer WHERE email LIKE $1 ORDER BY id", "copy%", output=keep))
        out("its data", len(b"".join(chunks)), digest([b"".join(chunks)]))
        result = await connection.execute(delete(Customer).where(Customer.email.like("copy%")))
        out("deleted", result.rowcount)
        await connection.commit()
        await expect_error("bad copy", raw.copy_records_to_table("product", records=[("a", "b", decimal.Decimal(1), -5)], columns=["sku", "title", "price", "stock"]))


async def reads_its_writes():
    for number in range(50):
        async with new_session() as session, session.begin():
            session.add(Product(sku=f"ryw-{number}", title="read your writes", price=1))
        async with new_session() as session:
            seen = await session.scalar(select(func.count()).where(Product.sku.like("ryw-%")))
            if seen != number + 1:
                out("stale read in a transaction", number, seen)
    async with AUTOCOMMIT.connect() as connection:
        for number in range(50):
            await connection.execute(update(Product).where(Product.sku == "ryw-0").values(stock=number))
            seen = await connection.scalar(select(Product.stock).where(Product.sku == "ryw-0"))
            if seen != number:
                out("stale read in autocommit", number, seen)
        removed = await connection.execute(delete(Product).where(Product.sku.like("ryw-%")))
        out("read its writes", removed.rowcount, await connection.scalar(select(func.count()).select_from(Product)))


async def savepoints_and_rollbacks():
    async with new_session() as session:
        first = await session.scalar(select(func.min(Product.id)))
        async with session.begin_nested():
            (await session.get(Product, first)).stock = 1000
        try:
            async with session.begin_nested():
                session.add(Product(sku="sku-000", title="taken", price=1))
        except sa.exc.IntegrityError as error:
            out("in a savepoint", failure(error))
        inner = await session.begin_nested()
        await session.execute(update(Product).where(Product.id == first + 1).values(stock=2000))
        innermost = await session.begin_nested()
        await session.execute(update(Product).where(Product.id == first + 2).values(stock=3000))
        await innermost.rollback()
        await inner.commit()
        await session.commit()
        stocks = await session.execute(select(Product.sku, Product.stock).order_by(Product.id).limit(4))
        out("after savepoints", stocks.all())
        await session.execute(update(Product).values(stock=0))
        await session.rollback()
        out("after rollback", await session.scalar(select(func.min(Product.stock))))
    async with new_session() as session:
        count = await session.scalar(select(func.count()).select_from(Order))
        nested = await session.begin_nested()
        await session.scalar(select(func.count()).select_from(Product))
        await session.execute(delete(Order))
        within = await session.scalar(select(func.count()).select_from(Order))
        await nested.rollback()
        out("savepoint before the first write", count, within, await session.scalar(select(func.count()).select_from(Order)))


async def reads_then_writes():
    for number in range(40):
        async with new_session() as session:
            sku = f"sku-{number:03}"
            before = await session.scalar(select(Product.stock).where(Product.sku == sku))
            if number % 3 == 1:
                await session.execute(text("SET LOCAL TimeZone = 'Asia/Kolkata'"))
            if number % 3 == 2:
                async with session.begin_nested():
                    await session.scalar(select(func.count()).select_from(Order))
            await session.execute(update(Product).where(Product.sku == sku).values(stock=before + 1))
            shown = await session.scalar(text("SELECT '2024-01-01 00:00:00+00'::timestamptz::text"))
            await (session.commit() if number % 5 else session.rollback())
            out("read then write", number, shown if number % 3 == 1 else "", await session.scalar(select(Product.stock).where(Product.sku == sku)) - before)


async def moves():
    """As above, but each session is a new one, which has written nothing yet: its first reads may be a replica's."""
    engine = create_async_engine(URL, poolclass=sa.pool.NullPool)
    for number in range(30):
        async with engine.connect() as connection, AsyncSession(connection, expire_on_commit=False) as session:
            key = (await session.scalars(shop.customer_by_email(number))).one().id
            if number % 2:
                await session.execute(text("SET LOCAL TimeZone = 'Asia/Kolkata'"))
            outer = await session.begin_nested()
            orders = await session.scalar(select(func.count()).where(Order.customer_id == key))
            if number % 3 == 0:
                await outer.commit()
            elif number % 3 == 1:
                await outer.rollback()
            credit = update(Customer).where(Customer.id == key).values(credit=Customer.credit + 1).returning(Customer.credit)
            within = await session.scalar(credit)
            shown = await session.scalar(text("SELECT '2024-01-01 00:00:00+00'::timestamptz::text")) if number % 2 else ""
            await (session.commit() if number % 4 else session.rollback())
            after = await session.scalar(select(Customer.credit).where(Customer.id == key))
            out("move", number, orders, within, shown, after)
        async with engine.connect() as connection:
            raw = await driver(connection)
            async with raw.transaction():
                first = await raw.fetchval("SELECT count(*) FROM orders WHERE state = $1", "OPEN")
                async with raw.transaction():
                    second = await raw.fetchval("SELECT count(*) FROM line")
                third = await raw.execute("UPDATE customer SET credit = credit - 1 WHERE email = $1", f"user{number}@example.org")
            out("asyncpg's own", first, second, third)


async def errors():
    async with ENGINE.connect() as connection:
        await connection.scalar(select(func.count()).select_from(Customer))
        await expect_error("division", connection.execute(text("SELECT 1 / (count(*) - count(*)) FROM customer")))
        await expect_error("failed transaction", connection.execute(text("SELECT 1")))
        await connection.rollback()
        out("recovered", await connection.scalar(text("SELECT 1")))
    async with new_session() as session:
        for step, statement in (
            ("no such table", text("SELECT * FROM nowhere")),
            ("no such column", text("SELECT nothing FROM customer")),
            ("check", update(Product).where(Product.sku == "sku-005").values(stock=-1)),
            ("too long", update(Customer).values(email="x" * 201)),
            ("bad enum", text("UPDATE orders SET state = 'LOST'")),
            ("bad input", text("SELECT 'x'::int FROM product")),
            ("syntax", text("SELEKT 1")),
            ("unique", insert(Product).values(sku="sku-000", title="x", price=1)),
            ("no such function", text("SELECT nothing(1)")),
        ):
            await session.scalar(select(func.count()).select_from(Order))
            await expect_error(step, session.execute(statement))
            await expect_error("failed session", session.execute(select(Product.id)))
            await session.rollback()
    async with AUTOCOMMIT.connect() as connection:
        await expect_error("in autocommit", connection.execute(text("INSERT INTO product (sku) VALUES ('x')")))
        out("recovered in autocommit", await connection.scalar(text("SELECT 2")))
    async with ENGINE.connect() as connection:
        await connection.execute(text("SET LOCAL statement_timeout = 50"))
        await expect_error("timeout", connection.execute(text("SELECT pg_sleep(10)")))
    async with ENGINE.begin() as connection:
        await connection.execute(text("SET TRANSACTION READ ONLY"))
        await expect_error("read only", connection.execute(update(Product).values(stock=1)))


async def cursors():
    async with new_session() as session:
        streamed = await session.stream_scalars(select(Customer.id).order_by(Customer.id).execution_options(yield_per=64))
        out("yield_per", len([value async for value in streamed]))
    async with ENGINE.connect() as connection:
        left = await connection.stream(select(Customer.email).order_by(Customer.id))
        right = await connection.stream(select(Order.id, Order.state).order_by(Order.id.desc()))
        pairs = [((await left.fetchone())[0], (await right.fetchone())[1].value) for _ in range(100)]
        out("two cursors at once", digest(pairs), pairs[0])
        await left.close()
        await connection.execute(update(Product).values(stock=Product.stock + 1))
        out("after a write", len((await right.fetchall())))
        await connection.commit()
    async with ENGINE.connect() as connection:
        raw = await driver(connection)
        async with raw.transaction():
            cursor = await raw.cursor("SELECT sku FROM product ORDER BY id")
            out("asyncpg's own cursor", [row[0] for row in await cursor.fetch(3)], await cursor.forward(10), (await cursor.fetchrow())[0])
        async with raw.transaction(isolation="repeatable_read", readonly=True):
            out("asyncpg's own transaction", [row[0] async for row in raw.cursor("SELECT count(*) FROM orders")])


async def isolation_levels():
    levels = text("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_setting('transaction_deferrable')")
    for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        for options in ({}, {"postgresql_readonly": True}, {"postgresql_readonly": True, "postgresql_deferrable": True}):
            async with ENGINE.execution_options(isolation_level=level, **options).connect() as connection:
                got = (await connection.execute(levels)).one()
                out("isolation", level, sorted(options), tuple(got), await connection.scalar(select(func.count()).select_from(Order)))
                if options:
                    await expect_error("its write", connection.execute(update(Product).values(stock=1)))
    async with ENGINE.connect() as connection:
        out("the default again", tuple((await connection.execute(levels)).one()))
    left_engine = ENGINE.execution_options(isolation_level="REPEATABLE READ")
    async with left_engine.connect() as left, ENGINE.connect() as right:
        stock = select(Product.stock).where(Product.sku == "sku-001")
        before = await left.scalar(stock)
        await right.execute(update(Product).where(Product.sku == "sku-001").values(stock=Product.stock + 5))
        await right.commit()
        out("repeatable read", await left.scalar(stock) - before, await right.scalar(stock) - before)
        await expect_error("its conflict", left.execute(update(Product).where(Product.sku == "sku-001").values(stock=0)))


async def row_locks():
    async with new_session() as holder, new_session() as other:
        await holder.scalars(select(Product).where(Product.sku == "sku-010").with_for_update())
        wanted = select(Product.sku).where(Product.sku.in_(["sku-010", "sku-011"])).order_by(Product.sku)
        await expect_error("nowait", other.scalars(wanted.with_for_update(nowait=True)))
        await other.rollback()
        out("skip locked", (await other.scalars(wanted.with_for_update(skip_locked=True))).all())
        await other.rollback()
        out("plain read", (await other.scalars(wanted)).all())
        await other.rollback()
        waiting = asyncio.create_task(other.scalar(wanted.with_for_update(of=Product)))
        await holder.execute(update(Product).where(Product.sku == "sku-010").values(stock=43))
        await holder.commit()
        out("freed", await waiting)


async def settings():
    instant = text("SELECT '2024-07-01 12:00:00+00'::timestamptz::text, current_setting('TimeZone')")
    connect_args = {"server_settings": {"TimeZone": "Australia/Sydney", "application_name": "orm zoned", "jit": "off"}}
    zoned = create_async_engine(URL, connect_args=connect_args, pool_size=3)
    async with zoned.connect() as left, ENGINE.connect() as right, zoned.connect() as third:
        for _ in range(3):
            for connection in (left, right, third):
                found = (await connection.execute(instant)).one()
                out("server settings", tuple(found) if connection is not right else found[1] != "Australia/Sydney")
                await connection.commit()
        await left.execute(text("SET TimeZone = 'America/New_York'"))
        await left.commit()
        await third.execute(text("SET LOCAL TimeZone = 'Asia/Tokyo'"))
        out("SET", tuple((await left.execute(instant)).one()))
        out("SET LOCAL", tuple((await third.execute(instant)).one()))
        await third.rollback()
        out("after SET LOCAL", tuple((await third.execute(instant)).one()))
        await left.execute(text("SET TimeZone = 'Asia/Tokyo'"))
        await left.rollback()
        out("SET undone", tuple((await left.execute(instant)).one()))
        await left.execute(text("RESET TimeZone"))
        await left.commit()
        out("RESET", tuple((await left.execute(instant)).one()))
        await left.execute(text("SELECT set_config('search_path', 'pg_catalog', false), set_config('TimeZone', 'Asia/Tokyo', true)"))
        await left.commit()
        out("set_config", await left.scalar(text("SHOW search_path")), tuple((await left.execute(instant)).one()))
    await zoned.dispose()


async def statements():
    async with new_session() as session:
        upsert = pg_insert(Product).values(sku="sku-001", title="upserted", price=decimal.Decimal("9.99"))
        upsert = upsert.on_conflict_do_update(index_elements=["sku"], set_={"title": upsert.excluded.title}).returning(Product.title)
        out("upsert", (await session.execute(upsert)).one())
        moved = update(Product).where(Product.stock > 90).values(stock=90).returning(Product.id).cte("moved")
        out("writing CTE", await session.scalar(select(func.count()).select_from(moved)))
        await session.commit()
        await session.execute(text("CREATE FUNCTION bump(text) RETURNS int LANGUAGE sql AS 'UPDATE product SET stock = stock + 1 WHERE sku = $1 RETURNING stock'"))
        await session.commit()
        out("volatile function", await session.scalar(select(func.bump("sku-005"))) - await session.scalar(select(func.bump("sku-005"))))
        await session.commit()
        await session.execute(text("DROP FUNCTION bump(text)"))
        await session.commit()
        values = (1, 2.5, decimal.Decimal("1.10"), "text", b"bytes", True, None, datetime.date(2024, 2, 29), [1, 2], {"a": [1, None]})
        types = (sa.Integer, sa.Float, sa.Numeric, sa.Text, sa.LargeBinary, sa.Boolean, sa.Text, sa.Date, sa.ARRAY(sa.Integer), sa.JSON)
        row = select(*(sa.literal(value, kind) for value, kind in zip(values, types)))
        out("each type", tuple((await session.execute(row)).one()))


async def many_tasks():
    """More tasks than the proxy has server connections, all at one row."""
    engine = create_async_engine(URL, pool_size=10, max_overflow=0, pool_pre_ping=True)
    async with new_session() as session, session.begin():
        await session.execute(update(Product).where(Product.sku == "sku-020").values(stock=0))
    failures = []

    async def work():
        for _ in range(15):
            # The session keeps its connection over the commit: another one of the pool may read an older state.
            async with engine.connect() as connection, AsyncSession(connection) as session:
                product = (await session.scalars(select(Product).where(Product.sku == "sku-020").with_for_update())).one()
                mine = product.stock = product.stock + 1
                await session.commit()
                if await session.scalar(select(Product.stock).where(Product.sku == "sku-020")) < mine:
                    failures.append("stale")

    ended = await asyncio.gather(*(work() for _ in range(10)), return_exceptions=True)
    failures.extend(failure(error) for error in ended if error is not None)
    async with AsyncSession(engine) as session:
        out("many tasks", (await session.scalars(select(Product.stock).where(Product.sku == "sku-020").with_for_update())).one(), failures)
    await engine.dispose()


async def cancelled_tasks():
    """A task that is cancelled in mid-statement leaves a pool that works."""
    engine = create_async_engine(URL, pool_size=2, max_overflow=0)

    async def slow():
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(30)"))

    for _ in range(3):
        try:
            await asyncio.wait_for(slow(), 0.2)
        except TimeoutError:
            out("cancelled", "TimeoutError")
    async with engine.connect() as left, engine.connect() as right:
        out("after cancels", await left.scalar(text("SELECT 1")), await right.scalar(select(func.count()).select_from(Order)))
    await engine.dispose()


async def pools():
    engine = create_async_engine(URL, pool_size=1, max_overflow=0, pool_pre_ping=True)
    async with engine.connect() as connection:
        mine = await connection.scalar(text("SELECT pg_backend_pid()"))
        async with AUTOCOMMIT.connect() as other:
            out("ended by another", await other.scalar(text("SELECT pg_terminate_backend(:pid)"), {"pid": mine}))
        # Which error it is depends on whether the driver has seen the end of the connection by now.
        try:
            await connection.scalar(text("SELECT 1"))
        except sa.exc.DBAPIError as error:
            out("its next statement", error.connection_invalidated)
    async with engine.connect() as connection:
        out("replaced", await connection.scalar(text("SELECT 5")))
    await engine.dispose()
    unpooled = create_async_engine(URL, poolclass=sa.pool.NullPool)
    for number in range(10):
        async with unpooled.begin() as connection:
            await connection.scalar(select(func.count()).where(Order.id > number))
    out("unpooled", "ok")
    for size in (0, 2):
        cached = create_async_engine(URL.update_query_dict({"prepared_statement_cache_size": str(size)}), pool_size=1)
        for number in range(6):
            async with cached.connect() as connection:
                counted = await connection.scalar(text(f"SELECT count(*) + {number} FROM orders"))
                out("statement cache", size, counted)
        await cached.dispose()


async def alters():
    """A statement prepared before its table was altered gives its new columns, once the driver has noticed."""
    statement = "SELECT * FROM product WHERE id = 1"
    for change in ("ADD COLUMN note text", "DROP COLUMN note"):
        engine = create_async_engine(URL, pool_size=1, max_overflow=0)
        async with AsyncSession(engine) as session:
            names = []
            for sql in (statement, statement, f"ALTER TABLE product {change}", statement, statement):
                try:
                    result = await session.execute(text(sql))
                    names.append(list(result.keys()) if result.returns_rows else "altered")
                    await session.commit()
                except sa.exc.DBAPIError as error:
                    names.append(failure(error))
                    await session.rollback()
            out("around ALTER", *names)
        await engine.dispose()
    # Without SQLAlchemy, in autocommit: the driver prepares the statement anew by itself.
    for change in ("ADD COLUMN note text", "DROP COLUMN note"):
        async with ENGINE.connect() as connection:
            raw = await driver(connection)
            names = []
            for sql in (statement, statement, f"ALTER TABLE product {change}", statement):
                try:
                    names.append([list(row.keys()) for row in await raw.fetch(sql)])
                except Exception as error:  # noqa: BLE001: whatever it is, it is printed
                    names.append(failure(error))
            out("around ALTER", *names)
            await connection.invalidate()


async def listens():
    async with ENGINE.connect() as connection, AUTOCOMMIT.connect() as other:
        raw = await driver(connection)
        heard = asyncio.Queue()

        def hear(_connection, _pid, channel, payload):
            heard.put_nowait((channel, payload))

        await raw.add_listener("orders", hear)
        await other.execute(text("NOTIFY orders, 'one'"))
        out("heard", await asyncio.wait_for(heard.get(), 20))
        await other.execute(text("SELECT pg_notify('orders', 'two')"))
        out("heard", await asyncio.wait_for(heard.get(), 20))
        await raw.remove_listener("orders", hear)


STEPS = [
    migrations,
    create_all,
    reflection,
    bulk_writes,
    copies,
    reads_its_writes,
    savepoints_and_rollbacks,
    reads_then_writes,
    moves,
    errors,
    cursors,
    isolation_levels,
    row_locks,
    settings,
    statements,
    many_tasks,
    cancelled_tasks,
    pools,
    alters,
    listens,
]


async def listing(number):
    async with new_session() as session:
        found = (await session.scalars(shop.page_of_customers(number))).all()
        return [(customer.email, customer.tags, customer.profile, customer.credit) for customer in found]


async def detail(number):
    async with new_session() as session:
        customer = (await session.scalars(shop.customer_by_email(number))).one()
        orders = await session.scalars(select(Order).where(Order.customer_id == customer.id).order_by(Order.id))
        await session.commit()
        return customer.email, [order.state.value for order in orders]


async def graph(number):
    async with new_session() as session, session.begin():
        first = await session.scalar(select(func.min(Customer.id)))
        customer = (await session.scalars(shop.customer_with_orders(first + number))).unique().first()
        if customer is None:
            return None
        return [(order.state.value, [(line.product.sku, line.quantity) for line in order.lines]) for order in customer.orders]


async def report(number):
    async with ENGINE.connect() as connection:
        return [(row[0].value, *row[1:]) for row in await connection.execute(shop.revenue_by_state())]


async def search(number):
    async with ENGINE.begin() as connection:
        return [tuple(row) for row in await connection.execute(shop.customers_with_large_orders(number))]


async def counts(number):
    async with new_session() as session:
        async with session.begin_nested():
            tagged = tuple((await session.execute(shop.tagged(number))).one())
        return tagged, await session.scalar(select(func.count()).select_from(Line))


async def streamed(number):
    async with new_session() as session:
        found = await session.stream_scalars(select(Line.quantity).order_by(Line.id).execution_options(yield_per=40))
        return sum([quantity async for quantity in found])


async def autocommitted(number):
    async with AUTOCOMMIT.connect() as connection:
        return await connection.scalar(select(func.sum(Product.price * Product.stock)))


VIEWS = [listing, detail, graph, report, search, counts, streamed, autocommitted]


def in_loop(loop, function):
    """Returns a plain function that runs an async one on the loop which the engine's connections belong to."""

    def run(*arguments):
        return loop.run_until_complete(function(*arguments))

    run.__name__ = function.__name__
    return run


with asyncio.Runner() as runner:
    loop = runner.get_loop()
    if sys.argv[1] == "steps":
        run_steps([in_loop(loop, step) for step in STEPS])
    else:
        run_views([in_loop(loop, view) for view in VIEWS])
    runner.run(ENGINE.dispose())
print("done")

"""SQLAlchemy 2 on psycopg 3: a shop with Alembic migrations, sessions with autobegin, and autocommit.

usage: sqlalchemy_psycopg.py steps|views URL NAME
"""

import datetime
import decimal
import pathlib
import sys
import threading

import alembic.autogenerate
import alembic.command
import alembic.config
import alembic.migration
import psycopg.types.enum
import sqlalchemy as sa
from sqlalchemy import delete, event, func, insert, inspect, select, text, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

import shop_tables as shop
from shop_tables import Customer, Line, Order, Product, State
from transcript import digest, failure, out, run_steps, run_views

URL = sa.make_url(sys.argv[2]).set(drivername="postgresql+psycopg")
# What one connection wrote, another may not read at once from a replica: the last connection used is the next.
ENGINE = sa.create_engine(URL, pool_use_lifo=True)
AUTOCOMMIT = ENGINE.execution_options(isolation_level="AUTOCOMMIT")
HERE = pathlib.Path(__file__).parent


def expect_error(step, action):
    try:
        result = action()
    except Exception as error:  # noqa: BLE001: whatever it is, it is printed
        out(step, failure(error))
    else:
        out(step, "no error", result)


def migrate(command, revision, **attributes):
    config = alembic.config.Config()
    config.set_main_option("script_location", str(HERE / "alembic_migrations"))
    with ENGINE.connect() as connection:
        config.attributes["connection"] = connection
        config.attributes.update(attributes)
        getattr(alembic.command, command)(config, revision)
        connection.commit()


def revision():
    with ENGINE.connect() as connection:
        return alembic.migration.MigrationContext.configure(connection).get_current_revision()


def migrations():
    """Up, down and up again; then the models must have nothing more to ask for."""
    out("migrations before", revision())
    migrate("upgrade", "0002")
    out("migrations", revision())
    with Session(ENGINE) as session:
        out("migrated rows", session.execute(text("SELECT id, email, name FROM customer ORDER BY id")).all())
    migrate("downgrade", "0001")
    with Session(ENGINE) as session:
        out("rows again", session.execute(text("SELECT id, first_name, last_name FROM customer ORDER BY id")).all())
    migrate("upgrade", "head", transaction_per_migration=True)
    out("migrations", revision())
    with ENGINE.connect() as connection:
        context = alembic.migration.MigrationContext.configure(connection, opts={"compare_type": True})
        out("differences from the models", alembic.autogenerate.compare_metadata(context, shop.Base.metadata))


def failing_migration():
    """DDL in a transaction that fails leaves nothing behind."""

    def change():
        with ENGINE.begin() as connection:
            connection.execute(text("CREATE TABLE never (id int)"))
            connection.execute(text("ALTER TABLE customer ADD COLUMN never int"))
            connection.execute(text("ALTER TABLE customer ADD COLUMN email int"))

    expect_error("failing migration", change)
    out("its table", inspect(ENGINE).has_table("never"))


def reflection():
    inspector = inspect(ENGINE)
    out("tables", sorted(inspector.get_table_names()))
    for table in ("customer", "orders", "line", "product"):
        for column in inspector.get_columns(table):
            out(f"column of {table}", column["name"], column["type"], column["nullable"], column["default"])
        out(f"key of {table}", inspector.get_pk_constraint(table))
        for index in sorted(inspector.get_indexes(table), key=lambda index: index["name"]):
            out(f"index of {table}", index["name"], index["column_names"], index["unique"], index.get("expressions"))
        for key in sorted(inspector.get_foreign_keys(table), key=lambda key: key["name"]):
            out(f"foreign key of {table}", key["name"], key["referred_table"], key["options"])
        out(f"checks of {table}", inspector.get_check_constraints(table), inspector.get_unique_constraints(table))
    out("enums", inspector.get_enums())
    out("schemas", inspector.get_schema_names(), inspector.get_view_names(), inspector.get_sequence_names())
    reflected = sa.MetaData()
    reflected.reflect(ENGINE)
    out("reflected", [(table.name, sorted(table.columns.keys())) for table in reflected.sorted_tables])
    with ENGINE.connect() as connection:
        info = psycopg.types.enum.EnumInfo.fetch(connection.connection.driver_connection, "order_state")
        out("psycopg's own look at the enum", info.labels)


def bulk_writes():
    with Session(ENGINE) as session:
        session.execute(delete(Customer))
        rows = shop.customers(300)
        ids = session.scalars(insert(Customer).returning(Customer.id, sort_by_parameter_order=True), rows).all()
        out("insertmanyvalues", len(ids), len(set(ids)), ids == sorted(ids))
        session.execute(insert(Product), shop.products(50))
        session.commit()
    with Session(ENGINE) as session:
        first = session.scalar(select(func.min(Customer.id)))
        out("first", first)
        session.add_all(
            Order(
                customer_id=first + number % 40,
                state=list(State)[number % 3],
                placed_at=datetime.datetime(2024, 5, 1, number % 24, tzinfo=datetime.timezone.utc),
                lines=[Line(product_id=1 + (number + step) % 50, quantity=step + 1) for step in range(number % 4)],
            )
            for number in range(120)
        )
        session.commit()
        out("orders and lines", session.scalar(select(func.count()).select_from(Order)), session.scalar(select(func.sum(Line.quantity))))
    with ENGINE.begin() as connection:
        # psycopg sends an executemany as one pipeline.
        statement = text("UPDATE product SET stock = stock + :more WHERE id = :id")
        result = connection.execute(statement, [{"id": number, "more": number * 2} for number in range(1, 51)])
        out("executemany", result.rowcount, connection.scalar(select(func.sum(Product.stock))))
    with Session(ENGINE) as session:
        session.execute(update(Customer), [{"id": first + number, "credit": number, "version": 1} for number in range(100)])
        session.commit()
        out("bulk update by key", session.scalar(select(func.sum(Customer.credit))))


def copies():
    with ENGINE.connect() as connection:
        cursor = connection.connection.driver_connection.cursor()
        with cursor.copy("COPY customer (email, name, created_at) FROM STDIN") as copy:
            for number in range(2000):
                copy.write_row((f"copy{number}@example.org", f"Copied {number}", datetime.datetime(2023, 1, 1, tzinfo=datetime.timezone.utc)))
        out("copied in", connection.scalar(select(func.count()).where(Customer.email.like("copy%"))))
        connection.commit()
    with ENGINE.connect() as connection:
        cursor = connection.connection.driver_connection.cursor()
        with cursor.copy("COPY (SELECT email, name FROM customer WHERE email LIKE 'copy%' ORDER BY id) TO STDOUT") as copy:
            data = b"".join(bytes(block) for block in copy)
        out("copied out", len(data), digest([data]))
        deleted = connection.execute(delete(Customer).where(Customer.email.like("copy%")))
        out("deleted", deleted.rowcount)
        connection.commit()

    def bad():
        with ENGINE.begin() as connection:
            with connection.connection.driver_connection.cursor().copy("COPY product (sku, title, price) FROM STDIN") as copy:
                copy.write("a\tb\t1\nc\td\tnot a number\n")

    expect_error("bad copy", bad)


def reads_its_writes():
    """Each write is seen by the next transaction, and in autocommit by the next statement."""
    for number in range(50):
        with Session(ENGINE) as session:
            session.add(Product(sku=f"ryw-{number}", title="read your writes", price=1))
            session.commit()
        with Session(ENGINE) as session:
            seen = session.scalar(select(func.count()).where(Product.sku.like("ryw-%")))
            if seen != number + 1:
                out("stale read in a transaction", number, seen)
    with AUTOCOMMIT.connect() as connection:
        for number in range(50):
            connection.execute(update(Product).where(Product.sku == "ryw-0").values(stock=number))
            seen = connection.scalar(select(Product.stock).where(Product.sku == "ryw-0"))
            if seen != number:
                out("stale read in autocommit", number, seen)
        removed = connection.execute(delete(Product).where(Product.sku.like("ryw-%")))
        out("read its writes", removed.rowcount, connection.scalar(select(func.count()).select_from(Product)))


def rollbacks():
    with Session(ENGINE) as session:
        session.add(Product(sku="undone", title="undone", price=1))
        session.flush()
        out("before rollback", session.scalar(select(func.count()).where(Product.sku == "undone")))
        session.rollback()
        out("after rollback", session.scalar(select(func.count()).where(Product.sku == "undone")))
    with ENGINE.connect() as connection:
        connection.execute(update(Product).values(stock=0))
        out("unsaved", connection.scalar(select(func.sum(Product.stock))))
        # Left without commit: SQLAlchemy rolls back when the connection goes back to its pool.
    with ENGINE.connect() as connection:
        out("rolled back by the pool", connection.scalar(select(func.sum(Product.stock))) > 0)


def savepoints():
    with Session(ENGINE) as session:
        first = session.scalar(select(func.min(Product.id)))
        with session.begin_nested():
            session.get(Product, first).stock = 1000
        try:
            with session.begin_nested():
                session.add(Product(sku="sku-000", title="taken", price=1))
        except sa.exc.IntegrityError as error:
            out("in a savepoint", failure(error))
        inner = session.begin_nested()
        session.get(Product, first + 1).stock = 2000
        innermost = session.begin_nested()
        session.get(Product, first + 2).stock = 3000
        session.flush()
        innermost.rollback()
        out("innermost undone", session.scalar(select(Product.stock).where(Product.id == first + 2)))
        inner.commit()
        session.commit()
        out("after savepoints", session.execute(select(Product.sku, Product.stock).order_by(Product.id).limit(4)).all())


def reads_then_writes():
    """Transactions that begin with reads, savepoints and settings, and write later or not at all."""
    for number in range(40):
        with Session(ENGINE) as session:
            product = session.scalars(select(Product).where(Product.sku == f"sku-{number:03}")).one()
            before = product.stock
            if number % 4 == 1:
                session.execute(text("SET LOCAL TimeZone = 'Asia/Kolkata'"))
            if number % 4 == 2:
                with session.begin_nested():
                    session.scalar(select(func.count()).select_from(Order))
            if number % 4 == 3:
                nested = session.begin_nested()
                session.scalar(select(func.count()).select_from(Order))
                session.execute(text("SET LOCAL search_path = pg_catalog"))
                nested.rollback()
            product.stock = before + 1
            session.flush()
            zone = session.scalar(text("SELECT current_setting('TimeZone') = 'Asia/Kolkata'"))
            after = session.scalar(select(Product.stock).where(Product.id == product.id))
            commits = number % 5 != 0
            session.commit() if commits else session.rollback()
            kept = session.scalar(select(Product.stock).where(Product.id == product.id))
            path = session.scalar(text("SHOW search_path"))
            out("read then write", number, after - before, zone, kept - before, path, session.scalar(text("SELECT current_setting('TimeZone') = 'Asia/Kolkata'")))


def moves():
    """As above, but each session is a new one, which has written nothing yet: its first reads may be a replica's."""
    engine = sa.create_engine(URL, poolclass=sa.pool.NullPool)
    for number in range(40):
        with engine.connect() as connection, Session(connection) as session:
            customer = session.scalars(shop.customer_by_email(number)).one()
            zone = session.execute(text("SET LOCAL TimeZone = 'Asia/Kolkata'")) if number % 2 else None
            outer = session.begin_nested()
            orders = session.scalar(select(func.count()).where(Order.customer_id == customer.id))
            inner = session.begin_nested()
            session.scalar(select(func.count()).select_from(Line))
            if number % 3 == 0:
                inner.commit()
            elif number % 3 == 1:
                inner.rollback()
            before = customer.credit
            if number % 5 == 4:
                expect_error("an error before the first write", lambda: session.execute(text("SELECT 1 / (count(*) - count(*)) FROM customer")))
                outer.rollback()
                before = customer.credit
            customer.credit = before + 1
            session.flush()
            if number % 7 == 6 and outer.is_active:
                outer.rollback()
                session.refresh(customer)
            shown = session.scalar(text("SELECT '2024-01-01 00:00:00+00'::timestamptz::text")) if zone is not None else ""
            within = customer.credit
            session.commit() if number % 4 else session.rollback()
            out("move", number, orders, before, within, shown, customer.credit, session.scalar(text("SHOW transaction_read_only")))
            session.rollback()


def savepoint_before_the_first_write():
    """A savepoint made while all was a read is rolled back to after a write inside it."""
    with Session(ENGINE) as session:
        count = session.scalar(select(func.count()).select_from(Order))
        nested = session.begin_nested()
        session.scalar(select(func.count()).select_from(Product))
        session.add(Order(customer_id=session.scalar(select(func.min(Customer.id)))))
        session.flush()
        within = session.scalar(select(func.count()).select_from(Order))
        nested.rollback()
        after = session.scalar(select(func.count()).select_from(Order))
        session.commit()
        out("savepoint before the first write", count, within, after)


def errors():
    """An error fails the transaction until it is rolled back, and the session goes on."""
    with ENGINE.connect() as connection:
        connection.scalar(select(func.count()).select_from(Customer))
        expect_error("division", lambda: connection.execute(text("SELECT 1 / (count(*) - count(*)) FROM customer")))
        expect_error("failed transaction", lambda: connection.execute(text("SELECT 1")))
        connection.rollback()
        out("recovered", connection.scalar(text("SELECT 1")))
    with Session(ENGINE) as session:
        expect_error("no such table", lambda: session.execute(text("SELECT * FROM nowhere")))
        expect_error("failed session", lambda: session.scalar(select(func.count()).select_from(Customer)))
        session.rollback()
        expect_error("no such column", lambda: session.execute(text("SELECT nothing FROM customer")))
        session.rollback()
        session.add(Line(order_id=-1, product_id=-1, quantity=1))
        expect_error("foreign key", session.flush)
        expect_error("pending rollback", lambda: session.scalar(select(func.count()).select_from(Customer)))
        session.rollback()
        expect_error("check", lambda: session.execute(update(Product).where(Product.sku == "sku-005").values(stock=-1)))
        session.rollback()
        expect_error("too long", lambda: session.execute(update(Customer).values(email="x" * 201)))
        session.rollback()
        expect_error("bad enum", lambda: session.execute(text("UPDATE orders SET state = 'LOST'")))
        session.rollback()
        expect_error("syntax", lambda: session.execute(text("SELEKT 1")))
    with AUTOCOMMIT.connect() as connection:
        expect_error("in autocommit", lambda: connection.execute(text("INSERT INTO product (sku) VALUES ('x')")))
        out("recovered in autocommit", connection.scalar(text("SELECT 2")))
    with ENGINE.begin() as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        expect_error("read only", lambda: connection.execute(update(Product).values(stock=1)))


def cursors():
    with Session(ENGINE) as session:
        total = 0
        for part in session.scalars(select(Customer).order_by(Customer.id).execution_options(yield_per=64)).partitions():
            total += len(part)
        out("yield_per", total)
    with ENGINE.connect() as connection:
        streaming = {"stream_results": True, "max_row_buffer": 50}
        left = connection.execute(select(Customer.email).order_by(Customer.id), execution_options=streaming)
        right = connection.execute(select(Order.id, Order.state).order_by(Order.id.desc()), execution_options=streaming)
        pairs = [(left.fetchone()[0], right.fetchone()[1].value) for _ in range(100)]
        out("two cursors at once", digest(pairs), pairs[0])
        left.close()
        connection.execute(update(Product).values(stock=Product.stock + 1))
        out("after a write", len(right.fetchall()))
        connection.commit()
    with ENGINE.connect() as connection:
        raw = connection.connection.driver_connection
        with raw.cursor(name="scrolls", scrollable=True) as cursor:
            cursor.execute("SELECT sku FROM product ORDER BY id")
            first = cursor.fetchmany(3)
            cursor.scroll(10)
            later = cursor.fetchone()
            cursor.scroll(0, mode="absolute")
            out("scrolled", first, later, cursor.fetchone())
        connection.rollback()
        with raw.cursor(name="held", withhold=True) as cursor:
            cursor.execute("SELECT sku FROM product ORDER BY id")
            cursor.fetchmany(5)
            raw.commit()
            out("held over a commit", cursor.fetchone())
        connection.rollback()
    with AUTOCOMMIT.connect() as connection:
        streaming = connection.execution_options(stream_results=True)
        expect_error("a cursor in autocommit", lambda: streaming.execute(select(Product.sku).order_by(Product.id)).fetchmany(2))


def isolation_levels():
    levels = text("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_setting('transaction_deferrable')")
    for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        for options in ({}, {"postgresql_readonly": True}, {"postgresql_readonly": True, "postgresql_deferrable": True}):
            with ENGINE.connect().execution_options(isolation_level=level, **options) as connection:
                got = connection.execute(levels).one()
                count = connection.scalar(select(func.count()).select_from(Order))
                out("isolation", level, sorted(options), tuple(got), count)
                if options:
                    expect_error("its write", lambda: connection.execute(update(Product).values(stock=1)))
    with ENGINE.connect() as connection:
        out("the default again", tuple(connection.execute(levels).one()))
    with ENGINE.connect().execution_options(isolation_level="REPEATABLE READ") as left, ENGINE.connect() as right:
        stock = select(Product.stock).where(Product.sku == "sku-001")
        before = left.scalar(stock)
        right.execute(update(Product).where(Product.sku == "sku-001").values(stock=Product.stock + 5))
        right.commit()
        out("repeatable read", left.scalar(stock) - before, right.scalar(stock) - before)
        expect_error("its conflict", lambda: left.execute(update(Product).where(Product.sku == "sku-001").values(stock=0)))
    with Session(ENGINE.execution_options(isolation_level="SERIALIZABLE")) as session:
        session.execute(update(Product).where(Product.sku == "sku-001").values(stock=7))
        session.commit()
        out("serializable", session.scalar(stock))


def row_locks():
    with Session(ENGINE) as holder, Session(ENGINE) as other:
        product = holder.scalars(select(Product).where(Product.sku == "sku-010").with_for_update()).one()
        wanted = select(Product.sku).where(Product.sku.in_(["sku-010", "sku-011"])).order_by(Product.sku)
        expect_error("nowait", lambda: other.scalars(wanted.with_for_update(nowait=True)).all())
        other.rollback()
        out("skip locked", other.scalars(wanted.with_for_update(skip_locked=True)).all())
        other.rollback()
        expect_error("key share", lambda: other.scalars(wanted.with_for_update(key_share=True, read=True, nowait=True)).all())
        other.rollback()
        out("plain read", other.scalars(wanted).all())
        other.rollback()
        product.stock = 42
        holder.commit()
        out("freed", other.scalars(select(Product.stock).where(Product.sku == "sku-010").with_for_update(of=Product)).all())


def settings():
    instant = text("SELECT '2024-07-01 12:00:00+00'::timestamptz::text, current_setting('TimeZone')")
    with ENGINE.connect() as connection:
        connection.execute(text("SET TimeZone = 'America/New_York'"))
        connection.commit()
        for _ in range(3):
            out("SET", tuple(connection.execute(instant).one()), connection.scalar(select(func.max(Order.placed_at))))
            connection.commit()
        connection.execute(text("SET LOCAL TimeZone = 'Asia/Tokyo'"))
        out("SET LOCAL", tuple(connection.execute(instant).one()))
        connection.rollback()
        out("after SET LOCAL", tuple(connection.execute(instant).one()))
        connection.execute(text("SET TimeZone = 'Asia/Tokyo'"))
        connection.rollback()
        out("SET undone", tuple(connection.execute(instant).one()))
        expect_error("SET to nonsense", lambda: connection.execute(text("SET TimeZone = 'Nowhere/Land'")))
        connection.rollback()
        connection.execute(text("RESET TimeZone"))
        connection.commit()
    zoned = sa.create_engine(URL, connect_args={"options": "-c timezone=Australia/Sydney -c statement_timeout=20s", "application_name": "orm zoned"}, pool_size=3)
    with zoned.connect() as left, ENGINE.connect() as right, zoned.connect() as third:
        for _ in range(3):
            for connection in (left, right, third):
                zone = connection.scalar(text("SHOW TimeZone"))
                out("startup options", zone if connection is not right else zone != "Australia/Sydney", connection.scalar(text("SHOW application_name")))
                connection.commit()
        out("statement_timeout", left.scalar(text("SHOW statement_timeout")))
    zoned.dispose()
    hooked = sa.create_engine(URL, pool_size=2)

    @event.listens_for(hooked, "connect")
    def on_connect(connection, _record):
        connection.autocommit = True
        connection.execute("SET TIME ZONE 'Europe/Prague'")
        connection.execute("SET search_path TO app_extra, public")
        connection.execute("SET lock_timeout = '5s'")
        connection.autocommit = False

    for _ in range(2):
        with hooked.connect() as left, hooked.connect() as right:
            for connection in (left, right):
                found = connection.execute(text("SELECT current_setting('search_path'), current_setting('lock_timeout'), current_setting('TimeZone')"))
                out("set at connect", tuple(found.one()), connection.scalar(select(func.count()).select_from(Order)))
                connection.rollback()
    hooked.dispose()


def schemas_and_temporary_tables():
    with ENGINE.begin() as connection:
        connection.execute(text("CREATE SCHEMA app_extra"))
        connection.execute(text("CREATE TABLE app_extra.product AS SELECT 'extra' AS sku"))
    with ENGINE.connect() as connection:
        connection.execute(text("SET LOCAL search_path TO app_extra, public"))
        out("search_path", connection.scalars(text("SELECT sku FROM product")).all())
        connection.rollback()
        out("search_path left", connection.scalar(text("SELECT count(*) FROM product")))
    mapped = ENGINE.execution_options(schema_translate_map={None: "app_extra"})
    with mapped.connect() as connection:
        out("translated", connection.scalars(select(Product.sku)).all())
    with ENGINE.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE wanted (sku text) ON COMMIT DROP"))
        connection.execute(text("INSERT INTO wanted VALUES ('sku-001'), ('sku-002')"))
        out("temporary table", connection.scalar(text("SELECT count(*) FROM product JOIN wanted USING (sku)")))
    with ENGINE.connect() as connection:
        expect_error("temporary table gone", lambda: connection.scalar(text("SELECT count(*) FROM wanted")))
        connection.rollback()
        connection.execute(text("CREATE TEMPORARY TABLE kept (n int)"))
        connection.commit()
        for number in range(3):
            connection.execute(text("INSERT INTO kept VALUES (:n)"), {"n": number})
            connection.commit()
            out("temporary table kept", connection.scalar(text("SELECT count(*) FROM kept")))
            connection.commit()
        connection.execute(text("DROP TABLE kept"))
        connection.commit()
    with ENGINE.begin() as connection:
        connection.execute(text("DROP SCHEMA app_extra CASCADE"))


def statements():
    """RETURNING, ON CONFLICT, common table expressions that write, functions."""
    with Session(ENGINE) as session:
        upsert = pg_insert(Product).values(sku="sku-001", title="upserted", price=decimal.Decimal("9.99"))
        upsert = upsert.on_conflict_do_update(index_elements=["sku"], set_={"title": upsert.excluded.title}).returning(Product.title, Product.stock)
        out("upsert", session.execute(upsert).one())
        out("ignored", session.execute(pg_insert(Product).values(sku="sku-001", title="x", price=1).on_conflict_do_nothing()).rowcount)
        moved = update(Product).where(Product.stock > 90).values(stock=90).returning(Product.id).cte("moved")
        out("writing CTE", session.scalar(select(func.count()).select_from(moved)))
        session.commit()
        session.execute(text("CREATE FUNCTION bump(text) RETURNS int LANGUAGE sql AS 'UPDATE product SET stock = stock + 1 WHERE sku = $1 RETURNING stock'"))
        session.commit()
        out("volatile function", session.scalar(select(func.bump("sku-005"))) - session.scalar(select(func.bump("sku-005"))))
        session.commit()
        session.execute(text("CREATE VIEW bumping AS SELECT bump('sku-005') AS stock"))
        session.commit()
        one = session.scalar(text("SELECT stock FROM bumping"))
        session.commit()
        two = session.scalar(text("SELECT stock FROM bumping"))
        session.commit()
        out("volatile function in a view", two - one)
        session.execute(text("DROP VIEW bumping"))
        session.execute(text("DROP FUNCTION bump(text)"))
        session.execute(text("SELECT pg_advisory_xact_lock(17)"))
        out("advisory locks", session.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")))
        session.commit()
        out("sequence", session.scalar(text("SELECT nextval('product_id_seq') - currval('product_id_seq')")))
        session.commit()


def unit_of_work():
    with Session(ENGINE) as session:
        customer = Customer(email="new@example.org", name="New", tags=["a"], profile={"level": 1})
        customer.orders = [Order(lines=[Line(product_id=1, quantity=2), Line(product_id=2, quantity=1)]) for _ in range(3)]
        session.add(customer)
        session.commit()
        customer.name, customer.profile = "Newer", {"level": 2}
        customer.orders[1].state = State.SENT
        del customer.orders[0].lines[0]
        session.commit()
        out("saved", customer.name, customer.version, [(order.state.name, len(order.lines)) for order in customer.orders])
        session.execute(text("UPDATE customer SET version = version + 1 WHERE id = :id"), {"id": customer.id})
        customer.name = "Stale"
        try:
            session.commit()
        except StaleDataError as error:
            out("stale version", type(error).__name__)
            session.rollback()
        session.delete(customer)
        session.commit()
        out("deleted with its orders", session.scalar(select(func.count()).select_from(Order)))


def many_threads():
    """More threads than the proxy has server connections, all at one row."""
    engine = sa.create_engine(URL, pool_size=8, max_overflow=0, pool_pre_ping=True)
    failures = []

    def work():
        try:
            for _ in range(15):
                # The session keeps its connection over the commit: another one of the pool may read an older state.
                with engine.connect() as connection, Session(connection) as session:
                    product = session.scalars(select(Product).where(Product.sku == "sku-020").with_for_update()).one()
                    mine = product.stock = product.stock + 1
                    session.commit()
                    if session.scalar(select(Product.stock).where(Product.sku == "sku-020")) < mine:
                        failures.append("stale")
        except Exception as error:  # noqa: BLE001: whatever it is, it is printed
            failures.append(failure(error))

    with Session(ENGINE) as session:
        session.execute(update(Product).where(Product.sku == "sku-020").values(stock=0))
        session.commit()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Session(engine) as session:
        locked = session.scalars(select(Product.stock).where(Product.sku == "sku-020").with_for_update()).one()
        out("many threads", locked, failures)
    engine.dispose()


def pools():
    """Connections checked before use, replaced, and left by their peers."""
    engine = sa.create_engine(URL, pool_pre_ping=True, pool_size=1, max_overflow=0)
    for number in range(5):
        with engine.connect() as connection:
            out("pre-ping", number, connection.scalar(text("SELECT :n + 1"), {"n": number}))
    with engine.connect() as connection:
        mine = connection.scalar(text("SELECT pg_backend_pid()"))
        with AUTOCOMMIT.connect() as other:
            out("ended by another", other.scalar(text("SELECT pg_terminate_backend(:pid)"), {"pid": mine}))
        expect_error("its next statement", lambda: connection.scalar(text("SELECT 1")))
    with engine.connect() as connection:
        out("replaced", connection.scalar(text("SELECT 5")))
    engine.dispose()
    unpooled = sa.create_engine(URL, poolclass=sa.pool.NullPool)
    for number in range(10):
        with unpooled.begin() as connection:
            connection.scalar(select(func.count()).select_from(Order))
    out("unpooled", "ok")
    plain = sa.create_engine(URL, connect_args={"prepare_threshold": None}, pool_size=1)
    eager = sa.create_engine(URL, connect_args={"prepare_threshold": 0}, pool_size=1)
    for engine in (plain, eager):
        for number in range(4):
            with engine.connect() as connection:
                out("prepare_threshold", connection.scalar(select(func.count()).where(Customer.id > number)))
    with eager.begin() as connection:
        connection.execute(text("ALTER TABLE product ADD COLUMN note text"))
    with eager.connect() as connection:
        expect_error("after ALTER", lambda: len(connection.execute(text("SELECT * FROM product WHERE id = :id"), {"id": 1}).keys()))
    with eager.begin() as connection:
        connection.execute(text("ALTER TABLE product DROP COLUMN note"))
    for engine in (plain, eager):
        engine.dispose()


STEPS = [
    migrations,
    failing_migration,
    reflection,
    bulk_writes,
    copies,
    reads_its_writes,
    rollbacks,
    savepoints,
    reads_then_writes,
    moves,
    savepoint_before_the_first_write,
    errors,
    cursors,
    isolation_levels,
    row_locks,
    settings,
    schemas_and_temporary_tables,
    statements,
    unit_of_work,
    many_threads,
    pools,
]


def listing(number):
    """The common view: the session begins by itself and is rolled back when it is closed."""
    with Session(ENGINE) as session:
        found = session.scalars(shop.page_of_customers(number)).all()
        return [(customer.email, customer.tags, customer.profile, customer.credit) for customer in found]


def detail(number):
    with Session(ENGINE) as session:
        customer = session.scalars(shop.customer_by_email(number)).one_or_none()
        orders = session.scalars(select(Order).where(Order.customer_id == customer.id).order_by(Order.id)).all()
        session.commit()
        return customer.email, [order.state.value for order in orders]


def graph(number):
    with Session(ENGINE) as session, session.begin():
        first = session.scalar(select(func.min(Customer.id)))
        customer = session.scalars(shop.customer_with_orders(first + number)).unique().first()
        if customer is None:
            return None
        return [(order.state.value, [(line.product.sku, line.quantity) for line in order.lines]) for order in customer.orders]


def report(number):
    with ENGINE.connect() as connection:
        rows = connection.execute(shop.revenue_by_state()).all()
        return [(row[0].value, row[1], row[2], row[3]) for row in rows]


def search(number):
    with ENGINE.begin() as connection:
        return [tuple(row) for row in connection.execute(shop.customers_with_large_orders(number))]


def counts(number):
    with Session(ENGINE) as session:
        with session.begin_nested():
            tagged = tuple(session.execute(shop.tagged(number)).one())
        return tagged, session.scalar(select(func.count()).select_from(Line))


def lazy(number):
    with Session(ENGINE) as session:
        orders = session.scalars(shop.orders_with_lines(number)).all()
        return [(order.customer.email, len(order.lines), order.placed_at.isoformat()) for order in orders]


def streamed(number):
    with Session(ENGINE) as session:
        streamed = session.scalars(select(Line.quantity).order_by(Line.id).execution_options(yield_per=40))
        return sum(streamed)


def autocommitted(number):
    with AUTOCOMMIT.connect() as connection:
        return connection.scalar(select(func.sum(Product.price * Product.stock)))


VIEWS = [listing, detail, graph, report, search, counts, lazy, streamed, autocommitted]

if sys.argv[1] == "steps":
    run_steps(STEPS)
else:
    run_views(VIEWS)
ENGINE.dispose()
print("done")

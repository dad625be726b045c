"""Django 5 on psycopg 3: migrations, views with ATOMIC_REQUESTS, and the ORM in autocommit.

usage: django_app.py steps|views URL NAME
"""

import datetime
import decimal
import io
import json
import pathlib
import re
import sys
import tempfile
import threading
import urllib.parse

import django
from django.conf import settings

url = urllib.parse.urlsplit(sys.argv[2])
DATABASE = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": url.hostname,
    "PORT": url.port,
    "NAME": url.path.lstrip("/"),
    "USER": url.username,
    "PASSWORD": url.password,
    # Not the server's: Django sets it on each new connection, by set_config().
    "TIME_ZONE": "Europe/Berlin",
    # Connections live on, as they do in production.
    "CONN_MAX_AGE": None,
    "CONN_HEALTH_CHECKS": True,
}
settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {**DATABASE, "ATOMIC_REQUESTS": True},
        # Parameters bound by the server, statements prepared, another time zone.
        "bound": {**DATABASE, "TIME_ZONE": "Europe/Prague", "OPTIONS": {"server_side_binding": True, "prepare_threshold": 3}},
        # A time zone, role and isolation level of its own, and a connection for each request.
        "serial": {**DATABASE, "TIME_ZONE": "Asia/Kolkata", "CONN_MAX_AGE": 0, "OPTIONS": {"isolation_level": 4, "assume_role": url.username}},
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "shop"],
    ROOT_URLCONF="shop.views",
    SECRET_KEY="for tests",
    USE_TZ=True,
    DEBUG_PROPAGATE_EXCEPTIONS=False,
    LOGGING_CONFIG=None,
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.db import DatabaseError, IntegrityError, connection, connections, transaction  # noqa: E402
from django.db.models import Count, F, Sum  # noqa: E402
from django.test import Client  # noqa: E402

from shop import views  # noqa: E402
from shop.models import Customer, Line, Order, Product  # noqa: E402
from transcript import digest, failure, out, run_steps, run_views  # noqa: E402

UTC = datetime.timezone.utc
BROWSER = Client(raise_request_exception=False)


def expect_error(step, action):
    try:
        result = action()
    except Exception as error:  # noqa: BLE001: whatever it is, it is printed
        out(step, failure(error))
    else:
        out(step, "no error", result)


def command(name, *arguments, **options):
    """Runs a management command and returns what it prints."""
    printed = io.StringIO()
    call_command(name, *arguments, stdout=printed, stderr=printed, no_color=True, **options)
    return printed.getvalue()


def migrations():
    out("migrate", command("migrate", verbosity=1).split("\n"))
    out("rows", list(Customer.objects.order_by("id").values_list("id", "email", "name")))
    out("showmigrations", command("showmigrations").split("\n"))
    out("back", command("migrate", "shop", "0001").split("\n"))
    out("again", command("migrate", "shop").split("\n"))
    out("missing migrations", command("makemigrations", "--dry-run").strip())
    out("sqlmigrate", digest([command("sqlmigrate", "shop", "0002")]))
    expect_error("checks", lambda: command("check", databases=["default"]))
    Customer.objects.all().delete()


def introspection():
    for line in command("inspectdb", "shop_customer", "shop_order", "shop_line").split("\n"):
        if line.strip() and not line.startswith("#"):
            out("inspectdb", line.strip())
    with connection.cursor() as cursor:
        look = connection.introspection
        out("tables", sorted(look.table_names(cursor)))
        out("sequences", look.get_sequences(cursor, "shop_customer"))
        out("relations", look.get_relations(cursor, "shop_line"))
        found = look.get_constraints(cursor, "shop_customer")
        for name in sorted(found):
            out("constraint", re.sub("_[0-9a-f]{8}_", "_", name), found[name]["columns"], found[name]["unique"], found[name]["index"])


def bulk_writes():
    customers = Customer.objects.bulk_create(
        (
            Customer(
                email=f"user{number}@example.org",
                name=f"Name {number:04} äöü '\"\\ ; -- %s",
                tags=["new", f"t{number % 7}"] if number % 2 else [],
                profile={"level": number % 5, "nested": {"on": number % 3 == 0}},
                credit=decimal.Decimal(number) / 4,
                created_at=datetime.datetime(2024, 1, 1, tzinfo=UTC) + datetime.timedelta(hours=number),
            )
            for number in range(300)
        ),
        batch_size=100,
    )
    out("bulk_create", len(customers), len({customer.pk for customer in customers}))
    products = Product.objects.bulk_create(
        Product(sku=f"sku-{number:03}", title=f"Product {number}", price=decimal.Decimal(number * 3 + 1) / 2, stock=100) for number in range(50)
    )
    orders = Order.objects.bulk_create(
        Order(customer=customers[number % 40], state=Order.State.values[number % 3], placed_at=datetime.datetime(2024, 5, 1, number % 24, tzinfo=UTC))
        for number in range(120)
    )
    Line.objects.bulk_create(
        Line(order=order, product=products[(number + step) % 50], quantity=step + 1) for number, order in enumerate(orders) for step in range(number % 4)
    )
    out("lines", Line.objects.count(), Line.objects.aggregate(Sum("quantity")))
    for product in products:
        product.stock += 5
    out("bulk_update", Product.objects.bulk_update(products, ["stock"], batch_size=20), Product.objects.aggregate(Sum("stock")))
    again = [Product(sku="sku-000", title="again", price=1), Product(sku="sku-new", title="new", price=1)]
    Product.objects.bulk_create(again, update_conflicts=True, unique_fields=["sku"], update_fields=["title"])
    Product.objects.bulk_create(again, ignore_conflicts=True)
    out("conflicts", list(Product.objects.filter(sku__in=["sku-000", "sku-new"]).order_by("sku").values_list("sku", "title")))
    out("deleted", Product.objects.filter(sku="sku-new").delete())
    with connection.cursor() as cursor:
        cursor.executemany("UPDATE shop_product SET stock = stock + %s WHERE sku = %s", [(number, f"sku-{number:03}") for number in range(50)])
        out("executemany", cursor.rowcount, Product.objects.aggregate(Sum("stock")))
        with cursor.copy("COPY shop_customer (email, name, tags, profile, credit, created_at) FROM STDIN") as copy:
            for number in range(1500):
                copy.write_row((f"copy{number}@example.org", "Copied", [], "{}", 0, datetime.datetime(2023, 1, 1, tzinfo=UTC)))
        out("copied", Customer.objects.filter(email__startswith="copy").count())
        with cursor.copy("COPY (SELECT email FROM shop_customer WHERE email LIKE 'copy%' ORDER BY id) TO STDOUT") as copy:
            out("copied out", digest([b"".join(bytes(block) for block in copy)]))
    out("deleted", Customer.objects.filter(email__startswith="copy").delete())


def reads_its_writes():
    for number in range(50):
        Product.objects.create(sku=f"ryw-{number}", title="read your writes", price=1)
        seen = Product.objects.filter(sku__startswith="ryw-").count()
        if seen != number + 1:
            out("stale read in autocommit", number, seen)
    for number in range(50):
        with transaction.atomic():
            Product.objects.filter(sku="ryw-0").update(stock=number)
        with transaction.atomic():
            seen = Product.objects.get(sku="ryw-0").stock
        if seen != number:
            out("stale read in a transaction", number, seen)
    out("read its writes", Product.objects.filter(sku__startswith="ryw-").delete())


def requests():
    """Requests that read and write, within the transaction that Django opens for each."""
    for number in range(20):
        kept = BROWSER.get(f"/restock/{number}")
        failed = BROWSER.get(f"/restock/{number}?fail=1")
        out("restock", kept.json(), failed.status_code, Product.objects.get(sku=f"sku-{number:03}").stock == kept.json()["stock"])
    out("not found", BROWSER.get("/restock/999").status_code)


def nested_transactions():
    first, second, third = Product.objects.order_by("id")[:3]
    with transaction.atomic():
        count = Order.objects.count()
        with transaction.atomic():
            Product.objects.filter(pk=first.pk).update(stock=1000)
        try:
            with transaction.atomic():
                Product.objects.create(sku="sku-000", title="taken", price=1)
        except IntegrityError as error:
            out("in a savepoint", failure(error))
        try:
            with transaction.atomic():
                Product.objects.filter(pk=second.pk).update(stock=2000)
                with transaction.atomic():
                    Product.objects.filter(pk=third.pk).update(stock=3000)
                raise ValueError
        except ValueError:
            pass
        point = transaction.savepoint()
        Order.objects.all().delete()
        transaction.savepoint_rollback(point)
        point = transaction.savepoint()
        Product.objects.filter(pk=second.pk).update(stock=2500)
        transaction.savepoint_commit(point)
        out("within", Order.objects.count() == count)
    out("after savepoints", list(Product.objects.order_by("id").values_list("sku", "stock")[:3]))
    called = []
    with transaction.atomic(durable=True):
        transaction.on_commit(lambda: called.append(Product.objects.get(pk=third.pk).stock))
        Product.objects.filter(pk=third.pk).update(stock=333)
    out("on_commit", called)
    try:
        with transaction.atomic():
            Product.objects.update(stock=0)
            transaction.set_rollback(True)
    finally:
        out("set_rollback", Product.objects.filter(stock=0).count())
    transaction.set_autocommit(False)
    Product.objects.filter(pk=third.pk).update(stock=1)
    transaction.rollback()
    out("by hand", Product.objects.get(pk=third.pk).stock)
    Product.objects.filter(pk=third.pk).update(stock=334)
    transaction.commit()
    transaction.set_autocommit(True)
    out("by hand, kept", Product.objects.get(pk=third.pk).stock)


def reads_then_writes():
    for number in range(30):
        sku = f"sku-{number:03}"
        try:
            with transaction.atomic():
                product = Product.objects.get(sku=sku)
                with transaction.atomic():
                    orders = Order.objects.count()
                if number % 3 == 0:
                    with connection.cursor() as cursor:
                        cursor.execute("SET LOCAL TIME ZONE 'Asia/Tokyo'")
                if number % 2:
                    product.stock += 1
                    product.save()
                with connection.cursor() as cursor:
                    cursor.execute("SELECT '2024-01-01 00:00:00+00'::timestamptz::text, current_setting('TimeZone')")
                    row = cursor.fetchone()
                if number % 5 == 0:
                    raise ValueError
        except ValueError:
            pass
        out("read then write", number, orders, row, Product.objects.get(sku=sku).stock)


def moves():
    """As above, but each connection is a new one, which has written nothing yet: its first reads may be a replica's."""
    for number in range(40):
        connection.close()
        email = f"user{number}@example.org"
        try:
            with transaction.atomic():
                customer = Customer.objects.get(email=email)
                try:
                    with transaction.atomic():
                        orders = customer.orders.count()
                        if number % 3 == 0:
                            run("SET LOCAL TIME ZONE 'Asia/Tokyo'")
                        if number % 4 == 0:
                            run("SELECT 1 / (count(*) - count(*)) FROM shop_customer")
                        if number % 4 == 1:
                            raise ValueError
                        with transaction.atomic():
                            Customer.objects.filter(pk=customer.pk).update(credit=F("credit") + 1)
                except (DatabaseError, ValueError):
                    orders = None
                with transaction.atomic():
                    zone = run("SELECT current_setting('TimeZone')")
                    Customer.objects.filter(pk=customer.pk).update(credit=F("credit") + 100)
                if number % 5 == 0:
                    raise ValueError
        except ValueError:
            pass
        out("move", number, orders, zone, customer.credit, Customer.objects.get(email=email).credit, run("SELECT current_setting('TimeZone')"))


def errors():
    with transaction.atomic():
        Customer.objects.count()
        expect_error("in a savepoint", lambda: run_atomically("SELECT * FROM nowhere"))
        out("and on", Customer.objects.count())

    def without_savepoint():
        with transaction.atomic():
            Customer.objects.count()
            try:
                run("SELECT 1 / (count(*) - count(*)) FROM shop_customer")
            except DatabaseError as error:
                out("division", failure(error))
            expect_error("failed transaction", lambda: run("SELECT 1"))
            Customer.objects.count()

    expect_error("without savepoint", without_savepoint)
    out("recovered", Customer.objects.count())
    for sql in (
        "SELECT nothing FROM shop_customer",
        "SELEKT 1",
        "UPDATE shop_product SET stock = -1 WHERE sku = 'sku-005'",
        "INSERT INTO shop_line (order_id, product_id, quantity) VALUES (-1, -1, 1)",
        "SELECT nothing(1)",
        "SELECT 'x'::int",
    ):
        expect_error("in autocommit", lambda sql=sql: run(sql))
        expect_error("in a transaction", lambda sql=sql: run_atomically(sql))
    expect_error("does not exist", lambda: Customer.objects.get(pk=-1))
    expect_error("protected", lambda: Product.objects.get(sku="sku-001").delete())

    def read_only():
        with transaction.atomic():
            run("SET TRANSACTION READ ONLY")
            Product.objects.update(stock=1)

    expect_error("read only", read_only)


def run(sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else cursor.rowcount


def run_atomically(sql):
    with transaction.atomic():
        return run(sql)


def cursors():
    """Server-side cursors: within a transaction, and held beyond one in autocommit."""
    for alias in ("default", "bound"):
        with transaction.atomic(using=alias):
            customers = Customer.objects.using(alias).order_by("id")
            out("iterator", alias, digest([one.email for one in customers.iterator(chunk_size=50)]))
            left, right = customers.iterator(chunk_size=10), Order.objects.using(alias).order_by("-id").iterator(chunk_size=10)
            out("two at once", digest([(next(left).email, next(right).state) for _ in range(100)]))
        out("in autocommit", alias, digest([one.email for one in customers.iterator(chunk_size=50)]))
        interrupted = customers.iterator(chunk_size=10)
        first = next(interrupted).email
        Product.objects.using(alias).filter(sku="sku-001").update(stock=F("stock") + 1)
        out("with writes in between", first, sum(1 for _ in interrupted))
        prefetched = Order.objects.using(alias).order_by("id").prefetch_related("lines").iterator(chunk_size=30)
        out("prefetched", sum(len(order.lines.all()) for order in prefetched))
        connections[alias].close()


def row_locks():
    """A second connection, in a thread of its own, meets the locks of the first."""
    wanted = Product.objects.filter(sku__in=["sku-010", "sku-011"]).order_by("sku")

    def meet():
        def locked(**options):
            with transaction.atomic():
                return [product.sku for product in wanted.select_for_update(**options)]

        expect_error("nowait", lambda: locked(nowait=True))
        expect_error("no key", lambda: locked(nowait=True, no_key=True))
        out("skip locked", locked(skip_locked=True))
        out("plain read", [product.sku for product in wanted])
        connection.close()

    with transaction.atomic():
        Product.objects.select_for_update(of=("self",)).get(sku="sku-010")
        in_thread(meet)
    expect_error("outside a transaction", lambda: list(wanted.select_for_update()))


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def many_threads():
    """More threads than the proxy has server connections, all at one row."""
    Product.objects.filter(sku="sku-020").update(stock=0)
    failures = []

    def work():
        browser = Client(raise_request_exception=True)
        try:
            for _ in range(10):
                with transaction.atomic():
                    product = Product.objects.select_for_update().get(sku="sku-020")
                    product.stock += 1
                    product.save()
                if Product.objects.get(sku="sku-020").stock < product.stock:
                    failures.append("stale")
                browser.get("/detail/7")
        except Exception as error:  # noqa: BLE001: whatever it is, it is printed
            failures.append(failure(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with transaction.atomic():
        out("many threads", Product.objects.select_for_update().get(sku="sku-020").stock, failures)


def time_zones():
    """Three aliases with a time zone each; two of their connections ask in turn."""
    sql = "SELECT '2024-07-01 12:00:00+00'::timestamptz::text, current_setting('TimeZone'), current_setting('transaction_isolation')"
    for number in range(6):
        for alias in ("default", "bound", "serial"):
            with connections[alias].cursor() as cursor:
                cursor.execute(sql)
                row = cursor.fetchone()
            days = Order.objects.using(alias).filter(placed_at__date="2024-05-01").count()
            out("time zone", alias, row, days)
        if number == 2:
            connections["serial"].close()
    with transaction.atomic(using="serial"):
        Product.objects.using("serial").filter(sku="sku-030").update(stock=30)
        with connections["serial"].cursor() as cursor:
            cursor.execute(sql)
            out("in a transaction", cursor.fetchone())
    out("written by serial", Product.objects.using("serial").get(sku="sku-030").stock)
    for alias in ("bound", "serial"):
        connections[alias].close()


def the_frameworks_own():
    """Users, sessions, content types, fixtures: what Django's own applications do."""
    user = get_user_model().objects.create_user("someone", "some@example.org", "password")
    user.groups.create(name="staff")
    out("user", user.check_password("password"), list(user.groups.values_list("name", flat=True)), user.has_perm("shop.add_order"))
    session = SessionStore()
    session["cart"] = [1, 2, 3]
    session.save()
    again = SessionStore(session_key=session.session_key)
    again["cart"] += [4]
    again.save()
    out("session", SessionStore(session_key=session.session_key)["cart"])
    dumped = command("dumpdata", "shop.product", "--natural-foreign")
    out("dumpdata", len(json.loads(dumped)))
    with tempfile.TemporaryDirectory() as folder:
        fixture = pathlib.Path(folder) / "products.json"
        fixture.write_text(dumped)
        Product.objects.update(title="changed")
        out("loaddata", command("loaddata", str(fixture)).strip(), Product.objects.filter(title="changed").count())
    out("get_or_create", [Product.objects.get_or_create(sku="sku-goc", defaults={"title": "x", "price": 1})[1] for _ in range(2)])
    out("update_or_create", [Product.objects.update_or_create(sku="sku-goc", defaults={"title": "y"})[1] for _ in range(2)])
    out("deleted", Product.objects.filter(sku="sku-goc").delete())
    out("explain", "Scan" in Customer.objects.filter(pk=1).explain())
    out("explain analyze", "actual" in Customer.objects.filter(pk=1).explain(analyze=True))
    out("cleanup", command("clearsessions").strip(), command("remove_stale_contenttypes", interactive=False).strip())
    out("sqlsequencereset", run_script(command("sqlsequencereset", "shop")))
    out("next", Product.objects.create(sku="sku-last", title="last", price=1).pk == Product.objects.latest("pk").pk)
    Product.objects.filter(sku="sku-last").delete()


def run_script(sql):
    """Runs several statements as one simple query, as `dbshell` would."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.rowcount


def connections_per_request():
    """A new connection for each request, as with CONN_MAX_AGE = 0."""
    for number in range(15):
        connection.close()
        out("a connection", BROWSER.get(f"/detail/{number}").json()["name"])
    out("usable", connection.is_usable(), connection.pg_version > 120000)


STEPS = [
    migrations,
    introspection,
    bulk_writes,
    reads_its_writes,
    requests,
    nested_transactions,
    reads_then_writes,
    moves,
    errors,
    cursors,
    row_locks,
    many_threads,
    time_zones,
    the_frameworks_own,
    connections_per_request,
]


def request(view):
    def answer(number):
        response = BROWSER.get(f"/{view.__name__}/{number}")
        return response.status_code, response.content.decode()

    answer.__name__ = view.__name__
    return answer


if sys.argv[1] == "steps":
    run_steps(STEPS)
else:
    run_views([request(view) for view in views.READ_ONLY])
connections.close_all()
print("done")

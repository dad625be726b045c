"""psycopg on the console: every table in both formats, with columns of the types that they are said to have.

usage: psycopg_console.py URL NAME

Prints what it saw, and `done` at its end.
"""

import datetime
import sys

import psycopg

URL = sys.argv[1]

# What Python makes of the console's types, by their object IDs.
TYPES = {
    16: bool,
    20: int,
    21: int,
    23: int,
    25: str,
    19: str,
    26: int,
    701: float,
    1184: datetime.datetime,
}

with psycopg.connect(URL, autocommit=True) as connection:
    tables = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
    ).fetchall()
    assert len(tables) >= 20, tables
    for (table,) in tables:
        for binary in (False, True):
            with connection.cursor(binary=binary) as cursor:
                rows = cursor.execute(f"SELECT * FROM {table}", prepare=binary).fetchall()
                columns = cursor.description
                assert columns, table
                for row in rows:
                    for column, value in zip(columns, row):
                        expected = TYPES[column.type_code]
                        assert value is None or isinstance(value, expected), (
                            table,
                            column,
                            value,
                        )
        print(f"{table}: {len(columns)} columns", flush=True)

    # Parameters, of types that psycopg chooses.
    row = connection.execute(
        "SELECT name, weight FROM backends WHERE weight >= %s AND role = %s", (1, "primary")
    ).fetchone()
    assert row[1] == 100 and isinstance(row[0], str), row
    # A name, a cursor on the server's side of it, and an error that leaves the session usable.
    try:
        connection.execute("SELECT no_such_column FROM backends")
        raise AssertionError("no error")
    except psycopg.errors.UndefinedColumn as error:
        print("undefined column:", error.diag.message_primary, flush=True)
    with connection.transaction():
        assert connection.execute("SELECT count(*) FROM backends").fetchone() == (3,)

print("done", flush=True)

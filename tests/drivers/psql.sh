#!/usr/bin/env bash
# psql: a deterministic transcript of what a person or a shell script does with it.
#
# usage: psql.sh URL TABLE_PREFIX    (PSQL names another psql than the one in PATH)
#
# Errors are printed verbose, so that every field of an ErrorResponse is compared. All steps but the
# cancels run in one session: another session's reads need not see this one's writes at once. A psql before
# version 16 does not know \bind and says so, on both runs alike.
set -u
url=$1 prefix=$2
psql=${PSQL:-psql}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export PGCONNECT_TIMEOUT=20

"$psql" -X -q -v prefix="$prefix" -v items="${prefix}_items" -v copied="${prefix}_copied" -v folder="$folder" \
    -v VERBOSITY=verbose "$url" 2>&1 <<'SQL'
\pset pager off
\pset null NULL
\echo == connected
\echo :ENCODING :SERVER_VERSION_NUM :USER
\echo == simple
SELECT 1 AS one, 'two' AS two, NULL AS three;
DROP TABLE IF EXISTS :items, :copied;
CREATE TABLE :items (id int PRIMARY KEY, name text NOT NULL, n numeric);
CREATE TABLE :copied (id int, name text);
INSERT INTO :items (id, name) VALUES (1, 'a'), (2, 'b') RETURNING *;
UPDATE :items SET n = id * 1.5;
SELECT * FROM :items ORDER BY id;
\echo :ROW_COUNT
;
\echo == several statements in one message
SELECT 1 \; INSERT INTO :items (id, name) VALUES (3, 'c') \; SELECT count(*) FROM :items;
INSERT INTO :items (id, name) VALUES (4, 'undone') \; SELECT 1 / 0 \; SELECT 'skipped';
SELECT count(*) FROM :items;
BEGIN \; UPDATE :items SET n = 0 \; COMMIT \; SELECT sum(n) FROM :items;
\echo == errors
SELECT * FORM nowhere;
SELECT * FROM nowhere_at_all;
SELECT nothing FROM :items;
INSERT INTO :items (id, name) VALUES (1, 'dup');
INSERT INTO :items (id) VALUES (10);
SELECT 'x'::int;
DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'ZZ123', DETAIL = 'd', HINT = 'h'; END $$;
\echo :SQLSTATE :LAST_ERROR_MESSAGE
SELECT 100000 / (100000 - g) FROM generate_series(1, 200000) g;
\echo == notices
DO $$ BEGIN RAISE NOTICE 'first %', 1; RAISE WARNING 'second' USING HINT = 'h'; END $$;
\echo == described and extended
SELECT id, name, n * 2 AS twice FROM :items \gdesc
SELECT $1::int + $2::numeric \gdesc
SELECT :VERSION_NUM >= 160000 AS binds \gset
\if :binds
SELECT $1::int + $2::int AS bound \bind 1 2 \g
SELECT * FROM :items WHERE id = $1 \bind 2 \g
SELECT 1 / $1::int \bind 0 \g
\endif
PREPARE by_id (int) AS SELECT name FROM :items WHERE id = $1;
EXECUTE by_id(1);
EXECUTE by_id(2);
DEALLOCATE by_id;
SELECT format('SELECT %s AS generated', g) FROM generate_series(1, 3) g \gexec
\echo == transactions
BEGIN;
INSERT INTO :items (id, name) VALUES (20, 'x');
SAVEPOINT s;
INSERT INTO :items (id, name) VALUES (20, 'y');
SELECT 'refused';
ROLLBACK TO s;
SELECT count(*) FROM :items;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SHOW transaction_isolation;
DELETE FROM :items;
SELECT count(*) FROM :items;
ROLLBACK AND CHAIN;
SHOW transaction_isolation;
ROLLBACK;
SELECT count(*) FROM :items;
START TRANSACTION READ ONLY;
SELECT count(*) FROM :items;
DELETE FROM :items;
ROLLBACK;
COMMIT;
\set AUTOCOMMIT off
INSERT INTO :items (id, name) VALUES (21, 'z');
\set ON_ERROR_ROLLBACK on
SELECT 1 / 0;
SELECT count(*) FROM :items;
COMMIT;
\set ON_ERROR_ROLLBACK off
\set AUTOCOMMIT on
\echo == copy
COPY :copied FROM STDIN;
1	one
2	two \\ and a half
3	\N
\.
SELECT count(*), sum(id), max(name) FROM :copied;
COPY :copied TO STDOUT;
COPY (SELECT * FROM :copied ORDER BY id DESC) TO STDOUT (FORMAT csv, HEADER);
COPY :copied FROM STDIN;
4	four
bad	line
5	five
\.
COPY nowhere_at_all FROM STDIN;
SELECT count(*) FROM :copied;
BEGIN;
COPY :copied FROM STDIN (FORMAT csv);
6,six
\.
SELECT count(*) FROM :copied;
ROLLBACK;
SELECT 1 AS before \; COPY :copied TO STDOUT \; SELECT 2 AS after;
\echo == large
\o | sha256sum
SELECT g, md5(g::text), repeat('z', g % 100) FROM generate_series(1, 200000) g;
\o
\set FETCH_COUNT 1000
\o | sha256sum
SELECT g, md5(g::text) FROM generate_series(1, 20000) g;
\o
\set FETCH_COUNT 0
\echo == cursors
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM :items ORDER BY id;
FETCH 2 FROM c;
MOVE FORWARD 1 IN c;
FETCH ALL FROM c;
FETCH FIRST FROM c;
CLOSE c;
COMMIT;
\echo == catalog
\d :items
\dt+ nowhere_at_all
\echo == session state
CREATE TEMP TABLE temporary AS SELECT generate_series(1, 10) AS x;
SELECT sum(x) FROM temporary;
SET TIME ZONE 'Asia/Tokyo';
SELECT '2024-01-01 00:00+00'::timestamptz;
RESET TIME ZONE;
SET my.setting = 'here';
SHOW my.setting;
SET search_path = pg_catalog;
SELECT current_schemas(false);
RESET search_path;
SELECT pg_try_advisory_lock(44), pg_advisory_unlock(44);
DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 3);
FETCH ALL FROM held;
CLOSE held;
DISCARD ALL;
SELECT * FROM temporary;
DROP TABLE :items, :copied;
SQL
echo "exit $?"

echo "== one command each"
"$psql" -X -At "$url" -c "SELECT 1" -c "SELECT 2" -c "BEGIN; SELECT 3; COMMIT; SELECT 4" 2>&1
"$psql" -X -At -1 -v ON_ERROR_STOP=1 "$url" -c "SELECT 1" -c "SELECT 1/0" -c "SELECT 2" 2>&1
echo "exit $?"
echo "SELECT 'from stdin'" | "$psql" -X -At "$url" 2>&1

# A file through \copy in both directions: psql reads and writes it, the server sees COPY.
echo "== copy of files"
seq 1 200000 | sed 's/$/\tvalue/' >"$folder/data"
"$psql" -X -q "$url" 2>&1 <<SQL
CREATE TABLE ${prefix}_copied (id int, name text);
\copy ${prefix}_copied FROM '$folder/data'
SELECT count(*), sum(id) FROM ${prefix}_copied;
\copy (SELECT * FROM ${prefix}_copied ORDER BY id) TO '$folder/back'
\copy ${prefix}_copied TO '$folder/binary' (FORMAT binary)
TRUNCATE ${prefix}_copied;
\copy ${prefix}_copied FROM '$folder/binary' (FORMAT binary)
SELECT count(*), sum(id) FROM ${prefix}_copied;
DROP TABLE ${prefix}_copied;
SQL
cmp "$folder/data" "$folder/back" && echo "copied back the same"

# Large objects go through FunctionCall messages.
echo "== large object"
head -c 300000 /dev/zero >"$folder/object"
"$psql" -X -q "$url" 2>&1 <<SQL
\lo_import '$folder/object'
\lo_export :LASTOID '$folder/object.back'
\lo_unlink :LASTOID
\lo_unlink 1
SQL
cmp "$folder/object" "$folder/object.back" && echo "large object the same"

# Ctrl-C while a statement runs. It must not come before psql has sent the statement (psql would end
# without having sent anything), so another session looks for the statement: it and the DO block
# both run on the primary.
echo "== cancel"
interrupt() {
    local name=$1 statement=$2 marker running
    marker="${prefix}_cancel_$name"
    "$psql" -X -q -At "$url" -c "$statement -- $marker" >"$folder/cancelled" 2>&1 &
    running=$!
    for _ in $(seq 600); do
        kill -0 $running 2>/dev/null || break
        [ "$("$psql" -X -q -At "$url" -c "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%$marker'")" = 1 ] && break
        sleep 0.1
    done
    kill -INT $running
    wait $running
    echo "$name: exit $? $(tr '\n' ' ' <"$folder/cancelled")"
}
interrupt block 'DO $$ BEGIN PERFORM pg_sleep(120); END $$'
interrupt transaction 'BEGIN; CREATE TABLE '"$prefix"'_never (x int); SELECT pg_sleep(120)'
"$psql" -X -At "$url" -c "BEGIN; SELECT count(*) FROM pg_class WHERE relname = '${prefix}_never'; COMMIT"
echo done

-- What each client of the differential test owns: {me} is its schema, {type} the type of t.k. Clients say the same texts with
-- different search paths, so the types of what they name differ from client to client (but not between the two schemas of
-- one client: there PostgreSQL would refuse to run prepared statements again).
drop schema if exists {me}, {me}b, {me}c cascade;
create schema {me};
create schema {me}b;
set local search_path = {me};
create table t (id int primary key, k {type}, v text, d date, ts timestamptz, f float8, b bytea);
insert into t select n, n, '{me}:' || n, date '2024-02-28' + n, timestamptz '2024-03-31 00:30+00' + n * interval '1 hour', n / 3.0::float8, decode(lpad(n::text, 4, '0'), 'hex') from generate_series(1, 5) n;
create table {me}b.t (like t including all);
insert into {me}b.t (id, k, v) values (1, 10, '{me}b:1'), (2, 20, '{me}b:2');
create table u (id serial primary key, v text unique not null);
insert into u (v) values ('one'), ('two');
create table wide (id int primary key, v text);
insert into wide values (1, 'wide');
create table parent (id int primary key);
insert into parent values (1), (2);
create table child (id int primary key, p int references parent deferrable initially deferred);
create table mine (id int, owner text);
insert into mine values (1, 'app'), (2, 'diff_reader'), (3, 'diff_writer'), (4, '{user}');
alter table mine enable row level security, force row level security;
create policy own on mine using (owner = current_user);
create table touched (n int);
insert into touched values (0);
create sequence q;
create view vw as select id, v, 0 as number from t;
create view vw_simple as select id, v from t;
create function f_stable(i int) returns int language sql stable as 'select i * 2';
create function f_plain(i int) returns int language sql stable as 'select i + 1';
create function f_reads() returns bigint language sql stable as 'select count(*) from t';
create function f_writes(i int) returns int language plpgsql as $$ begin insert into u (v) values ('f' || i) on conflict (v) do update set v = excluded.v || 'x'; return i; end $$;
create function f_raises(i int) returns int language plpgsql as $$ begin raise exception 'raised %', i using detail = 'in a function', hint = 'none'; end $$;
create function f_sets(x text) returns text language plpgsql as $$ begin perform set_config('my.a', x, false); perform set_config('application_name', x, false); return x; end $$;
create procedure p_writes(i int) language plpgsql as $$ begin insert into u (v) values ('p' || i) on conflict do nothing; commit; insert into u (v) values ('q' || i); end $$;
create procedure p_sets(x text) language plpgsql as $$ begin perform set_config('my.b', x, false); perform set_config('datestyle', 'German', false); end $$;
grant usage on schema {me}, {me}b to diff_reader, diff_writer;
grant select on all tables in schema {me} to diff_reader;
grant all on all tables in schema {me} to diff_writer;
grant all on all sequences in schema {me} to diff_writer;

// TypeORM on node-postgres: a shop with migrations, transactions, streams and locks.
//
// usage: app.js steps|views URL NAME
'use strict';

const crypto = require('node:crypto');
const { from: copyFrom, to: copyTo } = require('pg-copy-streams');
const Cursor = require('pg-cursor');
const { pipeline } = require('node:stream/promises');
const { Readable, Writable } = require('node:stream');
const { Between, DataSource, ILike, In, MoreThan, Raw } = require('typeorm');

const entities = require('./entities');
const migrations = require('./migrations');

const { Customer, Product, Order, Line } = entities;
const [, , part, url] = process.argv;
const VIEWS = 300;

const options = { type: 'postgres', url, entities: Object.values(entities), migrations, migrationsTransactionMode: 'each', synchronize: false, extra: { max: 6 } };
const source = new DataSource(options);

function out(step, ...values) {
  console.log(`${step}: ${values.map((value) => (typeof value === 'string' ? value : JSON.stringify(value))).join(' | ')}`);
}

function digest(values) {
  const hash = crypto.createHash('sha256');
  for (const value of values) hash.update(typeof value === 'string' || Buffer.isBuffer(value) ? value : JSON.stringify(value) ?? 'undefined');
  return hash.digest('hex').slice(0, 16);
}

function failure(error) {
  const driver = error.driverError ?? error;
  return [error.constructor.name, driver.code, driver.severity, driver.message, driver.detail, driver.hint, driver.constraint, driver.position].join(' / ');
}

async function expectError(step, action) {
  try {
    out(step, 'no error', (await action()) ?? null);
  } catch (error) {
    out(step, failure(error));
  }
}

function uuid(number) {
  return `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
}

async function migrate() {
  out('pending', await source.showMigrations());
  const names = async (run) => out('migrations', (await run).map((migration) => migration.name));
  await names(source.runMigrations({ transaction: 'each' }));
  out('rows', (await source.query('SELECT id, email, name FROM customer ORDER BY id')));
  await source.undoLastMigration({ transaction: 'each' });
  await source.undoLastMigration({ transaction: 'each' });
  out('rows again', (await source.query('SELECT id, first_name, last_name FROM customer ORDER BY id')));
  await names(source.runMigrations({ transaction: 'each' }));
  out('pending', await source.showMigrations());
  // Names of constraints differ from those that TypeORM would choose, so the number of statements is what counts.
  const missing = await source.driver.createSchemaBuilder().log();
  out('the models would change', missing.upQueries.length, digest(missing.upQueries.map((query) => query.query)));
  await source.query('DELETE FROM customer');
}

async function synchronize() {
  // TypeORM's own way from models to tables, in a schema of its own, twice: the second time finds nothing to do.
  await source.query('CREATE SCHEMA twice');
  const twice = new DataSource({ ...options, schema: 'twice', migrations: [] });
  await twice.initialize();
  await twice.synchronize();
  await twice.synchronize();
  const log = await twice.driver.createSchemaBuilder().log();
  out('synchronized', log.upQueries.length);
  await twice.getRepository(Product).save({ sku: 'twice', title: 'Twice', price: '1.00' });
  out('its rows', await twice.getRepository(Product).count());
  await twice.dropDatabase();
  await twice.destroy();
  await source.query('DROP SCHEMA IF EXISTS twice CASCADE');
}

async function reflection() {
  const runner = source.createQueryRunner();
  for (const name of ['customer', 'product', 'orders', 'line']) {
    const table = await runner.getTable(name);
    for (const column of table.columns.sort((left, right) => left.name.localeCompare(right.name))) out(`column of ${name}`, column.name, column.type, column.length, column.isNullable, column.default ?? null, column.isGenerated);
    out(`keys of ${name}`, table.foreignKeys.map((key) => [key.name, key.columnNames, key.onDelete]).sort());
    out(`indexes of ${name}`, table.indices.map((index) => [index.name, index.columnNames, index.isUnique]).sort(), table.checks.map((check) => check.expression));
  }
  out('has', await runner.hasTable('nowhere'), await runner.hasColumn('customer', 'email'), await runner.hasSchema('public'));
  await runner.release();
}

async function bulkWrites() {
  const customers = Array.from({ length: 300 }, (_, number) => ({
    email: `user${number}@example.org`,
    name: `Name ${String(number).padStart(4, '0')} äöü '"\\ ; -- $1`,
    tags: number % 2 ? ['new', `t${number % 7}`] : [],
    profile: { level: number % 5, nested: { on: number % 3 === 0 } },
    credit: (number / 4).toFixed(2),
    createdAt: new Date(Date.UTC(2024, 0, 1, number)),
  }));
  const inserted = await source.createQueryBuilder().insert().into(Customer).values(customers).execute();
  out('inserted', inserted.identifiers.length, new Set(inserted.identifiers.map((key) => key.id)).size);
  const products = await source.getRepository(Product).save(
    Array.from({ length: 50 }, (_, number) => ({ sku: `sku-${String(number).padStart(3, '0')}`, title: `Product ${number}`, price: ((number * 3 + 1) / 2).toFixed(2), stock: 100 })),
    { chunk: 20 },
  );
  await source.getRepository(Order).insert(
    Array.from({ length: 120 }, (_, number) => ({
      id: uuid(number),
      number,
      state: ['open', 'paid', 'sent'][number % 3],
      placedAt: new Date(Date.UTC(2024, 4, 1, number % 24)),
      customer: { id: inserted.identifiers[number % 40].id },
    })),
  );
  const lines = [];
  for (let number = 0; number < 120; number++) {
    for (let step = 0; step < number % 4; step++) lines.push({ order: { id: uuid(number) }, product: products[(number + step) % 50], quantity: step + 1 });
  }
  await source.getRepository(Line).insert(lines);
  out('lines', await source.getRepository(Line).count(), await source.getRepository(Line).sum('quantity'));
  await source.getRepository(Product).upsert([{ sku: 'sku-000', title: 'Upserted', price: '2.00' }, { sku: 'sku-new', title: 'New', price: '3.00' }], ['sku']);
  out('upserted', await source.getRepository(Product).find({ where: { sku: In(['sku-000', 'sku-new']) }, order: { sku: 'ASC' } }));
  const updated = await source.createQueryBuilder().update(Product).set({ stock: () => 'stock + 5' }).where('sku LIKE :like', { like: 'sku-0%' }).returning('id').execute();
  out('updated', updated.affected, updated.raw.length);
  out('deleted', (await source.getRepository(Product).delete({ sku: 'sku-new' })).affected);
}

async function withDriver(work) {
  const runner = source.createQueryRunner();
  try {
    return await work(await runner.connect(), runner);
  } finally {
    await runner.release();
  }
}

async function copies() {
  await withDriver(async (client, runner) => {
    const rows = Array.from({ length: 2000 }, (_, number) => `copy${number}@example.org\tCopied ${number}\n`);
    await runner.startTransaction();
    await pipeline(Readable.from(rows), client.query(copyFrom('COPY customer (email, name) FROM STDIN')));
    out('copied in', await runner.manager.countBy(Customer, { email: ILike('copy%') }));
    await runner.commitTransaction();
    const chunks = [];
    const sink = new Writable({
      write(chunk, _encoding, done) {
        chunks.push(chunk);
        done();
      },
    });
    await pipeline(client.query(copyTo("COPY (SELECT email, name FROM customer WHERE email LIKE 'copy%' ORDER BY id) TO STDOUT")), sink);
    out('copied out', digest([Buffer.concat(chunks)]));
    out('deleted', (await runner.manager.delete(Customer, { email: ILike('copy%') })).affected);
    await expectError('bad copy', () => pipeline(Readable.from(['a\tb\tc\n']), client.query(copyFrom('COPY product (sku, title, price) FROM STDIN'))));
  });
}

async function readsItsWrites() {
  // On one connection of the application each: a pool may give the next statement to another session.
  await withDriver(async (_client, runner) => {
    const { manager } = runner;
    for (let number = 0; number < 50; number++) {
      await manager.insert(Product, { sku: `ryw-${number}`, title: 'read your writes', price: '1.00' });
      const seen = await manager.countBy(Product, { sku: ILike('ryw-%') });
      if (seen !== number + 1) out('stale read in autocommit', number, seen);
    }
    for (let number = 0; number < 50; number++) {
      await manager.transaction((within) => within.update(Product, { sku: 'ryw-0' }, { stock: number }));
      const { stock } = await manager.transaction((within) => within.findOneByOrFail(Product, { sku: 'ryw-0' }));
      if (stock !== number) out('stale read in a transaction', number, stock);
    }
    out('read its writes', (await manager.delete(Product, { sku: ILike('ryw-%') })).affected, await manager.count(Product));
  });
}

async function savepoints() {
  const stocks = () => source.query('SELECT sku, stock FROM product ORDER BY id LIMIT 4');
  await source.transaction(async (outer) => {
    const before = await outer.count(Order);
    await outer.transaction((inner) => inner.update(Product, { sku: 'sku-000' }, { stock: 1000 }));
    try {
      await outer.transaction(async (inner) => {
        await inner.update(Product, { sku: 'sku-001' }, { stock: 2000 });
        await inner.insert(Product, { sku: 'sku-000', title: 'taken', price: '1.00' });
      });
    } catch (error) {
      out('in a savepoint', failure(error));
    }
    try {
      await outer.transaction(async (inner) => {
        await inner.transaction((innermost) => innermost.delete(Order, { number: MoreThan(-1) }));
        throw new Error('undone');
      });
    } catch (error) {
      out('innermost', error.message);
    }
    out('kept', (await outer.count(Order)) === before);
  });
  out('after savepoints', await stocks());
  const runner = source.createQueryRunner();
  await runner.startTransaction();
  await runner.manager.count(Order);
  await runner.startTransaction();
  await runner.manager.count(Product);
  await runner.manager.update(Product, { sku: 'sku-002' }, { stock: 3000 });
  await runner.rollbackTransaction();
  out('savepoint before the first write', (await runner.manager.findOneBy(Product, { sku: 'sku-002' })).stock);
  await runner.manager.update(Product, { sku: 'sku-003' }, { stock: 4000 });
  await runner.rollbackTransaction();
  await runner.release();
  out('after rollback', await stocks());
}

async function readsThenWrites() {
  for (let number = 0; number < 40; number++) {
    const sku = `sku-${String(number).padStart(3, '0')}`;
    await withDriver(async (_client, runner) => {
      await runner.startTransaction();
      const product = await runner.manager.findOneByOrFail(Product, { sku });
      if (number % 3 === 0) await runner.query("SET LOCAL TimeZone = 'Asia/Kolkata'");
      if (number % 3 === 1) await runner.manager.transaction((inner) => inner.count(Order));
      product.stock += 1;
      if (number % 2) await runner.manager.save(Product, product);
      const [row] = await runner.query("SELECT '2024-01-01 00:00:00+00'::timestamptz::text AS at");
      await (number % 5 ? runner.commitTransaction() : runner.rollbackTransaction());
      const [{ at }] = await runner.query("SELECT '2024-01-01 00:00:00+00'::timestamptz::text AS at");
      out('read then write', number, number % 3 === 0 ? row.at : row.at === at, (await runner.manager.findOneByOrFail(Product, { sku })).stock - product.stock);
    });
  }
}

async function moves() {
  // As above, but each session is a new one, which has written nothing yet: its first reads may be a replica's.
  for (let number = 0; number < 20; number++) {
    const fresh = new DataSource({ ...options, extra: { max: 1 } });
    await fresh.initialize();
    const runner = fresh.createQueryRunner();
    const { manager } = runner;
    await runner.startTransaction();
    const customer = await manager.findOneByOrFail(Customer, { email: `user${number}@example.org` });
    if (number % 2) await runner.query("SET LOCAL TimeZone = 'Asia/Kolkata'");
    await runner.startTransaction();
    const orders = await manager.countBy(Order, { customer: { id: customer.id } });
    if (number % 3 === 0) await runner.rollbackTransaction();
    await manager.increment(Customer, { id: customer.id }, 'credit', 1);
    if (number % 3 === 1) await runner.rollbackTransaction();
    if (number % 3 === 2) await runner.commitTransaction();
    const [{ at }] = await runner.query("SELECT '2024-01-01 00:00:00+00'::timestamptz::text AS at");
    await manager.increment(Customer, { id: customer.id }, 'credit', 10);
    await (number % 5 ? runner.commitTransaction() : runner.rollbackTransaction());
    out('move', number, orders, number % 2 ? at : '', (await manager.findOneByOrFail(Customer, { id: customer.id })).credit - customer.credit);
    await runner.release();
    await fresh.destroy();
  }
}

async function errors() {
  const statements = [
    'SELECT * FROM nowhere',
    'SELECT nothing FROM customer',
    "UPDATE product SET stock = -1 WHERE sku = 'sku-005'",
    "UPDATE customer SET email = repeat('x', 201)",
    "UPDATE orders SET state = 'lost'",
    'SELECT 1 / (count(*) - count(*)) FROM customer',
    'SELEKT 1',
    "INSERT INTO line (quantity, order_id, product_id) VALUES (1, '00000000-0000-4000-8000-999999999999', 1)",
    'SELECT nothing(1)',
  ];
  for (const statement of statements) {
    await expectError('in autocommit', () => source.query(statement));
    await withDriver(async (_client, runner) => {
      await runner.startTransaction();
      await runner.manager.count(Order);
      await expectError('in a transaction', () => runner.query(statement));
      await expectError('failed transaction', () => runner.query('SELECT 1 AS one'));
      await runner.rollbackTransaction();
      out('recovered', await runner.query('SELECT 1 AS one'));
    });
  }
  await expectError('parameters', () => source.query('SELECT $1::int AS value', ['x']));
  await expectError('missing parameter', () => source.query('SELECT $1::int + $2 AS value', [1]));
  await expectError('not found', () => source.getRepository(Customer).findOneByOrFail({ id: -1 }));
  await expectError('rolled back', () =>
    source.transaction(async (manager) => {
      await manager.update(Product, { sku: 'sku-001' }, { stock: 0 });
      throw new Error('asked to fail');
    }),
  );
  out('kept', (await source.getRepository(Product).findOneByOrFail({ sku: 'sku-001' })).stock !== 0);
  await withDriver(async (_client, runner) => {
    await runner.startTransaction();
    await runner.query('SET TRANSACTION READ ONLY');
    await expectError('read only', () => runner.manager.update(Product, { sku: 'sku-001' }, { stock: 0 }));
    await runner.rollbackTransaction();
  });
}

async function cursors() {
  // TypeORM's streams are portals that are read in parts.
  const stream = await source.getRepository(Customer).createQueryBuilder('c').orderBy('c.id').stream();
  const emails = [];
  for await (const row of stream) emails.push(row.c_email);
  out('stream', emails.length, digest(emails));
  await withDriver(async (client, runner) => {
    await runner.startTransaction();
    const left = client.query(new Cursor('SELECT email FROM customer ORDER BY id'));
    const first = await left.read(10);
    await left.close();
    const rows = await left.read(1).catch(() => []);
    out('cursor', first.length, first[0].email, rows.length);
    await runner.query('DECLARE two SCROLL CURSOR FOR SELECT sku FROM product ORDER BY id');
    const forward = await runner.query('FETCH FORWARD 3 FROM two');
    await runner.manager.update(Product, { sku: 'sku-001' }, { stock: 11 });
    await runner.query('MOVE ABSOLUTE 20 IN two');
    out('declared', forward, await runner.query('FETCH NEXT FROM two'), await runner.query('FETCH PRIOR FROM two'));
    await runner.query('CLOSE two');
    await runner.commitTransaction();
    await runner.startTransaction();
    await runner.manager.count(Order);
    await runner.query('DECLARE reading CURSOR FOR SELECT sku FROM product ORDER BY id');
    const some = await runner.query('FETCH 2 FROM reading');
    await runner.manager.update(Product, { sku: 'sku-002' }, { stock: 12 });
    out('a cursor before the first write', some, await runner.query('FETCH 2 FROM reading'));
    await runner.commitTransaction();
    await expectError('closed with its transaction', () => runner.query('FETCH 2 FROM reading'));
  });
}

async function isolationLevels() {
  const shown = "SELECT current_setting('transaction_isolation') AS isolation, current_setting('transaction_read_only') AS read_only";
  for (const level of ['READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE']) {
    await source.transaction(level, async (manager) => {
      out('isolation', level, await manager.query(shown), await manager.count(Order));
      await manager.update(Product, { sku: 'sku-003' }, { stock: () => 'stock + 1' });
    });
  }
  out('the default again', await source.query(shown));
  await withDriver((_left, reader) =>
    withDriver(async (_right, writer) => {
      await reader.startTransaction('REPEATABLE READ');
      const stock = async (runner) => (await runner.manager.findOneByOrFail(Product, { sku: 'sku-004' })).stock;
      const before = await stock(reader);
      await writer.manager.update(Product, { sku: 'sku-004' }, { stock: () => 'stock + 5' });
      out('repeatable read', (await stock(reader)) - before, (await stock(writer)) - before);
      await expectError('its conflict', () => reader.manager.update(Product, { sku: 'sku-004' }, { stock: 0 }));
      await reader.rollbackTransaction();
    }),
  );
}

async function rowLocks() {
  await withDriver((_left, holder) =>
    withDriver(async (_right, other) => {
      await holder.startTransaction();
      await holder.manager.findOneOrFail(Product, { where: { sku: 'sku-010' }, lock: { mode: 'pessimistic_write' } });
      const wanted = (lock) => other.manager.transaction(async (manager) => (await manager.find(Product, { where: { sku: In(['sku-010', 'sku-011']) }, order: { sku: 'ASC' }, lock })).map((product) => product.sku));
      await expectError('nowait', () => wanted({ mode: 'pessimistic_write', onLocked: 'nowait' }));
      await expectError('for no key update', () => wanted({ mode: 'for_no_key_update', onLocked: 'nowait' }));
      await expectError('for key share', () => wanted({ mode: 'for_key_share', onLocked: 'nowait' }));
      await expectError('pessimistic read', () => wanted({ mode: 'pessimistic_read', onLocked: 'nowait' }));
      out('skip locked', await wanted({ mode: 'pessimistic_write', onLocked: 'skip_locked' }));
      out('plain read', await wanted(undefined));
      const waiting = wanted({ mode: 'pessimistic_write' });
      await holder.manager.update(Product, { sku: 'sku-010' }, { stock: 77 });
      await holder.commitTransaction();
      out('freed', await waiting);
    }),
  );
  await expectError('outside a transaction', () => source.getRepository(Product).find({ lock: { mode: 'pessimistic_write' } }));
}

async function settings() {
  const zoned = new DataSource({ ...options, applicationName: 'orm zoned', extra: { max: 2, options: '-c timezone=Australia/Sydney', statement_timeout: 20000 } });
  await zoned.initialize();
  const instant = "SELECT '2024-07-01 12:00:00+00'::timestamptz::text AS at, current_setting('TimeZone') AS zone, current_setting('application_name') AS name, current_setting('statement_timeout') AS timeout";
  for (let number = 0; number < 3; number++) {
    out('startup options', await zoned.query(instant), (await zoned.getRepository(Order).findOneByOrFail({ number: 7 })).placedAt);
    out('not elsewhere', (await source.query(instant))[0].zone !== 'Australia/Sydney');
  }
  const runner = zoned.createQueryRunner();
  await runner.query("SET TIME ZONE 'America/New_York'");
  for (let number = 0; number < 3; number++) out('SET', (await runner.query(instant))[0], (await zoned.query(instant))[0].zone);
  await runner.query('RESET TIME ZONE');
  out('RESET', (await runner.query(instant))[0].zone);
  await runner.query('SET search_path TO pg_catalog, public');
  out('search_path', await runner.query('SHOW search_path'), await runner.manager.count(Product));
  await runner.query('DISCARD ALL');
  out('DISCARD ALL', (await runner.query(instant))[0], await runner.query('SHOW search_path'));
  await runner.release();
  await zoned.destroy();
}

async function unitOfWork() {
  const customers = source.getRepository(Customer);
  const customer = await customers.save({
    email: 'new@example.org',
    name: 'New',
    orders: [0, 1, 2].map((number) => ({ id: uuid(1000 + number), number: 1000 + number, placedAt: new Date(0), lines: [{ quantity: number + 1, product: { id: 1 } }] })),
  });
  customer.name = 'Newer';
  customer.orders[1].state = 'sent';
  await customers.save(customer);
  const runner = source.createQueryRunner();
  const relations = { orders: { lines: { product: true } } };
  const again = await runner.manager.findOneOrFail(Customer, { where: { id: customer.id }, relations, order: { orders: { number: 'ASC' } } });
  out('saved', again.name, again.version, again.orders.map((order) => [order.state, order.lines.map((line) => [line.quantity, line.product.sku])]));
  await expectError('optimistic lock', () => runner.manager.findOne(Customer, { where: { id: customer.id }, lock: { mode: 'optimistic', version: 1 } }).then(() => null));
  await runner.manager.softDelete(Customer, { id: customer.id });
  out('softly deleted', await runner.manager.countBy(Customer, { id: customer.id }));
  await runner.manager.restore(Customer, { id: customer.id });
  out('restored', await runner.manager.countBy(Customer, { id: customer.id }));
  await runner.manager.delete(Customer, { id: customer.id });
  out('deleted with its orders', await runner.manager.count(Order));
  await runner.release();
}

async function statements() {
  const values = await source.query('SELECT $1::int AS i, $2::text AS t, $3::jsonb AS j, $4::bytea AS b, $5::timestamptz AS at, $6::text[] AS a, $7::numeric AS n', [
    1, "it's", { a: [1, null] }, Buffer.from([0, 1, 255]), new Date(0), ['x', 'y,"z"'], '1.50',
  ]);
  out('each type', values);
  await withDriver(async (client, runner) => {
    for (let number = 0; number < 5; number++) {
      const result = await client.query({ name: 'by-number', text: 'SELECT number, state FROM orders WHERE number >= $1 ORDER BY number LIMIT 2', values: [number] });
      out('named statement', result.rows);
    }
    await runner.query('CREATE FUNCTION bump(text) RETURNS int LANGUAGE sql AS \'UPDATE product SET stock = stock + 1 WHERE sku = $1 RETURNING stock\'');
    const [{ bump: one }] = await runner.query("SELECT bump('sku-005')");
    const [{ bump: two }] = await runner.query("SELECT bump('sku-005')");
    out('volatile function', two - one);
    await runner.query('CREATE VIEW bumping AS SELECT bump(\'sku-005\') AS stock');
    const [{ stock: three }] = await runner.query('SELECT * FROM bumping');
    const [{ stock: four }] = await runner.query('SELECT * FROM bumping');
    out('volatile function in a view', four - three);
    await runner.query('DROP VIEW bumping; DROP FUNCTION bump(text)');
    await runner.query('CREATE TEMP TABLE kept (n int)');
    for (let number = 0; number < 3; number++) {
      await runner.query('INSERT INTO kept VALUES ($1)', [number]);
      out('temporary table', await runner.query('SELECT count(*)::int AS count FROM kept'));
    }
    await runner.query('DROP TABLE kept');
    await runner.query('SELECT pg_advisory_lock(5)');
    out('advisory lock', await runner.query('SELECT pg_advisory_unlock(5) AS held'), await runner.query('SELECT pg_advisory_unlock(5) AS held'));
    out('several at once', (await client.query('SELECT 1 AS a; SELECT count(*)::int AS b FROM product; SELECT 3 AS c')).map((result) => result.rows));
  });
}

async function manyTasks() {
  // More tasks than the proxy has server connections, all at one row.
  await source.getRepository(Product).update({ sku: 'sku-020' }, { stock: 0 });
  const crowd = new DataSource({ ...options, extra: { max: 10 } });
  await crowd.initialize();
  const failures = [];
  const work = async () => {
    const runner = crowd.createQueryRunner();
    try {
      for (let number = 0; number < 12; number++) {
        let mine;
        await runner.manager.transaction(async (manager) => {
          const product = await manager.findOneOrFail(Product, { where: { sku: 'sku-020' }, lock: { mode: 'pessimistic_write' } });
          product.stock += 1;
          mine = product.stock;
          await manager.save(Product, product);
        });
        if ((await runner.manager.findOneByOrFail(Product, { sku: 'sku-020' })).stock < mine) failures.push('stale');
      }
    } catch (error) {
      failures.push(failure(error));
    } finally {
      await runner.release();
    }
  };
  await Promise.all(Array.from({ length: 10 }, work));
  const locked = await crowd.transaction((manager) => manager.findOneOrFail(Product, { where: { sku: 'sku-020' }, lock: { mode: 'pessimistic_write' } }));
  out('many tasks', locked.stock, failures);
  await crowd.destroy();
}

const STEPS = [
  migrate,
  synchronize,
  reflection,
  bulkWrites,
  copies,
  readsItsWrites,
  savepoints,
  readsThenWrites,
  moves,
  errors,
  cursors,
  isolationLevels,
  rowLocks,
  settings,
  unitOfWork,
  statements,
  manyTasks,
];

const READ_ONLY = {
  listing: (number) => source.transaction((manager) => manager.find(Customer, { order: { id: 'ASC' }, skip: (number % 15) * 20, take: 20 })),
  detail: (number) =>
    source.transaction(async (manager) => {
      const customer = await manager.findOneByOrFail(Customer, { email: `user${number % 300}@example.org` });
      return [customer, await manager.find(Order, { where: { customer: { id: customer.id } }, order: { number: 'ASC' } })];
    }),
  graph: (number) =>
    source.transaction((manager) =>
      manager.find(Order, { where: { number: Between(number % 100, (number % 100) + 4) }, relations: { customer: true, lines: { product: true } }, order: { number: 'ASC', lines: { id: 'ASC' } } }),
    ),
  report: () =>
    source.transaction((manager) =>
      manager
        .createQueryBuilder(Order, 'o')
        .innerJoin('o.lines', 'l')
        .innerJoin('l.product', 'p')
        .select('o.state', 'state')
        .addSelect('count(DISTINCT o.id)', 'orders')
        .addSelect('sum(l.quantity * p.price)', 'total')
        .groupBy('o.state')
        .orderBy('o.state')
        .getRawMany(),
    ),
  search: (number) =>
    source.transaction((manager) => {
      const large = manager.createQueryBuilder(Line, 'l').select('1').innerJoin('l.order', 'o').where('o.customer_id = c.id').andWhere('l.quantity > :least');
      return manager.createQueryBuilder(Customer, 'c').where(`EXISTS (${large.getQuery()})`).andWhere('c.name ILIKE :like').setParameters({ least: number % 3, like: '%NAME%' }).orderBy('c.id').getManyAndCount();
    }),
  nested: (number) =>
    source.transaction(async (outer) => {
      const count = await outer.transaction((inner) => inner.countBy(Order, { state: ['open', 'paid', 'sent'][number % 3] }));
      return [count, await outer.findOne(Customer, { where: { profile: Raw((column) => `${column} ->> 'level' = '2'`) }, order: { id: 'DESC' } })];
    }),
  autocommitted: (number) => source.getRepository(Product).sum('stock', { id: MoreThan(number % 7) }),
};

async function runViews() {
  const names = Object.keys(READ_ONLY);
  const answers = Object.fromEntries(names.map((name) => [name, []]));
  for (let number = 0; number < VIEWS; number++) {
    const name = names[number % names.length];
    answers[name].push(await READ_ONLY[name](number));
  }
  for (const name of names) out(`view ${name}`, answers[name].length, digest(answers[name]), JSON.stringify(answers[name][0]).slice(0, 120));
}

async function main() {
  await source.initialize();
  if (part === 'steps') {
    for (const step of STEPS) {
      // Each step runs even if one before it failed, so that one run shows all that is different.
      await step().catch((error) => out(step.name, 'FAILED', failure(error), String(error.stack).split('\n')[1]));
    }
  } else {
    await runViews();
  }
  await source.destroy();
  console.log('done');
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});

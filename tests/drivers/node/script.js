// node-postgres (pg, pg-copy-streams, pg-cursor, pg-query-stream): a deterministic transcript.
//
// usage: NODE_PATH=.../node_modules node script.js URL TABLE_PREFIX
//
// Steps that bind a session to one server connection come last.
'use strict'

const crypto = require('node:crypto')
const { once } = require('node:events')
const { Readable } = require('node:stream')
const { pipeline } = require('node:stream/promises')
const { Client, Pool } = require('pg')
const { from: copyFrom, to: copyTo } = require('pg-copy-streams')
const Cursor = require('pg-cursor')
const QueryStream = require('pg-query-stream')

const [url, prefix] = process.argv.slice(2)
const table = `${prefix}_items`
const copied = `${prefix}_copied`

function out(step, ...values) {
  console.log(`${step}: ` + values.map((v) => (typeof v === 'string' ? v : JSON.stringify(v))).join(' | '))
}

function digest(value) {
  const data = typeof value === 'string' || Buffer.isBuffer(value) ? value : JSON.stringify(value)
  return crypto.createHash('sha256').update(data).digest('hex').slice(0, 16)
}

function failure(error) {
  return ['code', 'severity', 'message', 'detail', 'hint', 'position', 'constraint', 'table', 'where']
    .map((field) => String(error[field]))
    .join(' / ')
    .replace(/prepared statement "[^"]*"/, 'prepared statement') // a proxy has its own names for them on the server
}

async function expectError(step, promise) {
  try {
    const result = await promise
    out(step, 'UNEXPECTED SUCCESS', result.rows)
  } catch (error) {
    out(step, failure(error))
  }
}

async function simple(client) {
  const results = await client.query(
    `DROP TABLE IF EXISTS ${table}, ${copied};
     CREATE TABLE ${table} (id int PRIMARY KEY, name text NOT NULL, n numeric, at timestamptz, raw bytea);
     CREATE TABLE ${copied} (id int, name text);
     INSERT INTO ${table} (id, name) VALUES (1, 'a'), (2, 'b') RETURNING id;
     SELECT count(*) FROM ${table}`
  )
  for (const result of results) out('script', result.command, result.rowCount, result.rows)
  out('simple', (await client.query("SELECT 1 AS one, 'two' AS two, NULL AS three")).rows)
  await expectError('script error', client.query(`INSERT INTO ${table} (id, name) VALUES (3, 'undone'); SELECT 1/0; SELECT 2`))
  out('script undone', (await client.query(`SELECT id FROM ${table} ORDER BY id`)).rows)
  out('empty', (await client.query('')).rows)
  const many = await client.query(Array.from({ length: 200 }, (_, i) => `SELECT ${i} AS i`).join(';'))
  out('200 statements', many.length, digest(many.map((r) => r.rows)))
}

async function parameters(client) {
  const values = [
    ['int4', 2147483647],
    ['int8', '-9223372036854775808'],
    ['float8', 1.5e300],
    ['numeric', '123456789012345678901234567890.0123456789'],
    ['bool', true],
    ['text', 'h\u00e9llo \u{1F418} \n\t'],
    ['bytea', Buffer.from(Array.from({ length: 256 }, (_, i) => i))],
    ['timestamptz', new Date('2024-02-29T12:34:56.789Z')],
    ['jsonb', JSON.stringify({ a: [1, 2, { b: null }] })],
    ['int4[]', [1, 2, null, 4]],
    ['text[]', ['a', 'b,c', '"', null]],
    ['text', null],
  ]
  for (const [type, value] of values) {
    const result = await client.query(`SELECT $1::${type} AS v`, [value])
    out('parameter', type, result.rows[0].v, result.fields[0].dataTypeID)
  }
  for (const type of ['int4', 'text', 'bool', 'float8']) {
    const result = await client.query({ text: `SELECT $1::${type} AS v`, values: ['1'], binary: true, rowMode: 'array' })
    out('binary', type, result.rows, result.fields[0].format)
  }
  out('large parameter', (await client.query('SELECT md5($1::text) AS m', ['y'.repeat(3000000)])).rows)
  out('large value', digest((await client.query("SELECT repeat('abcdefghij', 500000) AS v")).rows[0].v))
}

async function prepared(client) {
  const named = { name: `${prefix}_by_id`, text: `SELECT name, n FROM ${table} WHERE id = $1` }
  for (let i = 0; i < 6; i++) out('named', (await client.query({ ...named, values: [1 + (i % 2)] })).rows)
  for (let i = 0; i < 5; i++) {
    await client.query({ name: 'update', text: `UPDATE ${table} SET n = coalesce(n, 0) + $1 WHERE id = $2`, values: [i, 1] })
    out('write and read back', (await client.query({ ...named, values: [1] })).rows)
  }
  await expectError('named error', client.query({ name: 'ratio', text: 'SELECT 10 / $1::int AS v', values: [0] }))
  out('named after its error', (await client.query({ name: 'ratio', text: 'SELECT 10 / $1::int AS v', values: [5] })).rows)
  await expectError('named syntax error', client.query({ name: 'broken', text: 'SELEC $1', values: [5] }))
  await expectError('wrong parameter count', client.query({ ...named, values: [1, 2] }))
  let sum = 0
  for (let i = 0; i < 300; i++) sum += (await client.query({ name: `s${i}`, text: `SELECT $1::int + ${i} AS v`, values: [i] })).rows[0].v
  for (let i = 0; i < 300; i++) sum += (await client.query({ name: `s${i}`, text: `SELECT $1::int + ${i} AS v`, values: [i] })).rows[0].v
  out('300 named', sum)
  await client.query('BEGIN')
  await client.query({ name: 'update', text: `UPDATE ${table} SET n = coalesce(n, 0) + $1 WHERE id = $2`, values: [1, 2] })
  out('named in a transaction', (await client.query({ ...named, values: [2] })).rows)
  await client.query('ROLLBACK')
  out('named after it', (await client.query({ ...named, values: [2] })).rows)
}

async function batches(client) {
  // Queued by the driver; each is sent as soon as the one before has ended.
  const inserts = Array.from({ length: 500 }, (_, i) => client.query(`INSERT INTO ${table} (id, name) VALUES ($1, $2)`, [100 + i, `n${i}`]))
  const counted = client.query(`SELECT count(*), sum(id) FROM ${table}`)
  await Promise.all(inserts)
  out('queued inserts', (await counted).rows)
  const settled = await Promise.allSettled([
    client.query('BEGIN'),
    client.query(`INSERT INTO ${table} (id, name) VALUES ($1, $2)`, [1000, 'undone']),
    client.query(`INSERT INTO ${table} (id, name) VALUES ($1, $2)`, [100, 'dup']),
    client.query('SELECT $1::int', [1]),
    client.query('COMMIT'),
    client.query(`SELECT count(*) FROM ${table} WHERE id >= 1000`),
  ])
  for (const one of settled) out('queued with an error', one.status, one.value ? one.value.command : failure(one.reason))
  out('undone', settled[5].value.rows)
}

async function copies(client) {
  const lines = function* () {
    for (let i = 0; i < 50000; i++) yield `${i}\t${i % 7 ? `row ${i}` : '\\N'}\n`
  }
  const input = client.query(copyFrom(`COPY ${copied} FROM STDIN`))
  await pipeline(Readable.from(lines()), input)
  out('copy in', input.rowCount)
  out('copied', (await client.query(`SELECT count(*), sum(id), max(name) FROM ${copied}`)).rows)
  for (const options of ['', '(FORMAT csv, HEADER)', '(FORMAT binary)']) {
    const output = client.query(copyTo(`COPY (SELECT * FROM ${copied} ORDER BY id) TO STDOUT ${options}`))
    const chunks = []
    for await (const chunk of output) chunks.push(chunk)
    const all = Buffer.concat(chunks)
    out('copy out', options, all.length, digest(all))
  }
  async function copyIn(text, data) {
    const stream = client.query(copyFrom(text))
    await pipeline(Readable.from(data), stream)
    return stream
  }
  await expectError('copy in error', copyIn(`COPY ${copied} FROM STDIN`, ['1\tok\n', 'x\tbad\n', '2\tmore\n']))
  await expectError('copy to a missing table', copyIn('COPY nowhere_at_all FROM STDIN', ['1\n']))
  const given = client.query(copyFrom(`COPY ${copied} FROM STDIN`))
  given.on('error', () => {})
  given.write('1\tok\n')
  given.destroy(new Error('changed its mind'))
  await new Promise((resolve) => given.on('close', resolve))
  out('after copies', (await client.query(`SELECT count(*) FROM ${copied}`)).rows)
}

async function large(client) {
  const result = await client.query("SELECT g, md5(g::text) AS m, repeat('z', g % 100) AS z FROM generate_series(1, 200000) g")
  out('large result', result.rowCount, digest(result.rows))
  let count = 0
  const hash = crypto.createHash('sha256')
  for await (const row of client.query(new QueryStream('SELECT g, md5(g::text) AS m FROM generate_series(1, $1::int) g', [30000], { batchSize: 1000 }))) {
    hash.update(JSON.stringify(row))
    count++
  }
  out('query stream', count, hash.digest('hex').slice(0, 16))
  const cursor = client.query(new Cursor(`SELECT id FROM ${table} WHERE id > $1 ORDER BY id`, [0]))
  out('cursor', await cursor.read(3), (await cursor.read(50)).length, (await cursor.read(10000)).length, await cursor.read(10))
  await cursor.close()
  const early = client.query(new Cursor('SELECT generate_series(1, 100000) AS g'))
  out('cursor closed early', await early.read(2))
  await early.close()
  await expectError('error in mid-result', client.query('SELECT 100000 / (100000 - g) FROM generate_series(1, 200000) g'))
  const broken = client.query(new Cursor('SELECT 5 / (5 - g) AS v FROM generate_series(1, 10) g'))
  out('cursor before its error', await broken.read(2))
  await expectError('cursor error', broken.read(5))
  out('after cursors', (await client.query('SELECT 1 AS one')).rows)
}

async function transactions(client) {
  await client.query('BEGIN')
  await client.query(`UPDATE ${table} SET name = 'one' WHERE id = 1`)
  await client.query('SAVEPOINT s')
  await client.query(`UPDATE ${table} SET name = 'two' WHERE id = 1`)
  await expectError('in a savepoint', client.query('SELECT 1/0'))
  await expectError('refused', client.query('SELECT 1'))
  await client.query('ROLLBACK TO s')
  out('inside', (await client.query(`SELECT name FROM ${table} WHERE id = $1`, [1])).rows)
  await client.query('COMMIT')
  out('outside', (await client.query(`SELECT name FROM ${table} WHERE id = $1`, [1])).rows)
  await client.query('BEGIN READ ONLY')
  out('read only', (await client.query(`SELECT count(*) FROM ${table}`)).rows)
  await expectError('write in read only', client.query(`DELETE FROM ${table}`))
  await client.query('ROLLBACK')
}

async function notices(client) {
  const seen = []
  client.on('notice', (notice) => seen.push([notice.severity, notice.code, notice.message, notice.hint]))
  await client.query("DO $$ BEGIN RAISE NOTICE 'first %', 1; RAISE WARNING 'second' USING HINT = 'h'; END $$")
  for (const notice of seen) out('notice', notice)
}

async function errors(client) {
  await expectError('syntax error', client.query('SELECT * FORM nowhere'))
  await expectError('undefined table', client.query('SELECT * FROM nowhere_at_all WHERE x = $1', [1]))
  await expectError('unique violation', client.query(`INSERT INTO ${table} (id, name) VALUES ($1, 'x')`, [1]))
  await expectError('bad parameter', client.query('SELECT $1::int', ['x']))
  await expectError('several statements', client.query('SELECT $1::int; SELECT 2', [1]))
  out('after errors', (await client.query("SELECT 'fine' AS v")).rows)
}

// Cancels until the statement ends: a cancel that comes too early hits nothing.
async function cancelled(client, step, text, values) {
  let ended = false
  const running = expectError(step, client.query(text, values)).then(() => (ended = true))
  while (!ended) {
    await Promise.race([running, new Promise((resolve) => setTimeout(resolve, 200))])
    if (ended) break
    const canceller = new Client({ connectionString: url })
    const connection = canceller.connection
    connection.on('error', () => {})
    const closed = once(connection, 'end')
    connection.connect(canceller.port, canceller.host)
    connection.on('connect', () => connection.cancel(client.processID, client.secretKey))
    await closed
  }
}

async function cancels(client) {
  await cancelled(client, 'cancel', 'SELECT pg_sleep(120)')
  out('after cancel', (await client.query("SELECT 'usable' AS v")).rows)
  await cancelled(client, 'cancel with parameters', 'SELECT pg_sleep($1)', [120])
  await cancelled(client, 'cancel a write', 'DO $$ BEGIN PERFORM pg_sleep(120); END $$')
  await client.query('BEGIN')
  await client.query(`UPDATE ${table} SET name = 'undone' WHERE id = 2`)
  await cancelled(client, 'cancel in a transaction', 'SELECT pg_sleep(120)')
  await expectError('then', client.query('SELECT 1'))
  await client.query('ROLLBACK')
  out('after cancels', (await client.query(`SELECT name FROM ${table} WHERE id = 2`)).rows)
}

async function pooled() {
  const pool = new Pool({ connectionString: url, max: 5 })
  const results = await Promise.all(Array.from({ length: 200 }, (_, i) => pool.query('SELECT $1::int * 2 AS v', [i])))
  out('pool', results.reduce((sum, result) => sum + result.rows[0].v, 0))
  await pool.end()
}

async function sessionState(client) {
  await client.query('CREATE TEMP TABLE temporary AS SELECT generate_series(1, 10) AS x')
  out('temporary table', (await client.query('SELECT sum(x) FROM temporary')).rows)
  await client.query(`LISTEN ${prefix}_channel`)
  const notified = once(client, 'notification')
  await client.query(`NOTIFY ${prefix}_channel, 'payload'`)
  const [notification] = await notified
  out('notification', notification.channel, notification.payload)
  await client.query("SET TIME ZONE 'Asia/Tokyo'")
  out('set', (await client.query("SELECT '2024-01-01 00:00+00'::timestamptz::text AS v")).rows)
}

async function main() {
  const client = new Client({ connectionString: url, application_name: 'node script' })
  await client.connect()
  out('connected', (await client.query('SHOW application_name')).rows, typeof client.processID)
  for (const step of [simple, parameters, prepared, batches, copies, large, transactions, notices, errors, cancels]) await step(client)
  await pooled()
  await sessionState(client)
  await client.query(`DROP TABLE ${table}, ${copied}`)
  await client.end()
  console.log('done')
}

main().catch((error) => {
  console.log('FAILED: ' + error.stack)
  process.exit(1)
})

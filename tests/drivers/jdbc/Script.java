// pgjdbc: a deterministic transcript.
//
// usage: java -cp postgresql.jar Script.java URL TABLE_PREFIX   (URL as postgres://user:password@host:port/database)
//
// pgjdbc speaks the extended protocol throughout: unnamed statements at first, named ones after
// prepareThreshold runs, batches as one long pipeline, fetch sizes as suspended portals, and cancels
// from another thread. Steps that bind a session to one server connection come last.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.math.BigDecimal;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Timestamp;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.PGStatement;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

public class Script {
    static PrintStream stdout = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    static String table;
    static String copied;

    interface Action {
        void run() throws Exception;
    }

    static void out(String step, Object... values) {
        StringBuilder line = new StringBuilder(step).append(": ");
        for (int i = 0; i < values.length; i++) {
            line.append(i == 0 ? "" : " | ").append(values[i]);
        }
        stdout.println(line);
    }

    static String digest(byte[] data) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data)).substring(0, 16);
    }

    static String failure(SQLException error) {
        String text = error.getSQLState() + " / " + error.getMessage().replace('\n', ' ');
        if (error instanceof PSQLException withFields) {
            ServerErrorMessage message = withFields.getServerErrorMessage();
            if (message != null) {
                text += " / " + message.getPosition() + " / " + message.getConstraint() + " / " + message.getTable();
            }
        }
        return text;
    }

    static void expectError(String step, Action action) throws Exception {
        try {
            action.run();
            out(step, "UNEXPECTED SUCCESS");
        } catch (BatchUpdateException error) {
            out(step, Arrays.toString(error.getUpdateCounts()), failure(error.getNextException() == null ? error : error.getNextException()));
        } catch (SQLException error) {
            out(step, failure(error));
        }
    }

    static String rows(ResultSet result) throws SQLException {
        StringBuilder text = new StringBuilder();
        int columns = result.getMetaData().getColumnCount();
        while (result.next()) {
            text.append('(');
            for (int i = 1; i <= columns; i++) {
                text.append(i == 1 ? "" : ", ").append(result.getString(i));
            }
            text.append(')');
        }
        return text.toString();
    }

    static String query(Connection connection, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < parameters.length; i++) {
                statement.setObject(i + 1, parameters[i]);
            }
            return rows(statement.executeQuery());
        }
    }

    static int update(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            return statement.executeUpdate(sql);
        }
    }

    static void simple(Connection c) throws Exception {
        out("version", c.getMetaData().getDatabaseProductVersion(), c.getMetaData().getUserName(), c.isReadOnly());
        for (String name : new String[] {"client_encoding", "DateStyle", "in_hot_standby", "standard_conforming_strings", "application_name"}) {
            out("parameter", name, ((PGConnection) c).getParameterStatus(name));
        }
        update(c, "DROP TABLE IF EXISTS " + table + ", " + copied);
        update(c, "CREATE TABLE " + table + " (id serial PRIMARY KEY, name text NOT NULL, n numeric, tags text[], at timestamptz, raw bytea)");
        update(c, "CREATE TABLE " + copied + " (id int, name text)");
        try (Statement statement = c.createStatement()) {
            boolean isResult = statement.execute("INSERT INTO " + table + " (name) VALUES ('a'), ('b'); SELECT 1, 'two'; UPDATE " + table + " SET n = id; SELECT count(*) FROM " + table);
            for (int i = 0; i < 10 && (isResult || statement.getUpdateCount() != -1); i++) {
                out("several statements", isResult ? rows(statement.getResultSet()) : statement.getUpdateCount());
                isResult = statement.getMoreResults();
            }
            expectError("several with an error", () -> statement.execute("INSERT INTO " + table + " (name) VALUES ('undone'); SELECT 1/0; SELECT 2"));
        }
        out("undone", query(c, "SELECT name FROM " + table + " ORDER BY name"));
        try (Statement statement = c.createStatement()) {
            out("empty", statement.execute(""), statement.getUpdateCount());
        }
        try (PreparedStatement statement = c.prepareStatement("INSERT INTO " + table + " (name) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
            statement.setString(1, "generated");
            statement.executeUpdate();
            ResultSet keys = statement.getGeneratedKeys();
            keys.next();
            out("generated key", keys.getInt("id") > 2, keys.getString("name"));
        }
    }

    static void parameters(Connection c) throws Exception {
        Array tags = c.createArrayOf("text", new String[] {"a", "b,c", "\"", null});
        try (PreparedStatement statement = c.prepareStatement("SELECT ?::int, ?::bigint, ?::numeric, ?::text, ?::bool, ?::text[], ?::timestamptz, ?::float8, md5(?::bytea)")) {
            for (int run = 0; run < 8; run++) { // text at first, binary once the statement is named
                statement.setInt(1, run);
                statement.setLong(2, Long.MIN_VALUE);
                statement.setBigDecimal(3, new BigDecimal("12345678901234567890.0123456789"));
                statement.setString(4, "h\u00e9llo \t");
                statement.setBoolean(5, true);
                statement.setArray(6, tags);
                statement.setTimestamp(7, Timestamp.from(java.time.Instant.ofEpochSecond(1709210096)));
                statement.setDouble(8, 1.5e300);
                statement.setBytes(9, new byte[] {0, 1, 2, (byte) 255});
                try (ResultSet result = statement.executeQuery()) {
                    result.next();
                    out("parameters", result.getInt(1), result.getLong(2), result.getBigDecimal(3), result.getString(4), result.getBoolean(5),
                        result.getArray(6), result.getTimestamp(7).getTime(), result.getDouble(8), result.getString(9));
                }
            }
        }
        out("large parameter", query(c, "SELECT md5(?::text)", "y".repeat(3_000_000)));
        out("large value", digest(query(c, "SELECT repeat('abcdefghij', 500000)").getBytes()));
        out("metadata", columns(c));
    }

    static String columns(Connection c) throws SQLException {
        try (ResultSet columns = c.getMetaData().getColumns(null, "public", table, null)) {
            StringBuilder text = new StringBuilder();
            while (columns.next()) {
                text.append(columns.getString("COLUMN_NAME")).append(' ').append(columns.getString("TYPE_NAME")).append(';');
            }
            return text.toString();
        }
    }

    static void prepared(Connection c) throws Exception {
        try (PreparedStatement byId = c.prepareStatement("SELECT name, n FROM " + table + " WHERE id = ?");
                PreparedStatement change = c.prepareStatement("UPDATE " + table + " SET n = coalesce(n, 0) + ? WHERE id = ?")) {
            byId.unwrap(PGStatement.class).setPrepareThreshold(3);
            change.unwrap(PGStatement.class).setPrepareThreshold(1);
            for (int i = 0; i < 10; i++) {
                change.setInt(1, i);
                change.setInt(2, 1);
                int changed = change.executeUpdate();
                byId.setInt(1, 1);
                out("write and read back", changed, rows(byId.executeQuery()), byId.unwrap(PGStatement.class).isUseServerPrepare());
            }
        }
        try (PreparedStatement ratio = c.prepareStatement("SELECT 10 / ?::int")) {
            for (int divisor : new int[] {1, 2, 5, 10, 1, 2, 0, 5}) {
                ratio.setInt(1, divisor);
                if (divisor == 0) {
                    expectError("prepared error", ratio::executeQuery);
                } else {
                    out("prepared", rows(ratio.executeQuery()));
                }
            }
        }
        long sum = 0;
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < 300; i++) { // over its cache of 256 queries
                try (PreparedStatement statement = c.prepareStatement("SELECT ?::int + " + i)) {
                    statement.unwrap(PGStatement.class).setPrepareThreshold(1);
                    statement.setInt(1, i);
                    ResultSet result = statement.executeQuery();
                    result.next();
                    sum += result.getInt(1);
                }
            }
        }
        out("600 prepared", sum);
    }

    static void batches(Connection c) throws Exception {
        String insert = "INSERT INTO " + table + " (id, name) VALUES (?, ?)";
        try (PreparedStatement statement = c.prepareStatement(insert)) {
            for (int i = 100; i < 1100; i++) {
                statement.setInt(1, i);
                statement.setString(2, "n" + i);
                statement.addBatch();
            }
            out("batch", Arrays.stream(statement.executeBatch()).sum());
        }
        out("counted", query(c, "SELECT count(*), sum(id) FROM " + table + " WHERE id >= 100"));
        for (boolean autocommit : new boolean[] {true, false}) {
            c.setAutoCommit(autocommit);
            try (PreparedStatement statement = c.prepareStatement(insert)) {
                for (int id : new int[] {2000, 2001, 100, 2002, 2003}) {
                    statement.setInt(1, id);
                    statement.setString(2, "x");
                    statement.addBatch();
                }
                expectError("batch with an error, autocommit " + autocommit, statement::executeBatch);
            }
            if (!autocommit) {
                c.rollback();
                c.setAutoCommit(true);
            }
            out("undone", query(c, "SELECT count(*) FROM " + table + " WHERE id >= 2000"));
        }
        try (Statement statement = c.createStatement()) {
            statement.addBatch("INSERT INTO " + table + " (id, name) VALUES (3000, 'x')");
            statement.addBatch("UPDATE " + table + " SET n = 5 WHERE id >= 1000");
            statement.addBatch("DELETE FROM " + table + " WHERE id = 3000");
            out("mixed batch", Arrays.toString(statement.executeBatch()));
        }
        try (PreparedStatement statement = c.prepareStatement("INSERT INTO " + table + " (id, name) VALUES (?, ?)", new String[] {"id"})) {
            for (int i = 4000; i < 4005; i++) {
                statement.setInt(1, i);
                statement.setString(2, "returned");
                statement.addBatch();
            }
            statement.executeBatch();
            out("batch with generated keys", rows(statement.getGeneratedKeys()));
        }
    }

    static void copies(Connection c) throws Exception {
        CopyManager copies = c.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        for (int i = 0; i < 50000; i++) {
            lines.append(i).append('\t').append(i % 7 == 0 ? "\\N" : "row " + i).append('\n');
        }
        out("copy in", copies.copyIn("COPY " + copied + " FROM STDIN", new ByteArrayInputStream(lines.toString().getBytes())));
        out("copied", query(c, "SELECT count(*), sum(id), max(name) FROM " + copied));
        for (String options : new String[] {"", "(FORMAT csv, HEADER)", "(FORMAT binary)"}) {
            ByteArrayOutputStream sink = new ByteArrayOutputStream();
            long count = copies.copyOut("COPY (SELECT * FROM " + copied + " ORDER BY id) TO STDOUT " + options, sink);
            out("copy out", options, count, sink.size(), digest(sink.toByteArray()));
        }
        expectError("copy in error", () -> copies.copyIn("COPY " + copied + " FROM STDIN", new ByteArrayInputStream("1\tok\nx\tbad\n".getBytes())));
        expectError("copy to a missing table", () -> copies.copyIn("COPY nowhere_at_all FROM STDIN", new ByteArrayInputStream(new byte[0])));
        CopyIn given = copies.copyIn("COPY " + copied + " FROM STDIN");
        given.writeToCopy("1\tok\n".getBytes(), 0, 5);
        given.cancelCopy();
        out("after copies", query(c, "SELECT count(*) FROM " + copied));
    }

    static void large(Connection c) throws Exception {
        out("large result", digest(query(c, "SELECT g, md5(g::text), repeat('z', g % 100) FROM generate_series(1, 200000) g").getBytes()));
        c.setAutoCommit(false);
        try (PreparedStatement statement = c.prepareStatement("SELECT id, name FROM " + copied + " WHERE id >= ? ORDER BY id")) {
            statement.setInt(1, 10);
            statement.setFetchSize(97); // a portal suspended five hundred times
            out("fetch size", digest(rows(statement.executeQuery()).getBytes()));
        }
        try (Statement first = c.createStatement(); Statement second = c.createStatement()) {
            first.setFetchSize(10);
            second.setFetchSize(7);
            ResultSet one = first.executeQuery("SELECT generate_series(1, 100)");
            ResultSet two = second.executeQuery("SELECT generate_series(1, 100)");
            int sum = 0;
            while (one.next() && two.next()) {
                sum += one.getInt(1) * two.getInt(1);
            }
            out("two portals", sum);
            ResultSet early = first.executeQuery("SELECT generate_series(1, 100)");
            early.next();
            early.close();
        }
        try (Statement statement = c.createStatement()) {
            statement.setFetchSize(3);
            expectError("error in a later fetch", () -> rows(statement.executeQuery("SELECT 10 / (10 - g) FROM generate_series(1, 20) g")));
        }
        c.rollback();
        c.setAutoCommit(true);
        expectError("error in mid-result", () -> query(c, "SELECT 100000 / (100000 - g) FROM generate_series(1, 200000) g"));
        try (Statement statement = c.createStatement()) {
            statement.setMaxRows(5);
            out("max rows", rows(statement.executeQuery("SELECT generate_series(1, 100)")));
        }
    }

    static void transactions(Connection c) throws Exception {
        c.setAutoCommit(false);
        update(c, "UPDATE " + table + " SET name = 'one' WHERE id = 1");
        Savepoint savepoint = c.setSavepoint("s");
        update(c, "UPDATE " + table + " SET name = 'two' WHERE id = 1");
        expectError("in a savepoint", () -> query(c, "SELECT 1 / 0"));
        expectError("refused", () -> query(c, "SELECT 1"));
        c.rollback(savepoint);
        out("inside", query(c, "SELECT name FROM " + table + " WHERE id = ?", 1));
        c.commit();
        out("outside", query(c, "SELECT name FROM " + table + " WHERE id = ?", 1));
        update(c, "DELETE FROM " + table);
        out("deleted", query(c, "SELECT count(*) FROM " + table));
        c.rollback();
        out("rolled back", query(c, "SELECT count(*) FROM " + table));
        c.commit();
        c.setAutoCommit(true);
        out("autocommit", query(c, "SELECT count(*) FROM " + table));
    }

    static void errors(Connection c) throws Exception {
        expectError("syntax error", () -> query(c, "SELECT * FORM nowhere"));
        expectError("undefined table", () -> query(c, "SELECT * FROM nowhere_at_all WHERE x = ?", 1));
        expectError("unique violation", () -> update(c, "INSERT INTO " + table + " (id, name) VALUES (1, 'x')"));
        expectError("not null violation", () -> update(c, "INSERT INTO " + table + " (id, name) VALUES (9999, NULL)"));
        expectError("bad value", () -> query(c, "SELECT ?::text::int", "x"));
        try (Statement statement = c.createStatement()) {
            statement.execute("DO $$ BEGIN RAISE NOTICE 'first %', 1; RAISE WARNING 'second'; END $$");
            for (SQLWarning warning = statement.getWarnings(); warning != null; warning = warning.getNextWarning()) {
                out("notice", warning.getSQLState(), warning.getMessage());
            }
        }
        out("after errors", query(c, "SELECT 'fine'"));
    }

    // Cancels until the statement ends: a cancel that comes too early hits nothing.
    static void cancelled(Connection c, String step, String sql) throws Exception {
        try (Statement statement = c.createStatement()) {
            AtomicBoolean ended = new AtomicBoolean();
            Thread canceller = new Thread(() -> {
                try {
                    while (!ended.get()) {
                        Thread.sleep(100);
                        statement.cancel();
                    }
                } catch (Exception error) {
                    out("canceller", error);
                }
            });
            canceller.start();
            expectError(step, () -> statement.execute(sql));
            ended.set(true);
            canceller.join();
        }
    }

    static void cancels(Connection c) throws Exception {
        cancelled(c, "cancel", "SELECT pg_sleep(120)");
        out("after cancel", query(c, "SELECT 'usable'"));
        cancelled(c, "cancel a write", "DO $$ BEGIN PERFORM pg_sleep(120); END $$");
        c.setAutoCommit(false);
        update(c, "UPDATE " + table + " SET name = 'undone' WHERE id = 2");
        cancelled(c, "cancel in a transaction", "SELECT pg_sleep(120)");
        expectError("then", () -> query(c, "SELECT 1"));
        c.rollback();
        c.setAutoCommit(true);
        out("after cancels", query(c, "SELECT name FROM " + table + " WHERE id = 2"));
        try (Statement statement = c.createStatement()) {
            statement.setQueryTimeout(1);
            expectError("query timeout", () -> statement.execute("SELECT pg_sleep(120)"));
        }
        out("after query timeout", query(c, "SELECT 'usable'"));
    }

    // Large objects go through FunctionCall messages.
    static void largeObjects(Connection c) throws Exception {
        c.setAutoCommit(false);
        LargeObjectManager manager = c.unwrap(PGConnection.class).getLargeObjectAPI();
        long oid = manager.createLO(LargeObjectManager.READWRITE);
        LargeObject object = manager.open(oid, LargeObjectManager.READWRITE);
        byte[] data = new byte[200_000];
        Arrays.fill(data, (byte) 'x');
        object.write(data);
        object.seek(100_000);
        out("large object", object.tell(), object.size(), object.read(300_000).length);
        object.close();
        manager.unlink(oid);
        c.commit();
        expectError("missing large object", () -> manager.open(1, LargeObjectManager.READ));
        c.rollback();
        c.setAutoCommit(true);
        out("after large objects", query(c, "SELECT 'usable'"));
    }

    static void sessionState(Connection c) throws Exception {
        c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        out("isolation", c.getTransactionIsolation());
        c.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        c.setReadOnly(true);
        c.setAutoCommit(false);
        expectError("write in read only", () -> update(c, "DELETE FROM " + table));
        c.rollback();
        c.setAutoCommit(true);
        c.setReadOnly(false);
        update(c, "CREATE TEMP TABLE temporary AS SELECT generate_series(1, 10) AS x");
        out("temporary table", query(c, "SELECT sum(x) FROM temporary"));
        update(c, "LISTEN " + table);
        update(c, "NOTIFY " + table + ", 'payload'");
        PGNotification[] notifications = c.unwrap(PGConnection.class).getNotifications(10_000);
        out("notification", notifications[0].getName(), notifications[0].getParameter());
        update(c, "SET TIME ZONE 'Asia/Tokyo'");
        out("set", query(c, "SELECT '2024-01-01 00:00+00'::timestamptz::text"));
        c.setSchema("pg_catalog");
        out("schema", c.getSchema());
        c.setSchema("public");
        try (PreparedStatement statement = c.prepareStatement("SELECT generate_series(1, 20)", ResultSet.TYPE_FORWARD_ONLY, ResultSet.CONCUR_READ_ONLY, ResultSet.HOLD_CURSORS_OVER_COMMIT)) {
            out("holdable", rows(statement.executeQuery()));
        }
    }

    static void otherModes(String url, Properties properties) throws Exception {
        for (String mode : new String[] {"simple", "extendedForPrepared", "extendedCacheEverything"}) {
            Properties own = new Properties();
            own.putAll(properties);
            own.setProperty("preferQueryMode", mode);
            own.setProperty("prepareThreshold", "1");
            own.setProperty("autosave", "always"); // a savepoint before each statement
            try (Connection c = DriverManager.getConnection(url, own)) {
                out("mode", mode, query(c, "SELECT ?::int + 1, ?::text", 41, "it's"), query(c, "SELECT count(*) > 0 FROM " + table + " WHERE id > ?", 5));
                c.setAutoCommit(false);
                update(c, "UPDATE " + table + " SET n = 77 WHERE id = 1");
                expectError("autosave " + mode, () -> query(c, "SELECT 1 / 0"));
                out("autosave", mode, query(c, "SELECT n FROM " + table + " WHERE id = 1"));
                c.rollback();
            }
        }
        Properties own = new Properties();
        own.putAll(properties);
        own.setProperty("reWriteBatchedInserts", "true");
        try (Connection c = DriverManager.getConnection(url, own); PreparedStatement statement = c.prepareStatement("INSERT INTO " + copied + " (id, name) VALUES (?, ?)")) {
            for (int i = 0; i < 1000; i++) {
                statement.setInt(1, 100_000 + i);
                statement.setString(2, "rewritten");
                statement.addBatch();
            }
            out("rewritten batch", statement.executeBatch().length, query(c, "SELECT count(*) FROM " + copied + " WHERE id >= ?", 100_000));
        }
    }

    public static void main(String[] arguments) throws Exception {
        URI uri = new URI(arguments[0]);
        table = arguments[1] + "_items";
        copied = arguments[1] + "_copied";
        String[] login = uri.getUserInfo().split(":", 2);
        String url = "jdbc:postgresql://" + uri.getHost() + ":" + uri.getPort() + uri.getPath();
        Properties properties = new Properties();
        properties.setProperty("user", login[0]);
        properties.setProperty("password", login.length > 1 ? login[1] : "");
        properties.setProperty("ApplicationName", "jdbc script");
        try (Connection c = DriverManager.getConnection(url, properties)) {
            simple(c);
            parameters(c);
            prepared(c);
            batches(c);
            copies(c);
            large(c);
            transactions(c);
            errors(c);
            cancels(c);
            largeObjects(c);
            otherModes(url, properties);
            sessionState(c);
            update(c, "DROP TABLE " + table + ", " + copied);
        }
        stdout.println("done");
    }
}

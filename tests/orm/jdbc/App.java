// pgjdbc as Hibernate and Spring use it: transactions by setAutoCommit(false), whose BEGIN travels in the batch of the first
// statement, read-only ones, savepoints, fetch sizes and JDBC batches. There is no ORM here: what an ORM adds in Java is
// above the driver.
//
// usage: java -cp postgresql.jar App.java steps|views URL NAME   (URL as postgresql://user:password@host:port/database)

import java.io.PrintStream;
import java.math.BigDecimal;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

public class App {
    static final int VIEWS = 300;
    static PrintStream stdout = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    static URI url;

    interface Action {
        Object run() throws Exception;
    }

    interface View {
        String answer(Connection connection, int number) throws SQLException;
    }

    static void out(String step, Object... values) {
        List<String> shown = new ArrayList<>();
        for (Object value : values) {
            shown.add(String.valueOf(value));
        }
        stdout.println(step + ": " + String.join(" | ", shown));
    }

    static void expectError(String step, Action action) throws Exception {
        try {
            out(step, "no error", action.run());
        } catch (SQLException error) {
            out(step, error.getSQLState(), error.getMessage().replace("\n", " / "));
        }
    }

    static Connection connect(String... options) throws SQLException {
        Properties properties = new Properties();
        String[] login = url.getUserInfo().split(":");
        properties.setProperty("user", login[0]);
        properties.setProperty("password", login[1]);
        for (int i = 0; i < options.length; i += 2) {
            properties.setProperty(options[i], options[i + 1]);
        }
        return DriverManager.getConnection("jdbc:postgresql://" + url.getHost() + ":" + url.getPort() + url.getPath(), properties);
    }

    static String query(Connection connection, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) {
                statement.setObject(i + 1, values[i]);
            }
            return rows(statement.executeQuery());
        }
    }

    static String rows(ResultSet found) throws SQLException {
        StringBuilder text = new StringBuilder();
        int columns = found.getMetaData().getColumnCount();
        while (found.next()) {
            for (int column = 1; column <= columns; column++) {
                text.append(found.getObject(column)).append(column == columns ? ";" : ",");
            }
        }
        return text.toString();
    }

    static int update(Connection connection, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) {
                statement.setObject(i + 1, values[i]);
            }
            return statement.executeUpdate();
        }
    }

    static void tables() throws SQLException {
        try (Connection connection = connect("reWriteBatchedInserts", "true")) {
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.execute("CREATE TABLE product (id serial PRIMARY KEY, sku text UNIQUE, price numeric(10,2), stock int CHECK (stock >= 0))");
                statement.execute("CREATE TABLE orders (id serial PRIMARY KEY, product_id int REFERENCES product, quantity int, placed_at timestamptz)");
                statement.execute("CREATE INDEX orders_product ON orders (product_id)");
            }
            connection.commit();
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO product (sku, price, stock) VALUES (?, ?, ?)")) {
                for (int number = 0; number < 300; number++) {
                    insert.setString(1, String.format("sku-%03d", number));
                    insert.setBigDecimal(2, new BigDecimal(number * 3 + 1).divide(new BigDecimal(2)));
                    insert.setInt(3, 100);
                    insert.addBatch();
                }
                out("batch", insert.executeBatch().length);
            }
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO orders (product_id, quantity, placed_at) VALUES (?, ?, '2024-05-01'::timestamptz)", Statement.RETURN_GENERATED_KEYS)) {
                for (int number = 0; number < 200; number++) {
                    insert.setInt(1, number % 40 + 1);
                    insert.setInt(2, number % 4 + 1);
                    insert.addBatch();
                }
                insert.executeBatch();
                int keys = 0;
                for (ResultSet found = insert.getGeneratedKeys(); found.next(); ) {
                    keys += found.getInt(1);
                }
                out("generated keys", keys);
            }
            connection.commit();
            ResultSet columns = connection.getMetaData().getColumns(null, "public", "product", null);
            while (columns.next()) {
                out("column", columns.getString("COLUMN_NAME"), columns.getString("TYPE_NAME"), columns.getString("IS_NULLABLE"), columns.getString("COLUMN_DEF"));
            }
            out("keys", rows(connection.getMetaData().getPrimaryKeys(null, "public", "orders")), rows(connection.getMetaData().getExportedKeys(null, "public", "product")).length() > 0);
            connection.rollback();
        }
    }

    static void transactions() throws Exception {
        try (Connection connection = connect("prepareThreshold", "2")) {
            for (int number = 0; number < 40; number++) {
                connection.setAutoCommit(number % 4 == 3);
                String sku = String.format("sku-%03d", number);
                String before = query(connection, "SELECT stock FROM product WHERE sku = ?", sku);
                if (number % 4 == 1) {
                    Savepoint point = connection.setSavepoint();
                    query(connection, "SELECT count(*) FROM orders");
                    update(connection, "UPDATE product SET stock = 0 WHERE sku = ?", sku);
                    connection.rollback(point);
                }
                update(connection, "UPDATE product SET stock = stock + ? WHERE sku = ?", number, sku);
                String within = query(connection, "SELECT stock FROM product WHERE sku = ?", sku);
                if (number % 4 == 2) {
                    connection.rollback();
                } else if (number % 4 != 3) {
                    connection.commit();
                }
                String after = query(connection, "SELECT stock FROM product WHERE sku = ?", sku);
                if (number % 4 != 3) {
                    connection.commit();
                }
                out("read then write", number, before, within, after);
            }
            connection.setAutoCommit(false);
            expectError("duplicate", () -> update(connection, "INSERT INTO product (sku) VALUES ('sku-000')"));
            expectError("failed transaction", () -> query(connection, "SELECT 1"));
            connection.rollback();
            expectError("first of all", () -> query(connection, "SELECT 1 / (count(*) - count(*)) FROM product"));
            expectError("failed transaction", () -> query(connection, "SELECT 1"));
            connection.commit();
            out("recovered", query(connection, "SELECT count(*) FROM product"));
            connection.rollback();
            connection.rollback();
            connection.commit();
            connection.setReadOnly(true);
            out("read only", query(connection, "SELECT count(*), current_setting('transaction_read_only') FROM product"));
            expectError("its write", () -> update(connection, "UPDATE product SET stock = 1"));
            connection.rollback();
            connection.setReadOnly(false);
            for (int level : new int[] {Connection.TRANSACTION_REPEATABLE_READ, Connection.TRANSACTION_SERIALIZABLE, Connection.TRANSACTION_READ_COMMITTED}) {
                connection.setTransactionIsolation(level);
                out("isolation", level, query(connection, "SELECT count(*), current_setting('transaction_isolation') FROM product"));
                update(connection, "UPDATE product SET stock = stock + 1 WHERE sku = 'sku-050'");
                connection.commit();
            }
            out("row lock", query(connection, "SELECT stock FROM product WHERE sku = 'sku-050' FOR NO KEY UPDATE"));
            connection.commit();
            try (PreparedStatement statement = connection.prepareStatement("SELECT sku FROM product ORDER BY id")) {
                statement.setFetchSize(50);
                ResultSet found = statement.executeQuery();
                int count = 0;
                while (found.next()) {
                    count++;
                    if (count % 100 == 0) {
                        update(connection, "UPDATE product SET price = price + 1 WHERE sku = ?", found.getString(1));
                    }
                }
                out("fetch size", count);
            }
            connection.commit();
            out("kept", query(connection, "SELECT sum(price), sum(stock) FROM product"));
            connection.rollback();
        }
        try (Connection connection = connect("options", "-c TimeZone=Asia/Tokyo", "readOnly", "true", "defaultRowFetchSize", "7")) {
            connection.setAutoCommit(false);
            out("options", query(connection, "SELECT '2024-01-01 00:00:00+00'::timestamptz::text, current_setting('transaction_read_only')"));
            out("fetched by sevens", query(connection, "SELECT sum(n) FROM (SELECT quantity AS n FROM orders ORDER BY id) o"));
            connection.rollback();
        }
    }

    // Each session is a new one, which has written nothing yet: its first reads may be a replica's.
    static void moves() throws Exception {
        for (int number = 0; number < 40; number++) {
            String sku = String.format("sku-%03d", 200 + number);
            try (Connection connection = connect("prepareThreshold", String.valueOf(number % 3))) {
                connection.setAutoCommit(false);
                Savepoint first = number % 4 == 0 ? connection.setSavepoint("first") : null;
                String before = query(connection, "SELECT stock FROM product WHERE sku = ?", sku);
                Savepoint second = number % 4 == 1 ? connection.setSavepoint("second \"quoted\"") : null;
                if (number % 3 == 0) {
                    update(connection, "SET LOCAL TimeZone = 'Asia/Tokyo'");
                }
                query(connection, "SELECT count(*) FROM orders");
                if (number % 5 == 0) {
                    expectError("an error before the first write", () -> query(connection, "SELECT 1 / (count(*) - count(*)) FROM product"));
                    if (first != null || second != null) {
                        connection.rollback(first != null ? first : second);
                    } else {
                        connection.rollback();
                    }
                }
                update(connection, "UPDATE product SET stock = stock + 1 WHERE sku = ?", sku);
                String within = query(connection, "SELECT stock, current_setting('TimeZone') = 'Asia/Tokyo' FROM product WHERE sku = ?", sku);
                if (number % 7 == 0) {
                    connection.rollback();
                } else {
                    connection.commit();
                }
                out("move", number, before, within, query(connection, "SELECT stock, current_setting('TimeZone') = 'Asia/Tokyo' FROM product WHERE sku = ?", sku));
                connection.rollback();
            }
        }
    }

    static final View[] READ_ONLY = {
        (connection, number) -> query(connection, "SELECT id, sku, price FROM product ORDER BY id LIMIT 20 OFFSET ?", number % 15 * 20),
        (connection, number) -> query(connection, "SELECT p.sku, sum(o.quantity) FROM product p JOIN orders o ON o.product_id = p.id WHERE p.id < ? GROUP BY p.sku ORDER BY p.sku", number % 40),
        (connection, number) -> query(connection, "SELECT count(*) FROM orders WHERE quantity > ?", number % 4) + query(connection, "SELECT max(stock) FROM product"),
        (connection, number) -> {
            Savepoint point = connection.setSavepoint();
            String found = query(connection, "SELECT avg(price) FROM product");
            connection.releaseSavepoint(point);
            return found + query(connection, "SELECT count(*) FROM orders WHERE placed_at >= '2024-01-01'");
        },
        (connection, number) -> {
            try (PreparedStatement statement = connection.prepareStatement("SELECT quantity FROM orders ORDER BY id")) {
                statement.setFetchSize(60);
                return rows(statement.executeQuery());
            }
        },
    };

    static void views() throws SQLException {
        try (Connection connection = connect()) {
            connection.setAutoCommit(false);
            String[] answers = new String[READ_ONLY.length];
            for (int number = 0; number < VIEWS; number++) {
                // As Spring marks its read-only transactions, and as it leaves the others. What reads by parts needs the mark:
                // a transaction with an open portal could not move to the primary for a write.
                int view = number % READ_ONLY.length;
                connection.setReadOnly(number % 4 == 3 || view == READ_ONLY.length - 1);
                answers[view] = answers[view] + READ_ONLY[view].answer(connection, number);
                if (number % 2 == 0) {
                    connection.commit();
                } else {
                    connection.rollback();
                }
            }
            for (int view = 0; view < answers.length; view++) {
                out("view " + view, answers[view].length(), answers[view].hashCode());
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        url = URI.create(arguments[1]);
        if (arguments[0].equals("steps")) {
            tables();
            transactions();
            moves();
        } else {
            views();
        }
        stdout.println("done");
    }
}

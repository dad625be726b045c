// pgjdbc on the console: every table, by plain and by prepared statements (text, then binary), and its metadata.
//
// usage: java -cp postgresql.jar Console.java URL NAME

import java.net.URI;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

public class Console {
    public static void main(String[] arguments) throws Exception {
        URI uri = new URI(arguments[0]);
        String[] user = uri.getUserInfo().split(":");
        Properties properties = new Properties();
        properties.setProperty("user", user[0]);
        properties.setProperty("password", user[1]);
        // The third run of a statement is prepared on the server, and its values come in binary.
        properties.setProperty("prepareThreshold", "2");
        String url = "jdbc:postgresql://" + uri.getHost() + ":" + uri.getPort() + uri.getPath();
        try (Connection connection = DriverManager.getConnection(url, properties)) {
            List<String> tables = new ArrayList<>();
            try (ResultSet found = connection.getMetaData().getTables(null, "public", "%", new String[] {"TABLE"})) {
                while (found.next()) {
                    tables.add(found.getString("TABLE_NAME"));
                }
            }
            check(tables.contains("backends") && tables.size() >= 20, "getTables: " + tables);
            for (String table : tables) {
                int columns = 0;
                try (ResultSet found = connection.getMetaData().getColumns(null, "public", table, "%")) {
                    while (found.next()) {
                        columns++;
                    }
                }
                try (PreparedStatement statement = connection.prepareStatement("SELECT * FROM " + table)) {
                    for (int run = 0; run < 4; run++) {
                        try (ResultSet rows = statement.executeQuery()) {
                            check(rows.getMetaData().getColumnCount() == columns, table + ": getColumns says " + columns);
                            while (rows.next()) {
                                for (int column = 1; column <= columns; column++) {
                                    read(rows, column, table);
                                }
                            }
                        }
                    }
                }
                System.out.println(table + ": " + columns + " columns");
            }
            try (PreparedStatement statement = connection.prepareStatement(
                    "SELECT b.name, p.waiting FROM backends b JOIN pools p ON p.backend = b.name WHERE b.weight > ? ORDER BY 2 DESC")) {
                statement.setInt(1, 0);
                for (int run = 0; run < 4; run++) {
                    statement.executeQuery().close();
                }
            }
            try (Statement statement = connection.createStatement()) {
                statement.executeQuery("SELECT no_such_column FROM backends");
                check(false, "no error");
            } catch (SQLException error) {
                check(error.getSQLState().equals("42703"), error.toString());
            }
        }
        System.out.println("done");
    }

    /** Reads a value as what it is declared to be. */
    private static void read(ResultSet rows, int column, String table) throws SQLException {
        ResultSetMetaData columns = rows.getMetaData();
        Object value = rows.getObject(column);
        if (value == null) {
            return;
        }
        Class<?> expected = switch (columns.getColumnType(column)) {
            case Types.BIT, Types.BOOLEAN -> Boolean.class;
            case Types.SMALLINT, Types.INTEGER -> Integer.class;
            case Types.BIGINT -> Long.class;
            case Types.DOUBLE -> Double.class;
            case Types.VARCHAR -> String.class;
            case Types.TIMESTAMP, Types.TIMESTAMP_WITH_TIMEZONE -> java.sql.Timestamp.class;
            default -> Object.class;
        };
        check(expected.isInstance(value), table + "." + columns.getColumnName(column) + ": " + value.getClass());
        check(expected != Object.class, table + "." + columns.getColumnName(column) + ": " + columns.getColumnTypeName(column));
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}

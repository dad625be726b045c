//! What the demo's cluster holds: a small shop, its roles, and the configuration of the proxy in front of it.

use std::fmt::Write as _;

use pgweir_devcluster::Cluster;

/// The database.
pub(super) const DATABASE: &str = "app";

/// Its owner, which clients log in as. Name and password are for typing: the servers listen on the loopback interface only.
pub(super) const USER: &str = "app";

/// That role's password.
pub(super) const PASSWORD: &str = "app";

/// The user who may do everything on the console. No role of the servers.
pub(super) const OPERATOR: &str = "admin";

/// That user's password.
pub(super) const OPERATOR_PASSWORD: &str = "admin";

/// The role that the proxy watches the servers with.
pub(super) const MONITOR: &str = "pgweir_monitor";

/// That role's password.
pub(super) const MONITOR_PASSWORD: &str = "monitor";

/// Customers of the shop: their ids are 1 to this.
pub(super) const CUSTOMERS: i64 = 1000;

/// Products of the shop: their ids are 1 to this.
pub(super) const PRODUCTS: i64 = 100;

/// The tables and their rows, made by the owner. The numbers of rows are those of the constants above.
pub(super) const SQL: &str = "
SET ROLE app;
CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    country text NOT NULL
);
CREATE TABLE products (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    price numeric(10,2) NOT NULL,
    stock integer NOT NULL
);
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    product_id bigint NOT NULL REFERENCES products,
    quantity integer NOT NULL,
    ordered_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO customers (name, country)
    SELECT 'customer ' || n, (ARRAY['AT', 'BR', 'CH', 'DE', 'FR', 'JP', 'US'])[1 + n % 7]
    FROM generate_series(1, 1000) AS n;
INSERT INTO products (name, price, stock)
    SELECT 'product ' || n, (n * 37 % 500 + 99) / 10.0, 1000
    FROM generate_series(1, 100) AS n;
INSERT INTO orders (customer_id, product_id, quantity, ordered_at)
    SELECT 1 + n * 7919 % 1000, 1 + n * 31 % 100, 1 + n % 5, now() - n * interval '5 minutes'
    FROM generate_series(1, 10000) AS n;
CREATE INDEX ON orders (customer_id);
RESET ROLE;
ANALYZE customers, products, orders;
";

/// Returns the text of the proxy's configuration.
pub(super) fn config(cluster: &Cluster, port: u16, page: Option<u16>) -> String {
    let http = page.map_or("off".to_owned(), |page| format!("127.0.0.1:{page}"));
    let mut backends = String::new();
    for node in cluster.nodes() {
        let (name, host, port) = (node.name(), node.host(), node.port());
        // Writing to a String cannot fail.
        let _ = writeln!(
            backends,
            "  {{ name = \"{name}\", host = \"{host}\", port = {port} }},"
        );
    }
    format!(
        "# Made by `pgweir demo`, and gone with it.\n\
         [server]\n\
         listen = [\"127.0.0.1:{port}\"]\n\
         \n\
         # The page, metrics and health.\n\
         [http]\n\
         listen = \"{http}\"\n\
         \n\
         # Who may log in to the console, the database `pgweir`, and change things there.\n\
         [admin]\n\
         users = [\"{OPERATOR}\"]\n\
         \n\
         # Which of them is the primary is found out, and watched.\n\
         [clusters.main]\n\
         backends = [\n{backends}]\n\
         user = \"{MONITOR}\"\n\
         password = \"{MONITOR_PASSWORD}\"\n\
         \n\
         [databases.{DATABASE}]\n\
         cluster = \"main\"\n\
         pool_mode = \"transaction\"\n\
         consistency = \"session\"\n\
         \n\
         [[users]]\n\
         name = \"{USER}\"\n\
         password = \"{PASSWORD}\"\n\
         \n\
         [[users]]\n\
         name = \"{OPERATOR}\"\n\
         password = \"{OPERATOR_PASSWORD}\"\n"
    )
}

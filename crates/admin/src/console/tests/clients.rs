//! What psql, drivers and tools ask by themselves: their own queries, as data.

use super::Talk;
use crate::console::words;

/// As `psql -E` prints them.
const PSQL: &str = include_str!("psql.sql");

/// What pgjdbc, DBeaver, pgAdmin, Grafana, psycopg, SQLAlchemy and others ask.
const TOOLS: &str = include_str!("tools.sql");

#[tokio::test]
async fn what_psql_and_tools_ask_is_answered() {
    let mut talk = Talk::admin().await;
    let mut failed = Vec::new();
    for sql in words::statements(PSQL)
        .into_iter()
        .chain(words::statements(TOOLS))
    {
        let answer = talk.query(sql).await;
        if let Some(error) = answer.iter().find(|message| message.starts_with("Error")) {
            failed.push(format!("{error}\n{sql}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[tokio::test]
async fn psql_lists_the_tables_and_describes_one() {
    let mut talk = Talk::admin().await;
    let statements = words::statements(PSQL);
    let tables = talk.rows(statements[0]).await;
    assert!(
        tables.contains(&"public|backends|table|pgweir".to_owned()),
        "{tables:?}"
    );
    assert_eq!(tables.len(), crate::tables::OWN.len());
    let find = statements
        .iter()
        .find(|sql| sql.contains("'^(backends)$'"))
        .unwrap();
    let found = talk.rows(find).await;
    let [backends] = found.as_slice() else {
        panic!("{found:?}");
    };
    let (oid, rest) = backends.split_once('|').unwrap();
    assert_eq!(rest, "public|backends");
    let columns = statements
        .iter()
        .find(|sql| sql.contains("pg_attribute a\nWHERE"))
        .unwrap();
    let columns = talk.rows(&columns.replace("16384", oid)).await;
    assert_eq!(columns[0], "name|text|NULL|f|NULL||");
    assert!(
        columns
            .iter()
            .any(|column| column.starts_with("since|timestamp with time zone|"))
    );
}

//! Starting clusters: streaming, settings, roles.

use std::time::Duration;

use pgweir_devcluster::Cluster;

#[test]
fn replicates_a_row_to_both_replicas() {
    let started_at = std::time::Instant::now();
    let cluster = Cluster::builder().replicas(2).start().unwrap();
    println!("started in {:?}", started_at.elapsed());
    cluster
        .sql(
            "postgres",
            "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (NULL)",
        )
        .unwrap();
    cluster.wait_caught_up(Duration::from_secs(10)).unwrap();
    for replica in [cluster.replica(0), cluster.replica(1)] {
        assert_eq!(
            replica.sql("postgres", "SELECT a, 'x' FROM t").unwrap(),
            "1|x\n|x"
        );
        let refused = replica.sql("postgres", "DELETE FROM t").unwrap_err();
        assert_eq!(refused.sqlstate(), Some("25006"));
    }
    let names = "SELECT string_agg(application_name, ',' ORDER BY application_name) FROM pg_stat_replication";
    assert_eq!(cluster.sql("postgres", names).unwrap(), "replica1,replica2");
}

#[tokio::test]
async fn roles_settings_and_hba_lines_are_there_over_tcp_and_inside_a_runtime() {
    let cluster = Cluster::builder()
        .setting("work_mem", "5MB")
        .sql("SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'secret'")
        .role("alice", "wonder'land")
        .database("shop")
        .hba("host all old 127.0.0.1/32 md5")
        .start()
        .unwrap();
    assert_eq!(cluster.sql("shop", "SHOW work_mem").unwrap(), "5MB");
    for (user, password) in [
        ("old", "secret"),
        ("alice", "wonder'land"),
        ("postgres", cluster.password()),
    ] {
        let mut config = tokio_postgres::Config::new();
        config
            .host(cluster.primary().host())
            .port(cluster.primary().port())
            .user(user)
            .password(password)
            .dbname("shop");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let row = client
            .query_one("SELECT current_user::text", &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, &str>(0), user);
        connection.abort();
        config.password("wrong");
        let refused = config.connect(tokio_postgres::NoTls).await.err().unwrap();
        assert_eq!(refused.code().unwrap().code(), "28P01");
    }
}

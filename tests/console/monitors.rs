//! What was written for PgBouncer, and Prometheus, work on it unchanged.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pgweir_testkit::{Client, Login, eventually, patience};

use super::Load;
use crate::drivers::installed;
use crate::support::{
    ADMIN, CONSOLE, PASSWORD, Proxy, USER, cluster, config, free_port, ok, wait_for_replicas,
};

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Starts a proxy that serves HTTP; returns it and the address of that.
pub(super) fn with_http(config: &str) -> (Proxy, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let text = config.replace("listen = \"off\"", &format!("listen = \"{address}\""));
    let proxy = Proxy::start_ready(&text);
    eventually!(
        patience::PATIENCE,
        get(&address, "/readyz").0 == 200,
        "not ready:\n{}",
        proxy.log()
    );
    wait_for_replicas(&mut proxy.client());
    (proxy, address)
}

/// Asks for a page by curl; returns the status and the body.
pub(super) fn get(address: &str, path: &str) -> (u16, String) {
    let output = Command::new("curl")
        .args([
            "-s",
            "-w",
            "\n%{http_code}",
            &format!("http://{address}{path}"),
        ])
        .output()
        .expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
    (status.parse().unwrap_or(0), body.to_owned())
}

#[test]
fn an_exporter_for_pgbouncer_finds_all_that_it_asks_for() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let load = Load::start(&proxy, 2, "SELECT 1");
    load.wait_for_more(50);
    let folder = tempfile::tempdir().expect("a folder");
    let (file, port) = (folder.path().join("config.yml"), free_port());
    let url = proxy.console_url();
    let text = format!(
        "exporter_host: 127.0.0.1\nexporter_port: {port}\npgbouncers:\n  - dsn: {url}\n    connect_timeout: 5\n"
    );
    fs::write(&file, text).expect("written");
    let program = installed("exporter/bin/pgbouncer-exporter");
    let log = fs::File::create(folder.path().join("log")).expect("a log");
    let exporter = Command::new(&program)
        .arg("--config")
        .arg(&file)
        .stdout(log.try_clone().expect("a handle"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}; cargo xtask setup installs it",
                program.display()
            )
        });
    let _exporter = Running(exporter);
    let address = format!("127.0.0.1:{port}");
    let said = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    eventually!(
        patience::PATIENCE,
        get(&address, "/metrics").1.contains("pgbouncer_up 1.0"),
        "{}\n{}",
        get(&address, "/metrics").1,
        said()
    );
    let page = get(&address, "/metrics").1;
    for metric in [
        "pgbouncer_stats_queries_total{database=\"app\"}",
        "pgbouncer_stats_transactions_total{database=\"app\"}",
        "pgbouncer_stats_received_bytes_total{database=\"app\"}",
        "pgbouncer_pools_client_active_connections{database=\"app\",user=\"app\"}",
        "pgbouncer_pools_server_idle_connections{database=\"app\",user=\"app\"}",
        "pgbouncer_databases_database_pool_size",
        "pgbouncer_config_max_client_conn 10000.0",
    ] {
        assert!(page.contains(metric), "no {metric}:\n{page}\n{}", said());
    }
    let queries = page
        .lines()
        .find_map(|line| line.strip_prefix("pgbouncer_stats_queries_total{database=\"app\"} "));
    assert!(
        queries.is_some_and(|count| count.parse::<f64>().is_ok_and(|count| count >= 50.0)),
        "{page}"
    );
    assert_eq!(load.stop(), Vec::<String>::new());
}

#[test]
fn check_postgres_reads_the_pools() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let load = Load::start(&proxy, 2, "SELECT 1");
    let (host, port) = proxy.addr().split_once(':').expect("a port");
    for (action, warning, critical) in [
        ("pgb_pool_cl_active", "1000", "2000"),
        ("pgb_pool_cl_waiting", "1000", "2000"),
        ("pgb_pool_sv_active", "1000", "2000"),
        ("pgb_pool_sv_idle", "1000", "2000"),
        ("pgb_pool_sv_used", "1000", "2000"),
        ("pgb_pool_sv_tested", "1000", "2000"),
        ("pgb_pool_sv_login", "1000", "2000"),
        ("pgb_pool_maxwait", "1000", "2000"),
        ("pgbouncer_backends", "90%", "95%"),
    ] {
        let output = Command::new("check_postgres")
            .args([
                format!("--action={action}"),
                format!("--warning={warning}"),
                format!("--critical={critical}"),
            ])
            .args([format!("--host={host}"), format!("--port={port}")])
            .args([format!("--dbuser={ADMIN}"), format!("--dbname={CONSOLE}")])
            .env("PGPASSWORD", PASSWORD)
            .output()
            .expect("check_postgres runs; cargo xtask setup installs it");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(" OK"), "{action}: {said}{complaint}");
    }
    assert_eq!(load.stop(), Vec::<String>::new());
}

#[test]
fn prometheus_scrapes_and_promtool_has_nothing_to_say() {
    let (proxy, address) = with_http(&config(cluster()));
    let load = Load::start(&proxy, 2, "SELECT 1");
    load.wait_for_more(50);
    let (status, page) = get(&address, "/metrics");
    assert_eq!(status, 200);
    let check = Command::new("sh")
        .args([
            "-c",
            "curl -s \"http://$0/metrics\" | promtool check metrics 2>&1",
            &address,
        ])
        .output()
        .expect("promtool runs; cargo xtask setup installs it");
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        check.status.success() && said.trim().is_empty(),
        "{said}\n{page}"
    );

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("prometheus.yml");
    let text = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs:\n  - job_name: pgweir\n    static_configs:\n      - targets: ['{address}']\n"
    );
    fs::write(&file, text).expect("written");
    let own = format!("127.0.0.1:{}", free_port());
    let log = fs::File::create(folder.path().join("log")).expect("a log");
    let prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.path().join("data").display()
        ))
        .arg(format!("--web.listen-address={own}"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("prometheus runs");
    let _prometheus = Running(prometheus);
    let query = "/api/v1/query?query=sum(rate(pgweir_queries_total%5B10s%5D))%3E0";
    let within = patience::PATIENCE.max(Duration::from_secs(30));
    eventually!(
        within,
        get(&own, query).1.contains("\"value\""),
        "{}",
        fs::read_to_string(folder.path().join("log")).unwrap_or_default()
    );
    assert_eq!(load.stop(), Vec::<String>::new());
}

/// What stands above the rows, as psql prints it.
fn heads(proxy: &Proxy, sql: &str) -> Vec<String> {
    let psql = cluster().binaries().client("psql").expect("psql");
    let output = Command::new(psql)
        .args([&proxy.console_url(), "-X", "-A", "-c", sql])
        .output()
        .expect("psql runs");
    assert!(
        output.status.success(),
        "{sql}: {}\n{}",
        String::from_utf8_lossy(&output.stderr),
        proxy.log()
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = text.lines().next().unwrap_or_default();
    first.split('|').map(str::to_owned).collect()
}

#[test]
fn shows_of_pgbouncer_have_its_columns() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let pools = "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel \
                 sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts";
    let counters = "server_assignment_count xact_count query_count received sent xact_time query_time wait_time \
                    client_parse_count server_parse_count bind_count";
    let each = |prefix: &str| {
        let named = counters.split_whitespace().map(|name| match name {
            // PgBouncer shortens this one.
            "received" if prefix == "avg" => "avg_recv".to_owned(),
            _ => format!("{prefix}_{name}"),
        });
        named.collect::<Vec<_>>().join(" ")
    };
    let stats = format!("database {} {}", each("total"), each("avg"));
    for (sql, expected) in [
        ("SHOW POOLS", pools),
        ("SHOW STATS", &stats),
        ("SHOW CONFIG", "key value default changeable"),
        ("SHOW LISTS", "list items"),
        ("SHOW VERSION", "version"),
    ] {
        let expected: Vec<_> = expected.split_whitespace().collect();
        assert_eq!(heads(&proxy, sql), expected, "{sql}");
    }
    for sql in [
        "CLIENTS",
        "SERVERS",
        "DATABASES",
        "USERS",
        "MEM",
        "DNS_HOSTS",
        "STATE",
        "STATS_AVERAGES",
        "STATS_TOTALS",
    ] {
        assert!(heads(&proxy, &format!("SHOW {sql}")).len() > 1, "{sql}");
    }
}

#[test]
fn what_clients_call_things_does_not_grow_the_metrics() {
    let (proxy, address) = with_http(&config(cluster()));
    let mut client = proxy.client();
    let series = || {
        get(&address, "/metrics")
            .1
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count()
    };
    let strange = |number: usize| {
        // Statements, users, databases and applications that nobody has heard of.
        let sql = format!("SELECT {number} AS column_{number}, 'x' AS \"quoted \"\" {number}\"");
        ok(&mut client, &sql);
        let login = Login::new(&format!("user{number}"), &format!("database{number}"));
        let login = login
            .password("wrong")
            .parameter("application_name", &format!("app{number}"));
        assert!(Client::open(proxy.addr(), &login).is_err());
        let login = Login::new(USER, &format!("database{number}")).password(PASSWORD);
        assert!(Client::open(proxy.addr(), &login).is_err());
    };
    let mut strange = strange;
    (0..20).for_each(&mut strange);
    let before = series();
    (20..220).for_each(&mut strange);
    let after = series();
    // Some counters that were at zero may have begun to count, and some pools were opened.
    assert!(after <= before + 20, "{before} series have become {after}");
}

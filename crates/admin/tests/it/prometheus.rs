//! Prometheus itself scrapes it: OpenMetrics, which it asks for, is read by the one parser that matters.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pgweir_testkit::eventually;
use serde_json::Value;

use crate::http::Served;

/// A Prometheus that ends with the test.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prometheus.yml");
        let config = format!(
            "scrape_configs:\n  - job_name: pgweir\n    scrape_interval: 1s\n    scrape_timeout: 1s\n    \
             metrics_path: /metrics\n    static_configs:\n      - targets: [\"{target}\"]\n"
        );
        fs::write(&file, config).unwrap();
        let address = free_address();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command
            .spawn()
            .expect("prometheus is missing: cargo xtask setup installs it");
        Prometheus {
            child,
            address,
            folder,
        }
    }

    /// Returns the results of an instant query; empty while it does not answer.
    fn query(&self, query: &str) -> Vec<Value> {
        let answer = self.answer(query);
        answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    fn answer(&self, query: &str) -> Value {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}"));
        answer
            .and_then(|body| serde_json::from_str(&body).ok())
            .unwrap_or_default()
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        Some(body.to_owned())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that nobody listens on just now.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn prometheus_scrapes_it_without_a_warning() {
    let served = Served::new();
    let prometheus = Prometheus::start(served.address);
    eventually!(
        Duration::from_secs(60),
        {
            let up = prometheus.query("up");
            up.first().is_some_and(|up| up["value"][1] == "1")
        },
        "it is not up: {}",
        prometheus.log()
    );
    // A histogram's own function finds its buckets.
    let quantile = "histogram_quantile(0.9,sum by (le) (pgweir_query_duration_seconds_bucket))";
    eventually!(Duration::from_secs(60), {
        let value = prometheus.query(quantile);
        let value = value
            .first()
            .and_then(|value| value["value"][1].as_str()?.parse::<f64>().ok());
        value.is_some_and(|seconds| seconds > 0.0001 && seconds < 0.1)
    });
    let backends = prometheus.query("pgweir_backend_up");
    assert_eq!(backends.len(), 3, "{backends:?}");
    let metadata = prometheus
        .get("/api/v1/metadata?metric=pgweir_queries_total")
        .unwrap_or_default();
    let other = prometheus
        .get("/api/v1/metadata?metric=pgweir_queries")
        .unwrap_or_default();
    assert!(
        (metadata + &other).contains("\"counter\""),
        "the kind is not known"
    );
    assert_eq!(prometheus.log(), "", "Prometheus warns");
}

/// The expressions of the dashboard's panels, as Grafana would send them.
fn panels() -> Vec<String> {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/grafana-dashboard.json"
    );
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    targets
        .flatten()
        .map(|target| {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression
                .replace("$__rate_interval", "1m")
                .replace("$job", "pgweir");
            ["$instance", "$cluster", "$database"]
                .iter()
                .fold(expression, |text, variable| text.replace(variable, ".*"))
        })
        .collect()
}

#[test]
fn every_panel_of_the_dashboard_shows_something() {
    let served = Served::new();
    let prometheus = Prometheus::start(served.address);
    // A rate needs two scrapes.
    eventually!(Duration::from_secs(60), {
        let scrapes = prometheus.query("count_over_time(up[1m])");
        scrapes
            .first()
            .is_some_and(|count| count["value"][1] != "1")
    });
    for expression in panels() {
        let answer = prometheus.answer(&expression);
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let results = answer["data"]["result"].as_array().unwrap();
        assert!(!results.is_empty(), "{expression} shows nothing");
    }
}

//! The HTTP side, spoken to through sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use pgweir_admin::Phase;
use pgweir_model::{Breaker, Health, Lsn, Topology};
use pgweir_testkit::eventually;
use serde_json::Value;

use crate::sample::{Sample, SampleControl};

/// A server on a thread of its own, which ends when it is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) control: Arc<SampleControl>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    pub(crate) fn new() -> Self {
        let mut sample = Sample::new(3);
        sample.step(2.0);
        let control = SampleControl::new(sample);
        let shown = Arc::clone(&control);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = pgweir_admin::http::serve(listener, shown) => {}
                    _ = stopped => {}
                }
            });
        });
        Served {
            address: told.recv().unwrap(),
            control,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream
    }

    /// Sends a text and returns all that comes until the connection ends.
    fn send(&self, text: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is how a server ends that was sent more than it reads.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    /// Returns the head and the body of an answer.
    fn get(&self, path: &str, headers: &str) -> (String, String) {
        let answer = self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
        ));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    pub(crate) fn json(&self, path: &str) -> (String, Value) {
        let (head, body) = self.get(path, "");
        (head, serde_json::from_str(&body).unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn the_page_and_what_it_loads_are_served_under_a_strict_policy() {
    let served = Served::new();
    let (_, page) = served.get("/", "");
    for path in ["/", "/page.css", "/page.js", "/charts.js", "/icon.svg"] {
        let (head, body) = served.get(path, "");
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
        assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self';"));
        assert!(head.contains("x-content-type-options: nosniff"));
        assert!(head.contains("cache-control: no-store"));
        assert!(!head.contains("access-control"), "{head}");
        assert!(!body.is_empty(), "{path}");
        let outside = body.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !outside.contains("http:") && !outside.contains("https:"),
            "{path}"
        );
        assert!(
            !body.contains("innerHTML") && !body.contains("eval("),
            "{path}"
        );
    }
    assert!(page.contains("page.js") && page.contains("page.css"));
}

#[test]
fn only_looking_is_possible() {
    let served = Served::new();
    let answer =
        served.send("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.contains("allow: GET, HEAD"), "{answer}");
    let answer = served.send("HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "a body: {answer}");
    let answer = served.send("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let (head, _) = served.get("/../etc/passwd", "");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let served = Served::new();
    let long = "x".repeat(64 * 1024);
    let (head, _) = served.get("/metrics", &format!("X-Long: {long}\r\n"));
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
    let many = "X-Many: 1\r\n".repeat(100);
    let (head, _) = served.get("/metrics", &many);
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
}

#[test]
fn connections_that_ask_for_nothing_shut_nobody_out() {
    let served = Served::new();
    // As many as there may be; each has sent half a request.
    let mut silent: Vec<TcpStream> = (0..64).map(|_| served.connect()).collect();
    for stream in &mut silent {
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    }
    for _ in 0..3 {
        let (head, _) = served.get("/healthz", "");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
    // The first has made room, the last has not.
    let mut byte = [0];
    let closed = silent[0].read(&mut byte);
    assert!(!matches!(closed, Ok(1)), "{closed:?}");
    silent[63].write_all(b"Host: x\r\n\r\n").unwrap();
    let mut first = [0; 12];
    silent[63].read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
}

#[test]
fn a_name_that_others_may_own_gets_only_what_probes_ask_for() {
    let served = Served::new();
    let status = |path: &str, host: &str| {
        let answer = served.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ));
        answer.get(9..12).unwrap_or_default().to_owned()
    };
    for path in ["/", "/page.js", "/api/overview.json", "/api/details.json"] {
        assert_eq!(status(path, "evil.example.org"), "421", "{path}");
        for host in ["127.0.0.1:9090", "[::1]", "localhost", "pgweir:9090"] {
            assert_eq!(status(path, host), "200", "{path} {host}");
        }
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_ne!(status(path, "evil.example.org"), "421", "{path}");
    }
}

#[test]
fn metrics_come_in_the_format_that_is_asked_for() {
    let served = Served::new();
    let (head, body) = served.get("/metrics", "");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(body.contains("\npgweir_backend_up{cluster=\"main\",backend=\"pg3\"} 1\n"));
    let (head, body) = served.get(
        "/metrics",
        "Accept: application/openmetrics-text;version=1.0.0\r\n",
    );
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(body.ends_with("\n# EOF\n"));
}

#[test]
fn a_picture_holds_only_what_is_needed_and_is_shared() {
    let served = Served::new();
    for _ in 0..20 {
        served.get("/metrics", "");
        served.get("/api/overview.json", "");
    }
    let asked = served.control.asked.lock().unwrap().clone();
    assert!(asked.len() < 20, "{} pictures for 40 requests", asked.len());
    assert!(
        asked
            .iter()
            .all(|wanted| !wanted.sessions && !wanted.statements),
        "{asked:?}"
    );
    let (_, details) = served.json("/api/details.json");
    let asked = served.control.asked.lock().unwrap().clone();
    let last = asked.last().unwrap();
    assert!(last.statements && last.events && !last.sessions && !last.settings);
    assert_eq!(details["statements"].as_array().unwrap().len(), 6);
    assert_eq!(details["events"][0]["message"], "pgweir 0.1.0 is serving");
}

#[test]
fn it_is_ready_while_a_server_takes_work() {
    let served = Served::new();
    assert!(served.get("/healthz", "").0.starts_with("HTTP/1.1 200 "));
    let (head, ready) = served.json("/readyz");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(ready["ready"], true);

    let change = |health: Health, phase: Phase| {
        let mut sample = served.control.sample.lock().unwrap();
        let topology = Arc::make_mut(&mut sample.facts.clusters[0].topology);
        topology.primary = None;
        topology.nodes[0].health = Health::Down;
        for node in topology.nodes.iter_mut().skip(1) {
            node.health = health;
            node.position = Lsn(1);
        }
        sample.facts.phase = phase;
    };
    change(Health::Up, Phase::Serving);
    eventually!({
        let (head, ready) = served.json("/readyz");
        head.starts_with("HTTP/1.1 200 ") && ready["warnings"][0] == "cluster main has no primary"
    });
    change(Health::Down, Phase::Serving);
    eventually!({
        let (head, ready) = served.json("/readyz");
        head.starts_with("HTTP/1.1 503 ")
            && ready["problems"][0] == "no server of cluster main takes work"
    });
    // Nothing vouches for a replica while the monitor is stalled.
    change(Health::Up, Phase::Serving);
    let expire = |is_expired: bool| {
        let facts = &mut served.control.sample.lock().unwrap().facts;
        let past = facts.now.checked_sub(Duration::from_nanos(1));
        let at = past.filter(|_| is_expired);
        Arc::make_mut(&mut facts.clusters[0].topology).expires_at = at;
    };
    eventually!(served.get("/readyz", "").0.starts_with("HTTP/1.1 200 "));
    expire(true);
    eventually!(served.get("/readyz", "").0.starts_with("HTTP/1.1 503 "));
    expire(false);
    eventually!(served.get("/readyz", "").0.starts_with("HTTP/1.1 200 "));
    change(Health::Up, Phase::Draining);
    eventually!({
        let (head, ready) = served.json("/readyz");
        head.starts_with("HTTP/1.1 503 ") && ready["problems"][0] == "the proxy is draining"
    });
    assert!(served.get("/healthz", "").0.starts_with("HTTP/1.1 200 "));
}

#[test]
fn it_is_ready_where_reads_are_taken_and_nowhere_else() {
    let served = Served::new();
    let is_ready = || served.get("/readyz", "").0.starts_with("HTTP/1.1 200 ");
    let change = |change: fn(&mut Topology)| {
        let mut sample = served.control.sample.lock().unwrap();
        change(Arc::make_mut(&mut sample.facts.clusters[0].topology));
    };
    // Started while the primary was away: nobody knows what a replica is behind of.
    change(|topology| {
        topology.primary = None;
        topology.timeline = 0;
        topology.nodes.truncate(2);
        let [primary, replica] = topology.nodes.as_mut_slice() else {
            panic!("two servers");
        };
        (primary.role, primary.health) = (None, Health::Down);
        (replica.lag, replica.lag_bytes, replica.within_max_lag) = (None, None, false);
    });
    eventually!(served.json("/readyz").1["warnings"][0] == "cluster main has no primary");
    assert!(is_ready());
    // It was in sight, and the replica is not known to have kept up.
    change(|topology| topology.timeline = 1);
    eventually!(!is_ready());
    change(|topology| topology.timeline = 0);
    eventually!(is_ready());
    change(|topology| topology.nodes[1].weight = 0);
    eventually!(!is_ready());
    change(|topology| topology.nodes[1].weight = 1);
    eventually!(is_ready());
    change(|topology| topology.nodes[1].is_drained = true);
    eventually!(!is_ready());
    change(|topology| topology.nodes[1].is_drained = false);
    eventually!(is_ready());
    change(|topology| topology.nodes[1].breaker = Breaker::Open);
    eventually!(!is_ready());
}

#[test]
fn the_overview_shows_a_replica_that_is_down() {
    let served = Served::new();
    served.control.sample.lock().unwrap().stop_replica(true);
    eventually!({
        let (_, overview) = served.json("/api/overview.json");
        let backend = &overview["clusters"][0]["backends"][2];
        backend["name"] == "pg3" && backend["health"] == "down" && backend["breaker"] == "open"
    });
}

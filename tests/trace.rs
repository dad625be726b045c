//! `TRACE`: the messages of one client, and of no other, as lines without values. The proxy runs in this process.

use std::io::Write as _;

use pgweir_config::{Document, Origin, Overrides};
use pgweir_proxy::Proxy;
use pgweir_testkit::{Client, eventually, patience};
use pgweir_wire::frontend;
use tokio::sync::mpsc::Receiver;

use crate::support::{cluster, config, login, ok, prepare, value, wait_for_replicas};

/// A proxy in this process, and what its traces need to be asked for.
struct Stage {
    proxy: Option<Proxy>,
    runtime: tokio::runtime::Runtime,
}

impl Stage {
    fn start() -> Self {
        let text = config(cluster()) + "\n[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 2\n";
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pgweir.toml");
        std::fs::write(&file, text).expect("written");
        let document = Document::load(Origin::File(file), Overrides::default());
        let document = document.expect("a configuration");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let stage = Stage {
            proxy: Some(Proxy::start(document).expect("it starts")),
            runtime: runtime.expect("a runtime"),
        };
        eventually!(Client::open(stage.address(), &login()).is_ok());
        wait_for_replicas(&mut stage.client());
        stage
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("it runs")
    }

    fn address(&self) -> &str {
        self.proxy().addresses().first().expect("an address")
    }

    fn client(&self) -> Client {
        Client::open(self.address(), &login()).expect("a login")
    }

    fn trace(&self, client: &Client) -> Trace {
        let traced = self
            .runtime
            .block_on(self.proxy().trace(client.process_id()));
        Trace {
            receiver: traced.expect("a trace"),
            lines: Vec::new(),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop();
        }
    }
}

struct Trace {
    receiver: Receiver<String>,
    lines: Vec<String>,
}

impl Trace {
    /// Waits until a line that ends so has come as often as this.
    #[track_caller]
    fn until(&mut self, end: &str, times: usize) {
        eventually!(
            patience::PATIENCE,
            {
                while let Ok(line) = self.receiver.try_recv() {
                    self.lines.push(line);
                }
                self.lines.iter().filter(|line| line.ends_with(end)).count() >= times
            },
            "no {end:?}:\n{}",
            self.lines.join("\n")
        );
    }

    /// Returns the lines so far without their times, which they must have.
    fn take(&mut self) -> Vec<String> {
        let line = |line: String| {
            let (at, rest) = line.split_once('\t').expect("a time");
            assert!(at.ends_with("+00") && at.len() == 29, "{at}");
            rest.replace('\t', " ")
        };
        std::mem::take(&mut self.lines)
            .into_iter()
            .map(line)
            .collect()
    }
}

const CLIENT_READY: &str = "client\tB\t5\tReadyForQuery\t I";

#[test]
fn shows_the_traced_clients_messages_on_both_sides_and_no_value() {
    let stage = Stage::start();
    let (mut traced, mut other) = (stage.client(), stage.client());
    ok(&mut traced, "SELECT 'before'");
    let mut trace = stage.trace(&traced);

    ok(&mut traced, "SELECT 'sesame' AS opening");
    ok(&mut other, "SELECT 1 AS unseen_column");
    prepare(&mut other, "unseen_statement", "SELECT 'sesame'");
    trace.until(CLIENT_READY, 1);
    let lines = trace.take();
    let place_of = |line: &str| line.split(" F ").next().unwrap_or_default().to_owned();
    let sent = lines.iter().position(|line| {
        line.starts_with("server ") && line.contains(" F ") && line.contains("Query")
    });
    let server = place_of(&lines[sent.expect("it was sent to a server")]);
    assert!(server.starts_with("server replica"), "{server}");
    let expected = [
        "client F 31 Query  <26 bytes redacted>".to_owned(),
        format!("{server} F 31 Query  <26 bytes redacted>"),
    ];
    assert_eq!(lines[..2], expected, "{lines:#?}");
    for end in ["DataRow  1 6 <redacted>", "ReadyForQuery  I"] {
        for place in [&*server, "client"] {
            let is_it = |line: &String| line.starts_with(place) && line.ends_with(end);
            assert_eq!(
                lines.iter().filter(|line| is_it(line)).count(),
                1,
                "{end}: {lines:#?}"
            );
        }
    }

    // A statement with its value beside it; on the primary, since it writes.
    traced
        .execute("SELECT set_config('a.b', $1, true)", &[Some("sesame")])
        .expect("an answer");
    traced
        .query("SELECT 'sesame' FROM nowhere")
        .expect("an answer");
    trace.until(CLIENT_READY, 2);
    let lines = trace.take();
    let text = lines.join("\n");
    for part in [
        "client F",
        "Bind",
        "6 <redacted>",
        "server primary F",
        "ErrorResponse",
    ] {
        assert!(text.contains(part), "no {part}:\n{text}");
    }
    for value in ["sesame", "unseen", "before"] {
        assert!(!text.contains(value), "{value}:\n{text}");
    }

    // Its end is the client's.
    traced.terminate().expect("sent");
    eventually!(trace.receiver.is_closed());
    trace.until("Terminate", 1);
}

#[test]
fn begins_between_two_messages_wherever_the_client_is() {
    let stage = Stage::start();

    // In the midst of a message of the client.
    let mut client = stage.client();
    let mut query = Vec::new();
    frontend::Query { sql: b"SELECT 1" }.encode(&mut query);
    let (front, rest) = query.split_at(7);
    client.stream().write_all(front).expect("sent");
    let mut trace = stage.trace(&client);
    client.stream().write_all(rest).expect("sent");
    client.until_ready().expect("an answer");
    trace.until(CLIENT_READY, 1);
    assert_eq!(trace.take()[0], "client F 13 Query  <8 bytes redacted>");

    // In the midst of a row that is larger than all buffers on its way.
    client
        .send_query("SELECT repeat('sesame', 10000000)")
        .expect("sent");
    trace.until("(too long to be shown)", 1);
    drop(trace);
    let mut trace = stage.trace(&client);
    let answer = client.until_ready().expect("an answer");
    assert_eq!(answer.value().map(|value| value.len()), Some(60_000_000));
    trace.until(CLIENT_READY, 1);
    let text = trace.take().join("\n");
    assert!(text.contains("CommandComplete  \"SELECT 1\""), "{text}");
    for bad in ["sesame", "Unknown", "no message", "malformed"] {
        assert!(!text.contains(bad), "{bad}:\n{text}");
    }
}

#[test]
fn one_client_has_one_trace_and_none_that_is_not_there() {
    let stage = Stage::start();
    let mut client = stage.client();
    let trace = stage.trace(&client);
    let again = stage
        .runtime
        .block_on(stage.proxy().trace(client.process_id()));
    assert_eq!(again.expect_err("one at a time").sqlstate, *b"55006");
    for nobody in [0, 1, client.process_id() + 1000, u32::MAX] {
        let refused = stage.runtime.block_on(stage.proxy().trace(nobody));
        assert_eq!(refused.expect_err("nobody").sqlstate, *b"42704", "{nobody}");
    }
    // A trace that nobody reads ends, whether the client does anything or not.
    drop(trace);
    let mut trace = stage.trace(&client);
    assert_eq!(value(&mut client, "SELECT 1"), "1");
    trace.until(CLIENT_READY, 1);
}

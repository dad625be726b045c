//! The log: for machines one JSON object per line, its level followed at a reload, and nothing of the statements in it.

use std::fs;

use pgweir_testkit::{Client, eventually};
use serde_json::Value;

use crate::support::{Proxy, cluster, config, login};

/// Returns the lines so far, each of which must be an object with the fields of every line.
fn objects(proxy: &Proxy) -> Vec<Value> {
    let log = proxy.log();
    // The last line may be on its way.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let object = |line: &str| {
        let object: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "message"] {
            assert!(object[key].is_string(), "no {key}: {line}");
        }
        object
    };
    whole.lines().map(object).collect()
}

fn has(proxy: &Proxy, level: &str, words: &str) -> bool {
    let is_it = |line: &Value| {
        line["level"] == level
            && line["message"]
                .as_str()
                .is_some_and(|text| text.contains(words))
    };
    objects(proxy).iter().any(is_it)
}

#[test]
fn json_lines_follow_the_level_of_the_file_and_hold_no_statement() {
    let text = |level: &str| {
        config(cluster()) + &format!("\n[log]\nformat = \"json\"\nlevel = \"{level}\"\n")
    };
    let proxy = Proxy::start_ready(&text("warn"));
    assert!(!has(&proxy, "INFO", ""), "{}", proxy.log());
    let run = || {
        let mut client = Client::open(proxy.addr(), &login()).expect("a login");
        client
            .query("SELECT 'sesame' FROM nowhere")
            .expect("an answer");
        client.query("SELECT 'sesame'::int").expect("an answer");
    };
    run();
    fs::write(proxy.config_path(), text("info")).expect("written");
    proxy.signal("HUP");
    eventually!(has(&proxy, "INFO", "changed: log.level"));
    run();
    fs::write(proxy.config_path(), text("error")).expect("written");
    proxy.signal("HUP");
    // Said while that still counted; what it has changed is not said any more.
    eventually!(has(&proxy, "INFO", "is read again"));
    run();
    assert!(!has(&proxy, "INFO", "info -> error"), "{}", proxy.log());
    assert!(!proxy.log().contains("sesame"), "{}", proxy.log());
}

//! The status page in a real browser, under load; health and readiness.

use std::path::PathBuf;

use pgweir_devcluster::StopMode;
use pgweir_testkit::{Browser, eventually};

use super::Load;
use super::monitors::{get, with_http};
use crate::support::{config, new_cluster};

/// Leaves a picture in the folder that `PGWEIR_SCREENSHOTS` names, to be looked at.
fn screenshot(browser: &mut Browser, name: &str) {
    let Some(folder) = std::env::var_os("PGWEIR_SCREENSHOTS").map(PathBuf::from) else {
        return;
    };
    let ask = |browser: &mut Browser, what: &str| -> u32 {
        let answer = browser.eval(what).expect("an answer");
        answer.parse().expect("a number")
    };
    let height = ask(browser, "document.documentElement.scrollHeight");
    let width = ask(browser, "innerWidth");
    browser.resize(width, height).expect("resized");
    browser
        .screenshot(&folder.join(format!("{name}.png")))
        .expect("a picture");
}

fn eval(browser: &mut Browser, what: &str) -> String {
    browser.eval(what).expect("an answer")
}

fn text(browser: &mut Browser, selector: &str) -> String {
    eval(
        browser,
        &format!("(document.querySelector('{selector}') || {{}}).textContent || ''"),
    )
}

#[test]
fn the_page_is_alive_under_load_and_shows_a_stopped_replica() {
    let cluster = new_cluster(2);
    let (proxy, address) = with_http(&config(&cluster));
    let load = Load::start(&proxy, 4, "SELECT 1 AS seen_on_the_page");
    let mut browser = Browser::open(&format!("http://{address}/")).expect("a browser");
    browser.resize(1280, 900).expect("resized");
    let mut rates = std::collections::BTreeSet::new();
    eventually!({
        rates.insert(text(&mut browser, "#qps"));
        rates
            .iter()
            .filter(|rate| rate.contains(|c: char| ('1'..='9').contains(&c)))
            .count()
            >= 3
    });
    eventually!(text(&mut browser, "#phase").contains("serving"));
    for name in ["primary", "replica1", "replica2"] {
        let state = format!("document.querySelector('[data-backend=\"{name}\"]').dataset.state");
        eventually!(eval(&mut browser, &state).contains("good"));
    }
    eventually!(text(&mut browser, "#statements tbody").contains("seen_on_the_page"));
    eventually!(text(&mut browser, "#pools tbody").contains("app"));
    assert_eq!(
        eval(
            &mut browser,
            "document.querySelectorAll('#chart-queries path.line').length > 0"
        ),
        "true"
    );
    screenshot(&mut browser, "light");
    browser.prefer("dark").expect("dark");
    screenshot(&mut browser, "dark");
    browser.resize(400, 860).expect("resized");
    assert_eq!(
        eval(&mut browser, "document.documentElement.scrollWidth"),
        "400"
    );
    screenshot(&mut browser, "phone");
    browser.resize(1280, 900).expect("resized");
    browser.prefer("light").expect("light");

    cluster
        .replica(1)
        .stop(StopMode::Immediate)
        .expect("stopped");
    let stopped = "document.querySelector('[data-backend=\"replica2\"]')";
    eventually!(eval(&mut browser, &format!("{stopped}.dataset.state")).contains("bad"));
    eventually!(eval(&mut browser, &format!("{stopped}.textContent")).contains("down"));
    screenshot(&mut browser, "down");
    assert_eq!(browser.errors().expect("an answer"), "[]");
    let foreign = "performance.getEntriesByType('resource').filter(({ name }) => !name.startsWith(location.origin)).length";
    assert_eq!(eval(&mut browser, foreign), "0");
    assert_eq!(load.stop(), Vec::<String>::new());
}

#[test]
fn health_and_readiness_are_told_apart() {
    let cluster = new_cluster(1);
    let (_proxy, address) = with_http(&config(&cluster));
    assert_eq!(get(&address, "/healthz").0, 200);
    assert_eq!(get(&address, "/readyz").0, 200);
    assert_eq!(get(&address, "/nothing").0, 404);
    for node in cluster.nodes() {
        node.stop(StopMode::Immediate).expect("stopped");
    }
    eventually!(get(&address, "/readyz").0 == 503);
    assert_eq!(get(&address, "/healthz").0, 200);
    for node in cluster.nodes() {
        node.start().expect("started");
    }
    eventually!(get(&address, "/readyz").0 == 200);
}

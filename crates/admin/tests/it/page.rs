//! The page in a real browser, with numbers that the test moves.

use std::path::Path;
use std::time::Duration;

use pgweir_admin::EventKind;
use pgweir_testkit::{Browser, eventually};

use crate::http::Served;

const PG3: &str = "document.querySelector('[data-backend=\"pg3\"]')";

fn text(browser: &mut Browser, id: &str) -> String {
    browser
        .eval(&format!("document.getElementById('{id}').textContent"))
        .unwrap()
}

/// Puts a screenshot below `target/page/`, to be looked at.
fn screenshot(browser: &mut Browser, name: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&folder).unwrap();
    let height: u32 = browser
        .eval("document.documentElement.scrollHeight")
        .unwrap()
        .parse()
        .unwrap();
    let width: u32 = browser.eval("innerWidth").unwrap().parse().unwrap();
    browser.resize(width, height).unwrap();
    browser
        .screenshot(&folder.join(format!("{name}.png")))
        .unwrap();
}

/// The same page for other eyes and hands; and it asks nobody else for anything.
fn dark_and_on_a_phone(browser: &mut Browser) {
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = browser.eval(ground).unwrap();
    browser.prefer("dark").unwrap();
    assert_ne!(browser.eval(ground).unwrap(), light);
    screenshot(browser, "dark");
    browser.resize(400, 860).unwrap();
    assert_eq!(
        browser
            .eval("document.documentElement.scrollWidth")
            .unwrap(),
        "400"
    );
    screenshot(browser, "phone");
    assert_eq!(browser.errors().unwrap(), "[]");
    let foreign = "performance.getEntriesByType('resource').filter(({ name }) => !name.startsWith(location.origin)).length";
    assert_eq!(browser.eval(foreign).unwrap(), "0");
}

#[test]
fn the_page_lives_and_shows_a_stopped_replica() {
    let served = Served::new();
    let mut browser = Browser::open(&format!("http://{}/", served.address)).unwrap();
    browser.resize(1280, 900).unwrap();
    // The numbers move while there is load.
    let mut rates = std::collections::BTreeSet::new();
    eventually!({
        served.control.sample.lock().unwrap().step(0.01);
        let rate = text(&mut browser, "qps");
        if rate != "\"–\"" && rate != "\"0\"" {
            rates.insert(rate);
        }
        rates.len() >= 3
    });
    assert_eq!(text(&mut browser, "phase"), "\"● serving\"");
    let state = format!("{PG3}.dataset.state");
    assert_eq!(browser.eval(&state).unwrap(), "\"good\"");
    eventually!(
        browser
            .eval("document.querySelectorAll('#chart-latency path.line').length")
            .unwrap()
            == "6"
    );
    eventually!(
        browser
            .eval("document.querySelectorAll('#statements tbody tr').length")
            .unwrap()
            == "6"
    );
    screenshot(&mut browser, "light");

    served.control.sample.lock().unwrap().stop_replica(true);
    eventually!(browser.eval(&state).unwrap() == "\"bad\"");
    let card = browser.eval(&format!("{PG3}.innerText")).unwrap();
    assert!(
        card.contains("down") && card.contains("connection refused"),
        "{card}"
    );
    assert_eq!(
        text(&mut browser, "phase"),
        "\"▲ serving, 1 server not healthy\""
    );
    let tops = format!(
        "getComputedStyle({PG3}).borderTopColor === getComputedStyle(document.querySelector('[data-backend=\"pg2\"]')).borderTopColor"
    );
    assert_eq!(
        browser.eval(&tops).unwrap(),
        "false",
        "it differs by words alone"
    );
    eventually!(
        browser
            .eval("document.getElementById('events').innerText")
            .unwrap()
            .contains("replica is down")
    );

    dark_and_on_a_phone(&mut browser);

    // When the proxy is gone, the page says so.
    drop(served);
    eventually!(
        browser
            .eval("document.getElementById('offline').hidden")
            .unwrap()
            == "false"
    );
    assert_eq!(text(&mut browser, "phase"), "\"■ no answer\"");
}

#[test]
fn the_page_goes_on_where_the_clock_is_set_back() {
    let served = Served::new();
    let mut browser = Browser::open(&format!("http://{}/", served.address)).unwrap();
    let state = format!("{PG3}?.dataset.state");
    eventually!(browser.eval(&state).unwrap() == "\"good\"");
    {
        let mut sample = served.control.sample.lock().unwrap();
        sample.facts.taken_at -= Duration::from_secs(3600);
        sample.stop_replica(true);
    }
    eventually!(browser.eval(&state).unwrap() == "\"bad\"");
    assert_eq!(browser.errors().unwrap(), "[]");
}

#[test]
fn pools_of_one_name_in_two_clusters_are_two_rows() {
    let served = Served::new();
    let pools = || -> Vec<String> {
        let (_, overview) = served.json("/api/overview.json");
        let pools = overview["pools"].as_array().unwrap().iter();
        pools.map(|pool| pool["cluster"].to_string()).collect()
    };
    {
        let mut sample = served.control.sample.lock().unwrap();
        sample.step(0.01);
        let mut other = sample.facts.clusters[0].clone();
        other.name = "other".into();
        sample.facts.clusters.push(other);
        let mut twin = sample.facts.pools[0].clone();
        twin.key.node.cluster = 1;
        sample.facts.pools = vec![sample.facts.pools[0].clone(), twin];
    }
    eventually!(pools() == ["\"main\"", "\"other\""]);
    let mut browser = Browser::open(&format!("http://{}/", served.address)).unwrap();
    let rows = "document.querySelectorAll('#pools tbody tr').length";
    eventually!(browser.eval(rows).unwrap() == "2");
    // And they stay two, picture by picture.
    let numbers = "document.getElementById('updated').textContent";
    for _ in 0..2 {
        let before = browser.eval(numbers).unwrap();
        served.control.sample.lock().unwrap().facts.taken_at += Duration::from_secs(1);
        eventually!(browser.eval(numbers).unwrap() != before);
    }
    assert_eq!(browser.eval(rows).unwrap(), "2");
}

#[test]
fn names_of_others_are_text_whatever_they_hold() {
    let served = Served::new();
    let evil =
        "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>";
    {
        let mut sample = served.control.sample.lock().unwrap();
        let counts = sample.facts.counts.databases["app"].clone();
        sample.facts.counts.databases.insert(evil.into(), counts);
        sample.facts.held_databases.push((evil.into(), true, true));
        for pool in &mut sample.facts.pools {
            (pool.database, pool.key.user) = (evil.into(), evil.into());
        }
        sample.facts.clusters[0].nodes[1].last_error = Some(evil.into());
        sample.say(EventKind::Console, evil, evil);
    }
    let mut browser = Browser::open(&format!("http://{}/", served.address)).unwrap();
    for id in ["pools", "problems", "events", "topology"] {
        let shown = format!("document.getElementById('{id}').textContent.includes('<script>')");
        eventually!(browser.eval(&shown).unwrap() == "true");
    }
    assert_eq!(
        browser
            .eval("document.querySelectorAll('main img').length")
            .unwrap(),
        "0"
    );
    assert_eq!(browser.eval("document.title").unwrap(), "\"pgweir\"");
    assert_eq!(browser.errors().unwrap(), "[]");
}

//! The pages in a real browser: they render, say what their JSON says, and work without JavaScript.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use vivace_integration::http;
use vivace_integration::process::{Node, Setup};
use vivace_integration::skip;

mod devtools;

use devtools::Browser;

/// All of them, and where in their JSON stands what must be on them.
const PAGES: [(&str, &[&str]); 7] = [
    ("/distributor/ring", &["id", "address", "verdict", "state", "zone", "evidence", "effect", "action", "why"]),
    ("/live-store/ring", &["id", "address", "verdict", "state", "software"]),
    ("/partition-ring", &["owner_ids", "verdict"]),
    ("/metrics-generator/ring", &["note", "path"]),
    ("/backend-worker/ring", &["note", "path"]),
    ("/memberlist", &["Name", "Addr", "Standing", "verdict", "evidence", "effect", "action", "why", "StateHash"]),
    ("/status/listeners", &["address", "config", "family"]),
];

fn json(addr: SocketAddr, path: &str) -> Value {
    let answer = http::request(addr, "GET", path, &[("Accept", "application/json")], &[]).unwrap();
    answer.json().unwrap_or(Value::Null)
}

/// Every text below one of these keys.
fn texts(value: &Value, keys: &[&str], wanted: bool, found: &mut Vec<String>) {
    match value {
        Value::String(text) if wanted && !text.is_empty() => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, keys, wanted, found)),
        Value::Object(fields) => {
            // Of what is well, nothing but the verdict is worth a place on the page.
            let quiet = fields.get("severity").is_some_and(|severity| severity == "ok");
            for (key, field) in fields.iter().filter(|(key, _)| !quiet || *key == "verdict") {
                texts(field, keys, keys.contains(&key.as_str()), found);
            }
        }
        _ => {}
    }
}

/// What a person reads says everything that the JSON says. Where seconds are counted, their figures are left out.
fn says_what_its_json_says(browser: &mut Browser, addr: SocketAddr, path: &str, keys: &[&str]) {
    let (begun, mut missing) = (Instant::now(), Vec::new());
    // Both are views of a moment: a second later they may be of the same one.
    while begun.elapsed() < Duration::from_secs(15) {
        browser.open(&format!("http://{addr}{path}"));
        let without_figures = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        let exactly = browser.text();
        let roughly = without_figures(&exactly);
        missing.clear();
        texts(&json(addr, path), keys, false, &mut missing);
        assert!(!missing.is_empty(), "{path} has nothing below {keys:?}");
        missing.retain(|text| {
            let counts = text.contains(" ago") || text.contains(" s:");
            if counts { !roughly.contains(&without_figures(text)) } else { !exactly.contains(text.as_str()) }
        });
        if missing.is_empty() {
            return;
        }
    }
    panic!("{path} does not show {missing:?}; it shows: {}", browser.text());
}

fn distributor(dir: &Path, id: &str, memberlist: &str) -> Node {
    let dir = dir.join(id);
    std::fs::create_dir_all(&dir).unwrap();
    let mut node = Setup::new(&dir)
        .yaml(&format!(
            "distributor:\n  ring:\n    instance_id: {id}\n    instance_addr: 127.0.0.1\n\
             overrides:\n  defaults:\n    ingestion:\n      rate_strategy: global\n\
             memberlist:\n  node_name: {id}\n  bind_addr: ['127.0.0.1']\n  bind_port: 0\n  \
             message_history_buffer_bytes: 10000\n{memberlist}"
        ))
        .spawn()
        .unwrap();
    node.wait_ready().unwrap();
    node
}

#[test]
fn every_page_renders_says_what_its_json_says_and_works_with_and_without_javascript() {
    let Some(mut browser) = Browser::start() else {
        skip::skip("pages in a browser: chromium is missing (Debian: chromium)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut node = distributor(dir.path(), "distributor-0", "");
    let addr = node.addr("http").unwrap();
    node.wait_until("gossip began", || json(addr, "/memberlist")["SortedMembers"][0].is_object()).unwrap();
    let member = json(addr, "/memberlist")["SortedMembers"][0].clone();
    let join = format!("  join_members: ['{}:{}']\n", member["Addr"].as_str().unwrap(), member["Port"]);
    let dead = distributor(dir.path(), "distributor-1", &join);
    let ring = "/distributor/ring";
    let code = |n: usize| json(addr, ring)["shards"][n]["finding"]["code"].clone();
    node.wait_until("two distributors", || code(1) == "healthy").unwrap();
    dead.kill().unwrap();
    node.wait_until("one is dead", || code(1) == "dead").unwrap();

    for scripts in [true, false] {
        browser.scripts(scripts);
        for (path, keys) in PAGES {
            says_what_its_json_says(&mut browser, addr, path, keys);
            assert_eq!(browser.complaints(), Vec::<String>::new(), "{path}, scripts: {scripts}");
        }
    }

    // Both looks are drawn, and differ.
    browser.scripts(true);
    let mut drawn = Vec::new();
    for scheme in ["light", "dark"] {
        browser.scheme(scheme);
        browser.open(&format!("http://{addr}{ring}"));
        let colour = browser.evaluate("getComputedStyle(document.body).backgroundColor");
        drawn.push((colour.as_str().unwrap().to_owned(), browser.picture()));
        let overflow = browser.evaluate("document.documentElement.scrollWidth > window.innerWidth");
        assert_eq!(overflow, false, "the page is wider than its window");
    }
    assert_ne!(drawn[0].0, drawn[1].0);
    assert!(drawn.iter().all(|(_, picture)| picture.len() > 10_000) && drawn[0].1 != drawn[1].1);
    if let Some(dir) = std::env::var_os("VIVACE_PICTURES") {
        pictures(&mut browser, addr, Path::new(&dir));
    }

    // A page that stays open follows what happens, without being loaded again.
    browser.open(&format!("http://{addr}{ring}"));
    browser.evaluate("window.stayed = true");
    assert!(browser.text().contains("distributor-1"));
    let late = distributor(dir.path(), "distributor-2", &join);
    node.wait_until("the open page shows the new member", || browser.text().contains("distributor-2")).unwrap();
    assert_eq!(browser.evaluate("window.stayed"), true);
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // A click on a button, where no script can help.
    browser.scripts(false);
    browser.open(&format!("http://{addr}{ring}"));
    browser.click("form:has(input[value='distributor-1']) button");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let shown = browser.text();
    assert!(shown.contains("distributor-0") && shown.contains("Forget"), "it is the same page again: {shown}");
    node.wait_until("forgotten", || !browser_shows(&mut browser, addr, ring, "distributor-1")).unwrap();
    drop(late);
}

fn browser_shows(browser: &mut Browser, addr: SocketAddr, path: &str, text: &str) -> bool {
    browser.open(&format!("http://{addr}{path}"));
    browser.text().contains(text)
}

/// Pictures of all pages for people to look at, base64 of PNG.
fn pictures(browser: &mut Browser, addr: SocketAddr, dir: &Path) {
    for scheme in ["light", "dark"] {
        browser.scheme(scheme);
        for (path, _) in PAGES {
            browser.open(&format!("http://{addr}{path}"));
            let name = format!("{}-{scheme}.png.base64", path.trim_start_matches('/').replace('/', "-"));
            std::fs::write(dir.join(name), browser.picture()).unwrap();
        }
    }
}

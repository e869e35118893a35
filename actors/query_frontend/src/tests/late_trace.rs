//! Traces that were acknowledged and have not come to the live-stores yet.

use super::fake::{Frontend, NOW, Source, World, frontend, sharing};
use crate::Config;

const ONCE: &str = "find single-tenant recent";
const ONCE_MORE: &str = "find once more single-tenant recent";

/// Recent data with two traces that are late, and a block with another.
fn world(late: Source) -> impl FnOnce(&mut World) {
    move |world| {
        world.recent("single-tenant", Source { traces: vec![(9, NOW), (8, NOW)], late: true, ..late });
        world.block("single-tenant", 1, Source { traces: vec![(7, NOW - 100)], end: NOW - 90, ..Source::default() });
    }
}

/// What recent data was asked, in turn.
fn asked(frontend: &Frontend) -> Vec<String> {
    frontend.asked().into_iter().filter(|asked| asked.ends_with("recent")).collect()
}

fn path(version: &str, n: u8) -> String {
    format!("/api/{version}traces/{}", format!("{n:02x}").repeat(16))
}

#[actix::test]
async fn what_is_found_nowhere_is_asked_for_once_more_and_counts_once() {
    let frontend = sharing(Config::default(), world(Source::default()));
    // The second form answers 200 with nothing in it.
    for (version, not_found) in [("", 404), ("v2/", 200)] {
        let found = frontend.get(&path(version, 9)).await;
        assert_eq!((found.status, found.coverage()), (200, "read=2/2"), "{}", found.text());
        assert!(found.text().contains("span 9"), "{}", found.text());
        assert_eq!(asked(&frontend), [ONCE, ONCE_MORE]);
        let absent = frontend.get(&path(version, 1)).await;
        assert_eq!((absent.status, absent.coverage()), (not_found, "read=2/2"));
        assert!(!absent.text().contains("span 9"), "{}", absent.text());
        assert_eq!(asked(&frontend), [ONCE, ONCE_MORE]);
        let stored = frontend.get(&path(version, 7)).await;
        assert_eq!((stored.status, stored.coverage()), (200, "read=2/2"));
        assert_eq!(asked(&frontend), [ONCE], "it was found");
    }
    let recent = frontend.get(&format!("{}?mode=ingesters", path("", 8))).await;
    assert_eq!((recent.status, recent.coverage()), (200, "read=1/1"));
    assert_eq!(asked(&frontend), [ONCE, ONCE_MORE]);
    let blocks = frontend.get(&format!("{}?mode=blocks", path("", 8))).await;
    assert_eq!((blocks.status, asked(&frontend)), (404, Vec::new()));
    frontend.end().await;
}

#[actix::test]
async fn who_answers_only_the_first_time_is_missing_and_who_never_does_is_missing_once() {
    let gone = Source { broken_later: Some("gone"), ..Source::default() };
    let frontend = sharing(Config::default(), world(gone));
    let answer = frontend.get(&path("", 9)).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.coverage(), "read=2/3; skipped=\"live-store: gone\"");
    frontend.end().await;

    let away = Source { broken: Some("away"), ..Source::default() };
    let frontend = sharing(Config::default(), world(away));
    let answer = frontend.get(&path("", 9)).await;
    assert_eq!((answer.status, answer.coverage()), (503, "read=1/2; skipped=\"live-store: away\""));
    assert_eq!(asked(&frontend), [ONCE, ONCE_MORE]);
    frontend.end().await;
}

#[actix::test]
async fn where_an_acknowledgement_waits_for_the_live_store_nothing_is_asked_twice() {
    let frontend = frontend(Config::default(), false, world(Source::default()));
    let absent = frontend.get(&path("", 9)).await;
    assert_eq!((absent.status, absent.coverage()), (404, "read=2/2"));
    assert_eq!(asked(&frontend), [ONCE]);
    frontend.end().await;
}

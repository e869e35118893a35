//! The query-frontend in a process of its own: queriers open links to it.

use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use vivace_runtime::LinkTo;

use super::fake::{Frontend, NOW, Source, World, frontend, linked};
use crate::Config;

fn world(world: &mut World) {
    world.recent("single-tenant", Source { traces: vec![(9, NOW - 10)], names: vec!["b"], ..Source::default() });
    let block = |n: u8| Source { traces: vec![(n, NOW - 100)], names: vec!["a"], end: NOW - 90, ..Source::default() };
    world.block("single-tenant", 1, block(8));
    world.block("single-tenant", 2, block(7));
}

fn search() -> String {
    format!("/api/search?q=%7B%7D&start={}&end={NOW}", NOW - 1000)
}

/// Until the fake has been asked something.
async fn asked(frontend: &Frontend) {
    while frontend.world.lock().asked.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[actix::test]
async fn queries_over_links_are_answered_as_in_one_process() {
    let local = frontend(Config::default(), false, world);
    let (remote, linking) = linked(Config::default(), 3, world).await;
    let range = format!("start={}&end={NOW}", NOW - 1000);
    for uri in [
        search(),
        format!("/api/v2/traces/{}", "08".repeat(16)),
        format!("/api/traces/{}", "09".repeat(16)),
        format!("/api/traces/{}", "01".repeat(16)),
        format!("/api/v2/search/tags?{range}"),
        format!("/api/v2/search/tag/.x/values?{range}"),
        format!("/api/metrics/query_range?q=%7B%7D%7Crate()&{range}"),
        "/api/search?q=%7B".to_owned(),
    ] {
        let (one, other) = (local.get(&uri).await, remote.get(&uri).await);
        assert_eq!(one.status, other.status, "{uri}");
        assert_eq!(one.body, other.body, "{uri}");
        assert_eq!(one.headers.get("x-vivace-coverage"), other.headers.get("x-vivace-coverage"), "{uri}");
    }
    linking.end();
    remote.end().await;
    local.end().await;
}

#[actix::test]
async fn the_job_of_a_querier_that_dies_runs_on_another() {
    let (frontend, mut linking) = linked(Config::default(), 1, |world_| {
        world(world_);
        world_.recent("single-tenant", Source { hangs: true, ..Source::default() });
    })
    .await;
    let (uri, frontend_) = (search(), &frontend);
    let query = frontend_.get(&uri);
    let dying = async {
        asked(frontend_).await;
        // The next querier has what the first one hangs on.
        world(&mut frontend_.world.lock());
        let (address, server) = vivace_runtime::contract::expose(linking.links.router()).await.unwrap();
        let peer = vivace_runtime::contract::peer(&address).unwrap();
        let link = LinkTo { peer, name: "second".to_owned(), process: 99, answers: frontend_.router.answers() };
        linking.workers.push(tokio::spawn(async move { drop(link.serve(CancellationToken::new()).await) }));
        let mut connected = linking.links.watch();
        connected.wait_for(|connected| *connected == 2).await.unwrap();
        linking.workers[0].abort();
        server
    };
    let (answer, server) = futures::join!(query, dying);
    let found = answer.json()["traces"].as_array().unwrap().len();
    assert_eq!((found, answer.coverage()), (3, "read=3/3"));
    server.cancel();
    linking.end();
    frontend.end().await;
}

#[actix::test]
async fn the_job_of_a_client_that_goes_away_ends_at_the_querier() {
    let (frontend, linking) = linked(Config::default(), 1, |world| {
        world.recent("single-tenant", Source { hangs: true, ..Source::default() });
    })
    .await;
    let uri = search();
    let mut query = Box::pin(frontend.get(&uri));
    while frontend.world.lock().asked.is_empty() {
        assert!((&mut query).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!(frontend.world.lock().dropped, 0);
    drop(query);
    while frontend.world.lock().dropped == 0 {
        tokio::task::yield_now().await;
    }
    world(&mut frontend.world.lock());
    assert_eq!(frontend.get(&uri).await.coverage(), "read=3/3", "the link is free again");
    linking.end();
    frontend.end().await;
}

#[actix::test]
async fn jobs_wait_for_queriers_and_more_than_may_wait_are_refused() {
    let config = Config { max_outstanding_per_tenant: 1, ..Config::default() };
    let (frontend, linking) = linked(config, 0, world).await;
    let (uri, trace) = (search(), format!("/api/v2/traces/{}", "08".repeat(16)));
    let mut waiting = Box::pin(frontend.get(&uri));
    // It waits once a second one is refused.
    let refused = loop {
        assert!((&mut waiting).now_or_never().is_none());
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(20), frontend.get(&uri)).await {
            break answer;
        }
    };
    assert_eq!((refused.status, refused.text()), (429, "job queue full"));
    assert_eq!(frontend.get(&trace).await.status, 429);
    // Who went away leaves its place to others.
    drop(waiting);
    let late = tokio::time::timeout(Duration::from_millis(20), frontend.get(&uri)).await;
    assert!(late.is_err(), "it waits for a querier instead of being refused");
    linking.end();
    frontend.end().await;
}

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request};
use vivace_protocol::tempopb::streaming_querier_client::StreamingQuerierClient;
use vivace_protocol::tempopb::{
    SearchRequest, SearchResponse, SearchTagValuesRequest, SearchTagsRequest, TraceSearchMetadata,
};
use vivace_runtime::{Dial, Server};

use super::fake::{Frontend, NOW, Source, World, block_id, frontend};
use crate::{Config, grpc_over_http};

/// Serves a router on a loopback port; the client, and what stops the server.
async fn client(router: axum::Router) -> (StreamingQuerierClient<Channel>, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let until = stop.clone();
    tokio::spawn(async move { Server::default().serve(listener, router, until, Duration::ZERO).await });
    (StreamingQuerierClient::new(Dial::default().channel(&address).unwrap()), stop)
}

fn source(traces: &[(u8, u64)], end: u64) -> Source {
    Source { traces: traces.to_vec(), end, ..Source::default() }
}

fn one_by_one() -> Config {
    let mut config = Config::default();
    config.search.target_bytes_per_job = 1;
    config.search.concurrent_jobs = 1;
    config
}

/// Recent data and three blocks; every job takes a second.
fn slow(world: &mut World) {
    world.recent("single-tenant", Source { names: vec!["a"], ..source(&[(9, NOW - 10)], 0) });
    world.block("single-tenant", 1, Source { names: vec!["a", "b"], ..source(&[(8, NOW - 100)], NOW - 90) });
    world.block("single-tenant", 2, Source { names: vec!["c"], ..source(&[(7, NOW - 200)], NOW - 190) });
    world.block("single-tenant", 3, Source { broken: Some("gone"), ..source(&[], NOW - 290) });
}

fn frontend_with(config: Config, step: Duration, fill: impl FnOnce(&mut World)) -> Frontend {
    let frontend = frontend(config, false, fill);
    frontend.world.lock().clock = Some((frontend.clock.clone(), step));
    frontend
}

fn search() -> SearchRequest {
    SearchRequest {
        query: "{ }".to_owned(),
        start: u32::try_from(NOW - 1000).unwrap(),
        end: u32::try_from(NOW).unwrap(),
        ..SearchRequest::default()
    }
}

fn ids(message: &SearchResponse) -> Vec<&str> {
    message.traces.iter().map(|trace| &trace.trace_id[..1]).collect()
}

#[actix::test]
async fn changes_are_told_as_jobs_end_and_the_last_message_is_the_whole_answer() {
    let frontend = frontend_with(one_by_one(), Duration::from_secs(1), slow);
    let (mut client, stop) = client(frontend.served.grpc.clone()).await;
    let mut told = client.search(search()).await.unwrap().into_inner();
    let mut messages = Vec::new();
    while let Some(message) = told.message().await.unwrap() {
        messages.push(message);
    }
    assert_eq!(
        messages.iter().map(ids).collect::<Vec<_>>(),
        [vec!["9"], vec!["8"], vec!["7"], vec![], vec!["9", "8", "7"]]
    );
    let progress = |m: &SearchResponse| m.metrics.as_ref().map(|m| (m.completed_jobs, m.total_jobs)).unwrap();
    assert_eq!(messages.iter().map(progress).collect::<Vec<_>>(), [(1, 1), (2, 4), (3, 4), (4, 4), (4, 4)]);

    let trailers = told.trailers().await.unwrap().unwrap();
    let skipped = format!("block {}: gone", block_id(3));
    assert_eq!(trailers.get("x-vivace-coverage").unwrap(), &format!("read=3/4; skipped=\"{skipped}\"").as_str());
    assert_eq!(trailers.get("x-vivace-skipped").unwrap(), &skipped.as_str());

    // Folded by trace id, the changes are the answer over HTTP.
    let mut folded: BTreeMap<&str, &TraceSearchMetadata> = BTreeMap::new();
    for trace in messages[..4].iter().flat_map(|message| &message.traces) {
        folded.insert(&trace.trace_id, trace);
    }
    let whole = &messages[4].traces;
    assert_eq!(whole.len(), folded.len());
    assert!(whole.iter().all(|trace| folded[&*trace.trace_id] == trace));
    let unary = frontend.get(&format!("/api/search?q=%7B+%7D&start={}&end={NOW}", NOW - 1000)).await.json();
    let unary: Vec<_> = unary["traces"].as_array().unwrap().iter().map(|t| t["traceID"].as_str().unwrap()).collect();
    assert_eq!(unary, whole.iter().map(|trace| trace.trace_id.as_str()).collect::<Vec<_>>());
    stop.cancel();
    frontend.end().await;
}

#[actix::test]
async fn a_query_done_within_half_a_second_is_one_message() {
    let frontend = frontend_with(one_by_one(), Duration::from_millis(120), slow);
    let (mut client, stop) = client(frontend.served.grpc.clone()).await;
    let told = client.search(search()).await.unwrap().into_inner();
    let messages: Vec<_> = told.map(Result::unwrap).collect().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(ids(&messages[0]), ["9", "8", "7"]);
    stop.cancel();
    frontend.end().await;
}

#[actix::test]
async fn with_most_recent_a_trace_is_told_when_no_newer_one_can_follow() {
    let frontend = frontend_with(one_by_one(), Duration::from_secs(1), |world| {
        world.recent("single-tenant", source(&[(9, NOW - 150)], 0));
        world.block("single-tenant", 1, source(&[(8, NOW - 100)], NOW - 90));
        world.block("single-tenant", 2, source(&[(7, NOW - 200)], NOW - 190));
    });
    let (mut client, stop) = client(frontend.served.grpc.clone()).await;
    let request = SearchRequest { query: "{ } with (most_recent=true)".to_owned(), ..search() };
    let told = client.search(request).await.unwrap().into_inner();
    let messages: Vec<_> = told.map(Result::unwrap).collect().await;
    assert_eq!(messages.iter().map(ids).collect::<Vec<_>>(), [vec![], vec!["8", "9"], vec!["7"], vec!["8", "9", "7"]]);
    stop.cancel();
    frontend.end().await;
}

#[actix::test]
async fn a_client_that_goes_away_ends_the_query() {
    let frontend = frontend_with(one_by_one(), Duration::from_secs(1), |world| {
        slow(world);
        world.block("single-tenant", 2, Source { hangs: true, ..source(&[], NOW - 190) });
    });
    let (mut client, stop) = client(frontend.served.grpc.clone()).await;
    let mut told = client.search(search()).await.unwrap().into_inner();
    for id in ["9", "8"] {
        assert_eq!(ids(&told.message().await.unwrap().unwrap()), [id]);
    }
    let hanging = format!("search single-tenant {}", block_id(2));
    until(|| frontend.world.lock().asked.contains(&hanging)).await;
    assert_eq!(frontend.world.lock().dropped, 2);
    drop(told);
    // The answer that nobody waits for any more is let go, and no further job is started.
    until(|| frontend.world.lock().dropped == 3).await;
    let last = format!("search single-tenant {}", block_id(3));
    assert!(!frontend.world.lock().asked.contains(&last));
    stop.cancel();
    frontend.end().await;
}

/// Lets everything else run until something is so.
async fn until(mut so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never became so");
        tokio::task::yield_now().await;
    }
}

#[actix::test]
async fn names_and_values_are_told_once_and_in_the_end_all() {
    let frontend = frontend_with(one_by_one(), Duration::from_secs(1), slow);
    let (mut client, stop) = client(frontend.served.grpc.clone()).await;
    let (start, end) = (u32::try_from(NOW - 1000).unwrap(), u32::try_from(NOW).unwrap());
    let names = SearchTagsRequest { scope: "span".to_owned(), start, end, ..SearchTagsRequest::default() };
    let due = [vec!["a"], vec!["b"], vec!["c"], vec![], vec!["a", "b", "c"]];

    let told = client.search_tags_v2(names.clone()).await.unwrap().into_inner();
    let told: Vec<_> =
        told.map(|m| m.unwrap().scopes.into_iter().flat_map(|s| s.tags).collect::<Vec<_>>()).collect().await;
    assert_eq!(told, due);
    let told = client.search_tags(names).await.unwrap().into_inner();
    assert_eq!(told.map(|m| m.unwrap().tag_names).collect::<Vec<_>>().await, due);

    let values = SearchTagValuesRequest { tag_name: ".x".to_owned(), start, end, ..SearchTagValuesRequest::default() };
    let told = client.search_tag_values_v2(values.clone()).await.unwrap().into_inner();
    let told: Vec<_> =
        told.map(|m| m.unwrap().tag_values.into_iter().map(|v| v.value).collect::<Vec<_>>()).collect().await;
    assert_eq!(told, due);
    let told = client.search_tag_values(values).await.unwrap().into_inner();
    assert_eq!(told.map(|m| m.unwrap().tag_values).collect::<Vec<_>>().await, due);
    stop.cancel();
    frontend.end().await;
}

#[actix::test]
async fn messages_above_the_limit_are_split() {
    let config = Config { max_grpc_streaming_packet_size: 150, ..one_by_one() };
    let frontend = frontend_with(config, Duration::ZERO, |world| {
        world.recent("single-tenant", source(&[(1, NOW - 1), (2, NOW - 2), (3, NOW - 3)], 0));
    });
    let (mut client, stop) = client(frontend.served.grpc.clone()).await;
    let told = client.search(search()).await.unwrap().into_inner();
    let messages: Vec<_> = told.map(Result::unwrap).collect().await;
    assert!(messages.len() > 1);
    assert_eq!(messages.iter().flat_map(ids).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(messages.iter().all(|m| m.metrics == messages[0].metrics && prost::Message::encoded_len(m) <= 150));
    stop.cancel();
    frontend.end().await;
}

#[actix::test]
async fn refusals_have_the_codes_that_clients_know() {
    let frontend = frontend(Config::default(), true, |_| {});
    let (mut client, stop) = client(frontend.served.grpc.clone()).await;
    let mut code = async |request: SearchRequest, tenants: &[&str]| {
        let mut request = Request::new(request);
        for tenant in tenants {
            request.metadata_mut().append("x-scope-orgid", tenant.parse().unwrap());
        }
        let status = client.search(request).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    assert_eq!(code(search(), &[]).await, (Code::Unknown, "no org id".to_owned()));
    assert_eq!(code(search(), &["a", "b"]).await, (Code::Unknown, "no org id".to_owned()));
    assert_eq!(code(search(), &["a b"]).await.0, Code::InvalidArgument);
    let bad = SearchRequest { query: "{".to_owned(), ..search() };
    let (bad, text) = code(bad, &["a"]).await;
    assert_eq!(bad, Code::InvalidArgument);
    assert!(text.starts_with("invalid TraceQL query: parse error"), "{text}");
    let long = SearchRequest { query: format!("{{{}}}", " ".repeat(140_000)), ..search() };
    let (long, text) = code(long, &["a"]).await;
    assert_eq!(long, Code::InvalidArgument);
    assert!(text.starts_with("TraceQL expression exceeds"), "{text}");
    stop.cancel();
    frontend.end().await;
}

#[actix::test]
async fn an_incomplete_answer_is_an_error_where_only_complete_ones_are_wanted() {
    let config = Config { require_complete: true, ..one_by_one() };
    let frontend = frontend_with(config, Duration::ZERO, slow);
    let (mut client, stop) = client(frontend.served.grpc.clone()).await;
    let mut told = client.search(search()).await.unwrap().into_inner();
    let status = told.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("gone"), "{}", status.message());
    stop.cancel();
    frontend.end().await;
}

#[actix::test]
async fn the_http_port_serves_streams_when_told_to() {
    let frontend = frontend_with(one_by_one(), Duration::ZERO, slow);
    let router = grpc_over_http(frontend.served.http.clone(), frontend.served.grpc.clone());
    let (mut over_http, stop) = client(router).await;
    let told = over_http.search(search()).await.unwrap().into_inner();
    assert_eq!(told.map(Result::unwrap).collect::<Vec<_>>().await.len(), 1);
    stop.cancel();
    let (mut not_told, stop) = client(frontend.served.http.clone()).await;
    // That the path is unknown is known when the answer is read.
    let failed = match not_told.search(search()).await {
        Ok(told) => told.into_inner().message().await.is_err(),
        Err(_) => true,
    };
    assert!(failed);
    stop.cancel();
    frontend.end().await;
}

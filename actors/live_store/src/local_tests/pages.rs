//! Pages of a trace whose spans are in the head, in closing cuts and in local blocks, while more of it comes and moves on.

use std::collections::BTreeSet;

use futures::StreamExt;
use vivace_log::Record;
use vivace_protocol::otlp::trace::Span;
use vivace_protocol::trace_walk::{SpanHead, for_each_span};
use vivace_protocol::vivace::FindTraceRequest;
use vivace_protocol::wire::WireError;

use super::world::{Kafka, Life, eager, lazy};
use crate::tests::{LONG, batch, run, trace_id};

/// Spans of one record, and times between the starts of two records: neighbours overlap.
const SPANS: u64 = 20;
const STEP: u64 = 12;

/// Start and id: spans are paged in this order.
type Place = (u64, u64);

/// Record number `at` of the trace. Two spans start at a time, of no two records at the same, and not in the order in which they come.
fn part(at: u64) -> (Record, Vec<Place>) {
    let places: Vec<Place> =
        (0..SPANS).map(|n| ((1_000 + at * STEP + n * 7 % SPANS / 2 * 2) * 4 + at % 4, at * SPANS + n + 1)).collect();
    let span = |(start, id): &Place| Span {
        trace_id: trace_id(1).as_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        name: format!("span {id}"),
        start_time_unix_nano: *start,
        end_time_unix_nano: start + 5,
        ..Span::default()
    };
    (batch(places.iter().map(span).collect()), places)
}

/// The next page behind a place, as the query-frontend makes it, and whether there are more; with it how many spans were told.
async fn page(life: &Life, after: Option<Place>, spans: usize) -> (Vec<Place>, bool, usize) {
    let request = FindTraceRequest {
        tenant: "single-tenant".into(),
        trace_id: trace_id(1).as_bytes().to_vec(),
        page_from_unix_nano: after.map_or(0, |after| after.0),
        page_spans: u32::try_from(spans + 1).unwrap(),
        ..FindTraceRequest::default()
    };
    let batches: Vec<_> = life.live.find.call(request, LONG).await.unwrap().collect().await;
    let (mut told, mut seen) = (0, BTreeSet::new());
    for batch in batches.into_iter().map(Result::unwrap) {
        assert!(batch.coverage.is_none_or(|coverage| coverage.skipped.is_empty()));
        for piece in batch.parts {
            let walked = for_each_span(&piece, |span| {
                let head = SpanHead::read(span.span)?;
                let place = (head.start_unix_nano, u64::from_be_bytes(head.span_id.0));
                told += 1;
                if after.is_none_or(|after| place > after) {
                    assert!(seen.insert(place), "{place:?} is told twice");
                }
                Ok::<_, WireError>(())
            });
            walked.unwrap();
        }
    }
    let more = seen.len() > spans;
    (seen.into_iter().take(spans).collect(), more, told)
}

/// All pages, one after the other; `between` is done before each but the first. Of every page hardly more is told than is on it.
async fn pages(life: &Life, spans: usize, mut between: impl AsyncFnMut()) -> Vec<Place> {
    let mut all: Vec<Place> = Vec::new();
    loop {
        let (page, more, told) = page(life, all.last().copied(), spans).await;
        // One more than the page has, and those that start with the last of this page or of the one before.
        assert!(told <= spans + 1 + 3, "{told} spans are told for a page of {spans}");
        assert!(!more || page.len() == spans);
        all.extend(page);
        if !more {
            return all;
        }
        between().await;
    }
}

#[test]
fn pages_joined_are_the_trace_wherever_its_spans_are_and_no_more_is_told_than_is_on_them() {
    let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
    let mut due = Vec::new();
    run(async {
        let mut life = Life::start(dir.path(), &kafka, eager());
        for at in 0..12 {
            let (record, places) = part(at);
            kafka.append(record).await;
            due.extend(places);
            life.sees(at + 1).await;
        }
        kafka.committed.reaches(12).await;
        due.sort_unstable();
        for spans in [7, 30, 1000] {
            assert_eq!(pages(&life, spans, async || ()).await, due);
        }
        life.stop().await;
    });
    run(async {
        // The blocks are there again, and some of the trace is live beside them.
        let mut life = Life::start(dir.path(), &kafka, lazy());
        for at in 12..20 {
            let (record, places) = part(at);
            kafka.append(record).await;
            due.extend(places);
        }
        life.sees(8).await;
        due.sort_unstable();
        for spans in [7, 30, 1000] {
            assert_eq!(pages(&life, spans, async || ()).await, due);
        }
        life.stop().await;
    });
}

#[test]
fn pages_go_on_while_spans_come_and_move_into_blocks() {
    // What comes meanwhile starts later, so it is on pages to come: in the head, in a closing cut or in a block by then.
    for config in [lazy(), eager()] {
        let (dir, kafka) = (tempfile::tempdir().unwrap(), Kafka::new());
        run(async {
            let mut life = Life::start(dir.path(), &kafka, config);
            let (mut due, mut written) = (Vec::new(), 0);
            for at in 0..10 {
                let (record, places) = part(at);
                kafka.append(record).await;
                due.extend(places);
                written += 1;
            }
            life.sees(written).await;
            let mut seen = life.seen.clone();
            let all = pages(&life, 15, async || {
                if written < 25 {
                    let (record, places) = part(written);
                    kafka.append(record).await;
                    due.extend(places);
                    written += 1;
                    // Every other page is asked for while the record is on its way.
                    if written % 2 == 0 {
                        tokio::time::timeout(LONG, seen.wait_for(|seen| *seen >= written)).await.unwrap().unwrap();
                    }
                }
            })
            .await;
            assert_eq!(written, 25);
            due.sort_unstable();
            assert_eq!(all, due);
            life.stop().await;
        });
    }
}

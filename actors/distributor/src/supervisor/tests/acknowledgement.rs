//! What an acknowledgement promises.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tonic::Code;
use vivace_log::{Log as _, Offset};

use super::harness::{EXPORT, LONG, PARTITION, PROTOBUF, Setup, frame, good, http};

#[actix_rt::test]
async fn errors_of_the_log_are_answered_by_what_the_client_can_do() {
    let harness = Setup::new().start().await;
    let body = good().encode_to_vec();
    harness.log.refuse_next(vivace_log::Error::DiskFull { retry_after: Duration::from_secs(5) });
    let answer = harness.post(&[PROTOBUF], &body).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    harness.log.refuse_next(vivace_log::Error::RecordTooLarge { bytes: 2, limit_bytes: 1 });
    assert_eq!(harness.refused(&[], frame(0, &body)).await.0, Code::InvalidArgument);
    harness.log.refuse_next(vivace_log::Error::Closed);
    assert_eq!(harness.refused(&[], frame(0, &body)).await.0, Code::Unavailable);
    harness.progress.close();
    harness.consume.store(false, Ordering::Release);
    assert_eq!(harness.refused(&[], frame(0, &body)).await.0, Code::Unavailable);
    harness.stop().await;
}

#[actix_rt::test]
async fn an_acknowledgement_waits_for_the_disk_and_for_the_consumer() {
    let harness = Arc::new(Setup::new().with(|setup| setup.apply = false).start().await);
    harness.log.hold();
    let exporting = Arc::clone(&harness);
    let export = tokio::task::spawn_local(async move { exporting.export(&good()).await });
    // Its permit tells that the record is queued: the body's is given back before.
    while harness.log.budget().used_bytes() == 0 {
        tokio::task::yield_now().await;
    }
    harness.log.release();
    let end = loop {
        let end = harness.log.bounds(PARTITION).await.unwrap().end;
        if end > Offset(0) {
            break end;
        }
        tokio::task::yield_now().await;
    };
    // Durable but not applied: whoever waits does so until its deadline, and hears that the outcome is unknown. It is long enough to get
    // that far on a busy machine; before, the answer would be another.
    let status = harness.call(EXPORT, &[("grpc-timeout", "1S")], frame(0, &good().encode_to_vec())).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(harness.metric("vivace_distributor_requests_turned_away_total{reason=\"deadline\"}"), "1");
    assert!(!export.is_finished());
    harness.progress.publish(end);
    export.await.unwrap().unwrap();
    Arc::into_inner(harness).unwrap().stop().await;
}

#[actix_rt::test]
async fn a_failed_disk_is_not_acknowledged() {
    let harness = Arc::new(Setup::new().start().await);
    harness.log.hold();
    let exporting = Arc::clone(&harness);
    let export = tokio::task::spawn_local(async move { exporting.export(&good()).await });
    while !export.is_finished() {
        tokio::task::yield_now().await;
        harness.log.lose_held();
        harness.log.hold();
    }
    harness.log.release();
    assert_eq!(export.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert!(harness.spans_in_log().is_empty());
    Arc::into_inner(harness).unwrap().stop().await;
}

#[actix_rt::test]
async fn draining_finishes_what_is_in_flight_and_takes_nothing_more() {
    let harness = Setup::new().start().await;
    harness.log.hold();
    let (addr, body) = (harness.http, good().encode_to_vec());
    let in_flight = tokio::spawn(async move { http(addr, "POST", "/v1/traces", &[PROTOBUF], &body).await });
    while harness.log.budget().used_bytes() == 0 {
        tokio::task::yield_now().await;
    }
    let mut idle = TcpStream::connect(addr).await.unwrap();
    let root = harness.root.clone();
    let draining = tokio::task::spawn_local(async move { root.drain(LONG).await });
    // The listener goes first; then connections to it are refused.
    while TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!draining.is_finished() && !in_flight.is_finished());
    harness.log.release();
    assert_eq!(in_flight.await.unwrap().status, 200);
    assert!(draining.await.unwrap());
    assert_eq!(harness.spans_in_log().len(), 3);
    let mut rest = Vec::new();
    assert_eq!(idle.read_to_end(&mut rest).await.unwrap_or(0), 0, "an idle connection is closed");
}

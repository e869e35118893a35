//! OTLP over gRPC.

use prost::Message as _;
use tonic::Code;
use vivace_protocol::otlp::collector::trace_service_client::TraceServiceClient;
use vivace_protocol::otlp::trace::Span;

use super::harness::{EXPORT, LONG, Setup, frame, good, large, request, span};
use crate::encoding::Encoding;
use crate::encoding::tests::compress;

#[actix_rt::test]
async fn grpc_exports_arrive_in_every_compression_and_are_acknowledged_with_partial_success() {
    let harness = Setup::new().start().await;
    let message = good().encode_to_vec();
    harness.call(EXPORT, &[], frame(0, &message)).await.unwrap();
    let ways = [
        ("gzip", Encoding::Gzip),
        ("zstd", Encoding::Zstd),
        ("snappy", Encoding::Snappy),
        ("snappy", Encoding::SnappyFramed),
    ];
    for (name, encoding) in ways {
        let compressed = frame(1, &compress(encoding, &message));
        harness.call(EXPORT, &[("grpc-encoding", name)], compressed).await.unwrap();
        // The flag says that this message is not compressed although others are.
        harness.call(EXPORT, &[("grpc-encoding", name)], frame(0, &message)).await.unwrap();
    }
    let spans = harness.spans_in_log();
    assert_eq!(spans.len(), 27);
    let names: Vec<_> = spans[..3].iter().map(|(tenant, span)| (tenant.as_str(), span.name.as_str())).collect();
    assert_eq!(names, [("single-tenant", "span-1-1"), ("single-tenant", "span-1-2"), ("single-tenant", "span-2-1")]);
    assert_eq!(
        harness.metric("tempo_receiver_accepted_spans{receiver=\"otlp/otlp_receiver\",transport=\"grpc\"}"),
        "27"
    );
    assert_eq!(harness.metric("tempo_distributor_spans_received_total"), "27");
    assert_eq!(harness.metric("tempo_distributor_bytes_received_total"), (message.len() * 9).to_string());
    assert_eq!(harness.metric("tempo_distributor_push_duration_seconds_count"), "9");
    harness.stop().await;
}

#[actix_rt::test]
async fn a_generated_client_gets_along_with_it() {
    let harness = Setup::new().start().await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", harness.grpc)).unwrap();
    let client = TraceServiceClient::new(channel.connect().await.unwrap());
    for compression in [tonic::codec::CompressionEncoding::Gzip, tonic::codec::CompressionEncoding::Zstd] {
        let mut client = client.clone().send_compressed(compression).accept_compressed(compression);
        let mut request = tonic::Request::new(good());
        request.set_timeout(LONG);
        let reply = client.export(request).await.unwrap().into_inner();
        assert_eq!(reply.partial_success, Some(vivace_protocol::otlp::collector::ExportTracePartialSuccess::default()));
    }
    assert_eq!(harness.spans_in_log().len(), 6);
    harness.stop().await;
}

#[actix_rt::test]
async fn bad_ids_refuse_the_whole_request_over_grpc() {
    let harness = Setup::new().start().await;
    let with = |bad: Span| frame(0, &request(vec![span(1, 1), bad]).encode_to_vec());
    let unmarshal = "grpc: error unmarshalling request: unmarshal: invalid TraceID length";
    let short = Span { trace_id: vec![1; 8], ..span(1, 1) };
    assert_eq!(harness.refused(&[], with(short)).await, (Code::Internal, unmarshal.into()));
    for id in [vec![], vec![0; 16]] {
        let bad = Span { trace_id: id, ..span(1, 1) };
        let text = "trace ids must be 128 bit, received 0 bits";
        assert_eq!(harness.refused(&[], with(bad)).await, (Code::InvalidArgument, text.into()));
    }
    for id in [vec![], vec![0; 8]] {
        let bad = Span { span_id: id, ..span(1, 1) };
        let text = "span ids must be 64 bit and not all zero, received 0 bits";
        assert_eq!(harness.refused(&[], with(bad)).await, (Code::InvalidArgument, text.into()));
    }
    assert_eq!(harness.metric("tempo_discarded_spans_total{reason=\"invalid_trace_id\""), "4");
    assert_eq!(harness.metric("tempo_discarded_spans_total{reason=\"invalid_span_id\""), "4");
    assert_eq!(
        harness.metric("tempo_receiver_refused_spans{receiver=\"otlp/otlp_receiver\",transport=\"grpc\"}"),
        "10"
    );
    assert!(harness.spans_in_log().is_empty());
    harness.stop().await;
}

#[actix_rt::test]
async fn messages_above_the_limit_are_refused_before_and_after_decompression() {
    let harness = Setup::new().start().await;
    let message = vec![0; 5_000_360];
    let text = "grpc: received message larger than max (5000360 vs. 4194304)";
    assert_eq!(harness.refused(&[], frame(0, &message)).await, (Code::ResourceExhausted, text.into()));
    let status = harness.call(EXPORT, &[], frame(0, &message)).await.unwrap_err();
    assert!(status.details().is_empty(), "no hint: the message stays too large");
    for (name, encoding) in [("gzip", Encoding::Gzip), ("zstd", Encoding::Zstd), ("snappy", Encoding::Snappy)] {
        let bomb = frame(1, &compress(encoding, &vec![0; 8 << 20]));
        let text = "grpc: received message after decompression larger than max 4194304";
        assert_eq!(harness.refused(&[("grpc-encoding", name)], bomb).await, (Code::ResourceExhausted, text.into()));
    }
    harness.export(&large(4_000_000)).await.unwrap();
    harness.stop().await;

    let harness = Setup::new().with(|setup| setup.grpc.max_recv_msg_size_mib = 6).start().await;
    harness.export(&large(5_000_360)).await.unwrap();
    harness.stop().await;
}

#[actix_rt::test]
async fn what_grpc_cannot_serve_is_said_as_grpc_does() {
    let harness = Setup::new().start().await;
    let body = || frame(0, &good().encode_to_vec());
    let status = harness.call("/a.B/C", &[], body()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "unknown service a.B"));
    let status = harness.call(&EXPORT.replace("Export", "Import"), &[], body()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let status = harness.call(EXPORT, &[("grpc-encoding", "br")], body()).await.unwrap_err();
    assert_eq!(status.message(), "grpc: Decompressor is not installed for grpc-encoding \"br\"");
    assert_eq!(status.metadata().get("grpc-accept-encoding").unwrap(), "gzip,zstd,snappy");
    assert_eq!(harness.refused(&[], frame(1, b"x")).await.0, Code::Internal);
    assert_eq!(harness.refused(&[], frame(7, b"x")).await.0, Code::Internal);
    assert_eq!(harness.refused(&[("grpc-encoding", "gzip")], frame(1, b"no gzip")).await.0, Code::Internal);
    assert_eq!(harness.refused(&[("grpc-timeout", "soon")], body()).await.0, Code::Internal);
    for broken in [vec![], vec![0], body()[..20].to_vec(), [body(), body()].concat()] {
        assert_eq!(harness.refused(&[], broken).await.0, Code::Internal);
    }
    assert!(harness.refused(&[], frame(0, b"\x0a\xff")).await.1.starts_with("grpc: error unmarshalling request: "));
    harness.stop().await;
}

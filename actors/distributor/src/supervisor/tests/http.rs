//! OTLP over HTTP.

use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use vivace_protocol::otlp::collector::ExportTraceServiceRequest;
use vivace_protocol::otlp::trace::Span;
use vivace_runtime::Rng;
use vivace_runtime::config::Presence;

use super::harness::{Answer, GOOD_JSON, JSON, PROTOBUF, Setup, good, http, large, read_answer, request};
use crate::config::CorsConfig;
use crate::encoding::Encoding;
use crate::encoding::tests::{COMPRESSED, compress};

#[actix_rt::test]
async fn an_export_without_spans_succeeds_and_stores_nothing() {
    let harness = Setup::new().start().await;
    harness.export(&ExportTraceServiceRequest::default()).await.unwrap();
    harness.export(&request(Vec::new())).await.unwrap();
    assert_eq!(harness.post(&[PROTOBUF], b"").await.body, [0x0a, 0]);
    assert_eq!(harness.post(&[JSON], b"{}").await.text(), r#"{"partialSuccess":{}}"#);
    assert!(harness.spans_in_log().is_empty());
    harness.stop().await;
}

#[actix_rt::test]
async fn http_exports_arrive_in_every_encoding_in_both_forms() {
    let harness = Setup::new().start().await;
    let body = good().encode_to_vec();
    let answer = harness.post(&[("content-type", "application/x-protobuf; charset=x")], &body).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &[0x0a, 0][..]));
    assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
    let answer = harness.post(&[JSON], GOOD_JSON.as_bytes()).await;
    assert_eq!((answer.status, answer.text()), (200, r#"{"partialSuccess":{}}"#));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let mut expected = 4;
    for (name, encoding) in COMPRESSED {
        let answer = harness.post(&[PROTOBUF, ("content-encoding", name)], &compress(encoding, &body)).await;
        assert_eq!(answer.status, 200, "{name}");
        let json = compress(encoding, GOOD_JSON.as_bytes());
        assert_eq!(harness.post(&[JSON, ("content-encoding", name)], &json).await.status, 200, "{name}");
        expected += 4;
    }
    // `snappy` may be framed, too.
    let framed = compress(Encoding::SnappyFramed, &body);
    assert_eq!(harness.post(&[PROTOBUF, ("content-encoding", "snappy")], &framed).await.status, 200);
    assert_eq!(harness.spans_in_log().len(), expected + 3);
    harness.stop().await;
}

#[actix_rt::test]
async fn large_bodies_take_the_way_over_the_compute_pool() {
    let harness = Setup::new().start().await;
    let body = large(3 << 20).encode_to_vec();
    assert_eq!(harness.post(&[PROTOBUF], &body).await.status, 200);
    for (name, encoding) in COMPRESSED {
        let answer = harness.post(&[PROTOBUF, ("content-encoding", name)], &compress(encoding, &body)).await;
        assert_eq!(answer.status, 200, "{name}");
    }
    let json = GOOD_JSON.replace("\"x\"", &format!("\"{}\"", "y".repeat(1 << 20)));
    assert_eq!(harness.post(&[JSON], json.as_bytes()).await.status, 200);
    assert_eq!(harness.spans_in_log().len(), 9);
    harness.stop().await;
}

#[actix_rt::test]
async fn http_refusals_have_the_status_and_text_of_the_api() {
    let harness = Setup::new().start().await;
    let body = good().encode_to_vec();
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let answer = http(harness.http, method, "/v1/traces", &[PROTOBUF], b"").await;
        assert_eq!((answer.status, answer.text()), (405, "405 method not allowed, supported: [POST]"));
    }
    for headers in [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/protobuf")]] {
        let answer = harness.post(headers, &body).await;
        assert_eq!(answer.status, 415);
        assert_eq!(answer.text(), "415 unsupported media type, supported: [application/json, application/x-protobuf]");
    }
    for path in ["/v1/metrics", "/v1/logs", "/", "/v1/traces/", "/v1/trace"] {
        assert_eq!(http(harness.http, "POST", path, &[PROTOBUF], &body).await.status, 404, "{path}");
    }
    let answer = harness.post(&[PROTOBUF, ("content-encoding", "br")], &body).await;
    assert_eq!((answer.status, answer.status().code), (400, 3));
    assert_eq!(answer.status().message, "unsupported Content-Encoding: br");
    for garbage in [&b"\x0a\xff"[..], b"\xff\xff\xff", b"\x08\x01\x0f"] {
        let answer = harness.post(&[PROTOBUF], garbage).await;
        assert_eq!((answer.status, answer.status().code), (400, 3));
    }
    for garbage in ["{", "[]", "{\"resourceSpans\":7}", ""] {
        let answer = harness.post(&[JSON], garbage.as_bytes()).await;
        assert_eq!(answer.status, 400, "{garbage}");
        assert!(answer.text().starts_with(r#"{"code":3,"message":""#), "{}", answer.text());
    }
    let short = GOOD_JSON.replace("0102030405060708090a0b0c0d0e0f10", "0102030405060708");
    let answer = harness.post(&[JSON], short.as_bytes()).await;
    assert_eq!(answer.status, 400);
    let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let message = "ID.UnmarshalJSONIter: length mismatch, error found in #10 byte of ...|405060708\",\n    \"spa|..., bigger context \
                   ...|opeSpans\":[{\"spans\":[{\"traceId\":\"0102030405060708\",\n    \"spanId\":\"0102030405060708\",\"name\":\"x\",\"star|...";
    assert_eq!(told, serde_json::json!({ "code": 3, "message": message }));
    let answer = harness.post(&[PROTOBUF], &request(vec![Span::default()]).encode_to_vec()).await;
    assert_eq!((answer.status, answer.status().message.as_str()), (400, "trace ids must be 128 bit, received 0 bits"));
    let answer = harness.post(&[PROTOBUF, ("content-encoding", "gzip")], &body).await;
    assert_eq!((answer.status, answer.status().code), (400, 3));
    assert!(harness.spans_in_log().is_empty());
    harness.stop().await;
}

#[actix_rt::test]
async fn http_bodies_are_cut_off_at_the_limit_before_and_after_decompression() {
    let harness = Setup::new().start().await;
    let too_large = |answer: Answer| {
        assert_eq!((answer.status, answer.status().code), (400, 3));
        assert_eq!(answer.status().message, "http: request body too large");
    };
    let bomb = vec![0; (20 << 20) + 1];
    for (name, encoding) in COMPRESSED {
        too_large(harness.post(&[PROTOBUF, ("content-encoding", name)], &compress(encoding, &bomb)).await);
    }
    harness.stop().await;

    let small = Setup::new().with(|setup| setup.http.max_request_body_size = 1000).start().await;
    too_large(small.post(&[PROTOBUF], &large(2000).encode_to_vec()).await);
    assert_eq!(small.post(&[PROTOBUF], &large(500).encode_to_vec()).await.status, 200);
    // Without an announced length the limit holds as well.
    let mut stream = TcpStream::connect(small.http).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
                content-type: application/x-protobuf\r\n\r\n";
    let chunk = format!("400\r\n{}\r\n", "c".repeat(0x400));
    stream.write_all(format!("{head}{chunk}0\r\n\r\n").as_bytes()).await.unwrap();
    too_large(read_answer(stream).await);
    small.stop().await;
}

#[actix_rt::test]
async fn the_path_the_headers_and_the_origins_are_configurable() {
    let cors = CorsConfig { allowed_origins: vec!["http://app.test".into()], ..CorsConfig::default() };
    let harness = Setup::new()
        .with(|setup| {
            setup.http.traces_url_path = "/custom/traces".into();
            setup.http.response_headers = [("x-served-by".to_owned(), "vivace".to_owned())].into();
            setup.http.cors = Presence(Some(cors));
            setup.http.compression_algorithms = vec![String::new(), "gzip".into()];
        })
        .start()
        .await;
    let body = good().encode_to_vec();
    assert_eq!(harness.post(&[PROTOBUF], &body).await.status, 404);
    let answer = http(harness.http, "POST", "/custom/traces", &[PROTOBUF, ("origin", "http://app.test")], &body).await;
    assert_eq!((answer.status, answer.header("x-served-by")), (200, Some("vivace")));
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://app.test"));
    let ask = [("origin", "http://app.test"), ("access-control-request-method", "POST")];
    let answer = http(harness.http, "OPTIONS", "/custom/traces", &ask, b"").await;
    assert_eq!((answer.status, answer.header("access-control-allow-methods")), (204, Some("POST")));
    let encoded = [PROTOBUF, ("content-encoding", "zstd")];
    let answer = http(harness.http, "POST", "/custom/traces", &encoded, &compress(Encoding::Zstd, &body)).await;
    assert_eq!(answer.status().message, "unsupported Content-Encoding: zstd");
    harness.stop().await;
}

#[actix_rt::test]
async fn damaged_bodies_are_answered_and_never_cost_the_server() {
    let harness = Setup::new().start().await;
    let mut rng = Rng::seeded(7);
    let whole = good().encode_to_vec();
    for round in 0..300 {
        let mut body = whole.clone();
        for _ in 0..=rng.below(4) {
            let at = rng.index(body.len());
            body[at] = u8::try_from(rng.below(256)).unwrap();
        }
        body.truncate(rng.index(body.len() + 1));
        let (name, encoding) = COMPRESSED[rng.index(COMPRESSED.len())];
        let mut compressed = compress(encoding, &body);
        if round % 3 == 0 {
            let at = rng.index(compressed.len().max(1)).min(compressed.len().saturating_sub(1));
            if let Some(byte) = compressed.get_mut(at) {
                *byte ^= 0x55;
            }
        }
        let answer = harness.post(&[PROTOBUF, ("content-encoding", name)], &compressed).await;
        assert!(matches!(answer.status, 200 | 400), "{answer:?}");
    }
    let failures = harness.registry.render();
    assert!(!failures.contains("panick"));
    assert_eq!(harness.post(&[PROTOBUF], &whole).await.status, 200);
    harness.stop().await;
}

//! A whole distributor over real sockets, with a log in memory and a consumer that applies what the log holds.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Status};
use vivace_log::{Budget, LogId, MemoryLog, Offset, Record};
use vivace_protocol::otlp::collector::trace_service_client::TraceServiceClient;
use vivace_protocol::otlp::collector::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use vivace_protocol::otlp::common::{AnyValue, KeyValue, any_value};
use vivace_protocol::otlp::resource::Resource;
use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};
use vivace_protocol::tempopb::PushBytesRequest;
use vivace_protocol::{RpcStatus, TenantId};
use vivace_runtime::SystemClock;
use vivace_runtime::config::{GoDuration, Limits, Presence};

use super::*;
use crate::config::{CorsConfig, OtlpConfig, OtlpProtocols, Receivers};
use crate::encoding::Encoding;
use crate::encoding::tests::{COMPRESSED, compress};

const LONG: Duration = Duration::from_secs(60);
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");
const PARTITION: Partition = Partition(3);

/// What a test changes before the start.
struct Setup {
    grpc: GrpcReceiverConfig,
    http: OtlpHttpConfig,
    config: Config,
    limits: Limits,
    multitenancy: bool,
    budget_bytes: usize,
    /// Whether the consumer applies at once; otherwise the test publishes.
    apply: bool,
}

struct Harness {
    root: Supervisor,
    grpc: SocketAddr,
    http: SocketAddr,
    log: MemoryLog,
    progress: Progress,
    registry: Registry,
    /// Cleared to end the consumer.
    consume: Arc<AtomicBool>,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Setup {
    fn new() -> Self {
        Self {
            grpc: GrpcReceiverConfig { endpoint: "127.0.0.1:0".into(), ..GrpcReceiverConfig::default() },
            http: OtlpHttpConfig { endpoint: "127.0.0.1:0".into(), ..OtlpHttpConfig::default() },
            config: Config::default(),
            limits: Limits::default(),
            multitenancy: false,
            budget_bytes: 256 << 20,
            apply: true,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn wiring(self, log: &MemoryLog, progress: &Progress, registry: &Registry) -> Wiring {
        let protocols = OtlpProtocols { grpc: Presence(Some(self.grpc)), http: Presence(Some(self.http)) };
        let receivers = [("otlp".to_owned(), ReceiverConfig::Otlp(OtlpConfig { protocols }))];
        let limits = Arc::new(self.limits);
        Wiring {
            config: Config { receivers: Receivers(receivers.into()), ..self.config },
            multitenancy: self.multitenancy,
            limits: Arc::new(move |_: &TenantId| Arc::clone(&limits)),
            log: Arc::new(log.clone()),
            partition: PARTITION,
            progress: Some(progress.clone()),
            clock: Arc::new(SystemClock),
            rng: Rng::seeded(1),
            compute: Compute::new("t", 1, Bounds::messages(8)).unwrap(),
            servers: tokio::runtime::Handle::current(),
            metrics: registry.clone(),
            placement: Placement::Here,
        }
    }

    async fn start(self) -> Harness {
        let log =
            MemoryLog::new(LogId::from_random([1; 16]), Budget::new(self.budget_bytes, Duration::from_millis(10)));
        let (progress, registry) = (Progress::new(Offset(0)), Registry::new());
        let root = Supervisor::root("root", Arc::new(SystemClock), Placement::Here);
        let apply = self.apply;
        let distributor = Distributor::wire(self.wiring(&log, &progress, &registry), &root).unwrap();
        root.start();
        root.running().await.unwrap();
        let addr = |listener| distributor.addresses().iter().find(|there| there.listener == listener).unwrap().addr;
        let (grpc, http) = (addr("otlp_grpc"), addr("otlp_http"));
        let (consume, records) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let harness = Harness { root, grpc, http, log, progress, registry, consume, records };
        if apply {
            harness.consume();
        }
        harness
    }
}

impl Harness {
    /// Applies everything from the start of the log on.
    fn consume(&self) {
        let mut reader = self.log.reader(PARTITION, Offset(0)).unwrap();
        let (progress, records, go_on) = (self.progress.clone(), Arc::clone(&self.records), Arc::clone(&self.consume));
        tokio::spawn(async move {
            while let Ok(batch) = reader.next(1 << 20).await {
                if !go_on.load(Ordering::Acquire) {
                    return;
                }
                records.lock().extend(batch.records.into_iter().map(|entry| entry.record));
                progress.publish(batch.end);
            }
        });
    }

    fn spans_in_log(&self) -> Vec<(String, Span)> {
        let mut spans = Vec::new();
        for record in self.records.lock().iter() {
            let tenant = String::from_utf8(record.tenant.to_vec()).unwrap();
            let push = PushBytesRequest::decode(record.value.clone()).unwrap();
            for trace in &push.traces {
                let trace = ExportTraceServiceRequest::decode(trace.clone()).unwrap();
                let scopes = trace.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
                spans.extend(scopes.flat_map(|scope| scope.spans).map(|span| (tenant.clone(), span)));
            }
        }
        spans
    }

    fn metric(&self, line_start: &str) -> String {
        let text = self.registry.render();
        let line = text.lines().find(|line| line.starts_with(line_start));
        line.unwrap_or_else(|| panic!("{line_start} in\n{text}")).rsplit_once(' ').unwrap().1.to_owned()
    }

    async fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        http(self.http, "POST", "/v1/traces", headers, body).await
    }

    async fn export(&self, request: &ExportTraceServiceRequest) -> Result<(), Status> {
        self.call(EXPORT, &[], frame(0, &request.encode_to_vec())).await
    }

    /// A gRPC call with a body of our own making.
    async fn call(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<(), Status> {
        let stream = TokioIo::new(TcpStream::connect(self.grpc).await.unwrap());
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = http::Request::post(format!("http://{}{path}", self.grpc))
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = http_body_util::Full::new(Bytes::from(body));
        let response = client.send_request(request.body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        if let Some(status) = Status::from_header_map(response.headers()) {
            return Err(status);
        }
        let collected = response.into_body().collect().await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
        let status = Status::from_header_map(collected.trailers().unwrap()).unwrap();
        assert_eq!(status.code(), Code::Ok);
        let reply = collected.to_bytes();
        let message = ExportTraceServiceResponse::decode(reply.slice(5..)).unwrap();
        assert_eq!(&reply[..5], [0, 0, 0, 0, 2]);
        assert!(message.partial_success.is_some());
        Ok(())
    }

    async fn refused(&self, headers: &[(&str, &str)], body: Vec<u8>) -> (Code, String) {
        let status = self.call(EXPORT, headers, body).await.unwrap_err();
        (status.code(), status.message().to_owned())
    }

    async fn stop(self) {
        assert!(self.root.drain(LONG).await);
        assert_eq!(self.log.budget().used_bytes(), 0);
        self.consume.store(false, Ordering::Release);
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(there, _)| there.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn status(&self) -> RpcStatus {
        RpcStatus::decode(self.body.as_slice()).unwrap()
    }
}

async fn http(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A refusal may come, and the connection close, before everything is sent.
    stream.write_all(body).await.ok();
    read_answer(stream).await
}

async fn read_answer(mut stream: TcpStream) -> Answer {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    let end = received.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer");
    let head = String::from_utf8(received[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: received[end + 4..].to_vec() }
}

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    frame
}

fn span(trace: u8, id: u8) -> Span {
    Span { trace_id: vec![trace; 16], span_id: vec![id; 8], name: format!("span-{trace}-{id}"), ..Span::default() }
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue("shop".into())) });
    let service = KeyValue { key: "service.name".into(), value, ..KeyValue::default() };
    let resource_spans = ResourceSpans {
        resource: Some(Resource { attributes: vec![service], ..Resource::default() }),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

fn good() -> ExportTraceServiceRequest {
    request(vec![span(1, 1), span(2, 1), span(1, 2)])
}

fn large(name_bytes: usize) -> ExportTraceServiceRequest {
    request(vec![Span { name: "n".repeat(name_bytes), ..span(1, 1) }])
}

const GOOD_JSON: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10",
    "spanId":"0102030405060708","name":"x","startTimeUnixNano":"1"}]}]}]}"#;

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

#[actix_rt::test]
async fn above_the_rate_clients_hear_when_to_come_again() {
    let limited = || {
        Setup::new().with(|setup| {
            setup.limits.ingestion.rate_limit_bytes = 1;
            setup.limits.ingestion.burst_size_bytes = 10;
        })
    };
    let harness = limited().start().await;
    let message = good().encode_to_vec();
    let text = format!("RATE_LIMITED: batch size ({} bytes) exceeds ingestion limit (", message.len());
    let status = harness.export(&good()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with(&text), "{}", status.message());
    assert_eq!(RpcStatus::decode(status.details()).unwrap().retry_after(), Some(Duration::from_secs(5)));
    let answer = harness.post(&[PROTOBUF], &message).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("5")));
    assert_eq!(answer.status().code, 8);
    let answer = harness.post(&[JSON], GOOD_JSON.as_bytes()).await;
    assert!(answer.text().starts_with(r#"{"code":8,"message":"RATE_LIMITED: "#), "{}", answer.text());
    assert_eq!(harness.metric("tempo_discarded_spans_total{reason=\"rate_limited\",tenant=\"single-tenant\"}"), "7");
    assert!(!harness.registry.render().contains("tempo_distributor_spans_received_total"));
    assert!(harness.metric("tempo_distributor_ingress_bytes_total").parse::<usize>().unwrap() > 2 * message.len());
    harness.stop().await;

    let quiet = limited().with(|setup| setup.limits.ingestion.retry_info_enabled = Some(false)).start().await;
    assert!(quiet.export(&good()).await.unwrap_err().details().is_empty());
    assert_eq!(quiet.post(&[PROTOBUF], &message).await.header("retry-after"), None);
    quiet.stop().await;

    let off = limited().with(|setup| setup.config.retry_after_on_resource_exhausted = GoDuration::ZERO).start().await;
    assert!(off.export(&good()).await.unwrap_err().details().is_empty());
    off.stop().await;
}

#[actix_rt::test]
async fn tenants_are_named_by_exactly_one_good_header() {
    let harness = Setup::new().with(|setup| setup.multitenancy = true).start().await;
    let body = good().encode_to_vec();
    let name = "x-scope-orgid";
    type Case<'a> = (&'a [(&'a str, &'a str)], Code, u16, &'a str);
    let cases: [Case<'_>; 6] = [
        (&[], Code::Unavailable, 503, "no org id"),
        (&[(name, "a"), (name, "b")], Code::Unavailable, 503, "no org id"),
        (&[(name, "")], Code::InvalidArgument, 400, "no org id"),
        (&[(name, "a|b")], Code::InvalidArgument, 400, "multiple org IDs present"),
        (&[(name, "a b")], Code::InvalidArgument, 400, "tenant ID 'a b' contains unsupported character ' '"),
        (&[(name, "..")], Code::InvalidArgument, 400, "tenant ID is '.' or '..'"),
    ];
    for (headers, code, status, text) in cases {
        assert_eq!(harness.refused(headers, frame(0, &body)).await, (code, text.to_owned()));
        let answer = harness.post(&[&[PROTOBUF], headers].concat(), &body).await;
        assert_eq!(
            (answer.status, answer.status().code, answer.status().message.as_str()),
            (status, code as i32, text)
        );
        assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
        let answer = harness.post(&[&[JSON], headers].concat(), GOOD_JSON.as_bytes()).await;
        assert_eq!(answer.status, status);
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&json["code"], &json["message"]), (&(code as i32).into(), &text.into()));
    }
    harness.call(EXPORT, &[(name, "team-1|team-1")], frame(0, &body)).await.unwrap();
    assert_eq!(harness.post(&[PROTOBUF, (name, "team-2:k=v")], &body).await.status, 200);
    let tenants: Vec<_> = harness.spans_in_log().into_iter().map(|(tenant, _)| tenant).collect();
    assert_eq!(tenants, ["team-1", "team-1", "team-1", "team-2", "team-2", "team-2"]);
    harness.stop().await;
}

#[actix_rt::test]
async fn without_multitenancy_the_header_is_not_looked_at() {
    let harness = Setup::new().start().await;
    let answer = harness.post(&[PROTOBUF, ("x-scope-orgid", "a b")], &good().encode_to_vec()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(harness.spans_in_log()[0].0, "single-tenant");
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
    assert!(answer.text().contains("length mismatch"), "{}", answer.text());
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
async fn a_full_budget_refuses_retryably_with_a_hint() {
    let harness = Setup::new().with(|setup| setup.budget_bytes = 100_000).start().await;
    let other = harness.log.budget().acquire(60_000).unwrap();
    let message = large(50_000).encode_to_vec();
    let status = harness.call(EXPORT, &[], frame(0, &message)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(RpcStatus::decode(status.details()).unwrap().retry_after(), Some(Duration::from_secs(1)));
    let answer = harness.post(&[PROTOBUF], &message).await;
    assert_eq!((answer.status, answer.header("retry-after"), answer.status().code), (503, Some("1"), 14));
    // It fits compressed, but not what comes out.
    let compressed = compress(Encoding::Snappy, &message);
    let answer = harness.post(&[PROTOBUF, ("content-encoding", "snappy")], &compressed).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(harness.metric("vivace_distributor_requests_turned_away_total{reason=\"overloaded\"}"), "3");
    drop(other);
    assert_eq!(harness.post(&[PROTOBUF], &large(30_000).encode_to_vec()).await.status, 200);
    harness.stop().await;
}

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
    // Durable but not applied: whoever waits does so until its deadline, and hears that the outcome is unknown.
    let status = harness.call(EXPORT, &[("grpc-timeout", "50m")], frame(0, &good().encode_to_vec())).await.unwrap_err();
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
async fn a_sender_that_stalls_gives_its_room_back() {
    let harness = Setup::new().with(|setup| setup.http.read_timeout = GoDuration::millis(50)).start().await;
    let mut stream = TcpStream::connect(harness.http).await.unwrap();
    let head =
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\ncontent-type: application/json\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    while harness.log.budget().used_bytes() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(harness.log.budget().used_bytes(), 100_000);
    let answer = read_answer(stream).await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("not read in time"), "{}", answer.text());
    assert_eq!(harness.log.budget().used_bytes(), 0);
    harness.stop().await;
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

#[actix_rt::test]
async fn a_port_in_use_names_the_key_and_leaves_nothing_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = Setup::new().with(|setup| setup.http.endpoint = taken.local_addr().unwrap().to_string());
    let log = MemoryLog::new(LogId::from_random([1; 16]), Budget::new(1000, LONG));
    let root = Supervisor::root("root", Arc::new(SystemClock), Placement::Here);
    let wiring = setup.wiring(&log, &Progress::new(Offset(0)), &Registry::new());
    let error = Distributor::wire(wiring, &root).unwrap_err().to_string();
    assert!(error.starts_with("distributor.receivers.otlp.protocols.http.endpoint: cannot listen on"), "{error}");
    assert!(root.services().is_empty());

    let setup = Setup::new().with(|setup| setup.grpc.tls = Presence(Some(crate::config::ReceiverTlsConfig::default())));
    let wiring = setup.wiring(&log, &Progress::new(Offset(0)), &Registry::new());
    let error = Distributor::wire(wiring, &root).unwrap_err().to_string();
    assert!(error.starts_with("distributor.receivers.otlp.protocols.grpc.tls: "), "{error}");
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
async fn attributes_are_cut_and_metrics_can_be_skipped() {
    let harness = Setup::new().with(|setup| setup.limits.ingestion.max_attribute_bytes = 10).start().await;
    let answer = harness.post(&[PROTOBUF, ("no-generate-metrics", "")], &good().encode_to_vec()).await;
    assert_eq!(answer.status, 200);
    let record = harness.records.lock()[0].clone();
    assert!(PushBytesRequest::decode(record.value).unwrap().skip_metrics_generation);
    let scopes = "tempo_distributor_attributes_truncated_total{tenant=\"single-tenant\",scope=\"resource\"}";
    assert_eq!(harness.metric(scopes), "1");
    harness.call(EXPORT, &[("no-generate-metrics", "1")], frame(0, &good().encode_to_vec())).await.unwrap();
    let record = harness.records.lock()[1].clone();
    assert!(PushBytesRequest::decode(record.value).unwrap().skip_metrics_generation);
    harness.stop().await;
}

#[actix_rt::test]
async fn artificial_delay_holds_answers_back_and_tenants_can_switch_it_off() {
    let delayed = || Setup::new().with(|setup| setup.config.artificial_delay = GoDuration::millis(20));
    let harness = delayed().start().await;
    harness.export(&good()).await.unwrap();
    harness.refused(&[], frame(0, b"\xff")).await;
    assert_eq!(harness.metric("tempo_distributor_added_latency_seconds_count"), "2");
    harness.stop().await;
    let harness =
        delayed().with(|setup| setup.limits.ingestion.artificial_delay = Some(GoDuration::ZERO)).start().await;
    harness.export(&good()).await.unwrap();
    assert!(!harness.registry.render().contains("tempo_distributor_added_latency_seconds_count"));
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

#[test]
fn endpoints_are_a_host_and_a_port() {
    let parse = |endpoint| address("k".into(), endpoint, Network::Tcp).map(|listen| (listen.host, listen.port));
    assert_eq!(parse("[::]:4317").unwrap(), ("[::]".into(), 4317));
    assert_eq!(parse(":0").unwrap(), (String::new(), 0));
    assert_eq!(parse("4317").unwrap_err().to_string(), "k: `4317` is not a host and a port");
    assert!(parse("a:b").is_err());
    assert!(network("k", "unix").is_err());
}

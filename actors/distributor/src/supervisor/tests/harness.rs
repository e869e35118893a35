//! What the tests of the other files start, send and look at.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Status};
use vivace_log::{Budget, Log as _, LogId, MemoryLog, Offset, Partition, Progress, Record};
use vivace_protocol::otlp::collector::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use vivace_protocol::otlp::common::{AnyValue, KeyValue, any_value};
use vivace_protocol::otlp::resource::Resource;
use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans, Span};
use vivace_protocol::tempopb::PushBytesRequest;
use vivace_protocol::{RpcStatus, TenantId};
use vivace_runtime::config::{Limits, Presence};
use vivace_runtime::metrics::Registry;
use vivace_runtime::{Bounds, Compute, Placement, Rng, Supervisor, SystemClock};

use super::super::{Distributor, Wiring};
use crate::config::{
    Config, GrpcReceiverConfig, OtlpConfig, OtlpHttpConfig, OtlpProtocols, Receiver as ReceiverConfig, Receivers,
};
use crate::partitions::OnePartition;

pub(super) const LONG: Duration = Duration::from_secs(60);
pub(super) const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub(super) const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
pub(super) const JSON: (&str, &str) = ("content-type", "application/json");
pub(super) const PARTITION: Partition = Partition(3);

/// What a test changes before the start.
pub(super) struct Setup {
    pub(super) grpc: GrpcReceiverConfig,
    pub(super) http: OtlpHttpConfig,
    pub(super) config: Config,
    pub(super) limits: Limits,
    pub(super) multitenancy: bool,
    pub(super) budget_bytes: usize,
    /// Whether the consumer applies at once; otherwise the test publishes.
    pub(super) apply: bool,
}

pub(super) struct Harness {
    pub(super) root: Supervisor,
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) log: MemoryLog,
    pub(super) progress: Progress,
    pub(super) registry: Registry,
    /// Cleared to end the consumer.
    pub(super) consume: Arc<AtomicBool>,
    pub(super) records: Arc<Mutex<Vec<Record>>>,
}

impl Setup {
    pub(super) fn new() -> Self {
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

    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(super) fn wiring(self, log: &MemoryLog, progress: &Progress, registry: &Registry) -> Wiring {
        let protocols = OtlpProtocols { grpc: Presence(Some(self.grpc)), http: Presence(Some(self.http)) };
        let receivers = [("otlp".to_owned(), ReceiverConfig::Otlp(OtlpConfig { protocols }))];
        let limits = Arc::new(self.limits);
        Wiring {
            config: Config { receivers: Receivers(receivers.into()), ..self.config },
            multitenancy: self.multitenancy,
            limits: Arc::new(move |_: &TenantId| Arc::clone(&limits)),
            log: Arc::new(log.clone()),
            partitions: Arc::new(OnePartition(PARTITION)),
            max_record_bytes: crate::MAX_RECORD_BYTES,
            progress: Some(progress.clone()),
            clock: Arc::new(SystemClock),
            rng: Rng::seeded(1),
            compute: Compute::new("t", 1, Bounds::messages(8)).unwrap(),
            servers: tokio::runtime::Handle::current(),
            metrics: registry.clone(),
            placement: Placement::Here,
        }
    }

    pub(super) async fn start(self) -> Harness {
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
    pub(super) fn consume(&self) {
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

    pub(super) fn spans_in_log(&self) -> Vec<(String, Span)> {
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

    pub(super) fn metric(&self, line_start: &str) -> String {
        let text = self.registry.render();
        let line = text.lines().find(|line| line.starts_with(line_start));
        line.unwrap_or_else(|| panic!("{line_start} in\n{text}")).rsplit_once(' ').unwrap().1.to_owned()
    }

    pub(super) async fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        http(self.http, "POST", "/v1/traces", headers, body).await
    }

    pub(super) async fn export(&self, request: &ExportTraceServiceRequest) -> Result<(), Status> {
        self.call(EXPORT, &[], frame(0, &request.encode_to_vec())).await
    }

    /// A gRPC call with a body of our own making.
    pub(super) async fn call(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<(), Status> {
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

    pub(super) async fn refused(&self, headers: &[(&str, &str)], body: Vec<u8>) -> (Code, String) {
        let status = self.call(EXPORT, headers, body).await.unwrap_err();
        (status.code(), status.message().to_owned())
    }

    pub(super) async fn stop(self) {
        assert!(self.root.drain(LONG).await);
        assert_eq!(self.log.budget().used_bytes(), 0);
        self.consume.store(false, Ordering::Release);
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(there, _)| there.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub(super) fn status(&self) -> RpcStatus {
        RpcStatus::decode(self.body.as_slice()).unwrap()
    }
}

pub(super) async fn http(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
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

pub(super) async fn read_answer(mut stream: TcpStream) -> Answer {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    let end = received.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer");
    let head = String::from_utf8(received[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: received[end + 4..].to_vec() }
}

pub(super) fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    frame
}

pub(super) fn span(trace: u8, id: u8) -> Span {
    Span { trace_id: vec![trace; 16], span_id: vec![id; 8], name: format!("span-{trace}-{id}"), ..Span::default() }
}

pub(super) fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue("shop".into())) });
    let service = KeyValue { key: "service.name".into(), value, ..KeyValue::default() };
    let resource_spans = ResourceSpans {
        resource: Some(Resource { attributes: vec![service], ..Resource::default() }),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

pub(super) fn good() -> ExportTraceServiceRequest {
    request(vec![span(1, 1), span(2, 1), span(1, 2)])
}

pub(super) fn large(name_bytes: usize) -> ExportTraceServiceRequest {
    request(vec![Span { name: "n".repeat(name_bytes), ..span(1, 1) }])
}

pub(super) const GOOD_JSON: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10",
    "spanId":"0102030405060708","name":"x","startTimeUnixNano":"1"}]}]}]}"#;

"""The OpenTelemetry Python SDK sends, Vivace answers: nothing acknowledged is missing, every attribute keeps its type."""

import base64
import json
import urllib.parse
import urllib.request

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

ATTRIBUTES = {
    "text": "grün",
    "count": 7,
    "ratio": 0.25,
    "flag": True,
    "words": ["a", "b"],
    "numbers": [1, 2, 3],
}


def exporter(kind, node):
    if kind == "grpc":
        return GrpcExporter(endpoint=node.addr["otlp_grpc"], insecure=True)
    if kind == "grpc+gzip":
        from grpc import Compression

        return GrpcExporter(endpoint=node.addr["otlp_grpc"], insecure=True, compression=Compression.Gzip)
    return HttpExporter(endpoint=f"http://{node.addr['otlp_http']}/v1/traces")


def value(attribute):
    (kind, inner), = attribute["value"].items()
    if kind == "intValue":
        return int(inner)
    if kind == "arrayValue":
        return [value({"value": v}) for v in inner["values"]]
    return inner


@pytest.mark.parametrize("kind", ["http", "grpc", "grpc+gzip"])
def test_what_an_sdk_sends_is_found_by_id_and_by_search(node, kind):
    provider = TracerProvider(resource=Resource.create({"service.name": "shop-" + kind}))
    provider.add_span_processor(SimpleSpanProcessor(exporter(kind, node)))
    tracer = provider.get_tracer("test", "1.2")
    with tracer.start_as_current_span("root", kind=SpanKind.SERVER) as root:
        with tracer.start_as_current_span("child", attributes=ATTRIBUTES) as child:
            child.add_event("happened", {"why": "because"})
            child.set_status(Status(StatusCode.ERROR, "broken"))
    provider.shutdown()
    trace_id = format(root.get_span_context().trace_id, "032x")

    answer = node.json(f"/api/v2/traces/{trace_id}")
    spans = {
        span["name"]: span
        for batch in answer["trace"]["resourceSpans"]
        for scope in batch["scopeSpans"]
        for span in scope["spans"]
    }
    assert set(spans) == {"root", "child"}
    assert spans["child"]["parentSpanId"] == spans["root"]["spanId"]
    assert base64.b64decode(spans["root"]["traceId"]).hex() == trace_id
    assert {a["key"]: value(a) for a in spans["child"]["attributes"]} == ATTRIBUTES
    assert spans["child"]["status"] == {"message": "broken", "code": "STATUS_CODE_ERROR"}
    assert spans["child"]["events"][0]["name"] == "happened"

    query = '{ resource.service.name = "shop-%s" && span.count = 7 && status = error }' % kind
    found = node.json("/api/search?" + urllib.parse.urlencode({"q": query}))
    assert [t["traceID"].rjust(32, "0") for t in found["traces"]] == [trace_id]
    assert found["traces"][0]["rootTraceName"] == "root"


def test_otlp_json_as_curl_sends_it(node):
    body = {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "curl"}}]},
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": "5b8efff798038103d269b633813fc60c",
                                "spanId": "eee19b7ec3c1b174",
                                "name": "by hand",
                                "kind": 2,
                                "startTimeUnixNano": "1794000000000000000",
                                "endTimeUnixNano": "1794000000500000000",
                            }
                        ]
                    }
                ],
            }
        ]
    }
    request = urllib.request.Request(
        f"http://{node.addr['otlp_http']}/v1/traces",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
        assert json.loads(answer.read()) == {"partialSuccess": {}}
    found = node.json("/api/traces/5b8efff798038103d269b633813fc60c")
    assert found["batches"][0]["scopeSpans"][0]["spans"][0]["name"] == "by hand"


def test_pyarrow_reads_the_block(node):
    import pyarrow.parquet as parquet

    provider = TracerProvider(resource=Resource.create({"service.name": "arrow"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter("http", node)))
    tracer = provider.get_tracer("test")
    for number in range(20):
        with tracer.start_as_current_span(f"span {number}", attributes=ATTRIBUTES | {"number": number}):
            pass
    provider.shutdown()
    assert node.stop() == 0
    files = list(node.dir.glob("blocks/single-tenant/*/data.parquet"))
    assert len(files) == 1
    table = parquet.read_table(files[0])
    assert table.num_rows == 20
    names = sorted(
        span["Name"] for rs in table["rs"].to_pylist() for r in rs for ss in r["ss"] for span in ss["Spans"]
    )
    assert names == sorted(f"span {number}" for number in range(20))

"""pyarrow, a reader that is neither ours nor Tempo's, finds every span of the recorded requests in the frozen blocks."""

import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

FIXTURES = Path(__file__).parents[2] / "storage" / "tests" / "fixtures"
BLOCKS = {
    # Written by Vivace, read by Tempo; then one that Tempo wrote of the same requests.
    "ours": FIXTURES / "accepted" / "single-tenant",
    "tempo": FIXTURES / "vparquet5" / "single-tenant",
}


def scalar(value):
    kind = value.WhichOneof("value")
    return getattr(value, kind)


def sent():
    """Spans by trace id and span id, as the requests have them."""
    spans = {}
    for number in range(4):
        request = ExportTraceServiceRequest.FromString((FIXTURES / "otlp" / f"req-{number}.pb").read_bytes())
        for batch in request.resource_spans:
            resource = {a.key: scalar(a.value) for a in batch.resource.attributes}
            for scope in batch.scope_spans:
                for span in scope.spans:
                    spans[span.trace_id, span.span_id] = {
                        "parent": span.parent_span_id,
                        "name": span.name,
                        "kind": span.kind,
                        "start": span.start_time_unix_nano,
                        "duration": span.end_time_unix_nano - span.start_time_unix_nano,
                        "status": span.status.code,
                        "attributes": {a.key: scalar(a.value) for a in span.attributes},
                        "events": [event.name for event in span.events],
                        "resource": resource,
                        "scope": scope.scope.name,
                    }
    return spans


def columns(meta, scope):
    """Names of the dedicated columns of a scope by the leaf that holds them."""
    leaves, counts = {}, {"String": 0, "Int": 0}
    for column in meta["dedicatedColumns"]:
        if column.get("s", "span") == scope:
            kind = "Int" if column.get("t") == "int" else "String"
            counts[kind] += 1
            leaves[f"{kind}{counts[kind]:02}"] = column["n"]
    return leaves


def attributes(message, leaves):
    found = {}
    for attribute in message["Attrs"]:
        value, = (v for kind in ("Value", "ValueInt", "ValueDouble", "ValueBool") for v in attribute[kind])
        found[attribute["Key"]] = value
    for leaf, name in leaves.items():
        for value in message["DedicatedAttributes"][leaf]:
            found[name] = value
    return found


@pytest.mark.parametrize("writer", BLOCKS)
def test_every_span_of_the_requests_is_in_the_block_as_it_was_sent(writer):
    folder, = BLOCKS[writer].glob("*-*-*-*-*")
    meta = json.loads((folder / "meta.json").read_text())
    file = parquet.ParquetFile(folder / "data.parquet")
    assert file.metadata.num_rows == meta["totalObjects"]
    assert file.metadata.num_row_groups == meta["totalRecords"]
    assert (folder / "data.parquet").stat().st_size == meta["size"]
    of_span, of_resource = columns(meta, "span"), columns(meta, "resource")
    found, last = {}, b""
    for row in file.read().to_pylist():
        assert last < row["TraceID"]
        last = row["TraceID"]
        for batch in row["rs"]:
            resource = attributes(batch["Resource"], of_resource)
            if batch["Resource"]["ServiceName"]:
                resource["service.name"] = batch["Resource"]["ServiceName"]
            for scope in batch["ss"]:
                for span in scope["Spans"]:
                    key = row["TraceID"], span["SpanID"]
                    assert key not in found
                    found[key] = {
                        "parent": span["ParentSpanID"],
                        "name": span["Name"],
                        "kind": span["Kind"],
                        "start": span["StartTimeUnixNano"],
                        "duration": span["DurationNano"],
                        "status": span["StatusCode"],
                        "attributes": attributes(span, of_span),
                        "events": [event["Name"] for event in span["Events"]],
                        "resource": resource,
                        "scope": scope["Scope"]["Name"],
                    }
    expected = sent()
    assert found.keys() == expected.keys()
    for key, span in expected.items():
        assert found[key] == span

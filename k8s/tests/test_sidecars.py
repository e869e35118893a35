"""The proxies of the sidecar overlays: real nginx, Envoy and Traefik with the configuration that a pod gets carry gRPC."""

import json
import subprocess
import time

import grpc
import pytest
from manifests import ROOT
from running import HEALTH, WAIT, Proxy, Vivace, accepts, call, code, free_port, program_of

SIDECAR = ROOT / "configs/variants/sidecar"
PROXIES = ["nginx", "envoy", "traefik"]
SEARCH = "/tempopb.StreamingQuerier/Search"


def test_nginx_takes_its_configuration(tmp_path):
    file = SIDECAR / "nginx/nginx.conf"
    done = subprocess.run([program_of("nginx"), "-t", "-c", file], capture_output=True, text=True)
    assert done.returncode == 0 and "warn" not in done.stderr, done.stderr


def test_envoy_takes_its_configuration():
    file = SIDECAR / "envoy/envoy.yaml"
    done = subprocess.run([program_of("envoy"), "--mode", "validate", "-c", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def search(channel, limit):
    """A streaming search over everything: the bytes of all messages."""
    query = b"{ }"
    request = b"\x42" + bytes([len(query)]) + query + b"\x20" + varint(limit)
    return b"".join(channel.unary_stream(SEARCH)(request, timeout=WAIT))


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def traces(count, text):
    now = time.time_ns()
    spans = [
        {
            "traceId": f"{number + 1:032x}", "spanId": f"{number + 1:016x}", "name": text, "kind": 2,
            "startTimeUnixNano": str(now), "endTimeUnixNano": str(now + 1000),
        }
        for number in range(count)
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}).encode()


@pytest.fixture(scope="module")
def live_store(tmp_path_factory):
    """What answers behind the proxies, with 2000 traces of 1 kB names."""
    running = Vivace(tmp_path_factory.mktemp("vivace") / "data", free_port())
    running.send(traces(2000, "n" * 1000))
    yield running
    assert running.stop() == 0, "\n".join(running.lines)


@pytest.mark.parametrize("name", PROXIES)
def test_calls_pass_through_and_answers_are_the_same(name, live_store, tmp_path):
    upstream = int(live_store.address("grpc").rpartition(":")[2])
    proxy = Proxy(name, tmp_path / name, free_port(), upstream)
    try:
        assert call(proxy.listen) == b"\x08\x01", "SERVING"
        with grpc.insecure_channel(f"127.0.0.1:{upstream}") as direct, grpc.insecure_channel(f"127.0.0.1:{proxy.listen}") as via:
            one, other = search(direct, 2000), search(via, 2000)
        for number in (1, 2000):
            assert f"{number:x}".encode() in other
        assert other.count(b"n" * 1000) == one.count(b"n" * 1000) >= 2000, "large answers come whole"
        proxy.until("logged", lambda: proxy.passed(SEARCH) == 1)
        if accepts(proxy.listen, "::1"):
            assert call(proxy.listen, "[::1]") == b"\x08\x01", "over IPv6"
    finally:
        proxy.stop()


@pytest.mark.parametrize("name", PROXIES)
def test_a_channel_goes_on_when_the_proxy_restarts(name, live_store, tmp_path):
    upstream = int(live_store.address("grpc").rpartition(":")[2])
    proxy = Proxy(name, tmp_path / name, free_port(), upstream)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{proxy.listen}") as channel:
            check = channel.unary_unary(HEALTH)
            assert check(b"", timeout=WAIT) == b"\x08\x01"
            proxy.kill()
            proxy = Proxy(name, tmp_path / name, proxy.listen, upstream)
            # Waits for a connection, as a caller with a deadline would; the channel is the same.
            assert check(b"", timeout=WAIT, wait_for_ready=True) == b"\x08\x01"
    finally:
        proxy.stop()


@pytest.mark.parametrize("name", PROXIES)
def test_a_live_store_that_is_away_is_unavailable_and_then_back(name, tmp_path):
    upstream = free_port()
    proxy = Proxy(name, tmp_path / name, free_port(), upstream)
    running = None
    try:
        # A caller may try another owner or ask again, as if there were no proxy.
        assert code(proxy.listen) == grpc.StatusCode.UNAVAILABLE
        running = Vivace(tmp_path / "data", upstream)
        proxy.until("through to the live-store", lambda: code(proxy.listen) == grpc.StatusCode.OK)
    finally:
        if running is not None:
            running.stop()
        proxy.stop()

"""What a process really listens on with the variant of each family, in a network of its own with the ports of a pod."""

import os
import re
import shutil
import subprocess

import pytest
from manifests import ROOT, vivace
from running import Process

pytestmark = pytest.mark.usefixtures("root")
PORTS = {"tcp": {3200, 9095, 7946, 4317, 4318}, "udp": {7946}}
# A member needs an address that others could reach.
START = """
ip link set lo up && ip address add 10.77.0.1/32 dev lo && ip -6 address add fd77::1/128 dev lo nodad &&
exec "$0" "$@"
"""
ADDRESS = {"ipv4": "10.77.0.1", "ipv6": "fd77::1", "dual-stack": "10.77.0.1,fd77::1"}


@pytest.fixture(params=["ipv4", "ipv6", "dual-stack"])
def running(request, tmp_path):
    assert shutil.which("unshare") and shutil.which("ip"), "Debian: util-linux, iproute2"
    family = request.param
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VIVACE_")} | {
        # Everything in one process needs no Kafka and no bucket; the ring of distributors makes it gossip.
        "VIVACE_OVERRIDES__DEFAULTS__INGESTION__RATE_STRATEGY": "global",
        "VIVACE_STORAGE__TRACE__BACKEND": "local",
        "VIVACE_STORAGE__TRACE__LOCAL__PATH": str(tmp_path / "blocks"),
        "VIVACE_LIVE_STORE__WAL__PATH": str(tmp_path / "wal"),
        "VIVACE_MEMBERLIST__ADVERTISE_ADDR": ADDRESS[family],
        "VIVACE_DISTRIBUTOR__RING__INSTANCE_ADDR": ADDRESS[family].split(",")[-1],
    }
    file = ROOT / "configs/variants" / f"{family}.yaml"
    command = [vivace(), f"-config.file={file}", "-target=all"]
    process = Process(["unshare", "--net", "/bin/sh", "-c", START, *command], environment)
    process.family = family
    try:
        process.until("ready", lambda: inside(process, vivace(), "health", "http://localhost:3200/ready").returncode == 0)
        yield process
    finally:
        process.stop()


def inside(process, *command):
    """A command in the network of a process."""
    entered = ["nsenter", "--net", "-t", str(process.process.pid), *command]
    return subprocess.run(entered, capture_output=True, text=True, timeout=30)


def test_every_socket_takes_the_families_of_the_variant(running):
    said = inside(running, vivace(), "listeners").stdout
    rows = re.findall(r"^(tcp|udp)\s+(\S+):(\d+)\s+(\S+)", said, re.MULTILINE)
    found = {protocol: {int(port) for kind, _, port, _ in rows if kind == protocol} for protocol in PORTS}
    assert found == PORTS, said
    takes = {"ipv4": "IPv4", "ipv6": "IPv4+IPv6", "dual-stack": "IPv4+IPv6"}[running.family]
    assert {families for *_, families in rows} == {takes}, said


def test_another_tool_shows_what_the_page_shows(running):
    """Tempo's page has `ss -ltn` show `*:7946`, `*:9095` and `*:3200`."""
    said = inside(running, "ss", "-Hltn").stdout
    found = {line.split()[3] for line in said.splitlines()}
    host = "0.0.0.0" if running.family == "ipv4" else "*"
    assert {f"{host}:7946", f"{host}:9095", f"{host}:3200"} <= found, said

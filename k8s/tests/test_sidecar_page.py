"""The examples of Tempo's page "Run Tempo distributed with sidecar proxies", as they stand there: which port the ring tells."""

import json
import os

import pytest
import yaml
from manifests import vivace
from running import Process
from test_listeners import inside

pytestmark = pytest.mark.usefixtures("root")

# Another port for the whole process, and another port for the ring alone.
LISTENS = "server:\n  grpc_listen_port: 12345\n"
ADVERTISES = "live_store:\n  ring:\n    instance_port: 12345\n"

START = 'ip link set lo up && ip address add 10.77.0.1/32 dev lo && exec "$0" "$@"'


@pytest.mark.parametrize("example,listening", [(LISTENS, 12345), (ADVERTISES, 9095)], ids=["listens", "advertises"])
def test_the_ring_tells_12345(tmp_path, example, listening):
    (tmp_path / "page.yaml").write_text(example)
    assert yaml.safe_load(example)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VIVACE_")} | {
        "VIVACE_LIVE_STORE__RING__INSTANCE_ID": "live-store-0",
        "VIVACE_LIVE_STORE__RING__INSTANCE_ADDR": "10.77.0.1",
        "VIVACE_LIVE_STORE__WAL__PATH": str(tmp_path / "traces"),
        "VIVACE_LIVE_STORE__SHUTDOWN_MARKER_DIR": str(tmp_path / "marker"),
        "VIVACE_MEMBERLIST__ADVERTISE_ADDR": "10.77.0.1",
        "VIVACE_STORAGE__TRACE__BACKEND": "local",
        "VIVACE_STORAGE__TRACE__LOCAL__PATH": str(tmp_path / "blocks"),
        # There is no Kafka: a live-store is in its ring, and answers from its disk, all the same.
        "VIVACE_INGEST__KAFKA__ADDRESS": "127.0.0.1:9",
        "VIVACE_INGEST__KAFKA__TOPIC": "traces",
    }
    command = [vivace(), f"-config.file={tmp_path}/page.yaml", "-target=live-store"]
    process = Process(["unshare", "--net", "/bin/sh", "-c", START, *command], environment)
    try:
        ask = ["curl", "-sgm", "10", "-H", "Accept: application/json", "http://127.0.0.1:3200/live-store/ring"]

        def told():
            said = inside(process, *ask).stdout
            return [shard["address"] for shard in json.loads(said)["shards"] or []] if said.startswith("{") else []

        process.until("in the ring", told)
        assert told() == ["10.77.0.1:12345"]
        sockets = inside(process, "ss", "-Hltn").stdout
        assert f":{listening} " in sockets and (listening == 12345) == (":12345 " in sockets), sockets
    finally:
        process.stop()

"""Starts the real binary for the tests of this folder."""

import json
import os
import re
import subprocess
import threading
import time
import urllib.request

import pytest

CONFIG = """\
server:
  http_listen_address: 127.0.0.1
  http_listen_port: 0
  grpc_listen_address: 127.0.0.1
  grpc_listen_port: 0
distributor:
  receivers:
    otlp:
      protocols:
        grpc: {{endpoint: "127.0.0.1:0"}}
        http: {{endpoint: "127.0.0.1:0"}}
live_store:
  wal: {{path: {dir}/wal}}
storage:
  trace:
    backend: local
    local: {{path: {dir}/blocks}}
    wal: {{path: {dir}/wal}}
"""


class Node:
    """One running process; `addr` maps listener names to host:port."""

    def __init__(self, directory):
        self.dir = directory
        config = directory / "vivace.yaml"
        config.write_text(CONFIG.format(dir=directory))
        self.process = subprocess.Popen(
            [os.environ["VIVACE_BIN"], f"-config.file={config}"], stderr=subprocess.PIPE, text=True
        )
        self.addr = {}
        self.log = []
        self.wake = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        self.wait("listening", lambda: len(self.addr) >= 4)
        self.wait("ready", lambda: self.get("/ready", check=False)[0] == 200)

    def _read(self):
        for line in self.process.stderr:
            with self.wake:
                self.log.append(line.rstrip())
                found = re.search(r"msg=listening.*\blistener=(\S+)", line)
                if found:
                    self.addr[found.group(1)] = re.search(r'\baddr="?([^" \n]+)', line).group(1)
                self.wake.notify_all()

    def wait(self, what, condition, seconds=30):
        deadline = time.monotonic() + seconds
        with self.wake:
            while not condition():
                if self.process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"not {what}; log:\n" + "\n".join(self.log))
                self.wake.wait(0.02)

    def get(self, path, accept="application/json", check=True):
        request = urllib.request.Request(f"http://{self.addr['http']}{path}", headers={"Accept": accept})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            if check:
                pytest.fail(f"{path}: {error.code} {error.read()}")
            return error.code, error.read()

    def json(self, path):
        return json.loads(self.get(path)[1])

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=30)


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path)
    yield node
    if node.process.poll() is None:
        assert node.stop() == 0, "\n".join(node.log)

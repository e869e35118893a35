"""Running processes: a Vivace with everything in it, and the proxies with the configuration that their pods get."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import grpc
import pytest
from manifests import beside_python, overlay, pod, sidecars, vivace

WAIT = 30
HEALTH = "/grpc.health.v1.Health/Check"


def free_port():
    with socket.socket(socket.AF_INET6) as probe:
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind(("::", 0))
        return probe.getsockname()[1]


def until(what, condition, process=None, lines=()):
    """Waits for a condition."""
    deadline = time.monotonic() + WAIT
    while not condition():
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline:
            pytest.fail(f"not {what}; log:\n" + "\n".join(lines))
        time.sleep(0.02)


def accepts(port, host="127.0.0.1"):
    try:
        socket.create_connection((host, port), timeout=1).close()
        return True
    except OSError:
        return False


def call(port, host="127.0.0.1"):
    """A health check, as bytes of its answer."""
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        return channel.unary_unary(HEALTH)(b"", timeout=WAIT)


def code(port):
    """What a call ends with; None where nothing listens."""
    if not accepts(port):
        return None
    try:
        call(port)
        return grpc.StatusCode.OK
    except grpc.RpcError as error:
        return error.code()


class Process:
    """A program with its log."""

    def __init__(self, command, environment=None, stdin=None, owner=None):
        """`owner` gets its output, as container runtimes do it: one without root may open /dev/stdout then."""
        self.lines = []
        read, write = os.pipe()
        if owner is not None:
            os.fchown(write, owner, owner)
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=write, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )
        os.close(write)
        self.process.stdin.write(stdin or "")
        self.process.stdin.close()
        threading.Thread(target=self._read, args=(os.fdopen(read),), daemon=True).start()

    def _read(self, output):
        with output:
            for line in output:
                self.lines.append(line.rstrip())

    def until(self, what, condition):
        until(what, condition, self.process, self.lines)

    def stop(self):
        self.process.terminate()
        return self.ended()

    def ended(self):
        """Waits for its end; the exit code."""
        try:
            return self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail("did not stop; log:\n" + "\n".join(self.lines))

    def kill(self):
        """With its children: nginx's would go on without it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Vivace(Process):
    """Every role in one process; its gRPC port stays the same over restarts."""

    CONFIG = """
target: all
server: {{http_listen_address: 127.0.0.1, http_listen_port: 0, grpc_listen_address: 127.0.0.1, grpc_listen_port: {grpc}}}
distributor: {{receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:0"}}}}}}}}}}
live_store: {{wal: {{path: "{dir}/wal"}}}}
storage: {{trace: {{backend: local, local: {{path: "{dir}/blocks"}}, wal: {{path: "{dir}/wal"}}}}}}
"""

    def __init__(self, directory, grpc):
        directory.mkdir(exist_ok=True)
        config = directory / "vivace.yaml"
        config.write_text(self.CONFIG.format(dir=directory, grpc=grpc))
        super().__init__([vivace(), f"-config.file={config}"])
        self.until("ready", self._ready)

    def address(self, listener):
        for line in self.lines:
            found = re.search(rf'msg=listening.*\blistener={listener}\b.*\baddr="?([^" ]+)', line)
            if found:
                return found.group(1)
        return None

    def _ready(self):
        if not self.address("http") or not self.address("otlp_http"):
            return False
        try:
            return urllib.request.urlopen(f"http://{self.address('http')}/ready", timeout=5).status == 200
        except urllib.error.HTTPError:
            return False

    def send(self, body):
        request = urllib.request.Request(
            f"http://{self.address('otlp_http')}/v1/traces", body, {"Content-Type": "application/json"}
        )
        assert urllib.request.urlopen(request, timeout=WAIT).status == 200


class Proxy(Process):
    """A sidecar, as the overlay of its name has it, with other ports and folders than in a pod."""

    def __init__(self, name, directory, listen, upstream):
        self.name, self.listen = name, listen
        workload = overlay(f"overlays/sidecar-{name}").one("StatefulSet", "live-store")
        (container,) = sidecars(workload)
        (volume,) = [volume for volume in pod(workload)["volumes"] if volume["name"] == "proxy-config"]
        directory.mkdir(exist_ok=True)
        moved = {
            "/tmp/": f"{directory}/",  # first: the folder may itself be below /tmp
            "12345": str(listen),
            "127.0.0.1:9095": f"127.0.0.1:{upstream}",
            "address: 127.0.0.1, port_value: 9095": f"address: 127.0.0.1, port_value: {upstream}",
            "port_value: 9901": f"port_value: {free_port()}",
            "/etc/proxy": str(directory),
        }
        for file, text in overlay(f"overlays/sidecar-{name}").config_map(volume["configMap"]["name"]).items():
            (directory / file).write_text(change(text, moved))
        program, *arguments = [change(argument, moved) for argument in container["command"]]
        super().__init__([program_of(name), *arguments])
        assert program == name
        # Traefik listens for about 0.1 s before it knows its routes: everything is 404 then, which gRPC calls UNIMPLEMENTED.
        self.until("routing", lambda: code(listen) not in (None, grpc.StatusCode.UNIMPLEMENTED))

    def passed(self, path):
        """How many calls of a path went through, by the proxy's own log."""
        return sum(f'"{path}' in line or f"POST {path}" in line for line in self.lines)


def change(text, moved):
    for old, new in moved.items():
        text = text.replace(old, new)
    return text


def program_of(name):
    found = beside_python(name) or shutil.which(name, path="/usr/sbin:/sbin")
    assert found, f"{name} is missing: ./test.sh install"
    return found

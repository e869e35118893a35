"""A cluster in small: every pod of rendered manifests runs as a kubelet would start it, each in a network of its own.

A pod has its addresses, the ConfigMaps and environment of its manifest, a root file system of the binary alone, its user, its
host name, `/etc/resolv.conf` as Kubernetes writes it, and its sidecars beside it. Names of Services are the addresses of the pods
that their selectors choose. What is not played: addresses of Services themselves, probes that restart, schedulers.
"""

import importlib.util
import ipaddress
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from manifests import pod, pod_labels, role, selects, sidecars, vivace
from running import Process, change, program_of

USER = 10001
DOMAIN = "tracing.svc.cluster.local"
NETWORKS = {4: ipaddress.ip_network("10.78.0.0/24"), 6: ipaddress.ip_network("fd78::/64")}
BLOCKS = "/var/blocks"


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


class Cluster:
    """`families` are 4, 6 or both: what pods have addresses of."""

    def __init__(self, rendered, families, secrets=None):
        self.families, self.rendered, self.secrets = families, rendered, secrets or {}
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="vivace-cluster-"))
        self.folder.chmod(0o755)
        (self.folder / "blocks").mkdir()
        os.chown(self.folder / "blocks", USER, USER)
        self.mark = f"vk{os.getpid()}"
        self.networks, self.processes, self.addresses = [], {}, {}
        self.pods = {}
        for workload in sorted(rendered.everything(), key=lambda workload: workload["metadata"]["name"] != "kafka"):
            for ordinal in range(workload["spec"]["replicas"]):
                self.pods[f"{workload['metadata']['name']}-{ordinal}"] = workload

    def __enter__(self):
        try:
            self._start()
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        for process in self.processes.values():
            if process.process.poll() is None:
                process.process.terminate()
        for process in self.processes.values():
            try:
                process.process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        for name in self.networks:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- networks

    def _start(self):
        self._network("switch", bridge=True)
        for place, name in enumerate(["client", *self.pods], start=2):
            self._network(name, place)
        self._names()

    def _network(self, name, place=None, bridge=False):
        space = self._space(name)
        run("ip", "netns", "add", space)
        self.networks.append(space)
        inside = ["ip", "-n", space]
        if 6 not in self.families and not bridge:
            run("ip", "netns", "exec", space, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        run(*inside, "link", "set", "lo", "up")
        if bridge:
            run(*inside, "link", "add", "bridge", "type", "bridge")
            run(*inside, "link", "set", "bridge", "up")
            return
        port = f"port{place}"
        run(*inside, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self._space("switch"))
        run("ip", "-n", self._space("switch"), "link", "set", port, "master", "bridge", "up")
        run(*inside, "link", "set", "eth0", "up")
        self.addresses[name] = []
        for family in self.families:
            network = NETWORKS[family]
            address = str(network[place])
            run(*inside, "address", "add", f"{address}/{network.prefixlen}", "dev", "eth0", *(["nodad"] if family == 6 else []))
            self.addresses[name].append(address)

    def _space(self, name):
        return f"{self.mark}-{name}"

    def _names(self):
        names = {}
        for service in self.rendered.of("Service"):
            chosen = [name for name, workload in self.pods.items() if selects(service["spec"]["selector"], pod_labels(workload))]
            names[f"{service['metadata']['name']}.{DOMAIN}"] = [a for name in chosen for a in self.addresses[name]]
        command = [sys.executable, str(pathlib.Path(__file__).parent / "names.py"), *self.addresses["client"]]
        self.processes["names"] = server = Process(["ip", "netns", "exec", self._space("client"), *command], stdin=json.dumps(names))
        server.until("listening", lambda: server.lines)

    # ---- pods

    def start(self, name):
        """Starts a pod: its sidecars, then its role, as kubelets do since Kubernetes 1.29."""
        workload = self.pods[name]
        for proxy in sidecars(workload):
            self._sidecar(name, workload, proxy)
        container = role(workload)
        environment = self.rendered.environment(container, name)
        nameserver = self.addresses["client"][0]
        search = f"search {DOMAIN} svc.cluster.local cluster.local\nnameserver {nameserver}\noptions ndots:5\n"
        disks = []
        files = {"/etc/resolv.conf": search, "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n"}
        volumes = {volume["name"]: volume for volume in pod(workload).get("volumes", [])}
        for mount in container["volumeMounts"]:
            volume = volumes.get(mount["name"], {})
            made = {}
            if "configMap" in volume:
                made = self.rendered.config_map(volume["configMap"]["name"])
            if "secret" in volume:
                made = self.secrets[volume["secret"]["secretName"]]
            files |= {f"{mount['mountPath']}/{file}": text for file, text in made.items()}
            if not mount.get("readOnly"):
                disks.append(mount["mountPath"])
        self._run(name, container["args"], environment, files, disks)

    def _run(self, name, arguments, environment, files, disks):
        """The binary in a root of its own, in the network of the pod. Its disk stays when it is started again."""
        root = self.folder / name / "root"
        if not root.exists():
            image(root, self.folder / "vivace")
            (root / BLOCKS.lstrip("/")).mkdir()
            (root / "proc").mkdir()
            # Everything else belongs to root, so it is as good as read-only.
            for disk in disks:
                os.chown(root / disk.lstrip("/"), USER, USER)
            for path, text in files.items():
                file = root / path.lstrip("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        script = (
            f"mount --bind {self.folder}/blocks {root}{BLOCKS} && mount -t proc proc {root}/proc && hostname {name} &&"
            f' exec chroot --userspec={USER}:{USER} {root} /usr/bin/vivace "$@"'
        )
        inside = ["ip", "netns", "exec", self._space(name), "unshare", "--uts", "/bin/sh", "-c", script, "sh"]
        self.processes[name] = Process([*inside, *arguments], {"PATH": os.environ["PATH"]} | environment)

    def _sidecar(self, name, workload, container):
        folder = self.folder / name / "proxy"
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, USER, USER)
        moved = {"/tmp/": f"{folder}/", "/etc/proxy": str(folder)}
        (volume,) = [volume for volume in pod(workload)["volumes"] if volume["name"] == "proxy-config"]
        for file, text in self.rendered.config_map(volume["configMap"]["name"]).items():
            (folder / file).write_text(change(text, moved))
        program, *arguments = [change(argument, moved) for argument in container["command"]]
        inside = ["ip", "netns", "exec", self._space(name), "setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"]
        process = Process([*inside, "--no-new-privs", readable(program, folder), *arguments], owner=USER)
        self.processes[f"{name}/proxy"] = process
        (port,) = [port["containerPort"] for port in container["ports"]]
        process.until("listening", lambda: f":{port} " in self.inside(name, "ss", "-Hltn"))

    def sidecar(self, name):
        """Starts the sidecar of a pod again, alone."""
        workload = self.pods[name]
        for proxy in sidecars(workload):
            self._sidecar(name, workload, proxy)

    def stop(self):
        """SIGTERM for every role at once, then for the broker; exit codes by pod."""
        roles = [name for name in self.pods if name != "kafka-0"]
        for name in roles:
            self.processes[name].process.terminate()
        exits = {name: self.processes[name].ended() for name in roles}
        return exits | {"kafka-0": self.processes["kafka-0"].stop()}

    # ---- asking

    def inside(self, name, *command):
        done = subprocess.run(
            ["ip", "netns", "exec", self._space(name), *command], capture_output=True, text=True, timeout=60
        )
        return done.stdout if done.returncode == 0 else f"FAILED {done.returncode}: {done.stdout}{done.stderr}"

    def url(self, name, port, path):
        """At the first address of a pod, as another pod would."""
        address = self.addresses[name][0]
        host = f"[{address}]" if ":" in address else address
        scheme = "https" if self.secrets else "http"
        return f"{scheme}://{host}:{port}{path}"

    def get(self, name, path, port=3200):
        """Status and body."""
        said = self.inside("client", "curl", "-sgkm", "30", "-w", "\n%{http_code}", self.url(name, port, path))
        body, _, status = said.rpartition("\n")
        return status, body

    def until(self, what, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            ended = [name for name, process in self.processes.items() if process.process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"not {what}; ended: {ended}\n" + self.logs())
            time.sleep(0.1)

    def logs(self):
        return "\n".join(f"--- {name}\n" + "\n".join(process.lines[-15:]) for name, process in self.processes.items())


def readable(program, folder):
    """A program that the pod's user may run: pip's may be below a folder that is root's alone."""
    found = program_of(program)
    if program == "envoy":
        # What pip installs by that name is a script that starts it.
        found = pathlib.Path(importlib.util.find_spec("envoy").submodule_search_locations[0]) / "_bin/envoy"
    if program == "nginx":
        return found
    target = folder / program
    if not target.exists():
        shutil.copy(found, target)
        target.chmod(0o755)
    return str(target)


def image(folder, kept):
    """A root with what the image has. A binary that is not static needs its C library beside it. `kept` is a copy for the next."""
    if not kept.exists():
        shutil.copy(vivace(), kept)
    shown = subprocess.run(["ldd", vivace()], capture_output=True, text=True).stdout
    libraries = re.findall(r"(?:=> )?(/\S+) \(0x", shown)
    # Nothing that could not be linked into it.
    names = {re.sub(r"\.so.*", "", pathlib.Path(library).name) for library in libraries}
    assert names <= {"libc", "libm", "libgcc_s", "libpthread", "libdl", "librt", "ld-linux-x86-64", "ld-linux-aarch64"}, shown
    for library in libraries:
        target = folder / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    (folder / "usr/bin").mkdir(parents=True, exist_ok=True)
    (folder / "usr/bin/vivace").hardlink_to(kept)
    for made in ("etc/vivace", "var/tempo"):
        (folder / made).mkdir(parents=True)

"""What an overlay becomes, and ways to find things in it."""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ["base", *sorted(f"overlays/{path.name}" for path in (K8S / "overlays").iterdir())]
GOSSIPERS = {"distributor", "live-store", "block-builder", "querier"}
ROLES = ["distributor", "live-store", "block-builder", "querier", "query-frontend"]
HTTP, GRPC, GOSSIP = 3200, 9095, 7946


def vivace():
    """The binary under test."""
    return os.environ["VIVACE_BIN"]


def beside_python(name):
    """A program that pip or go put beside this Python, else one of the machine."""
    return shutil.which(name, path=str(pathlib.Path(sys.executable).parent)) or shutil.which(name)


@functools.cache
def renderer():
    """`kubectl kustomize` where kubectl has kustomize 5, else `kustomize build`."""
    kubectl = shutil.which("kubectl")
    if kubectl:
        said = subprocess.run([kubectl, "version", "--client"], capture_output=True, text=True).stdout
        if re.search(r"Kustomize Version: v5\.", said):
            return [kubectl, "kustomize"]
    kustomize = beside_python("kustomize")
    if kustomize:
        return [kustomize, "build"]
    raise RuntimeError("neither a kubectl with kustomize 5 (1.27 or later) nor kustomize is here: ./test.sh install")


def render(folder):
    done = subprocess.run([*renderer(), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, f"{folder}: {done.stderr}"
    assert not done.stderr.strip(), f"{folder}: {done.stderr}"
    return [doc for doc in yaml.safe_load_all(done.stdout) if doc]


class Manifests:
    """The objects of one overlay."""

    def __init__(self, folder):
        self.folder = folder
        self.objects = render(folder)

    def of(self, *kinds):
        return [found for found in self.objects if found["kind"] in kinds]

    def one(self, kind, name):
        (found,) = [found for found in self.of(kind) if found["metadata"]["name"] == name]
        return found

    def everything(self):
        """All workloads, the broker of `overlays/dev` among them."""
        return self.of("Deployment", "StatefulSet")

    def workloads(self):
        """The workloads of roles."""
        return [workload for workload in self.everything() if workload["metadata"]["name"] != "kafka"]

    def services_of(self, workload):
        labels = pod_labels(workload)
        return [service for service in self.of("Service") if selects(service["spec"]["selector"], labels)]

    def config_map(self, name):
        return self.one("ConfigMap", name)["data"]

    def environment(self, container, name=None):
        """What the container's process finds in its environment in a pod of a name, secrets aside."""
        values = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                values |= self.config_map(source["configMapRef"]["name"])
        for entry in container.get("env", []):
            if "valueFrom" in entry:
                assert entry["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
                values[entry["name"]] = name or container["name"] + "-0"
            else:
                values[entry["name"]] = entry["value"]
        return values

    def file(self, workload, container, path):
        """The text behind a path in a container."""
        folder, _, name = path.rpartition("/")
        (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == folder]
        (volume,) = [volume for volume in pod(workload)["volumes"] if volume["name"] == mount["name"]]
        return self.config_map(volume["configMap"]["name"])[name]


@functools.cache
def overlay(name):
    return Manifests(K8S / name)


def pod(workload):
    return workload["spec"]["template"]["spec"]


def pod_labels(workload):
    return workload["spec"]["template"]["metadata"]["labels"]


def selects(selector, labels):
    return selector.items() <= labels.items()


def role(workload):
    """The container of the role: the first."""
    return pod(workload)["containers"][0]


def sidecars(workload):
    return pod(workload).get("initContainers", [])


def ports(container):
    """Name to (number, protocol)."""
    return {port["name"]: (port["containerPort"], port["protocol"]) for port in container["ports"]}

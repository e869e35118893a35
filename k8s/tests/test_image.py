"""The image has the binary and certificates, no more, and fits the manifests. That pods run with it: `test_pods.py`."""

import os
import pathlib
import re

from cluster import USER
from manifests import ROOT, overlay, pod, ports, role

DOCKERFILE = (ROOT / "Dockerfile").read_text()
IGNORE = (ROOT / ".dockerignore").read_text().split("\n")


def in_context(path):
    """Whether a file of the workspace is sent to a build."""
    kept = {line[1:] for line in IGNORE if line.startswith("!")}
    assert "*" in IGNORE and "**/target" in IGNORE
    parts = path.relative_to(ROOT).parts
    return parts[0] in kept and "target" not in parts


def test_a_build_gets_every_member_and_every_file_that_sources_include():
    members = re.search(r"members = \[(.*?)\]", (ROOT / "Cargo.toml").read_text(), re.DOTALL).group(1)
    names = re.findall(r'"([^"]+)"', members)
    assert len(names) > 10
    for name in [*names, "Cargo.toml", "Cargo.lock"]:
        assert in_context(ROOT / name), name
    included = 0
    for name in names:
        for source in (ROOT / name / "src").rglob("*.rs"):
            for file in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"\s*\)', source.read_text()):
                path = pathlib.Path(os.path.normpath(source.parent / file))
                if path.exists():
                    included += 1
                    assert in_context(path), f"{source}: {file}"
    assert included > 10


def test_the_image_fits_the_manifests():
    stages = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert stages[-1] == "scratch", "no shell, no package"
    wanted = re.search(r'rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text()).group(1)
    assert stages[0].startswith(f"rust:{wanted}-")
    assert "crt-static" in DOCKERFILE and f"USER {USER}:{USER}" in DOCKERFILE
    assert 'ENTRYPOINT ["/usr/bin/vivace"]' in DOCKERFILE
    exposed = set(re.findall(r"\b(\d+)\b", re.search(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE).group(1)))
    for which in ("base", "overlays/all"):
        for workload in overlay(which).workloads():
            container = role(workload)
            assert container["image"] == "vivace" and "command" not in container
            assert {str(number) for number, _ in ports(container).values()} <= exposed
            assert pod(workload)["securityContext"]["runAsUser"] == USER

"""Every configuration passes the binary's own check, as it is in configs/ and as a pod would find it."""

import json
import os
import subprocess

import pytest
import yaml
from manifests import OVERLAYS, ROLES, ROOT, overlay, role, vivace

CONFIGS = ROOT / "configs"
VARIANTS = sorted(path.stem for path in (CONFIGS / "variants").glob("*.yaml"))
FAMILIES = ["ipv4", "ipv6", "dual-stack"]


def run(arguments, environment=None):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("VIVACE_")}
    return subprocess.run(
        [vivace(), *map(str, arguments)], env=clean | (environment or {}), capture_output=True, text=True, timeout=30
    )


def verify(arguments, environment=None):
    """Tempo's check, which passes whatever can be read, and ours, which passes what could be started."""
    started = run(["check-config", *arguments], environment)
    assert started.returncode == 0, f"{arguments}: {started.stdout}{started.stderr}"
    done = run(["-config.verify", *arguments], environment)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    assert "warning:" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_files_of_roles(path):
    if path.name != "kustomization.yaml":
        verify([f"-config.file={path}"])


@pytest.mark.parametrize("target", ROLES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_serve_every_role(variant, target):
    verify([f"-config.file={CONFIGS / 'variants' / variant}.yaml", f"-target={target}"])


@pytest.mark.parametrize("which", OVERLAYS)
def test_what_a_pod_finds(which, tmp_path):
    rendered = overlay(which)
    for workload in rendered.workloads():
        name, container = workload["metadata"]["name"], role(workload)
        assert name.startswith(container["name"])
        flags, files = [], 0
        for argument in container["args"]:
            if argument.startswith("-config.file="):
                text = rendered.file(workload, container, argument.partition("=")[2])
                file = tmp_path / f"{name}.yaml"
                file.write_text(text)
                flags.append(f"-config.file={file}")
                files += 1
                target = yaml.safe_load(text)["target"]
                assert target == ("all" if name == "vivace" else container["name"])
            else:
                flags.append(argument)
        assert files == 1
        verify(flags, rendered.environment(container))


def test_a_wrong_variable_is_noticed(tmp_path):
    done = run(["-config.verify"], {"VIVACE_SERVER__HTTP_LISTEN_PROT": "1"})
    assert done.returncode == 1 and "did you mean `server.http_listen_port`?" in done.stderr


def leaves(tree, path=()):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    else:
        yield "VIVACE_" + "__".join(path).upper(), tree


def listening(variable):
    return any(word in variable for word in ("_LISTEN_ADDRESS", "_LISTEN_NETWORK", "BIND_ADDR", "ENDPOINT", "ENABLE_INET6")) and (
        not variable.startswith(("VIVACE_STORAGE", "VIVACE_QUERIER"))
    )


def text(value):
    if isinstance(value, bool):
        return json.dumps(value)
    return ",".join(value) if isinstance(value, list) else str(value)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_overlay_listens_as_the_variant_of_its_family(family):
    """The file for machines and the overlay for Kubernetes say the same of every address."""
    rendered = overlay(f"overlays/{family}")
    variant = yaml.safe_load((CONFIGS / "variants" / f"{family}.yaml").read_text())
    wanted = {variable: text(value) for variable, value in leaves(variant) if listening(variable)}
    assert len(wanted) >= 5
    for workload in rendered.workloads():
        environment = rendered.environment(role(workload))
        assert {key: value for key, value in environment.items() if listening(key)} == wanted


@pytest.mark.parametrize("family,families,policy", [
    ("ipv4", ["IPv4"], "SingleStack"),
    ("ipv6", ["IPv6"], "SingleStack"),
    ("dual-stack", ["IPv4", "IPv6"], "RequireDualStack"),
])
def test_services_have_the_families_that_processes_listen_on(family, families, policy):
    rendered = overlay(f"overlays/{family}")
    services = rendered.of("Service")
    assert len(services) >= 6
    for service in services:
        assert service["spec"]["ipFamilies"] == families
        assert service["spec"]["ipFamilyPolicy"] == policy
    for workload in rendered.workloads():
        environment = rendered.environment(role(workload))
        addresses = [value for key, value in environment.items() if listening(key) and not key.endswith(("INET6", "NETWORK"))]
        assert len(addresses) == 5
        for address in addresses:
            # An IPv6 wildcard takes both families.
            assert ("::" in address) == ("IPv6" in families), address


def test_the_sidecar_variant_and_overlays_advertise_the_same_port():
    variant = yaml.safe_load((CONFIGS / "variants/sidecar.yaml").read_text())
    port = variant["live_store"]["ring"]["instance_port"]
    for proxy in ("nginx", "envoy", "traefik"):
        rendered = overlay(f"overlays/sidecar-{proxy}")
        for workload in rendered.workloads():
            told = rendered.environment(role(workload)).get("VIVACE_LIVE_STORE__RING__INSTANCE_PORT")
            is_live_store = workload["metadata"]["name"] == "live-store"
            assert told == (str(port) if is_live_store else None)


def test_the_tls_overlay_has_the_settings_of_its_variant():
    """But for Kafka and the bucket, which have authorities of their own."""
    variant = yaml.safe_load((CONFIGS / "variants/tls.yaml").read_text())
    wanted = {
        variable: text(value)
        for variable, value in leaves(variant)
        if "TLS" in variable and not variable.startswith(("VIVACE_INGEST", "VIVACE_STORAGE"))
    }
    assert len(wanted) > 20
    for workload in overlay("overlays/tls").workloads():
        environment = overlay("overlays/tls").environment(role(workload))
        assert {key: value for key, value in environment.items() if "TLS" in key} == wanted


def test_the_zones_variant_and_overlay_name_the_same_zones():
    variant = yaml.safe_load((CONFIGS / "variants/zones.yaml").read_text())
    zones = {
        overlay("overlays/zones").environment(role(workload)).get("VIVACE_LIVE_STORE__RING__INSTANCE_ZONE")
        for workload in overlay("overlays/zones").workloads()
    } - {None}
    assert zones == {"zone-a", "zone-b"} and variant["live_store"]["ring"]["instance_zone"] in zones

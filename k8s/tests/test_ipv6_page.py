"""The examples of Tempo's page "Configure IPv6" come out of the overlay `ipv6` and the variant `ipv6`."""

import copy

import pytest
import yaml
from manifests import K8S, ROOT, Manifests, overlay

# The page's settings, in its three pieces.
SETTINGS = {
    "memberlist": {
        "bind_addr": ["::"],
        "bind_port": 7946,
        "join_members": ["dns+gossip-ring.tracing.svc.cluster.local.:7946"],
    },
    "distributor": {"ring": {"enable_inet6": True}},
    "backend_worker": {"ring": {"enable_inet6": True}},
    "metrics_generator": {"ring": {"enable_inet6": True}},
    "live_store": {"ring": {"enable_inet6": True}},
    "server": {
        "grpc_listen_address": "::0",
        "grpc_listen_port": 9095,
        "http_listen_address": "::0",
        "http_listen_port": 3200,
    },
}

# The page's Service of a role, as a cluster shows it.
BACKEND_WORKER = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"labels": {"name": "backend-worker"}, "name": "backend-worker", "namespace": "tracing"},
    "spec": {
        "clusterIP": "fccb::31a7",
        "clusterIPs": ["fccb::31a7"],
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv6"],
        "ipFamilyPolicy": "SingleStack",
        "ports": [{"name": "backend-worker-http-metrics", "port": 3200, "protocol": "TCP", "targetPort": 3200}],
        "selector": {"app": "backend-worker", "name": "backend-worker"},
        "sessionAffinity": "None",
        "type": "ClusterIP",
    },
}

# The page's Service for gossip.
GOSSIP_RING = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "gossip-ring", "namespace": "tracing"},
    "spec": {
        "clusterIP": "None",
        "ipFamilies": ["IPv6"],
        "ipFamilyPolicy": "SingleStack",
        "ports": [{"name": "gossip-ring", "port": 7946, "protocol": "TCP", "targetPort": 7946}],
        "selector": {"tempo-gossip-member": "true"},
    },
}


def within(part, whole, path=""):
    for key, value in part.items():
        if isinstance(value, dict):
            within(value, whole[key], f"{path}{key}.")
        else:
            assert whole[key] == value, f"{path}{key}"


def test_the_variant_has_the_pages_settings():
    within(SETTINGS, yaml.safe_load((ROOT / "configs/variants/ipv6.yaml").read_text()))


def test_the_gossip_service_is_the_pages_with_datagrams_and_unready_members():
    found = copy.deepcopy(overlay("overlays/ipv6").one("Service", "gossip-ring"))
    assert found["spec"].pop("publishNotReadyAddresses") is True
    udp = found["spec"]["ports"].pop()
    assert udp == {"name": "gossip-ring-udp", "port": 7946, "protocol": "UDP", "targetPort": 7946}
    assert found == GOSSIP_RING


@pytest.mark.parametrize("role", ["distributor", "live-store", "block-builder", "querier", "query-frontend"])
def test_services_of_roles_are_the_pages_with_gRPC(role):
    """All but the address, which a cluster gives out itself, and the other ports of the role."""
    found = copy.deepcopy(overlay("overlays/ipv6").one("Service", role))
    wanted = yaml.safe_load(yaml.safe_dump(BACKEND_WORKER).replace("backend-worker", role))
    for key in ("clusterIP", "clusterIPs"):
        del wanted["spec"][key]
    assert found["spec"]["ports"][0] == wanted["spec"]["ports"][0]
    wanted["spec"]["ports"] = found["spec"]["ports"]
    assert found == wanted


def test_a_service_of_any_role_becomes_the_pages(tmp_path):
    """The component `ipv6` alone makes the page's Service of one without families."""
    plain = copy.deepcopy(BACKEND_WORKER)
    del plain["spec"]["ipFamilies"], plain["spec"]["ipFamilyPolicy"]
    (tmp_path / "service.yaml").write_text(yaml.safe_dump(plain))
    (tmp_path / "settings.env").write_text("VIVACE_SERVER__HTTP_LISTEN_PORT=3200\n")
    (tmp_path / "component").mkdir()
    for file in (K8S / "components/ipv6").iterdir():
        (tmp_path / "component" / file.name).write_text(file.read_text())
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "tracing",
        "resources": ["service.yaml"],
        "configMapGenerator": [{"name": "vivace-settings", "envs": ["settings.env"]}],
        "components": ["component"],
    }))
    assert Manifests(tmp_path).one("Service", "backend-worker") == BACKEND_WORKER

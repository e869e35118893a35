"""The pods of the manifests run: rendered, started with what their manifests give them, and asked as clients would."""

import json
import os
import re
import shutil
import subprocess
import time

import pytest
import yaml
from cluster import Cluster
from manifests import ROOT, Manifests, overlay, ports, role, vivace

pytestmark = pytest.mark.usefixtures("root")
# About ten seconds each: one cluster and TLS always, the others in the long form.
LONG = pytest.mark.skipif("VIVACE_LONG" not in os.environ, reason="long form: VIVACE_LONG=1")
TRACE = "5b8efff798038103d269b633813fc60c"


def span(trace=TRACE, name="GET /cart"):
    now = time.time_ns()
    one = {
        "traceId": trace, "spanId": trace[16:], "name": name, "kind": 2,
        "startTimeUnixNano": str(now), "endTimeUnixNano": str(now + 1000),
    }
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [one]}]}]})


def send(cluster, pod, body):
    """The status of a push over OTLP/HTTP."""
    url = cluster.url(pod, 4318, "/v1/traces")
    return cluster.inside(
        "client", "curl", "-sgkm", "30", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Content-Type: application/json", "-d", body, url
    )


def probes(cluster, pod):
    """Waits as a kubelet would: until it has started, until it is ready."""
    container = role(cluster.pods[pod])
    for probe in ("startupProbe", "readinessProbe"):
        if "tcpSocket" in container[probe]:
            port = ports(container)[container[probe]["tcpSocket"]["port"]][0]
            cluster.until(f"{pod}: {probe}", lambda: f":{port} " in cluster.inside(pod, "ss", "-Hltn"))
            continue
        get = container[probe]["httpGet"]
        port = ports(container)[get["port"]][0]
        cluster.until(f"{pod}: {probe}", lambda: cluster.get(pod, get["path"], port)[0] == "200")


def test_the_pod_of_the_single_process_takes_a_span_and_stops():
    with Cluster(overlay("overlays/all"), [4, 6]) as cluster:
        cluster.start("vivace-0")
        probes(cluster, "vivace-0")
        assert send(cluster, "vivace-0", span()) == "200"
        found = cluster.inside("client", vivace(), "query", "trace", TRACE, f"-url={cluster.url('vivace-0', 3200, '')}")
        assert "GET /cart" in found, found
        assert cluster.processes["vivace-0"].stop() == 0, cluster.logs()
        # All that was written is where the manifests have a volume.
        assert list((cluster.folder / "vivace-0/root/var/tempo/live-store").iterdir())


def rendered_with(tmp_path, components, base="base"):
    """With the broker for development and a folder that all pods see as the bucket, and components."""
    for folder in ("k8s", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "mine").mkdir()
    # A partition takes writes a second after its live-store came, not ten.
    sooner = "VIVACE_LIVE_STORE__PARTITION_RING__MIN_PARTITION_OWNERS_DURATION=1s"
    (tmp_path / "mine/kustomization.yaml").write_text(yaml.safe_dump({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "tracing",
        "resources": [f"../k8s/{base}"],
        "components": [f"../k8s/components/{component}" for component in ["dev", *components]],
        "configMapGenerator": [{"name": "vivace-settings", "behavior": "merge", "literals": [sooner]}],
    }))
    return Manifests(tmp_path / "mine")


def trace(number):
    return f"{number + 1:016x}{number + 1:016x}"


def found(cluster, frontend, number):
    """Whether a trace is found, and all that could hold it was asked."""
    status, body = cluster.get(frontend, f"/api/v2/traces/{trace(number)}")
    return status == "200" and f"trace {number}" in body and "PARTIAL" not in body


def told(cluster, pod):
    """Addresses of live-stores, as the ring of a pod has them."""
    status, body = cluster.get(pod, "/live-store/ring")
    return set(re.findall(r"[\w.:\[\]]+:(?:12345|9095)\b", body)) if status == "200" else set()


@pytest.mark.parametrize("family,families,proxy", [
    pytest.param("ipv4", [4], "nginx", marks=LONG),
    ("ipv6", [6], "envoy"),
    pytest.param("dual-stack", [4, 6], "traefik", marks=LONG),
])
def test_a_cluster_of_pods_finds_itself_and_answers_through_its_proxies(tmp_path, family, families, proxy):
    rendered = rendered_with(tmp_path, [family, f"sidecar-{proxy}"])
    with Cluster(rendered, families) as cluster:
        for pod in cluster.pods:
            cluster.start(pod)
        for pod in cluster.pods:
            probes(cluster, pod)

        # Both distributors take spans, both query-frontends find them, in both partitions.
        for number in range(20):
            pod = f"distributor-{number % 2}"
            cluster.until(f"taken by {pod}", lambda: send(cluster, pod, span(trace(number), f"trace {number}")) == "200")
        for number in range(20):
            frontend = f"query-frontend-{number % 2}"
            cluster.until(f"trace {number} whole at {frontend}", lambda: found(cluster, frontend, number))

        # Queriers reach live-stores by what the ring tells: the proxy.
        addresses = [address for store in ("live-store-0", "live-store-1") for address in cluster.addresses[store]]
        wanted = {f"[{address}]:12345" if ":" in address else f"{address}:12345" for address in addresses}
        for pod in ("querier-0", "distributor-1", "live-store-1"):
            assert wanted <= told(cluster, pod), cluster.get(pod, "/live-store/ring")
        for store in ("live-store-0", "live-store-1"):
            cluster.until(f"calls through the proxy of {store}", lambda: passed(cluster, store) > 0)

        # A proxy that is away takes its live-store with it, and answers are partial, not failed; then whole again.
        cluster.processes["live-store-0/proxy"].kill()
        del cluster.processes["live-store-0/proxy"]
        answers = [cluster.get("query-frontend-0", f"/api/v2/traces/{trace(number)}") for number in range(20)]
        assert {status for status, _ in answers} == {"200"}, answers
        assert any("PARTIAL" in body for _, body in answers), "nobody goes round the proxy"
        cluster.sidecar("live-store-0")
        for number in range(20):
            cluster.until(f"trace {number} whole again", lambda: found(cluster, "query-frontend-0", number))
        assert passed(cluster, "live-store-0") > 0

        exits = cluster.stop()
        assert set(exits.values()) == {0}, f"{exits}\n{cluster.logs()}"


def passed(cluster, store):
    """Calls to a live-store by the log of its proxy."""
    return sum("vivace.v1.LiveStore" in line for line in cluster.processes[f"{store}/proxy"].lines)


def certificates(folder):
    """Files as cert-manager puts them into the Secret: one certificate of an own authority for both ends of every call."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    name = "vivace.tracing.svc"
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]
    openssl("req", "-x509", *new, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt")
    openssl(
        "req", "-x509", *new, "-CA", "ca.crt", "-CAkey", "ca.key", "-subj", f"/CN={name}",
        "-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=critical,CA:FALSE",
        "-addext", "extendedKeyUsage=serverAuth,clientAuth", "-keyout", "tls.key", "-out", "tls.crt",
    )
    return {file: (folder / file).read_text() for file in ("tls.crt", "tls.key", "ca.crt")}


def test_a_cluster_of_pods_under_tls(tmp_path):
    (tmp_path / "tls").mkdir()
    rendered = rendered_with(tmp_path, ["dual-stack", "tls"])
    with Cluster(rendered, [4, 6], {"vivace-tls": certificates(tmp_path / "tls")}) as cluster:
        for pod in cluster.pods:
            cluster.start(pod)
        for pod in cluster.pods:
            probes(cluster, pod)
        cluster.until("taken", lambda: send(cluster, "distributor-0", span(trace(0), "trace 0")) == "200")
        cluster.until("whole", lambda: found(cluster, "query-frontend-0", 0))
        # Nobody without a certificate of the authority calls a role.
        address = cluster.addresses["live-store-0"][0]
        ask = ["curl", "-gksm", "10", "--http2", f"https://{address}:9095/"]
        assert cluster.inside("client", *ask).startswith("FAILED")
        shown = ["--cert", f"{tmp_path}/tls/tls.crt", "--key", f"{tmp_path}/tls/tls.key"]
        assert not cluster.inside("client", *ask, *shown).startswith("FAILED")
        assert set(cluster.stop().values()) == {0}, cluster.logs()


@LONG
def test_answers_stay_whole_while_a_zone_is_away(tmp_path):
    rendered = rendered_with(tmp_path, ["dual-stack"], "overlays/zones")
    with Cluster(rendered, [4, 6]) as cluster:
        for pod in cluster.pods:
            cluster.start(pod)
        for pod in cluster.pods:
            probes(cluster, pod)
        for number in range(10):
            cluster.until("taken", lambda: send(cluster, "distributor-0", span(trace(number), f"trace {number}")) == "200")
        for number in range(10):
            cluster.until(f"trace {number} whole", lambda: found(cluster, "query-frontend-0", number))

        away = ["live-store-zone-a-0", "live-store-zone-a-1"]
        for pod in away:
            cluster.processes[pod].kill()
            del cluster.processes[pod]
        for number in range(10):
            assert found(cluster, "query-frontend-0", number), cluster.get("query-frontend-0", f"/api/v2/traces/{trace(number)}")
        # What comes in meanwhile is found too.
        cluster.until("taken", lambda: send(cluster, "distributor-1", span(trace(10), "trace 10")) == "200")
        cluster.until("trace 10 whole", lambda: found(cluster, "query-frontend-1", 10))

        for pod in away:
            cluster.start(pod)
            probes(cluster, pod)
        for number in range(11):
            assert found(cluster, "query-frontend-0", number)
        assert set(cluster.stop().values()) == {0}, cluster.logs()

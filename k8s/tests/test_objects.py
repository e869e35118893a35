"""What schemas cannot know: that objects fit each other."""

import re
import shutil

import pytest
from manifests import (
    GOSSIP, GOSSIPERS, GRPC, HTTP, K8S, OVERLAYS, ROLES, ROOT, Manifests, overlay, pod, pod_labels, ports, role, selects, sidecars,
)

MICROSERVICES = [name for name in OVERLAYS if name != "overlays/all"]


def name(found):
    return found["metadata"]["name"]


def test_everything_is_in_the_namespace_and_named_once(rendered):
    seen = set()
    for found in rendered.objects:
        if found["kind"] == "Namespace":
            assert name(found) == "tracing"
            continue
        assert found["metadata"]["namespace"] == "tracing", name(found)
        key = (found["kind"], name(found))
        assert key not in seen
        seen.add(key)


@pytest.mark.parametrize("which", MICROSERVICES)
def test_every_role_has_one_workload_of_the_right_kind(which):
    kinds = [(role(workload)["name"], workload["kind"]) for workload in overlay(which).workloads()]
    zones = 2 if which == "overlays/zones" else 1
    assert sorted(kinds) == sorted(
        # An ordinal owns a partition.
        (each, "StatefulSet" if each in ("live-store", "block-builder") else "Deployment")
        for each in ROLES
        for _ in range(zones if each == "live-store" else 1)
    )


def test_the_single_process_is_alone():
    rendered = overlay("overlays/all")
    (workload,) = rendered.workloads()
    assert (workload["kind"], workload["spec"]["replicas"]) == ("StatefulSet", 1)
    assert {name(found).rsplit("-", 1)[0] for found in rendered.of("ConfigMap")} == {"vivace-config", "vivace-settings"}


def test_selectors_find_the_pods_they_are_meant_for(rendered):
    labels = {name(workload): pod_labels(workload) for workload in rendered.everything()}
    for workload in rendered.everything():
        chosen = workload["spec"]["selector"]["matchLabels"]
        assert [found for found, has in labels.items() if selects(chosen, has)] == [name(workload)]
        for spread in pod(workload).get("topologySpreadConstraints", []):
            assert spread["labelSelector"]["matchLabels"] == chosen
    for service in rendered.of("Service"):
        found = [workload for workload, has in labels.items() if selects(service["spec"]["selector"], has)]
        if name(service) == "gossip-ring":
            assert {role(workload)["name"] for workload in rendered.workloads() if name(workload) in found} == GOSSIPERS
        else:
            assert len(found) == 1
            assert name(service).replace("-headless", "").replace("-discovery", "") == found[0]
    for budget in rendered.of("PodDisruptionBudget"):
        assert [w for w, has in labels.items() if selects(budget["spec"]["selector"]["matchLabels"], has)] == [name(budget)]


def test_every_replicated_workload_has_a_disruption_budget(rendered):
    replicated = {name(workload) for workload in rendered.workloads() if workload["spec"]["replicas"] > 1}
    assert {name(budget) for budget in rendered.of("PodDisruptionBudget")} == replicated


def test_service_ports_lead_to_declared_ports(rendered):
    for workload in rendered.everything():
        declared = set(ports(role(workload)).values())
        assert len(declared) == len(role(workload)["ports"])
        for service in rendered.services_of(workload):
            spec = service["spec"]
            assert len({port["name"] for port in spec["ports"]}) == len(spec["ports"])
            for port in spec["ports"]:
                assert port["name"], name(service)
                assert (port["targetPort"], port["protocol"]) in declared, (name(service), port)


def test_every_workload_has_services_for_its_ports(rendered):
    for workload in rendered.workloads():
        wanted = {ports(role(workload))[port][0] for port in ports(role(workload)) if not port.startswith("gossip")}
        (own,) = [service for service in rendered.services_of(workload) if name(service) == name(workload)]
        assert {port["port"] for port in own["spec"]["ports"]} == wanted
        assert {HTTP, GRPC} <= wanted
        if name(workload) in ("distributor", "vivace"):
            assert {4317, 4318} <= wanted


def test_stateful_sets_have_a_headless_service_that_names_their_pods(rendered):
    for workload in rendered.of("StatefulSet"):
        service = rendered.one("Service", workload["spec"]["serviceName"])
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["publishNotReadyAddresses"]
        assert selects(service["spec"]["selector"], pod_labels(workload))
        for claim in workload["spec"].get("volumeClaimTemplates", []):
            assert claim["metadata"]["name"] in {mount["name"] for mount in role(workload)["volumeMounts"]}


def test_mounts_volumes_and_config_maps_fit(rendered):
    used = set()
    wanted = {found["metadata"]["name"] for found in rendered.of("PersistentVolumeClaim")}
    for workload in rendered.everything():
        for volume in pod(workload).get("volumes", []):
            assert volume.get("persistentVolumeClaim", {"claimName": None})["claimName"] in {None, *wanted}
        volumes = {volume["name"]: volume for volume in pod(workload).get("volumes", [])}
        claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        mounted = set()
        for container in [role(workload), *sidecars(workload)]:
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(set(paths)) == len(paths)
            mounted |= {mount["name"] for mount in container["volumeMounts"]}
            used |= {source["configMapRef"]["name"] for source in container.get("envFrom", []) if "configMapRef" in source}
        assert mounted == set(volumes) | claims, name(workload)
        used |= {volume["configMap"]["name"] for volume in volumes.values() if "configMap" in volume}
    assert used == {name(found) for found in rendered.of("ConfigMap")}, "every ConfigMap is used, and every used one is there"


def test_probes_use_declared_ports_and_do_not_kill_what_is_not_ready(rendered):
    for workload in rendered.workloads():
        container = role(workload)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] in ports(container)
        assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
        for probe in ("startupProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["path"] == "/status/version"
        for proxy in sidecars(workload):
            assert proxy["restartPolicy"] == "Always"
            for probe in ("startupProbe", "livenessProbe"):
                assert proxy[probe]["tcpSocket"]["port"] in ports(proxy)


def test_pods_pass_the_restricted_standard(rendered):
    assert rendered.one("Namespace", "tracing")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for workload in rendered.everything():
        spec = pod(workload)
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
        assert rendered.one("ServiceAccount", spec["serviceAccountName"])
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all(set(volume) & {"configMap", "emptyDir", "persistentVolumeClaim", "secret"} for volume in spec.get("volumes", []))
        for container in [*spec["containers"], *sidecars(workload)]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert container["resources"]["limits"].keys() >= {"memory"}


@pytest.mark.parametrize("which", MICROSERVICES)
def test_whoever_gossips_has_the_label_and_the_port(which):
    rendered = overlay(which)
    ring = rendered.one("Service", "gossip-ring")["spec"]
    assert ring["publishNotReadyAddresses"] and ring["clusterIP"] == "None"
    for workload in rendered.workloads():
        if role(workload)["name"] not in GOSSIPERS:
            assert "tempo-gossip-member" not in pod_labels(workload) and "gossip" not in ports(role(workload))
            continue
        assert selects(ring["selector"], pod_labels(workload))
        has = ports(role(workload))
        assert (has["gossip"], has["gossip-udp"]) == ((GOSSIP, "TCP"), (GOSSIP, "UDP"))
        joined = rendered.environment(role(workload))["VIVACE_MEMBERLIST__JOIN_MEMBERS"]
        assert joined == f"dns+gossip-ring.tracing.svc.cluster.local.:{GOSSIP}"


@pytest.mark.parametrize("which", MICROSERVICES)
def test_an_ordinal_is_the_pods(which):
    """Whatever name the file has, a pod's own says which partition it owns."""
    variables = {"live-store": "VIVACE_LIVE_STORE__RING__INSTANCE_ID", "block-builder": "VIVACE_BLOCK_BUILDER__INSTANCE_ID"}
    for workload in overlay(which).workloads():
        if workload["kind"] == "Deployment":
            continue
        (entry,) = [entry for entry in role(workload)["env"] if entry["name"] == variables[role(workload)["name"]]]
        assert entry["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


@pytest.mark.parametrize("which", MICROSERVICES)
def test_addresses_in_settings_are_those_of_services(which):
    rendered = overlay(which)
    settings = rendered.environment(role(rendered.one("Deployment", "querier")))
    host, port = settings["VIVACE_QUERIER__FRONTEND_WORKER__FRONTEND_ADDRESS"].rsplit(":", 1)
    service, namespace, *rest = host.split(".")
    assert (namespace, rest) == ("tracing", ["svc", "cluster", "local", ""])
    found = rendered.one("Service", service)["spec"]
    # Queriers connect to every frontend, ready or not.
    assert found["clusterIP"] == "None" and found["publishNotReadyAddresses"]
    assert int(port) in {port["port"] for port in found["ports"]}
    assert selects(found["selector"], pod_labels(rendered.one("Deployment", "query-frontend")))


@pytest.mark.parametrize("which", MICROSERVICES)
def test_partitions_have_owners_and_builders(which):
    rendered = overlay(which)
    settings = rendered.environment(role(rendered.one("StatefulSet", "block-builder")))
    partitions = int(settings["VIVACE_INGEST__KAFKA__AUTO_CREATE_TOPIC_DEFAULT_PARTITIONS"])
    each = int(settings["VIVACE_BLOCK_BUILDER__PARTITIONS_PER_INSTANCE"])
    for workload in rendered.of("StatefulSet"):
        if role(workload)["name"] == "live-store":
            assert workload["spec"]["replicas"] == partitions
    assert rendered.one("StatefulSet", "block-builder")["spec"]["replicas"] * each >= partitions


def test_folders_that_are_written_are_volumes(rendered):
    writers = {
        "live-store": ["VIVACE_LIVE_STORE__WAL__PATH", "VIVACE_LIVE_STORE__SHUTDOWN_MARKER_DIR"],
        "block-builder": ["VIVACE_BLOCK_BUILDER__WAL__PATH"],
        "vivace": ["VIVACE_LIVE_STORE__WAL__PATH", "VIVACE_STORAGE__TRACE__LOCAL__PATH"],
    }
    for workload in rendered.workloads():
        writable = [m["mountPath"] + "/" for m in role(workload)["volumeMounts"] if not m.get("readOnly")]
        for variable in writers.get(role(workload)["name"], []):
            path = rendered.environment(role(workload))[variable]
            assert any(path.startswith(folder) for folder in writable), (name(workload), variable, path)
        # What must survive a restart is on a claim.
        if role(workload)["name"] in ("live-store", "vivace"):
            assert workload["spec"]["volumeClaimTemplates"]


def test_zones_have_the_same_partitions_and_groups_of_their_own():
    rendered = overlay("overlays/zones")
    stores = {name(workload): workload for workload in rendered.workloads() if role(workload)["name"] == "live-store"}
    # A consumer group is the id without its ordinal: one for each zone.
    assert set(stores) == {"live-store-zone-a", "live-store-zone-b"}
    for called, workload in stores.items():
        zone = called.removeprefix("live-store-")
        assert rendered.environment(role(workload))["VIVACE_LIVE_STORE__RING__INSTANCE_ZONE"] == zone
        assert pod(workload)["nodeSelector"] == {"topology.kubernetes.io/zone": zone}


def test_under_tls_probes_ask_https_and_files_are_mounted():
    rendered = overlay("overlays/tls")
    for workload in rendered.workloads():
        container = role(workload)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["scheme"] == "HTTPS"
        (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "tls"]
        files = [value for value in rendered.environment(container).values() if value.endswith((".crt", ".key"))]
        assert len(files) > 10 and all(file.startswith(mount["mountPath"] + "/") for file in files)


def test_the_readmes_example_renders_and_changes_what_it_says(tmp_path):
    example = re.search(r"```yaml\n(# kustomization.yaml\n.*?)```", (K8S / "README.md").read_text(), re.DOTALL).group(1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "vivace").mkdir()
    for folder in ("k8s", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / "vivace" / folder)
    (tmp_path / "mine/kustomization.yaml").write_text(example)
    rendered = Manifests(tmp_path / "mine")
    for workload in rendered.workloads():
        assert role(workload)["image"] == "registry.example.com/vivace:0.1.0"
        settings = rendered.environment(role(workload))
        assert settings["VIVACE_STORAGE__TRACE__S3__ENDPOINT"] == "minio.minio.svc.cluster.local:9000"
        assert settings["VIVACE_MEMBERLIST__BIND_ADDR"] == "::", "what the overlay set stays"
    assert rendered.one("StatefulSet", "live-store")["spec"]["replicas"] == 3


@pytest.mark.parametrize("proxy", ["nginx", "envoy", "traefik"])
def test_components_can_be_combined(tmp_path, proxy):
    """A family and a sidecar on top of zones: each live-store of each zone has a proxy, and every Service the family."""
    for folder in ("k8s", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: tracing\n"
        "resources: [../k8s/overlays/zones]\n"
        f"components: [../k8s/components/ipv6, ../k8s/components/sidecar-{proxy}]\n"
    )
    rendered = Manifests(tmp_path / "mine")
    assert all(service["spec"]["ipFamilies"] == ["IPv6"] for service in rendered.of("Service"))
    stores = [workload for workload in rendered.workloads() if role(workload)["name"] == "live-store"]
    assert len(stores) == 2
    for workload in rendered.workloads():
        environment = rendered.environment(role(workload))
        assert environment["VIVACE_MEMBERLIST__BIND_ADDR"] == "::"
        assert len(sidecars(workload)) == (workload in stores)
        assert ("VIVACE_LIVE_STORE__RING__INSTANCE_PORT" in environment) == (workload in stores)


@pytest.mark.parametrize("which", MICROSERVICES)
def test_a_distributor_refuses_before_it_is_killed_for_its_memory(which):
    container = role(overlay(which).one("Deployment", "distributor"))
    buffered = int(overlay(which).environment(container)["VIVACE_INGEST__KAFKA__PRODUCER_MAX_BUFFERED_BYTES"])
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi")) << 20
    assert buffered <= limit // 4

"""Every object of every overlay is what the API servers of several Kubernetes versions take, to the last field."""

import json

import kubernetes_validate
import pytest

# Native sidecars, which the proxies are, are on by default from 1.29 on.
VERSIONS = ["1.29", "1.31", "1.33", "1.35", "1.37"]


# Most objects are the same in many overlays.
fitting = set()


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_fit_the_schemas_strictly(rendered, version):
    assert rendered.objects
    for found in rendered.objects:
        once = (version, json.dumps(found, sort_keys=True))
        if once in fitting:
            continue
        name = f"{found['kind']} {found['metadata']['name']}"
        try:
            kubernetes_validate.validate(found, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{rendered.folder}, {name}, Kubernetes {version}: {list(error.path)}: {error.message}")
        fitting.add(once)


def test_a_wrong_field_is_noticed():
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ipFamily": "IPv6"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, VERSIONS[0], strict=True)

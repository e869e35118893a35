"""Every object of every overlay is what the API servers of several Kubernetes versions take, to the last field."""

import kubernetes_validate
import pytest

# Native sidecars, which the proxies are, are on by default from 1.29 on.
VERSIONS = ["1.29", "1.31", "1.33", "1.35", "1.37"]


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_fit_the_schemas_strictly(rendered, version):
    assert rendered.objects
    for found in rendered.objects:
        name = f"{found['kind']} {found['metadata']['name']}"
        try:
            kubernetes_validate.validate(found, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{rendered.folder}, {name}, Kubernetes {version}: {list(error.path)}: {error.message}")


def test_a_wrong_field_is_noticed():
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ipFamily": "IPv6"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, VERSIONS[0], strict=True)

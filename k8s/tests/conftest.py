import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import manifests  # noqa: E402


@pytest.fixture(params=manifests.OVERLAYS)
def rendered(request):
    """Each overlay in turn."""
    return manifests.overlay(request.param)


@pytest.fixture(scope="session")
def root():
    """Networks of their own need root: without it such tests are left out and counted, in CI they fail."""
    if os.geteuid() != 0:
        reason = "pods in networks of their own: needs root"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        if "VIVACE_SKIPPED" in os.environ:
            with open(os.environ["VIVACE_SKIPPED"], "a") as left_out:
                left_out.write(f"SKIPPED {reason}\n")
        pytest.skip(reason)

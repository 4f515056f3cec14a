"""One cluster for the tests of the cluster itself, with a quick autoscaler and two GPUs that do not exist."""

from collections.abc import Iterator

import pytest

from localkube_lib import binaries, packages
from localkube_lib.base_image import base_layer, python_image
from localkube_lib.cluster import Cluster
from localkube_lib.components import Settings

IMAGE = "motet.local/python:3.11"


def pytest_runtestloop(session: pytest.Session) -> None:
    """Build what takes minutes, once, before any test's time is counted."""
    clusters = any(item.get_closest_marker(name) for item in session.items for name in ("localkube", "e2e"))
    if clusters and not session.config.option.collectonly:
        packages.ensure_installed()
        for module in binaries.MODULES:
            binaries.build(module)
        base_layer()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster("lk-test")
    cluster.down()
    cluster.up(Settings(hpa_sync_period="1s", gpus=2))
    cluster.images().load(python_image(IMAGE))
    yield cluster
    cluster.down()


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-")
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")

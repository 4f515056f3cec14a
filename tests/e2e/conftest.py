"""One cluster with the chart installed for all end-to-end tests; a namespace with a model for each module."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo_lib.installation import NAMESPACE, Installation
from demo_lib.proxy import kube_proxy
from localkube_lib import binaries
from localkube_lib.cluster import Cluster
from localkube_lib.components import Settings
from tests.e2e.material import make_material
from tests.e2e.objects import volume
from tests.e2e.values import RESTRICTED, VALUES
from tests.e2e.world import World

CLUSTER = "e2e"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quiet is looked for before the others have made noise; rights used are counted after all have used theirs."""
    places = {"test_steady_state.py": 0, "test_rights.py": 2}
    own = [index for index, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    ordered = sorted((items[index] for index in own), key=lambda item: places.get(item.path.name, 1))
    for index, item in zip(own, ordered, strict=True):
        items[index] = item


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A fresh cluster, with an audit log and a quicker autoscaler than users have."""
    cluster = Cluster(CLUSTER)
    cluster.down()
    cluster.up(Settings(hpa_sync_period="2s", audit=True))
    yield cluster
    cluster.down()


@pytest.fixture(scope="session")
def tags(cluster: Cluster) -> dict[str, str]:
    """The images of the working tree as it was when the tests began, by part."""
    return Installation(cluster).load_images()


@pytest.fixture(scope="session")
def installation(cluster: Cluster, tags: dict[str, str]) -> Installation:
    """The product in the cluster."""
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl("label", "namespace", NAMESPACE, RESTRICTED)
    installation = Installation(cluster)
    installation.install(tags, VALUES)
    return installation


@pytest.fixture(scope="session")
def material(installation: Installation) -> Path:
    """A folder with the tiny model and adapters, which the namespaces' claims show to the pods."""
    folder = installation.cluster.paths.root / "material"
    shutil.rmtree(folder, ignore_errors=True)
    make_material(folder)
    return folder


@pytest.fixture(scope="session")
def gateway_url(installation: Installation) -> str:
    """The gateway's address on the host's loopback."""
    return installation.gateway_url()


@pytest.fixture(scope="session")
def api_url(cluster: Cluster) -> Iterator[str]:
    """The API server over plain HTTP."""
    with kube_proxy(binaries.kubectl(), cluster.kubeconfig) as proxy:
        yield proxy.url


@pytest.fixture(scope="module")
def world(
    installation: Installation, material: Path, gateway_url: str, api_url: str, request: pytest.FixtureRequest
) -> Iterator[World]:
    """A namespace of the module's own, with the claim; gone afterwards with all that is in it."""
    namespace = "e2e-" + re.sub(r"[^a-z0-9]", "-", Path(request.module.__file__).stem.removeprefix("test_"))
    installation.cluster.kubectl("create", "namespace", namespace)
    installation.cluster.kubectl("label", "namespace", namespace, RESTRICTED)
    world = World(installation, namespace, material, gateway_url, api_url)
    world.apply(*volume(namespace, material))
    yield world
    installation.cluster.kubectl("delete", "namespace", namespace, "--wait=false")

"""The gateway's flags, as its own command line reads them."""

import pytest

from motet_gateway.main import parse_arguments
from tests.chart.rendering import containers, render


@pytest.mark.parametrize(("gateway", "namespace"), [({}, ""), ({"defaultNamespace": "speech"}, "speech")])
def test_whose_objects_bare_names_mean_first(gateway: dict[str, str], namespace: str) -> None:
    arguments = parse_arguments(containers(render({"gateway": gateway}))["motet-gateway"]["args"])
    assert arguments.default_namespace == namespace

"""lorax-client, unmodified and from its own environment, against the gateway and against a runtime pod."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from demo_lib.material import lorax_python
from motet_api.names import SERVING_PORT
from tests.e2e.objects import adapter, model_deployment, source
from tests.e2e.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


PROGRAM = Path(__file__).parents[1] / "lorax_client_check.py"


@pytest.fixture(scope="module", autouse=True)
def served(world: World) -> None:
    """A model with one adapter."""
    world.apply(model_deployment(world.namespace, "tiny"))
    world.apply(adapter(world.namespace, "voice", "tiny", {"v1": source("voice-1")}))
    world.wait_ready("mdep/tiny", "lora/voice")


def check(world: World, url: str, adapter_name: str, *headers: str) -> None:
    """Every way of asking that the client has gives one answer, which is the OpenAI API's."""
    command = [str(lorax_python()), str(PROGRAM), url, adapter_name, *headers]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    for name, model in {"base": "tiny", "adapter": "voice"}.items():
        assert world.ask(model, prompt=found["prompt"], tokens=found["tokens"]).text == found[name]


def test_against_the_gateway(world: World) -> None:
    check(world, world.url, f"{world.namespace}/voice", f"x-motet-model={world.namespace}/tiny")


def test_against_a_runtime_pod(world: World) -> None:
    (pod,) = world.pods("tiny")
    port = world.installation.cluster.forward(f"{pod['status']['podIP']}:{SERVING_PORT}")
    check(world, f"http://127.0.0.1:{port}", "voice@v1")

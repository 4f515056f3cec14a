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


@pytest.fixture(scope="module")
def texts(world: World) -> dict[str, str]:
    """What the OpenAI API answers, for comparison."""
    world.apply(model_deployment(world.namespace, "tiny"))
    world.apply(adapter(world.namespace, "voice", "tiny", {"v1": source("voice-1")}))
    world.wait_ready("mdep/tiny", "lora/voice")
    found = {"base": world.ask("tiny").text, "adapter": world.ask("voice").text}
    assert found["base"] != found["adapter"]
    return found


def session(url: str, model: str, adapter_name: str) -> dict[str, Any]:
    """Run the client's program."""
    program = Path(__file__).parent / "lorax_session.py"
    command = [str(lorax_python()), str(program), url, model, adapter_name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(found: dict[str, Any], texts: dict[str, str]) -> None:
    """Every way of asking gives the same answer."""
    for name, text in texts.items():
        ways = {way: found[f"{name} {way}"] for way in ("sync", "stream", "async", "async stream")}
        assert ways == dict.fromkeys(ways, text)
        reason, generated, listed = found[f"{name} details"]
        assert reason in {"length", "eos_token"}
        assert generated == listed == found[f"{name} stream tokens"]
    assert "nobody-has-this" in found["unknown adapter"]


def test_against_the_gateway(world: World, texts: dict[str, str]) -> None:
    check(session(world.url, f"{world.namespace}/tiny", f"{world.namespace}/voice"), texts)


def test_against_a_runtime_pod(world: World, texts: dict[str, str]) -> None:
    (pod,) = world.pods("tiny")
    port = world.installation.cluster.forward(f"{pod['status']['podIP']}:{SERVING_PORT}")
    check(session(f"http://127.0.0.1:{port}", "tiny", "voice@v1"), texts)

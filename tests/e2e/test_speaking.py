"""What kubectl shows and waits for, and that applying a file again changes nothing."""

import json
import re

import pytest

from motet_api.reasons import AdapterReason
from tests.e2e.objects import CLAIM, Manifest, adapter, model_deployment, source
from tests.e2e.world import World, condition
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROLLOUT = {"steps": [{"weight": 50, "bakeSeconds": 3600}], "action": "Pause"}


@pytest.fixture(scope="module")
def files(world: World) -> list[Manifest]:
    """What was applied: a model, a sound adapter, one whose second version is held at a step, and a broken one."""
    two = {"v1": source("voice-1"), "v2": source("voice-2")}
    manifests = [
        model_deployment(world.namespace, "tiny"),
        adapter(world.namespace, "good", "tiny", {"v1": source("voice-3")}),
        adapter(world.namespace, "moving", "tiny", {"v1": source("voice-1")}),
        adapter(world.namespace, "broken", "tiny", {"v1": source("truncated")}),
    ]
    world.apply(*manifests)
    world.wait_ready("mdep/tiny", "lora/good", "lora/moving")
    manifests[2] = adapter(world.namespace, "moving", "tiny", two, {"v2": 1}, rollout=ROLLOUT)
    world.apply(manifests[2])

    def traffic() -> str:
        return str(world.read("lora", "moving")["status"]["summary"]["traffic"])

    eventually(traffic, "v2=50 v1=50".__eq__, 30, "the step")
    broken = AdapterReason.CORRUPT_WEIGHTS
    eventually(lambda: condition(world.read("lora", "broken"), "Ready")["reason"], broken.__eq__, 30, "the reason")
    return manifests


def rows(text: str) -> list[dict[str, str]]:
    """The rows of what kubectl prints, by column."""
    head, *lines = text.rstrip("\n").split("\n")
    starts = [found.start() for found in re.finditer(r"\S+", head)]
    names = head.split()
    ends = [*starts[1:], None]
    return [
        {name: line[start:end].strip() for name, start, end in zip(names, starts, ends, strict=True)} for line in lines
    ]


@pytest.mark.usefixtures("files")
def test_columns_of_models(world: World) -> None:
    (row,) = rows(world.kubectl("get", "mdep"))
    assert row.pop("AGE")
    assert row == {
        "NAME": "tiny",
        "READY": "True",
        "UP": "1/1",
        "ADAPTERS": "3/4",
        "ENGINE": "Motet",
        "MODEL": f"pvc://{CLAIM}/llama",
        "REASON": "Ready",
    }


@pytest.mark.usefixtures("files")
def test_columns_of_adapters(world: World) -> None:
    shown = {row["NAME"]: row for row in rows(world.kubectl("get", "lora"))}
    told = ("READY", "MODEL", "TRAFFIC", "VERSIONS", "ROLLOUT", "REASON")
    assert {name: tuple(row[column] for column in told) for name, row in shown.items()} == {
        "good": ("True", "tiny", "v1=100", "1/1", "", "Ready"),
        "moving": ("False", "tiny", "v2=50 v1=50", "2/2", "step 1/1 50%", "Paused"),
        "broken": ("False", "tiny", "", "0/1", "", "CorruptWeights"),
    }
    wide = {row["NAME"]: row["MESSAGE"] for row in rows(world.kubectl("get", "lora", "-o", "wide"))}
    assert "adapter_model.safetensors" in wide["broken"]
    assert {line.partition("/")[0] for line in world.kubectl("get", "motet", "-o", "name").split()} == {
        "loraadapter.motet.dev",
        "modeldeployment.motet.dev",
    }


@pytest.mark.usefixtures("files")
def test_kubectl_waits_for_ready_and_for_reasons(world: World) -> None:
    world.kubectl("wait", "mdep/tiny", "lora/good", "--for=condition=Ready", "--timeout=10s")
    world.kubectl("wait", "lora/broken", "--for=condition=Stalled", "--timeout=10s")
    world.kubectl("wait", "lora/moving", "--for=condition=RolledOut=False", "--timeout=10s")
    late = world.kubectl("wait", "lora/broken", "--for=condition=Ready", "--timeout=1s", check=False)
    assert "timed out" in late


@pytest.mark.usefixtures("files")
def test_describe_tells_why(world: World) -> None:
    """The reason stands in the conditions and in an Event, with what to look at."""
    text = world.kubectl("describe", "lora", "broken")
    conditions, _, events = text.partition("Events:")
    for part in (conditions, events):
        assert AdapterReason.CORRUPT_WEIGHTS in part
        assert "adapter_model.safetensors" in part


def test_applying_the_same_again_changes_nothing(world: World, files: list[Manifest]) -> None:
    names = [(manifest["kind"].lower(), manifest["metadata"]["name"]) for manifest in files]

    def versions() -> list[tuple[int, str]]:
        read = [json.loads(world.kubectl("get", kind, name, "-o", "json"))["metadata"] for kind, name in names]
        return [(metadata["generation"], metadata["resourceVersion"]) for metadata in read]

    before = versions()
    world.apply(*files)
    assert versions() == before
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": files})
    world.kubectl("apply", "--server-side", "--field-manager=gitops", "-f", "-", stdin=document)
    once = versions()
    assert [generation for generation, _ in once] == [generation for generation, _ in before]
    world.kubectl("apply", "--server-side", "--field-manager=gitops", "-f", "-", stdin=document)
    assert versions() == once


def test_what_the_schema_does_not_know_is_dropped(world: World, files: list[Manifest]) -> None:
    """A file written for a newer version of the definitions can be applied, where whoever applies it says so."""
    newer = json.loads(json.dumps(files[1]))
    newer["metadata"]["name"] = "newer"
    newer["spec"]["warmth"] = 3
    document = json.dumps(newer)
    assert "unknown field" in world.kubectl("apply", "-f", "-", stdin=document, check=False)
    world.kubectl("apply", "--validate=false", "-f", "-", stdin=document)
    assert "warmth" not in world.read("lora", "newer")["spec"]
    world.wait_ready("lora/newer")
    world.kubectl("delete", "lora", "newer")

"""Wrong objects are refused by the API server itself, each with a message that names the field and the remedy."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from demo_lib.installation import Installation
from tests.e2e.objects import Manifest, adapter, model_deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NAMESPACE = "e2e-admission"
DIGEST = "sha256:" + "0" * 64
HTTP = {"uri": "https://adapters.example/voice", "digest": DIGEST}
ONE = {"v1": {"uri": "pvc://adapters/voice/v1"}}
TWO = {**ONE, "v2": {"uri": "pvc://adapters/voice/v2"}}
SCALING = {"minReplicas": 1, "maxReplicas": 4, "targetQueueDepth": 8}


def lora(**changes: Any) -> Manifest:
    """A LoraAdapter with two versions; `changes` go into its spec."""
    made = adapter(NAMESPACE, "voice", "nobody", TWO, {"v1": 90, "v2": 10})
    made["spec"] |= changes
    return made


def mdep(name: str = "tiny", **changes: Any) -> Manifest:
    """A ModelDeployment that asks for no pods; `changes` go into its spec."""
    return model_deployment(NAMESPACE, name, **{"replicas": 0, **changes})


def named(manifest: Manifest, name: str) -> Manifest:
    """The same under another name."""
    return {**manifest, "metadata": {**manifest["metadata"], "name": name}}


def versions(**sources: Manifest) -> list[Manifest]:
    """Entries of spec.versions."""
    return [{"name": name, "source": source} for name, source in sources.items()]


def split(**weights: int) -> list[Manifest]:
    """Entries of spec.traffic."""
    return [{"version": name, "weight": weight} for name, weight in weights.items()]


def without(manifest: Manifest, *path: str) -> Manifest:
    """The same without one field."""
    made = deepcopy(manifest)
    inner = made
    for part in path[:-1]:
        inner = inner[part]
    del inner[path[-1]]
    return made


CREATED: dict[str, tuple[Manifest, Manifest, tuple[str, str]]] = {
    "traffic names no version": (
        lora(traffic=split(v1=1, v3=1)),
        lora(traffic=split(v1=1, v2=1)),
        ("spec.traffic", "add the version, or drop the entry"),
    ),
    "all weights are zero": (
        lora(traffic=split(v1=0, v2=0)),
        lora(traffic=split(v1=0, v2=1)),
        ("spec.traffic", "give at least one version a weight above zero"),
    ),
    "two versions, no traffic": (
        without(lora(), "spec", "traffic"),
        without(lora(versions=versions(**ONE)), "spec", "traffic"),
        ("spec.traffic", "say which version gets which weight"),
    ),
    "a negative weight": (
        lora(traffic=split(v1=-1, v2=2)),
        lora(traffic=split(v1=1, v2=2)),
        ("spec.traffic[0].weight", "greater than or equal to 0"),
    ),
    "http without a digest": (
        lora(versions=versions(v1={"uri": HTTP["uri"]}), traffic=split(v1=1)),
        lora(versions=versions(v1=HTTP), traffic=split(v1=1)),
        ("spec.versions[0].source", "print it with 'motet-runtime digest DIR'"),
    ),
    "an unknown kind of source": (
        lora(versions=versions(v1={"uri": "ftp://host/voice"}), traffic=split(v1=1)),
        lora(versions=versions(v1={"uri": "file:///voice"}), traffic=split(v1=1)),
        ("spec.versions[0].source", "must be file:///path, pvc://CLAIM/path or http(s)://host/path"),
    ),
    "a digest that is none": (
        lora(versions=versions(v1={**HTTP, "digest": "md5:0"}), traffic=split(v1=1)),
        lora(versions=versions(v1=HTTP), traffic=split(v1=1)),
        ("spec.versions[0].source.digest", "should match '^sha256:[0-9a-f]{64}$'"),
    ),
    "two versions of one name": (
        lora(versions=[*versions(**TWO), *versions(**ONE)]),
        lora(versions=versions(**TWO)),
        ("spec.versions[2]", "Duplicate value"),
    ),
    "no versions": (
        lora(versions=[], traffic=split(v1=1)),
        lora(),
        ("spec.versions", "should have at least 1 items"),
    ),
    "a version in capitals": (
        lora(versions=versions(V1=ONE["v1"]), traffic=split(V1=1)),
        lora(versions=versions(v1=ONE["v1"]), traffic=split(v1=1)),
        ("spec.versions[0].name", "should match"),
    ),
    "an adapter name that is too long": (
        named(lora(), "v" * 64),
        named(lora(), "v" * 63),
        ("metadata.name", "at most 63 characters"),
    ),
    "a model name that is too long": (mdep("m" * 53), mdep("m" * 52), ("metadata.name", "at most 52 characters")),
    "a model name with a dot": (mdep("llama.8b"), mdep("llama-8b"), ("metadata.name", "no dot")),
    "a minimum above the maximum": (
        mdep(autoscaling={**SCALING, "minReplicas": 5}),
        mdep(autoscaling=SCALING),
        ("spec.autoscaling.minReplicas", "lower the one or raise the other"),
    ),
    "autoscaling without a maximum": (
        mdep(autoscaling=without(SCALING, "maxReplicas")),
        mdep(autoscaling=SCALING),
        ("spec.autoscaling.maxReplicas", "Required value"),
    ),
    "a target of nothing": (
        mdep(autoscaling={**SCALING, "targetQueueDepth": 0}),
        mdep(autoscaling=SCALING),
        ("spec.autoscaling.targetQueueDepth", "greater than or equal to 1"),
    ),
    "a base from somewhere else": (
        mdep(model={"source": {"uri": "hf://meta/llama"}}),
        mdep(model={"source": {"uri": "file:///models/llama"}}),
        ("spec.model.source", "must be file:///path (inside the runtime pod) or pvc://CLAIM/path"),
    ),
    "a type of weights that there is not": (
        mdep(model={"source": {"uri": "pvc://m/llama"}, "dtype": "Int4"}),
        mdep(model={"source": {"uri": "pvc://m/llama"}, "dtype": "BFloat16"}),
        ("spec.model.dtype", 'supported values: "Auto", "Float32", "BFloat16", "Float16"'),
    ),
    "fewer than no pods": (mdep(replicas=-1), mdep(replicas=0), ("spec.replicas", "greater than or equal to 0")),
    "a pull policy that there is not": (
        mdep(template={"imagePullPolicy": "Sometimes"}),
        mdep(template={"imagePullPolicy": "Always"}),
        ("spec.template.imagePullPolicy", "should match '^(Always|IfNotPresent|Never)$'"),
    ),
    "a claim that cannot be one": (
        mdep(adapters={"claimNames": ["My_Claim"]}),
        mdep(adapters={"claimNames": ["my-claim"]}),
        ("spec.adapters.claimNames[0]", "should match"),
    ),
    "a field that is misspelt": (mdep(replica=1), mdep(replicas=0), ("spec.replica", "unknown field")),
}

CHANGED: dict[str, tuple[Manifest, Manifest, tuple[str, str]]] = {
    "a version's source": (
        lora(versions=versions(v1={"uri": "pvc://adapters/voice/other"}, v2=TWO["v2"])),
        lora(versions=versions(**TWO, v3={"uri": "pvc://adapters/voice/other"})),
        ("spec.versions[0].source", "add a new version instead and shift spec.traffic to it"),
    ),
    "a digest added to a version": (
        lora(versions=versions(v1={**ONE["v1"], "digest": DIGEST}, v2=TWO["v2"])),
        lora(versions=versions(v1=ONE["v1"], v2=TWO["v2"])),
        ("spec.versions[0].source", "immutable"),
    ),
    "the model": (
        lora(modelRef={"name": "other"}),
        lora(modelRef={"name": "nobody"}),
        ("spec.modelRef", "create another LoraAdapter for another ModelDeployment"),
    ),
    "a version removed that has traffic": (
        lora(versions=versions(**ONE)),
        lora(versions=versions(**ONE), traffic=split(v1=1)),
        ("spec.traffic", "add the version, or drop the entry"),
    ),
}


class Admission:
    """Asks the API server what it would say; nothing is stored."""

    def __init__(self, installation: Installation) -> None:
        self._kubectl = installation.cluster.kubectl

    def says(self, verb: str, manifest: Manifest) -> str:
        """What kubectl prints."""
        return self._kubectl(verb, "--dry-run=server", "-f", "-", stdin=json.dumps(manifest), check=False)


@pytest.fixture(scope="module")
def admission(installation: Installation) -> Iterator[Admission]:
    """A namespace with the LoraAdapter that the changes are made to."""
    kubectl = installation.cluster.kubectl
    kubectl("create", "namespace", NAMESPACE)
    kubectl("apply", "-f", "-", stdin=json.dumps(named(lora(), "stored")))
    yield Admission(installation)
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.mark.parametrize(("wrong", "right", "message"), CREATED.values(), ids=CREATED)
def test_new_objects(admission: Admission, wrong: Manifest, right: Manifest, message: tuple[str, str]) -> None:
    refusal = admission.says("create", wrong)
    assert "created" not in refusal
    for part in message:
        assert part in refusal
    assert "created (server dry run)" in admission.says("create", right)


@pytest.mark.parametrize(("wrong", "right", "message"), CHANGED.values(), ids=CHANGED)
def test_changes(admission: Admission, wrong: Manifest, right: Manifest, message: tuple[str, str]) -> None:
    refusal = admission.says("apply", named(wrong, "stored"))
    assert "configured" not in refusal
    for part in message:
        assert part in refusal
    accepted = admission.says("apply", named(right, "stored"))
    assert "configured (server dry run)" in accepted or "unchanged (server dry run)" in accepted

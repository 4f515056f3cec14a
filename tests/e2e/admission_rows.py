"""Objects that the API server refuses, each beside the nearest one that it takes, and what the refusal must say.

Every rule of the CRDs has a row; a test without a cluster walks the CRDs and looks for it.
"""

from copy import deepcopy
from typing import Any

from tests.e2e.objects import Manifest, adapter, model_deployment

Row = tuple[Manifest, Manifest, tuple[str, str]]
"""The wrong object, the right one, and the refusal's words: the field, and the remedy."""

NAMESPACE = "e2e-admission"
DIGEST = "sha256:" + "0" * 64
HTTP = {"uri": "https://adapters.example/voice", "digest": DIGEST}
ONE = {"v1": {"uri": "pvc://adapters/voice/v1"}}
TWO = {**ONE, "v2": {"uri": "pvc://adapters/voice/v2"}}
HF = {"v3": {"uri": "hf://org/voice"}}
FORMS = "must be file:///path, pvc://CLAIM/path, hf://org/name, s3://bucket/path"
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


def one_source(**source: Any) -> Manifest:
    """A LoraAdapter of one version."""
    return lora(versions=versions(v1=source), traffic=split(v1=1))


def rollout(*weights: int, **more: Any) -> Manifest:
    """spec.rollout with a step of each weight."""
    return {"steps": [{"weight": weight, "bakeSeconds": 1} for weight in weights], **more}


def status_of(**source: Any) -> Manifest:
    """A status that has one version of such a source."""
    return {"status": {"versions": [{"name": "v1", "source": source, "conditions": []}]}}


def without(manifest: Manifest, *path: str) -> Manifest:
    """The same without one field."""
    made = deepcopy(manifest)
    inner = made
    for part in path[:-1]:
        inner = inner[part]
    del inner[path[-1]]
    return made


CREATED: dict[str, Row] = {
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
    "an unknown kind of source": (
        one_source(uri="ftp://host/voice"),
        one_source(uri="oci://registry/voice:v1"),
        ("spec.versions[0].source.uri", FORMS),
    ),
    "a bucket without a path": (
        one_source(uri="s3://bucket"),
        one_source(uri="s3://bucket/voice"),
        ("spec.versions[0].source.uri", FORMS),
    ),
    "a revision of what has none": (
        one_source(uri="s3://bucket/voice", revision="main"),
        one_source(uri="hf://org/voice", revision="main"),
        ("spec.versions[0].source.revision", "must not be given but with hf://"),
    ),
    "credentials for a claim": (
        one_source(uri="pvc://adapters/voice", secretRef={"name": "key"}),
        one_source(uri="s3://bucket/voice", secretRef={"name": "key"}),
        ("spec.versions[0].source.secretRef", "must not be given but with hf://, s3://"),
    ),
    "a mirror to no version": (
        lora(mirror=[{"version": "v3", "percent": 5}]),
        lora(mirror=[{"version": "v2", "percent": 5}]),
        ("spec.mirror", "add the version, or drop the entry"),
    ),
    "a mirror of more than all": (
        lora(mirror=[{"version": "v2", "percent": 101}]),
        lora(mirror=[{"version": "v2", "percent": 100}]),
        ("spec.mirror[0].percent", "less than or equal to 100"),
    ),
    "steps that go back": (
        lora(rollout=rollout(50, 10)),
        lora(rollout=rollout(10, 50)),
        ("spec.rollout.steps", "order them by weight"),
    ),
    "agreement without copies": (
        lora(rollout=rollout(10, limits={"agreementPercent": 90})),
        lora(rollout=rollout(10, limits={"agreementPercent": 90}, mirrorPercent=5)),
        ("spec.rollout.mirrorPercent", "rollout.mirrorPercent must be above zero"),
    ),
    "drift without copies": (
        lora(rollout=rollout(10, limits={"scoreDriftPercent": 5}, mirrorPercent=0)),
        lora(rollout=rollout(10, limits={"errorPercent": 5}, mirrorPercent=0)),
        ("spec.rollout.mirrorPercent", "rollout.mirrorPercent must be above zero"),
    ),
    "limits at a step without requests": (
        lora(rollout=rollout(0, 50, limits={"errorPercent": 5})),
        lora(rollout=rollout(0, 50, limits={"errorPercent": 5}, mirrorPercent=5)),
        ("spec.rollout.mirrorPercent", "or drop the step"),
    ),
    "a rollout of no steps": (
        lora(rollout=rollout()),
        lora(rollout=rollout(100)),
        ("spec.rollout.steps", "should have at least 1 items"),
    ),
    "an order that there is not": (
        lora(rollout=rollout(10, action="Stop")),
        lora(rollout=rollout(10, action="Pause")),
        ("spec.rollout.action", 'supported values: "Run", "Pause", "Promote", "Abort"'),
    ),
    "a residency that there is not": (
        lora(residency="Sometimes"),
        lora(residency="OnDemand"),
        ("spec.residency", 'supported values: "Required", "Preferred", "OnDemand"'),
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
        mdep(model={"source": {"uri": "ftp://host/llama"}}),
        mdep(model={"source": {"uri": "hf://meta/llama"}}),
        ("spec.model.source.uri", FORMS),
    ),
    "a type of weights that there is not": (
        mdep(model={"source": {"uri": "pvc://m/llama"}, "dtype": "Int4"}),
        mdep(model={"source": {"uri": "pvc://m/llama"}, "dtype": "BFloat16"}),
        ("spec.model.dtype", 'supported values: "Auto", "Float32", "BFloat16", "Float16"'),
    ),
    "a revision of a base that has none": (
        mdep(model={"source": {"uri": "oci://registry/llama:1", "revision": "main"}}),
        mdep(model={"source": {"uri": "hf://meta/llama", "revision": "main"}}),
        ("spec.model.source.revision", "must not be given but with hf://"),
    ),
    "a digest that nobody would check": (
        mdep(model={"source": {"uri": "pvc://models/llama", "digest": DIGEST}}),
        mdep(model={"source": {"uri": "s3://models/llama", "digest": DIGEST}}),
        ("spec.model.source.digest", "must not be given with file:// and pvc://"),
    ),
    "credentials for a base in a claim": (
        mdep(model={"source": {"uri": "pvc://models/llama", "secretRef": {"name": "key"}}}),
        mdep(model={"source": {"uri": "hf://meta/llama", "secretRef": {"name": "key"}}}),
        ("spec.model.source.secretRef", "must not be given but with hf://, s3://"),
    ),
    "namespaces by a selector that is missing": (
        mdep(adapters={"allowedNamespaces": {"from": "Selector"}}),
        mdep(adapters={"allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}}),
        ("spec.adapters.allowedNamespaces.selector", "required with from: Selector"),
    ),
    "a selector of all namespaces": (
        mdep(adapters={"allowedNamespaces": {"from": "All", "selector": {"matchLabels": {"team": "a"}}}}),
        mdep(adapters={"allowedNamespaces": {"from": "All"}}),
        ("spec.adapters.allowedNamespaces.selector", "must not be given otherwise"),
    ),
    "weights on the nodes that nobody fetches": (
        mdep(startup={"prefetch": {"weights": "NodeLocal"}}),
        mdep(model={"source": {"uri": "hf://meta/llama"}}, startup={"prefetch": {"weights": "NodeLocal"}}),
        ("spec.startup.prefetch.weights", "model.source must be one that is fetched"),
    ),
    "vLLM without an image": (
        mdep(engine={"type": "VLLM"}),
        mdep(engine={"type": "VLLM"}, template={"image": "vllm:1"}),
        ("spec.template.image", "name an image of vLLM's OpenAI server"),
    ),
    "an engine that there is not": (
        mdep(engine={"type": "Other"}),
        mdep(engine={"type": "Motet"}),
        ("spec.engine.type", 'supported values: "Motet", "VLLM"'),
    ),
    "memory without a unit": (
        mdep(adapters={"hostMemory": "16"}),
        mdep(adapters={"hostMemory": "16Mi"}),
        ("spec.adapters.hostMemory", "should match"),
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

CHANGED: dict[str, Row] = {
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
    "a version moved to another model": (
        lora(versions=[{**versions(**ONE)[0], "modelRef": {"name": "other"}}, *versions(v2=TWO["v2"])]),
        lora(versions=[*versions(**TWO), {**versions(**HF)[0], "modelRef": {"name": "other"}}]),
        ("spec.versions[0].modelRef", "a version's modelRef is immutable"),
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


STATUS: dict[str, Row] = {
    "a source of no kind": (
        status_of(uri="ftp://host/voice"),
        status_of(uri="pvc://adapters/voice"),
        ("status.versions[0].source.uri", FORMS),
    ),
    "a revision of what has none": (
        status_of(uri="s3://bucket/voice", revision="main"),
        status_of(uri="hf://org/voice", revision="main"),
        ("status.versions[0].source.revision", "must not be given but with hf://"),
    ),
    "credentials for a claim": (
        status_of(uri="pvc://adapters/voice", secretRef={"name": "key"}),
        status_of(uri="s3://bucket/voice", secretRef={"name": "key"}),
        ("status.versions[0].source.secretRef", "must not be given but with hf://, s3://"),
    ),
}
"""What the operator itself must not write: the rules hold below status as well."""

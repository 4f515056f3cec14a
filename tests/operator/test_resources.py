"""What a ModelDeployment becomes."""

import re
from typing import Any

import pytest
from kubernetes.client import models

from motet_api.names import MODEL_LABEL
from motet_operator.keys import CHILDREN, Kind
from motet_operator.models.resources import Manifest, digest
from tests.operator.factories import MODEL, MODEL_UID, NAMESPACE
from tests.operator.manifests import REMOTE, WITH_STORE, children, pod

AUTOSCALING = {"minReplicas": 1, "maxReplicas": 3, "targetQueueDepth": 4, "scaleDown": {"holdSeconds": 30}}


def container(**spec: Any) -> dict[str, Any]:
    (only,) = pod(**spec)["containers"]
    return dict(only)


ALL = children(WITH_STORE, autoscaling=AUTOSCALING, model=REMOTE, startup={"prefetch": {"image": "AllNodes"}})


def test_all_kinds_of_children_in_the_order_in_which_they_are_needed() -> None:
    assert tuple(ALL) == CHILDREN


@pytest.mark.parametrize(("kind", "manifest"), ALL.items())
def test_every_child_is_named_labelled_and_owned(kind: Kind, manifest: Manifest) -> None:
    metadata = manifest["metadata"]
    assert manifest["kind"] == kind
    name = f"{MODEL}-prefetch" if kind is Kind.PREFETCHER else MODEL
    assert (metadata["name"], metadata["namespace"], metadata["labels"][MODEL_LABEL]) == (name, NAMESPACE, MODEL)
    (owner,) = metadata["ownerReferences"]
    assert (owner["uid"], owner["controller"], owner["kind"]) == (MODEL_UID, True, "ModelDeployment")


def test_no_autoscaler_without_autoscaling() -> None:
    assert Kind.AUTOSCALER not in children()
    assert Kind.AUTOSCALER in children(autoscaling=AUTOSCALING)


def test_the_autoscaler_scales_the_model_by_its_queue() -> None:
    spec = children(autoscaling=AUTOSCALING)[Kind.AUTOSCALER]["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "motet.dev/v1alpha1", "kind": "ModelDeployment", "name": MODEL}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 3)
    (metric,) = spec["metrics"]
    assert metric["object"]["describedObject"] == spec["scaleTargetRef"]
    assert metric["object"]["metric"] == {"name": "motet_queue_depth"}
    assert metric["object"]["target"] == {"type": "AverageValue", "averageValue": "4"}
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 30


def test_the_deployment_follows_spec_replicas_and_rolls_new_pods_first() -> None:
    spec = children(replicas=3)[Kind.DEPLOYMENT]["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_a_roll_has_time_for_images_and_weights_and_waits_for_new_pods_to_stay() -> None:
    spec = children()[Kind.DEPLOYMENT]["spec"]
    assert spec["progressDeadlineSeconds"] == 1800
    assert 0 < spec["minReadySeconds"] < 10


def test_a_drained_node_takes_one_pod_at_a_time_and_waits_for_none_that_does_not_serve() -> None:
    manifests = children()
    spec = manifests[Kind.DISRUPTION_BUDGET]["spec"]
    assert (spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    labels = manifests[Kind.DEPLOYMENT]["spec"]["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()


VLLM = {"engine": {"type": "VLLM"}, "template": {"image": "vllm:1"}}
MANIFESTS = {
    f"{engine}-{kind}": manifest
    for engine, made in (
        ("motet", ALL),
        ("vllm", children(WITH_STORE, model=REMOTE, startup={"prefetch": {"weights": "NodeLocal"}}, **VLLM)),
    )
    for kind, manifest in made.items()
}


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_kubernetes_knows_every_field(manifest: Manifest) -> None:
    """By the models of its client: a field that is misspelt would be refused, or dropped, by the API server."""
    versions = {"autoscaling/v2": "V2"}
    assert unknown(f"{versions.get(manifest['apiVersion'], 'V1')}{manifest['kind']}", manifest) == []


def unknown(kind: str, value: Any, path: str = "") -> list[str]:
    """Fields that a type of the Kubernetes client does not have, and values of a wrong shape."""
    if (inner := re.fullmatch(r"list\[(.*)\]", kind)) is not None:
        items = enumerate(value) if isinstance(value, list) else []
        wrong = [] if isinstance(value, list) else [f"{path} is no list"]
        return wrong + [text for number, item in items for text in unknown(inner[1], item, f"{path}[{number}]")]
    model = getattr(models, kind, None)
    if model is None:
        scalar = {"str": str, "int": int, "bool": bool}.get(kind)
        return [] if scalar is None or isinstance(value, scalar) else [f"{path} is no {kind}"]
    names = {wire: name for name, wire in model.attribute_map.items()}
    return [
        text
        for key, item in value.items()
        for text in (
            unknown(model.openapi_types[names[key]], item, f"{path}.{key}") if key in names else [f"{path}.{key}"]
        )
    ]


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    assert unknown("V1Service", {"spec": {"selektor": {}}}) == [".spec.selektor"]
    assert unknown("V1Deployment", {"spec": {"replicas": "2"}}) == [".spec.replicas is no int"]


def test_the_prefetchers_pods_are_its_own() -> None:
    spec = ALL[Kind.PREFETCHER]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert not ALL[Kind.SERVICE]["spec"]["selector"].items() <= labels.items()


def test_the_service_selects_the_pods_and_shows_the_serving_port_only() -> None:
    manifests = children()
    service = manifests[Kind.SERVICE]["spec"]
    labels = manifests[Kind.DEPLOYMENT]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert [(port["name"], port["port"]) for port in service["ports"]] == [("http", 8000)]


def test_the_command_line() -> None:
    spec = {
        "model": {"source": {"uri": "file:///models/x"}, "dtype": "BFloat16", "maxModelLen": 2048},
        "engine": {"maxBatchSize": 5},
        "adapters": {"maxRank": 8},
    }
    arguments = container(**spec)["args"]
    assert arguments[0] == "serve"
    assert {
        "--model=file:///models/x",
        "--model-name=llama",
        "--dtype=BFloat16",
        "--max-model-len=2048",
        "--max-batch-size=5",
        "--max-rank=8",
    } <= set(arguments)
    assert not any(argument.startswith("--max-model-len") for argument in container()["args"])


def test_draining_fits_into_the_grace_period() -> None:
    options = dict(argument.split("=", 1) for argument in container()["args"] if "=" in argument)
    draining = int(options["--drain-grace-seconds"]) + int(options["--drain-timeout-seconds"])
    assert pod()["terminationGracePeriodSeconds"] > draining


def test_claims_are_mounted_read_only_once_each() -> None:
    spec = {"adapters": {"claimNames": ["b", "models", "a"]}}
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]
        for volume in pod(**spec)["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert sorted(claim["claimName"] for claim in claims.values()) == ["a", "b", "models"]
    mounts = {mount["name"]: mount for mount in container(**spec)["volumeMounts"] if mount["name"] in claims}
    for name, claim in claims.items():
        assert mounts[name] == {
            "name": name,
            "mountPath": f"/mnt/motet/claims/{claim['claimName']}",
            "readOnly": True,
        }
        assert claim["readOnly"] is True


def test_a_model_in_the_image_needs_no_claim() -> None:
    volumes = pod(model={"source": {"uri": "file:///models/x"}})["volumes"]
    assert not any("persistentVolumeClaim" in volume for volume in volumes)


def test_the_pod_is_restricted() -> None:
    security = container()["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    spec = pod()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == MODEL
    assert {"name": "motet-tmp", "mountPath": "/tmp"} in container()["volumeMounts"]


def test_probes_answer_three_questions_on_the_admin_port() -> None:
    made = container()
    probes = {name: made[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe["port"] for probe in probes.values()} == {"admin"}
    assert [probe["path"] for probe in probes.values()] == ["/livez", "/livez", "/readyz"]
    assert made["readinessProbe"]["periodSeconds"] == 1


def test_the_users_part_of_the_pod() -> None:
    template = {
        "image": "mine:2",
        "imagePullPolicy": "Never",
        "resources": {"requests": {"cpu": 1}, "limits": {"nvidia.com/gpu": "1"}},
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu"}],
        "env": [{"name": "A", "value": "b"}],
        "volumes": [{"name": "cache", "emptyDir": {}}],
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    }
    made, spec = container(template=template), pod(template=template)
    assert (made["image"], made["imagePullPolicy"]) == ("mine:2", "Never")
    assert made["resources"] == {"requests": {"cpu": 1}, "limits": {"nvidia.com/gpu": "1"}}
    assert (spec["nodeSelector"], spec["tolerations"]) == ({"gpu": "yes"}, [{"key": "gpu"}])
    assert {"name": "A", "value": "b"} in made["env"]
    assert {"name": "cache", "emptyDir": {}} in spec["volumes"]
    assert {"name": "cache", "mountPath": "/cache"} in made["volumeMounts"]


def test_what_the_user_leaves_out_is_the_operators_default_or_absent() -> None:
    made, spec = container(), pod()
    assert (made["image"], made["imagePullPolicy"]) == ("motet-runtime:1", "IfNotPresent")
    assert not {"nodeSelector", "tolerations"} & set(spec)
    assert "resources" not in made


def test_the_pods_name_comes_from_kubernetes() -> None:
    (entry,) = [entry for entry in container()["env"] if entry["name"] == "POD_NAME"]
    assert entry["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


def test_the_digest_tells_manifests_apart_and_ignores_order() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})

"""Adapters that the store fetches: pinned, checked, refused with reasons, served whatever becomes of the store."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

import pytest

from demo_lib.installation import NAMESPACE
from localkube_lib.components import SERVICE_IP
from motet_api.errors import ErrorCode
from motet_api.identity import ADAPTER_FILES, manifest_digest
from motet_api.names import CREDENTIALS_LABEL
from motet_api.reasons import AdapterReason
from tests.e2e.asking import Load
from tests.e2e.faults import delete_runtime
from tests.e2e.looking import look
from tests.e2e.objects import Manifest, adapter
from tests.e2e.origins import Origins, origins, web_uri
from tests.e2e.readiness import is_ready, restarts
from tests.e2e.truth import Truth, references
from tests.e2e.world import World, condition
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

RATE = 8
KEYS = {"secretRef": {"name": "bucket"}}
NO_KEYS = {"secretRef": {"name": "wrong"}}


@dataclass(frozen=True, slots=True)
class Shop:
    """The world with the servers, and what each set of weights answers."""

    world: World
    origins: Origins
    texts: dict[str, str]

    def add(self, name: str, uri: str, **more: Any) -> None:
        """Apply an adapter of one version."""
        self.world.apply(self.made(name, uri, **more))

    def made(self, name: str, uri: str, **more: Any) -> Manifest:
        """An adapter of one version from somewhere."""
        return adapter(self.world.namespace, name, "tiny", {"v1": {"uri": uri, **more}})

    def digest(self, folder: str) -> str:
        """What the store must find of a folder's files."""
        path = self.world.material / folder
        return manifest_digest({name: sha256((path / name).read_bytes()).hexdigest() for name in ADAPTER_FILES})

    def version(self, name: str) -> Manifest:
        """The status of the version."""
        (found,) = self.world.read("lora", name).get("status", {}).get("versions", []) or [{"conditions": []}]
        return dict(found)

    def load(self, *names: str) -> Load:
        """Requests at a constant rate."""
        return Load(self.world.url, [f"{self.world.namespace}/{name}" for name in names], threads=6, rate=RATE)


@pytest.fixture(scope="module")
def shop(world: World) -> Iterator[Shop]:
    """Two pods, both servers, and an adapter from each."""
    cluster = world.installation.cluster
    texts = references(world, pods=2)
    with origins(cluster, cluster.paths.root / "origins") as found:
        shop = Shop(world, found, texts)
        secret(world, "bucket", found.credentials)
        secret(world, "wrong", {**found.credentials, "secretAccessKey": "another"})
        shop.add("bucket", found.into_bucket(world.material / "voice-1", "voice-1"), **KEYS)
        shop.add("web", found.onto_web(world.material / "voice-2", "voice-2"))
        world.wait_ready("lora/bucket", "lora/web", seconds=60)
        yield shop


def secret(world: World, name: str, data: dict[str, str]) -> None:
    """A Secret of the namespace that says what it is for."""
    metadata = {"name": name, "labels": {CREDENTIALS_LABEL: "true"}}
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}
    world.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


SERVED = {"bucket": "voice-1", "web": "voice-2"}


@pytest.mark.parametrize(("name", "folder"), SERVED.items())
def test_what_it_fetches_is_served_and_pinned(shop: Shop, name: str, folder: str) -> None:
    assert shop.world.served(name).text == shop.texts[folder]
    assert shop.version(name)["digest"] == shop.digest(folder)

    def said() -> dict[str, str]:
        return {entry["type"]: entry["status"] for entry in shop.version(name)["conditions"]}

    all_true = dict.fromkeys(("Resolved", "Verified", "Compatible", "Resident"), "True")
    eventually(said, all_true.__eq__, 10, "every condition of the version")


def test_a_source_that_changes_does_not_change_the_version(shop: Shop) -> None:
    """Its address now has other weights; a pod that comes new gets those that were resolved first."""
    uri = shop.origins.onto_web(shop.world.material / "voice-3", "moving")
    shop.add("moving", uri)
    shop.world.wait_ready("lora/moving")
    shop.world.served("moving")
    shop.origins.onto_web(shop.world.material / "voice-1", "moving")
    with shop.load("moving") as load:
        new_pod_holds(shop, "moving@v1")
        more(load)
    assert load.failed == []
    assert Truth({"v1": shop.texts["voice-3"]}).wrong(load.answers) == []
    assert shop.version("moving")["digest"] == shop.digest("voice-3")
    shop.world.kubectl("delete", "lora", "moving")


def new_pod_holds(shop: Shop, version: str) -> None:
    """Delete a pod, and wait until the one in its place is ready and serves a version."""
    before = {pod["metadata"]["name"] for pod in shop.world.pods("tiny")}
    delete_runtime(shop.world)

    def new() -> list[str]:
        ready = {pod["metadata"]["name"] for pod in shop.world.pods("tiny") if is_ready(pod)} - before
        return [seen.pod for seen in look(shop.world, "tiny") if seen.pod in ready and seen.resident(version)]

    eventually(new, bool, 60, f"a new pod with {version}")


def more(load: Load) -> None:
    """Let the load go on for a while."""
    until = len(load.answers) + 2 * RATE
    eventually(lambda: len(load.answers), until.__le__, 30, "more answers")


WRONG = "sha256:" + "0" * 64
REFUSED: dict[str, tuple[str, dict[str, Any], AdapterReason]] = {
    "other-bytes": (web_uri("voice-2"), {"digest": WRONG}, AdapterReason.DIGEST_MISMATCH),
    "nowhere": (web_uri("nowhere"), {}, AdapterReason.SOURCE_NOT_FOUND),
    "no-bucket": ("s3://nobody/voice", KEYS, AdapterReason.SOURCE_NOT_FOUND),
    "no-rights": ("s3://adapters/voice-1", NO_KEYS, AdapterReason.SOURCE_FORBIDDEN),
    "no-secret": ("s3://adapters/voice-1", {"secretRef": {"name": "none"}}, AdapterReason.SECRET_NOT_FOUND),
    "pickle": (web_uri("pickle"), {}, AdapterReason.SOURCE_NOT_FOUND),
    "cut-off": (web_uri("truncated"), {}, AdapterReason.CORRUPT_WEIGHTS),
    "other-base": (web_uri("other-base"), {}, AdapterReason.BASE_MISMATCH),
    "high-rank": (web_uri("rank-32"), {}, AdapterReason.RANK_TOO_LARGE),
    "too-large": (web_uri("large"), {}, AdapterReason.TOO_LARGE),
    "inside": (f"http://{SERVICE_IP}/voice", {}, AdapterReason.SOURCE_NOT_ALLOWED),
    "metadata": ("http://169.254.169.254/latest", {}, AdapterReason.SOURCE_NOT_ALLOWED),
}


def reason_of(shop: Shop, name: str) -> str:
    """Why an adapter is not ready."""
    return str(condition(shop.world.read("lora", name), "Ready")["reason"])


def test_what_is_wrong_is_refused_with_a_reason_while_others_serve(shop: Shop) -> None:
    world = shop.world
    for folder in ("pickle", "truncated", "other-base", "rank-32"):
        shop.origins.onto_web(world.material / folder, folder)
    shop.origins.onto_web(world.material / "voice-1", "large")
    weights = shop.origins.web / "adapters" / "large" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0" * (9 << 20))
    with shop.load(*SERVED) as load:
        world.apply(*(shop.made(name, uri, **more) for name, (uri, more, _) in REFUSED.items()))
        for name, (_, _, reason) in REFUSED.items():
            eventually(partial(reason_of, shop, name), reason.__eq__, 60, f"{name}'s reason")
    assert load.failed == []
    for name in SERVED:
        own = [answer for answer in load.answers if answer.model.endswith(f"/{name}")]
        assert Truth({"v1": shop.texts[SERVED[name]]}).wrong(own) == []


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_one_says_so_everywhere(shop: Shop, name: str) -> None:
    """In a condition of the version that is False and one that is Ready's, in an Event, and to whoever asks for it."""
    reason = REFUSED[name][2]
    said = {entry["type"]: entry for entry in shop.version(name)["conditions"]}
    assert reason in {entry["reason"] for entry in said.values() if entry["status"] == "False"}
    assert said["Resident"]["status"] == "False"
    assert condition(shop.world.read("lora", name), "Ready")["message"]
    events = shop.world.get("/apis/events.k8s.io/v1/namespaces/{}/events")["items"]
    mine = [event for event in events if event["regarding"]["name"] == name and event["type"] == "Warning"]
    assert reason in {event["reason"] for event in mine}
    answer = shop.world.ask(f"{name}@v1")
    assert (answer.status, answer.code) == (503, ErrorCode.ADAPTER_NOT_READY)


def store_pod(shop: Shop) -> Manifest:
    """The store's pod."""
    return shop.world.system_pod("store")


def test_the_store_is_killed_and_loses_its_disk(shop: Shop) -> None:
    """Killed it has what it had; with its pod its disk goes. New runtime pods get their adapters all the same."""
    world = shop.world
    world.kubectl("delete", "lora", *REFUSED, "--ignore-not-found")
    with shop.load(*SERVED) as load:
        pod = store_pod(shop)
        world.kill_container(pod)
        eventually(lambda: restarts(store_pod(shop)), (restarts(pod) + 1).__eq__, 30, "the store again")
        new_pod_holds(shop, "bucket@v1")
        old = store_pod(shop)["metadata"]["name"]
        world.installation.cluster.kubectl("-n", NAMESPACE, "delete", "pod", old, "--wait=false")
        new_pod_holds(shop, "web@v1")
        eventually(lambda: is_ready(store_pod(shop)), bool, 60, "another store")
        world.wait_ready(*(f"lora/{name}" for name in SERVED), "mdep/tiny")
        more(load)
    assert load.failed == []
    for name, folder in SERVED.items():
        own = [answer for answer in load.answers if answer.model.endswith(f"/{name}")]
        assert Truth({"v1": shop.texts[folder]}).wrong(own) == []
    assert shop.version("bucket")["digest"] == shop.digest("voice-1")


def test_a_broken_policy_changes_nothing(shop: Shop) -> None:
    """The ConfigMap says what is no policy: the one before stays in force, and what is new is served by it."""
    kubectl = shop.world.installation.cluster.kubectl
    name = ("-n", NAMESPACE, "configmap", "motet-policy")
    before = json.loads(kubectl("get", *name, "-o", "json"))["data"]
    try:
        set_policy(shop, "privateNetworks: [everywhere]")
        told = "is no policy"
        eventually(lambda: logs(shop, "operator"), lambda text: told in text, 120, "the operator's complaint")
        shop.add("newcomer", web_uri("voice-2"))
        shop.world.wait_ready("lora/newcomer")
        assert shop.world.served("newcomer").text == shop.texts["voice-2"]
    finally:
        set_policy(shop, before["policy.yaml"])
    assert all(is_ready(pod) for pod in system_pods(shop, "operator"))


def set_policy(shop: Shop, text: str) -> None:
    """Write the policy; kubelet brings it to a pod sooner when the pod itself changes."""
    kubectl = shop.world.installation.cluster.kubectl
    change = json.dumps({"data": {"policy.yaml": text}})
    kubectl("-n", NAMESPACE, "patch", "configmap", "motet-policy", "--type=merge", f"--patch={change}")
    stamp = f"e2e/policy={sha256(text.encode()).hexdigest()[:8]}"
    kubectl("-n", NAMESPACE, "annotate", "pods", "-l", "app.kubernetes.io/name=motet", "--overwrite", stamp)


def system_pods(shop: Shop, component: str) -> list[Manifest]:
    """The pods of one of the chart's parts."""
    selector = f"labelSelector=app.kubernetes.io/component%3D{component}"
    found: list[Manifest] = shop.world.get(f"/api/v1/namespaces/{NAMESPACE}/pods?{selector}")["items"]
    return found


def logs(shop: Shop, component: str) -> str:
    """What the part has logged lately."""
    selector = f"app.kubernetes.io/component={component}"
    return shop.world.installation.cluster.kubectl("-n", NAMESPACE, "logs", "-l", selector, "--tail=500")

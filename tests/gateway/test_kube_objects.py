"""From the API server's objects to the table."""

from motet_gateway.kube_cache import ObjectCache
from motet_gateway.kube_objects import Kind
from motet_gateway.table import Adapter, Mirror, ObjectKey, Share, Source, Table
from tests.gateway.kube_samples import Object, endpoint_slice, lora_adapter, model_deployment, version_status

DIGEST = "sha256:" + "1" * 64
OTHER_DIGEST = "sha256:" + "2" * 64


def table_of(*slices: Object, adapters: tuple[Object, ...] = ()) -> Table:
    cache = ObjectCache()
    cache.replace(Kind.MODEL_DEPLOYMENT, None, [model_deployment()])
    cache.replace(Kind.LORA_ADAPTER, None, adapters)
    cache.replace(Kind.ENDPOINT_SLICE, None, slices)
    return cache.table()


def pods(table: Table) -> dict[str, tuple[str, bool]]:
    return {pod.key.name: (pod.address, pod.ready) for pod in table.all_pods()}


def test_a_model_brings_the_bounds_of_its_queue() -> None:
    cache = ObjectCache()
    cache.put(Kind.MODEL_DEPLOYMENT, model_deployment(maxRequests=5, maxWaitSeconds=7))
    model = cache.table().models[ObjectKey("default", "tiny")]
    assert (model.max_requests, model.max_wait_seconds, model.created) == (5, 7, 1767323045)


def test_the_split_is_that_of_status() -> None:
    table = table_of(adapters=(lora_adapter(versions=("v1", "v2"), traffic={"v1": 3}), lora_adapter("fresh")))
    churn, fresh = table.adapters.values()
    assert (churn.versions, churn.traffic) == (("v1", "v2"), (Share("v1", 3),))
    assert fresh.traffic == ()


def parsed(obj: Object) -> Adapter:
    (found,) = table_of(adapters=(obj,)).adapters.values()
    return found


def test_a_version_that_has_left_spec_is_served_while_status_lists_it() -> None:
    elsewhere = version_status("v0", modelRef={"name": "old", "namespace": "models"})
    leaving = parsed(lora_adapter(versions=["v2"], traffic={"v0": 1, "v1": 1}, known=[version_status("v1"), elsewhere]))
    assert leaving.versions == ("v2", "v1", "v0")
    assert leaving.sources["v1"] == Source("file:///v1")
    assert [str(leaving.model_of(version)) for version in leaving.versions] == [
        *("default/tiny", "default/tiny", "models/old")
    ]
    gone = parsed(lora_adapter(versions=["v2"], traffic={"v1": 1}))
    assert gone.versions == ("v2",), "traffic alone does not say what the version is"


def test_the_digest_that_status_found_counts_for_the_source_it_was_found_for() -> None:
    found = lora_adapter(traffic={}, known=[version_status(digest=DIGEST)])
    assert parsed(found).sources == {"v1": Source("file:///v1", DIGEST)}
    pinned = lora_adapter(traffic={}, known=[version_status(digest=DIGEST)])
    pinned["spec"]["versions"][0]["source"]["digest"] = DIGEST
    assert parsed(pinned).sources == {"v1": Source("file:///v1", DIGEST)}


def test_a_name_that_another_source_still_has_means_that_one() -> None:
    old = version_status(uri="file:///old", digest=DIGEST) | {"modelRef": {"name": "before"}}
    found = parsed(lora_adapter(traffic={}, known=[old]))
    assert found.sources == {"v1": Source("file:///old", DIGEST)}
    assert str(found.model_of("v1")) == "default/before"
    other_bytes = lora_adapter(traffic={}, known=[version_status(digest=DIGEST)])
    other_bytes["spec"]["versions"][0]["source"]["digest"] = OTHER_DIGEST
    assert parsed(other_bytes).sources == {"v1": Source("file:///v1", DIGEST)}
    assert parsed(lora_adapter(traffic={})).sources == {"v1": Source("file:///v1")}, "once it is gone"


def test_versions_on_other_models_and_in_other_namespaces() -> None:
    obj = lora_adapter(namespace="team", versions=("v1", "v2"))
    obj["spec"]["modelRef"]["namespace"] = "models"
    obj["spec"]["versions"][1]["modelRef"] = {"name": "next"}
    found = parsed(obj)
    assert [found.model_of(version) for version in found.versions] == [
        ObjectKey("models", "tiny"),
        ObjectKey("team", "next"),
    ]
    assert [found.runtime_id(version) for version in found.versions] == ["team/churn@v1", "churn@v2"]


def test_mirrors_are_those_of_status() -> None:
    obj = lora_adapter(versions=("v1", "v2"), traffic={"v1": 1})
    obj["spec"]["mirror"] = [{"version": "v1", "percent": 1}]
    obj["status"]["mirror"] = [{"version": "v2", "percent": 30}, {"version": "unknown", "percent": 5}]
    assert parsed(obj).mirror == (Mirror("v2", 30),)


def test_what_a_pod_of_vllm_holds_is_asked_at_its_agent() -> None:
    cache = ObjectCache()
    cache.put(Kind.ENDPOINT_SLICE, endpoint_slice({"a": True}))
    cache.put(Kind.MODEL_DEPLOYMENT, model_deployment())
    assert [pod.reports_at for pod in cache.table().all_pods()] == [""]
    vllm = model_deployment(version=2)
    vllm["spec"] |= {"engine": {"type": "VLLM"}, "template": {"image": "vllm"}}
    cache.put(Kind.MODEL_DEPLOYMENT, vllm)
    assert [pod.reports_at for pod in cache.table().all_pods()] == ["10.0.0.1:8124"]


def test_a_list_read_again_keeps_the_table_if_nothing_has_changed() -> None:
    cache = ObjectCache()
    cache.replace(Kind.LORA_ADAPTER, None, [lora_adapter(), lora_adapter("other")])
    before = cache.table()
    cache.replace(Kind.LORA_ADAPTER, None, [lora_adapter(), lora_adapter("other")])
    assert cache.table() is before
    cache.replace(Kind.LORA_ADAPTER, None, [lora_adapter(version=2, traffic={"v1": 1}), lora_adapter("other")])
    assert cache.table().adapters[ObjectKey("default", "churn")].traffic == (Share("v1", 1),)


def test_pods_come_from_slices_with_the_serving_port() -> None:
    table = table_of(endpoint_slice({"a": True, "b": False}))
    assert pods(table) == {"a": ("10.0.0.1:8123", True), "b": ("10.0.0.2:8123", False)}
    assert pods(table_of(endpoint_slice({"a": True}, family="IPv6"))) == {"a": ("[fd00::1]:8123", True)}


def test_a_pod_in_two_slices_is_one_pod() -> None:
    moving = (endpoint_slice({"a": False}, "tiny-1"), endpoint_slice({"x": True, "a": True}, "tiny-2"))
    assert pods(table_of(*moving))["a"] == ("10.0.0.2:8123", True)
    both = (endpoint_slice({"a": True}, "tiny-1"), endpoint_slice({"a": True}, "tiny-2", family="IPv6"))
    assert pods(table_of(*both)) == {"a": ("10.0.0.1:8123", True)}


def test_slices_that_say_nothing_usable() -> None:
    empty = endpoint_slice({}) | {"endpoints": None, "ports": None}
    foreign = endpoint_slice({"b": True}, "other-1", model="other")
    names = endpoint_slice({"c": True}, "names-1") | {"addressType": "FQDN"}
    unlabelled = endpoint_slice({"d": True}, "plain-1")
    unlabelled["metadata"]["labels"] = None
    assert pods(table_of(empty, foreign, names, unlabelled)) == {}


def test_an_object_that_cannot_be_understood_is_left_out() -> None:
    cache = ObjectCache()
    cache.put(Kind.LORA_ADAPTER, lora_adapter())
    cache.put(Kind.LORA_ADAPTER, lora_adapter("other"))
    cache.put(Kind.LORA_ADAPTER, lora_adapter() | {"spec": {"modelRef": 7}})
    assert [adapter.key.name for adapter in cache.table().adapters.values()] == ["other"]


def test_lists_replace_only_their_own_namespace_and_events_single_objects() -> None:
    cache = ObjectCache()
    cache.replace(Kind.LORA_ADAPTER, "red", [lora_adapter("a", "red"), lora_adapter("b", "red")])
    cache.replace(Kind.LORA_ADAPTER, "blue", [lora_adapter("a", "blue")])
    cache.replace(Kind.LORA_ADAPTER, "red", [lora_adapter("b", "red")])
    cache.remove(Kind.LORA_ADAPTER, lora_adapter("a", "blue"))
    cache.remove(Kind.LORA_ADAPTER, lora_adapter("never-seen", "blue"))
    assert [str(key) for key in cache.table().adapters] == ["red/b"]
    cache.replace(Kind.LORA_ADAPTER, None, [])
    assert not cache.table().adapters


def test_which_versions_a_model_has_taken() -> None:
    refused = {"type": "Resident", "status": "False", "reason": "NotAllowed", "message": "", "observedGeneration": 1}
    refused |= {"lastTransitionTime": "2026-01-02T03:04:05Z"}
    known = [version_status("v1"), version_status("v2", readyOn=1), version_status("v3")]
    taken = lora_adapter(versions=("v1", "v2", "v3"), traffic={"v1": 1, "v3": 0}, known=known)
    assert parsed(taken).served == ("v1", "v2")
    left_over = lora_adapter(traffic={"v1": 1}, known=[version_status("v1", conditions=[refused])])
    assert parsed(left_over).served == ()
    assert parsed(lora_adapter("fresh")).served == ()


def test_the_default_namespace_is_in_every_table() -> None:
    cache = ObjectCache("speech")
    assert cache.table().default_namespace == "speech"
    cache.put(Kind.MODEL_DEPLOYMENT, model_deployment())
    assert cache.table().default_namespace == "speech"

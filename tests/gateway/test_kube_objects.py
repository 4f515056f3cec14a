"""From the API server's objects to the table."""

from motet_gateway.kube_objects import Kind, ObjectCache
from motet_gateway.table import ObjectKey, Share, Table
from tests.gateway.kube_samples import Object, endpoint_slice, lora_adapter, model_deployment


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

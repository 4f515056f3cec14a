"""Objects of the gateway, with everything a test does not care about filled in."""

from collections.abc import Iterable, Mapping

from motet_api.identity import AdapterId, PodName
from motet_gateway.fleet import Fleet, PodView
from motet_gateway.table import Adapter, Model, ObjectKey, Pod, PodKey, Share, Source, Table
from motet_gateway.table_builder import build_table

TINY = ObjectKey("default", "tiny")


def model(name: str = "tiny", namespace: str = "default", max_requests: int = 100, max_wait: float = 10) -> Model:
    return Model(ObjectKey(namespace, name), max_requests, max_wait)


def adapter(
    name: str = "churn",
    namespace: str = "default",
    of: str = "tiny",
    versions: Iterable[str] = ("v1",),
    traffic: Mapping[str, int] | None = None,
) -> Adapter:
    listed = tuple(versions)
    shares = {listed[0]: 1} if traffic is None else traffic
    return Adapter(
        ObjectKey(namespace, name), ObjectKey(namespace, of), listed, tuple(Share(v, w) for v, w in shares.items())
    )


def pod(name: str = "a", of: ObjectKey = TINY, ready: bool = True) -> Pod:
    return Pod(PodKey(of.namespace, PodName(name)), of, "127.0.0.1:1", ready)


def view(
    *resident: str,
    loading: Iterable[str] = (),
    failed: Mapping[str, str] | None = None,
    batch: int = 2,
    base_loaded: bool = True,
    desired_known: bool = True,
    draining: bool = False,
    fresh: bool = True,
    sources: Mapping[str, Source] | None = None,
    standby: Iterable[str] = (),
    warming: Iterable[str] = (),
    failing: Iterable[str] = (),
) -> PodView:
    return PodView(
        model="tiny",
        resident=frozenset(AdapterId(name) for name in resident),
        loading=frozenset(AdapterId(name) for name in [*loading, *warming]),
        standby=frozenset(AdapterId(name) for name in standby),
        warming=frozenset(AdapterId(name) for name in warming),
        failed={AdapterId(name): why for name, why in (failed or dict.fromkeys(failing, "it failed")).items()},
        failing=frozenset(AdapterId(name) for name in failing),
        base_loaded=base_loaded,
        desired_known=desired_known,
        draining=draining,
        max_batch_size=batch,
        fresh=fresh,
        sources={AdapterId(name): source for name, source in (sources or {}).items()},
    )


def fleet(pods: Mapping[Pod, PodView | None]) -> Fleet:
    """The pods with what each said; None for one that said nothing."""
    table = build_table({pod.model: Model(pod.model, 1, 1) for pod in pods}.values(), [], pods)
    return Fleet(table.pods, {pod.key: view for pod, view in pods.items() if view is not None})


def table(models: Iterable[Model] = (model(),), adapters: Iterable[Adapter] = (), pods: Iterable[Pod] = ()) -> Table:
    return build_table(models, adapters, pods)

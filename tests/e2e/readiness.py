"""Looks at pods while a test goes on, for what must never be seen: a Ready pod that lacks an adapter."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from motet_api.reasons import AdapterReason
from tests.e2e.objects import Manifest
from tests.e2e.world import World, condition


@contextmanager
def never_ready_too_early(world: World, adapters: Collection[str]) -> Iterator[None]:
    """Look several times a second while the block runs; afterwards no pod may have been Ready without an adapter."""
    stop = threading.Event()
    early: list[str] = []
    looked = 0

    def look() -> None:
        nonlocal looked
        while not stop.wait(0.2):
            for pod in world.pods("tiny"):
                looked += 1
                early.extend(_lacks(world, pod, adapters))

    observer = threading.Thread(target=look)
    observer.start()
    try:
        yield
    finally:
        stop.set()
        observer.join()
    assert looked
    assert early == []


def is_ready(pod: Manifest) -> bool:
    """Whether the pod's Ready condition is True."""
    return bool(condition(pod, "Ready")["status"] == "True")


def restarts(pod: Manifest) -> int:
    """Restarts of the pod's container."""
    count: int = pod["status"]["containerStatuses"][0]["restartCount"]
    return count


def _lacks(world: World, pod: Manifest, adapters: Collection[str]) -> list[str]:
    """Adapters that a pod lacks although it is Ready, before and after it was asked, in one and the same life."""
    if not is_ready(pod):
        return []
    name = pod["metadata"]["name"]
    report = world.report(name)
    if report is None:
        return []
    again = [item for item in world.pods("tiny") if item["metadata"]["name"] == name and is_ready(item)]
    if not again or restarts(again[0]) != restarts(pod):
        return []
    resident = {entry.id for entry in report.adapters if entry.reason is AdapterReason.RESIDENT}
    return [f"{name} is Ready without {wanted}" for wanted in {f"{key}@v1" for key in adapters} - resident]

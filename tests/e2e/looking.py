"""Looks at what the pods hold, again and again while a test goes on, and keeps every look with its times."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from motet_api.reasons import AdapterReason
from tests.e2e.world import ApiError, World

Held = Mapping[str, AdapterReason]
PAUSE = 0.15


@dataclass(frozen=True, slots=True)
class Look:
    """What one pod said: asked at `began`, answered by `ended`."""

    pod: str
    began: float
    ended: float
    held: Held

    def resident(self, version: str) -> bool:
        """Whether the pod serves a version, by its runtime id."""
        return self.held.get(version) is AdapterReason.RESIDENT


@dataclass
class Looks:
    """Every look at the pods of a model while the block runs. A pod, or an API server, that is silent leaves none."""

    world: World
    model: str = "tiny"
    seen: list[Look] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(PAUSE):
            self.seen.extend(look(self.world, self.model))

    def without(self, version: str, after: float) -> list[Look]:
        """Looks that began after a moment and found a pod that does not serve a version."""
        return [entry for entry in self.seen if entry.began > after and not entry.resident(version)]


def look(world: World, model: str) -> list[Look]:
    """One look at each pod that answers."""
    found = []
    try:
        pods = world.pods(model)
    except ApiError:
        return []
    for pod in pods:
        name, began = pod["metadata"]["name"], time.monotonic()
        report = world.report(name)
        if report is not None and report.desired_known:
            held = {str(entry.id): entry.reason for entry in report.adapters}
            found.append(Look(name, began, time.monotonic(), held))
    return found

"""The contract between the parts: operator to runtime (adapters), gateway to operator (demand, outcomes).

Both sides import these types. Fields that a reader does not know are ignored, so that the parts can be upgraded one
after the other.
"""

import hashlib
import json
from typing import Annotated, Final

from pydantic import Field

from motet_api.identity import AdapterId, Digest
from motet_api.loraadapter import Residency, TrafficTarget
from motet_api.objects import KubeModel
from motet_api.reasons import AdapterReason


class DesiredAdapter(KubeModel):
    """One version that a pod must hold."""

    id: AdapterId
    uri: str
    digest: Digest | None = None
    residency: Residency = Residency.REQUIRED
    from_store: Annotated[bool, Field(description="Fetched from the store by digest, not from `uri`.")] = False
    proven: Annotated[
        bool, Field(description="Pods of an earlier template serve it: a pod that cannot must not take their place.")
    ] = False


class DesiredAdapters(KubeModel):
    """Body of `PUT /motet/v1/adapters`: the whole set that the pod must hold, every time. Idempotent.

    A version that is resident and not in the list is drained and unloaded. A version that failed is tried again if the
    failure is transient. `store` is the adapter store's address, `http://host:port`; empty if there is none.
    """

    adapters: list[DesiredAdapter]
    store: str = ""


class AdapterReport(KubeModel):
    """What a pod says of one version.

    `uri`, `desired_digest`, `residency` and `proven` are what the pod was told; `digest`, `rank`, `size_bytes` and
    `target_modules` are what it found, once verified, and `held_bytes` what it takes of the pod's `adapter_bytes`.
    """

    id: AdapterId
    reason: AdapterReason
    message: str = ""
    uri: str = ""
    desired_digest: Digest | None = None
    residency: Residency | None = None
    proven: bool | None = None
    digest: Digest | None = None
    rank: int | None = None
    size_bytes: int | None = None
    held_bytes: int | None = None
    target_modules: list[str] = []


class AdaptersReport(KubeModel):
    """Answer of `GET` and `PUT /motet/v1/adapters`.

    Nothing is in it that every request changes: a busy pod is no other situation. `base_digest` is that of the
    `BaseDescription`; `adapter_bytes` what the pod can hold of adapters below its slots. Both are absent while the base
    is not loaded.

    `base_loaded` says whether the base model is in memory; `desired_known` whether any document has arrived since the
    process started (a pod that has not been told is not Ready); `max_batch_size` how many requests run at once.
    """

    model: str
    base_loaded: bool
    desired_known: bool
    draining: bool
    max_batch_size: int
    base_digest: Digest | None = None
    adapter_bytes: int | None = None
    adapters: list[AdapterReport]


class BaseDescription(KubeModel):
    """Answer of `GET /motet/v1/base`: what an adapter must fit.

    `modules` has (out features, in features) of each linear module that an adapter may change, by full name.
    """

    model: str
    hidden_size: int
    dtype_bytes: int
    modules: dict[str, tuple[int, int]]

    def digest(self) -> Digest:
        """Tells two bases apart, as far as adapters are concerned: whatever name they are served under."""
        text = json.dumps(self.model_dump(exclude={"model"}), sort_keys=True, separators=(",", ":"))
        return Digest("sha256:" + hashlib.sha256(text.encode()).hexdigest())


class ModelDemand(KubeModel):
    """Requests of one ModelDeployment at one gateway, at one moment."""

    namespace: str
    name: str
    waiting: Annotated[int, Field(ge=0, description="Requests held at the gateway.")]
    running: Annotated[int, Field(ge=0, description="Requests sent to a pod and not yet answered in full.")]


class Demand(KubeModel):
    """Answer of `GET /motet/v1/demand`. Every model that the gateway knows is listed, with zeros if it is idle.

    `at` is the gateway's clock in Unix seconds; readers judge age by when they received the answer, not by this.
    """

    at: float
    models: list[ModelDemand]


LATENCY_BOUNDS_MS: Final = (
    10,
    20,
    50,
    100,
    200,
    300,
    500,
    750,
    1000,
    1500,
    2000,
    3000,
    5000,
    7500,
    10000,
    20000,
    60000,
)
"""Upper bounds of the latency buckets of `VersionOutcome`; one more bucket takes what is above the last."""


LONGEST_OUTCOME_SECONDS: Final = 604_800
"""So far back a gateway keeps what became of requests: as long as the longest bake of a rollout's step."""


class VersionOutcome(KubeModel):
    """What became of the requests of one version at one gateway, within the seconds that were asked about.

    `errors` are answers for which the version or its engine is to blame, not the caller, and not a lack of capacity.
    `latency` counts answered requests by `LATENCY_BOUNDS_MS`. `compared` are copies of other versions' requests of
    which both answers are known, `agreed` those with equal answers, `drift_sum` the sum over the `scored` ones of the
    mean absolute difference of label probabilities (0 to 1). `in_flight` is now: queued at the gateway or with a pod.
    """

    version: str
    requests: int = 0
    errors: int = 0
    latency: list[int] = []
    compared: int = 0
    agreed: int = 0
    scored: int = 0
    drift_sum: float = 0.0
    in_flight: int = 0


class AdapterOutcome(KubeModel):
    """Answer of `GET /motet/v1/outcomes/{namespace}/{name}?seconds=S`, S at most `LONGEST_OUTCOME_SECONDS`.

    Counted is nothing that is older than S: the gateway keeps counts in buckets (of five seconds for five minutes, a
    minute for an hour, an hour beyond) and rounds S down to whole ones. `following` is the split that the gateway goes
    by at this moment; None if it does not know the adapter.
    """

    namespace: str
    name: str
    following: list[TrafficTarget] | None = None
    versions: list[VersionOutcome] = []

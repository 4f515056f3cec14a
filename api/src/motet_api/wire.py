"""The contract between the parts: operator to runtime (adapters), gateway to operator (demand).

Both sides import these types. Fields that a reader does not know are ignored, so that the parts can be upgraded one
after the other.
"""

from typing import Annotated

from pydantic import Field

from motet_api.identity import AdapterId, Digest
from motet_api.objects import KubeModel
from motet_api.reasons import AdapterReason


class DesiredAdapter(KubeModel):
    """One version that a pod must hold."""

    id: AdapterId
    uri: str
    digest: Digest | None = None


class DesiredAdapters(KubeModel):
    """Body of `PUT /motet/v1/adapters`: the whole set that the pod must hold, every time. Idempotent.

    A version that is resident and not in the list is drained and unloaded. A version that failed is tried again if the
    failure is transient.
    """

    adapters: list[DesiredAdapter]


class AdapterReport(KubeModel):
    """What a pod says of one version.

    `uri` and `desired_digest` are what the pod was told; `digest`, `rank`, `size_bytes` and `target_modules` are what
    it found, once verified.
    """

    id: AdapterId
    reason: AdapterReason
    message: str = ""
    uri: str = ""
    desired_digest: Digest | None = None
    digest: Digest | None = None
    rank: int | None = None
    size_bytes: int | None = None
    target_modules: list[str] = []
    in_flight: int = 0
    load_seconds: float | None = None


class AdaptersReport(KubeModel):
    """Answer of `GET` and `PUT /motet/v1/adapters`.

    `base_loaded` says whether the base model is in memory; `desired_known` whether any document has arrived since the
    process started (a pod that has not been told is not Ready); `max_batch_size` how many requests run at once.
    """

    model: str
    base_loaded: bool
    desired_known: bool
    draining: bool
    max_batch_size: int
    running: int
    waiting: int
    adapters: list[AdapterReport]


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

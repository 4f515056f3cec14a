"""The contract of the adapter store: with the operator (what is wanted, what is known of it) and with the pods (bytes).

POST /motet/v1/artifacts            ArtifactsQuery -> ArtifactsAnswer: what is known now; unknown ones are begun
PUT  /motet/v1/bases/{digest}       BaseDescription: what adapters are checked against
PUT  /motet/v1/references           References: what must not be deleted; nothing is before this has arrived once
GET  /motet/v1/artifacts/{digest}   ArtifactManifest
GET  /motet/v1/blobs/{sha256}       the bytes; range requests are served

The first three on `names.STORE_ADMIN_PORT`, for the operator; the reads on `names.STORE_PORT`, for pods.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from motet_api.identity import DIGEST_PATTERN, Digest
from motet_api.objects import KubeModel
from motet_api.reasons import AdapterReason


class ArtifactKind(StrEnum):
    """What the files are: it decides which of them are fetched and how they are checked."""

    ADAPTER = "Adapter"
    BASE_MODEL = "BaseModel"


class ArtifactRequest(KubeModel):
    """One artifact that is wanted. `namespace` is its object's: policy and credentials (`secret_name`) are from there.

    `digest` is what the bytes must be, where that is known already. `base_digest` and `max_rank` are what an adapter
    must fit. What has more than `max_bytes` is not fetched: `Listed` is the answer then.
    """

    kind: ArtifactKind = ArtifactKind.ADAPTER
    namespace: str
    uri: str
    revision: str | None = None
    digest: Digest | None = None
    secret_name: str | None = None
    base_digest: Digest | None = None
    max_rank: int | None = None
    max_bytes: Annotated[int | None, Field(ge=0)] = None


class ArtifactsQuery(KubeModel):
    """Body of `POST /motet/v1/artifacts`."""

    artifacts: Annotated[list[ArtifactRequest], Field(max_length=20_000)]


class ArtifactState(StrEnum):
    """How far the store is with an artifact."""

    RESOLVING = "Resolving"
    """Finding out which bytes the source means."""
    LISTED = "Listed"
    """`size_bytes` is known, and more than the request's `max_bytes`: it is not fetched."""
    FETCHING = "Fetching"
    VERIFYING = "Verifying"
    VERIFIED = "Verified"
    """Its blobs are served."""
    FAILED = "Failed"
    """`reason` says why; what is transient is tried again by itself, the rest when the request changes or daily."""


class Refusal(KubeModel):
    """Why not."""

    reason: AdapterReason
    message: str


class ArtifactReport(KubeModel):
    """What the store knows of one artifact, in the order of the query.

    `compatible` is None while the base is not known to the store, or its digest was not given; `mismatch` says why it
    is False; `held_bytes` is what it takes on a pod of that base. `fetched_bytes` of `size_bytes` are there.
    """

    state: ArtifactState
    failure: Refusal | None = None
    digest: Digest | None = None
    revision: str = ""
    size_bytes: int | None = None
    fetched_bytes: int = 0
    rank: int | None = None
    target_modules: list[str] = []
    held_bytes: int | None = None
    compatible: bool | None = None
    mismatch: Refusal | None = None


class ArtifactsAnswer(KubeModel):
    """Answer of `POST /motet/v1/artifacts`. `unknown_bases` must be put before anything is checked against them."""

    artifacts: list[ArtifactReport]
    unknown_bases: list[Digest] = []


class References(KubeModel):
    """Body of `PUT /motet/v1/references`: every digest that a version, a base or a pod names, the whole set."""

    digests: list[Annotated[str, Field(pattern=DIGEST_PATTERN)]]


class ArtifactFile(KubeModel):
    """One file of an artifact. `sha256` is hexadecimal."""

    name: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class ArtifactManifest(KubeModel):
    """Answer of `GET /motet/v1/artifacts/{digest}`. The digest is `manifest_digest` of the files."""

    digest: Digest
    kind: ArtifactKind
    files: list[ArtifactFile]

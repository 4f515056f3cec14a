"""What is wanted, as a key: everything that decides which bytes a request means, and who may see that it means them.

A URI that needs credentials means something only to those who have them, so it is known by namespace and Secret; what
it resolved to for one namespace says nothing to another. Without a Secret it is everybody's. Blobs are shared by
content all the same: whoever has fetched the bytes may share them.
"""

import hashlib
from urllib.parse import urlsplit

from motet_api.identity import Digest
from motet_api.objects import KubeModel
from motet_api.store import ArtifactKind, ArtifactRequest


class Wanted(KubeModel):
    """One artifact, of one digest or of whatever lies there now. `namespace` is empty without a Secret."""

    kind: ArtifactKind
    namespace: str
    secret_name: str
    uri: str
    revision: str | None
    digest: Digest | None

    @classmethod
    def of(cls, request: ArtifactRequest) -> "Wanted":
        """The key of a request."""
        # Not validated again: there are thousands in one query.
        return cls.model_construct(
            kind=request.kind,
            namespace=request.namespace if request.secret_name else "",
            secret_name=request.secret_name or "",
            uri=request.uri,
            revision=request.revision,
            digest=request.digest,
        )

    def pinned(self, digest: Digest | None) -> "Wanted":
        """The same, of another digest."""
        return self.model_copy(update={"digest": digest})

    def __hash__(self) -> int:
        return hash((self.uri, self.digest, self.namespace))

    @property
    def key(self) -> str:
        """A name for files, different for each."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def host(self) -> str:
        """Who is asked for the bytes: jobs are counted by it."""
        parts = urlsplit(self.uri)
        return parts.netloc.rpartition("@")[2] if parts.scheme in {"http", "https", "oci"} else parts.scheme

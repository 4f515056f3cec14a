"""What a source is, to the rest of the store.

`list` pins what the URI means now, `read` gives one file's bytes from an offset on. A listing is read to its end or
made anew: when the remote file is another one by then, `read` raises SourceChangedError.

SourceError                a reason of the API and a message for people; never a credential in it
+-- SourceChangedError     what was listed is not what is there now: list again, throw away what was read
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol

from motet_api.reasons import AdapterReason

Credentials = Mapping[str, bytes]
"""The data of a Kubernetes Secret, or nothing. Its keys by scheme:

hf              token
s3              accessKeyId, secretAccessKey, and sessionToken, endpoint, region where needed
oci             username and password, or token; or .dockerconfigjson (kubernetes.io/dockerconfigjson)
http, https     username and password, or token
"""


class SourceError(Exception):
    """Why a source gives nothing. `retry_after` is what the server asked for, in seconds."""

    def __init__(self, reason: AdapterReason, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class SourceChangedError(SourceError):
    """The remote file is not the one that was listed."""

    def __init__(self, message: str) -> None:
        super().__init__(AdapterReason.FETCH_FAILED, message)


@dataclass(frozen=True, slots=True)
class SourceRef:
    """A folder of files. `revision` is the scheme's own: a branch, tag or commit, a manifest's digest.

    `s3_endpoints` are patterns of the endpoints that credentials may name (policy).
    """

    uri: str
    revision: str | None = None
    s3_endpoints: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file. `identity` changes with its bytes; `size` and `sha256` (hexadecimal) are None where nobody says."""

    name: str
    size: int | None
    identity: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a reference meant when it was listed.

    `revision` pins it: a commit, a manifest's digest, or a digest over names, sizes and identities. `files` are those
    that can be served; `passed_over` names some of the others (pickles, pictures), which are never fetched.
    """

    revision: str
    files: tuple[RemoteFile, ...]
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one artifact's transfer.

    `min_bytes_per_second` is measured over spans of `idle_seconds`; `total_seconds` is for one file. Only time spent
    waiting for the source counts.
    """

    max_file_bytes: int = 512 << 30
    max_total_bytes: int = 1 << 40
    max_files: int = 512
    connect_seconds: float = 10
    idle_seconds: float = 30
    min_bytes_per_second: int = 16 << 10
    total_seconds: float = 6 * 3600


class Room(Protocol):
    """What the store's disk has left, for what lies in the scratch folder. Asked in the event loop's thread only."""

    def hold(self, name: str, size: int) -> None:
        """Set the bytes under a name, before they are written. Raises: StoreError: there is no room."""
        ...

    def release(self, name: str) -> None:
        """They are gone."""
        ...


class Boundless:
    """A disk that nobody counts."""

    def hold(self, name: str, size: int) -> None:
        """There is room for anything."""

    def release(self, name: str) -> None:
        """Nothing was counted."""


class Source(Protocol):
    """Lists and reads what one scheme's URIs name. Both raise SourceError."""

    async def list(self, ref: SourceRef, credentials: Credentials) -> Listing:
        """What the reference means now."""
        ...

    def read(
        self, ref: SourceRef, listing: Listing, file: RemoteFile, offset: int, credentials: Credentials
    ) -> AsyncGenerator[bytes, None]:
        """The file's bytes from `offset` on; compared with `file.sha256` at the end where offset is 0."""
        ...

    async def release(self, listing: Listing) -> None:
        """Nobody reads this listing any more: drop what lies on disk for it."""
        ...

"""From a source's URI to a local folder.

`file:///path` is a path in this pod, `pvc://CLAIM/path` a path below the folder where the claim is mounted. Everything
else comes from the adapter store, by digest: a pod needs no way out of the cluster and no credentials.
"""

import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from motet_api.identity import ADAPTER_FILES, NAME_PATTERN, Digest
from motet_api.policy import CLIMBS, climbs
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactManifest
from motet_api.wire import DesiredAdapter
from motet_runtime.errors import AdapterError
from motet_runtime.store.client import StoreClient, store_session

MAX_FILE_BYTES: Final = 8 * 2**30
"""A fetched file larger than this is refused; the largest LoRA of a 70B base is well below."""


def local_path(uri: str, claim_root: Path) -> Path:
    """The folder that a `file://` or `pvc://` URI names.

    Raises:
        AdapterError: the claim is not mounted, the scheme is another, or the path has a `..`.
    """
    parts = urlsplit(uri)
    if climbs(parts.path):
        raise AdapterError(AdapterReason.SOURCE_NOT_ALLOWED, f"{uri} is not read: {CLIMBS}")
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme == "pvc":
        claim = claim_root / parts.netloc
        if not re.fullmatch(NAME_PATTERN, parts.netloc) or not claim.is_dir():
            message = (
                f"claim {parts.netloc!r} is not mounted: list it in the ModelDeployment's spec.adapters.claimNames"
            )
            raise AdapterError(AdapterReason.SOURCE_NOT_MOUNTED, message)
        path = (claim / unquote(parts.path).lstrip("/")).resolve()
        if not path.is_relative_to(claim.resolve()):
            raise AdapterError(AdapterReason.SOURCE_NOT_FOUND, f"{uri} leads out of the claim")
        return path
    message = f"{uri}: a pod reads file:// and pvc:// only; all else is fetched by the adapter store"
    raise AdapterError(AdapterReason.SOURCE_NOT_FOUND, message)


@asynccontextmanager
async def files_of(desired: DesiredAdapter, store: str, claim_root: Path) -> AsyncIterator[Path]:
    """A local folder with the files of a desired adapter, for as long as the context is open.

    Raises:
        AdapterError: as `local_path` and `StoreClient` do, or the store or the digest is not given.
    """
    if not desired.from_store:
        yield local_path(desired.uri, claim_root)
        return
    if not store or desired.digest is None:
        message = f"{desired.id} is to come from the store, and the document gives no {'digest' if store else 'store'}"
        raise AdapterError(AdapterReason.FETCH_FAILED, message)
    with tempfile.TemporaryDirectory(prefix="motet-adapter-") as scratch:
        async with store_session() as session:
            client = StoreClient(session, store)
            manifest = await client.manifest(desired.digest)
            _check_adapter(manifest, desired.digest)
            for file in manifest.files:
                await client.fetch(file, Path(scratch))
        yield Path(scratch)


def _check_adapter(manifest: ArtifactManifest, digest: Digest) -> None:
    """Before a byte is fetched: whether these are the files of an adapter, and of a size that is served."""
    names = sorted(file.name for file in manifest.files)
    if names != sorted(ADAPTER_FILES):
        message = f"{digest} is no adapter but {', '.join(names[:5])}"
        raise AdapterError(AdapterReason.UNSUPPORTED, message)
    for file in manifest.files:
        if file.size > MAX_FILE_BYTES:
            message = f"{file.name} has {file.size} bytes; at most {MAX_FILE_BYTES} are served"
            raise AdapterError(AdapterReason.UNSUPPORTED, message)

"""A whole artifact in a folder: a base model's files, brought by whoever comes first and used by all on the node.

Invariant: the file `.complete` holds the artifact's digest, and is there only when every file is, whole and on the disk
for good. Whoever fetches holds a lock on the file `.lock`; the others wait for it and then find everything there. It is
safe to be ended at any moment, and to be started again.
"""

import asyncio
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from motet_api.identity import Digest
from motet_api.store import ArtifactFile
from motet_runtime.errors import FolderError
from motet_runtime.store.client import UNFINISHED, StoreClient

_log = logging.getLogger(__name__)
_COMPLETE: Final = ".complete"
_LOCK: Final = ".lock"
_AT_ONCE: Final = 4
"""Files at a time. Each waits for the network, and is hashed as it comes."""


def held_bytes(folder: Path) -> int:
    """Bytes that are there, of files that are still coming too."""
    return sum(path.stat().st_size for path in folder.iterdir())


def is_complete(folder: Path, digest: Digest) -> bool:
    """Whether the folder holds the artifact.

    Raises:
        FolderError: it holds another.
    """
    try:
        held = (folder / _COMPLETE).read_text().strip()
    except FileNotFoundError:
        return False
    if held != digest:
        raise FolderError(f"{folder} holds {held}: give another folder for {digest}")
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one who fills the folder, which is made if it is not there. Waits for others, in this process too.

    Raises:
        OSError: it cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another that fetches the same", extra={"folder": str(folder)})
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def fill(folder: Path, digest: Digest, client: StoreClient) -> None:
    """Bring what is missing of an artifact, and mark the folder complete. Call it with the folder locked.

    Raises:
        AdapterError: the store does not answer, or has other bytes.
        FolderError: other files are in the folder, or the disk has no room.
        OSError: the folder cannot be written.
    """
    if is_complete(folder, digest):
        return
    manifest = await client.manifest(digest)
    missing = [file for file in manifest.files if not (folder / file.name).exists()]
    _check_others(folder, [file.name for file in manifest.files])
    _check_room(folder, missing)
    _log.info("fetching", extra={"files": len(missing), "bytes": sum(file.size for file in missing)})
    room = asyncio.Semaphore(_AT_ONCE)

    async def bring(file: ArtifactFile) -> None:
        async with room:
            await client.fetch(file, folder)
        _log.info("file fetched", extra={"file": file.name, "bytes": file.size})

    # The others go on when one fails: what they bring is kept.
    for outcome in await asyncio.gather(*map(bring, missing), return_exceptions=True):
        if outcome is not None:
            raise outcome
    _mark_complete(folder, digest)


def _check_others(folder: Path, names: list[str]) -> None:
    """A file of another artifact would be taken for one of this: `model.safetensors` beside an index of shards."""
    known = {_COMPLETE, _LOCK, *names, *(f".{name}{UNFINISHED}" for name in names)}
    others = sorted(path.name for path in folder.iterdir() if path.name not in known)
    if others:
        raise FolderError(f"{folder} holds {others[0]}, which is no file of the artifact: give an empty folder")


def _check_room(folder: Path, missing: list[ArtifactFile]) -> None:
    begun = (folder / f".{file.name}{UNFINISHED}" for file in missing)
    wanted = sum(file.size for file in missing) - sum(path.stat().st_size for path in begun if path.exists())
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise FolderError(f"{folder} has room for {free} of {wanted} bytes: make room for {wanted - free} more")


def _mark_complete(folder: Path, digest: Digest) -> None:
    part = folder / f"{_COMPLETE}{UNFINISHED}"
    with part.open("w") as file:
        file.write(f"{digest}\n")
        file.flush()
        os.fsync(file.fileno())
    part.rename(folder / _COMPLETE)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

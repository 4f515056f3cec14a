"""Asks the store for artifacts and blobs. Nothing that it says is believed: a digest covers every byte.

Invariant: a file under its final name is whole and has the sha256 that the artifact's digest says. What has arrived of
one stands beside it, in a file whose name begins with a dot, and is gone on from after a broken connection.
"""

import asyncio
from pathlib import Path
from typing import Final

import aiohttp
from pydantic import ValidationError

from motet_api.identity import Digest, files_digest
from motet_api.names import ARTIFACTS_PATH, BLOBS_PATH
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactFile, ArtifactManifest
from motet_runtime.errors import AdapterError
from motet_runtime.store.partial import PartialFile

UNFINISHED: Final = ".part"
MAX_MANIFEST_BYTES: Final = 4 << 20
ATTEMPTS: Final = 5
"""Connections in a row that bring nothing, until a blob is given up."""
_PAUSE_SECONDS: Final = 0.2
_SLOWEST: Final = 256 << 10
"""Bytes in a second that must come on average, connections that broke included: a peer that only drips is left."""
_LEAST_SECONDS: Final = 60.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30)
_CHUNK: Final = 1 << 20


def store_session() -> aiohttp.ClientSession:
    """A session for `StoreClient`: no total limit, since a base model may take an hour; each read has one."""
    return aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False, headers={"Accept-Encoding": "identity"})


class StoreClient:
    """One store, by its address `http://host:port`."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address.rstrip("/")

    async def manifest(self, digest: Digest) -> ArtifactManifest:
        """The files of an artifact, which are the ones that the digest was computed from.

        Raises:
            AdapterError: the store does not answer, does not have it, or says something that the digest does not cover.
        """
        url = f"{self._address}{ARTIFACTS_PATH}/{digest}"
        text = b""
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                _check_status(url, answer, (200,))
                async for chunk in answer.content.iter_chunked(_CHUNK):
                    text += chunk
                    if len(text) > MAX_MANIFEST_BYTES:
                        raise _failed(url, f"it is larger than {MAX_MANIFEST_BYTES} bytes")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _failed(url, str(error) or type(error).__name__) from error
        try:
            manifest = ArtifactManifest.model_validate_json(text)
            found = files_digest({file.name: file.sha256 for file in manifest.files})
        except (ValidationError, ValueError) as error:
            raise _failed(url, f"the answer is no manifest: {type(error).__name__}") from error
        # Dots would lead out of the folder, or hide a file; slashes are refused by files_digest.
        hidden = [file.name for file in manifest.files if file.name.startswith(".")]
        if found != digest or hidden or len({file.name for file in manifest.files}) < len(manifest.files):
            raise AdapterError(AdapterReason.DIGEST_MISMATCH, f"{url} lists files that are not those of the digest")
        return manifest

    async def fetch(self, file: ArtifactFile, folder: Path) -> None:
        """Bring one file of an artifact into `folder`, going on from what an earlier attempt left there.

        Raises:
            AdapterError: the store does not answer, has other bytes, or stays slower than anything useful.
            OSError: the disk is full, or cannot be written.
        """
        # In a thread, since it may have gigabytes to read.
        part = await asyncio.to_thread(PartialFile, folder / f".{file.name}{UNFINISHED}", file.size)
        limit = max(_LEAST_SECONDS, (file.size - part.size) / _SLOWEST)
        try:
            try:
                async with asyncio.timeout(limit):
                    await self._complete(file, part)
            except TimeoutError as error:
                message = f"{part.size} of {file.size} bytes have come in {limit:.0f} s"
                raise _failed(self._url(file), message) from error
            if not await asyncio.to_thread(part.finish, file.sha256, folder / file.name):
                raise _failed(self._url(file), f"the bytes of {file.name} are not those of the digest")
        finally:
            part.close()

    async def _complete(self, file: ArtifactFile, part: PartialFile) -> None:
        fruitless = 0
        while part.size < file.size:
            size, why = part.size, "the connection ended"
            try:
                await self._more(file, part)
            except (aiohttp.ClientError, ConnectionError) as error:
                why = str(error) or type(error).__name__
            fruitless = 0 if part.size > size else fruitless + 1
            if fruitless >= ATTEMPTS:
                raise _failed(self._url(file), f"{part.size} of {file.size} bytes have come: {why}")
            await asyncio.sleep(_PAUSE_SECONDS * fruitless)

    async def _more(self, file: ArtifactFile, part: PartialFile) -> None:
        """Append what one connection brings."""
        url, begin = self._url(file), part.size
        headers = {"Range": f"bytes={begin}-"} if begin else {}
        async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
            _check_status(url, answer, (200, 206) if begin else (200,))
            if answer.status == 200:
                part.restart()
            elif not answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
                raise _failed(url, "it answers with another range than it was asked for")
            async for chunk in answer.content.iter_chunked(_CHUNK):
                if part.size + len(chunk) > file.size:
                    part.restart()
                    raise _failed(url, f"it has more than the {file.size} bytes that the artifact says")
                # Not in a thread: it takes a millisecond, and a thread could not be cancelled with this.
                part.append(chunk)

    def _url(self, file: ArtifactFile) -> str:
        return f"{self._address}{BLOBS_PATH}/{file.sha256}"


def _check_status(url: str, answer: aiohttp.ClientResponse, wanted: tuple[int, ...]) -> None:
    """Raises: AdapterError. A redirect is no answer: it could lead to an address inside the cluster."""
    if answer.status == 404:
        raise AdapterError(AdapterReason.SOURCE_NOT_FOUND, f"the store has no {url} (404)")
    if answer.status not in wanted:
        raise _failed(url, f"it answered {answer.status} {answer.reason}")


def _failed(url: str, why: str) -> AdapterError:
    return AdapterError(AdapterReason.FETCH_FAILED, f"{url} could not be fetched from the store: {why}")

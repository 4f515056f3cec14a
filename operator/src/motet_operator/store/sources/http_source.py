"""`https://host/folder` and `http://host/folder`: the files of an adapter or a base below a URL.

HTTP lists nothing, so the names that matter are asked for one by one: the configuration, the weights, the index of
weights in parts, and the tokenizer's files. A file's identity is its ETag, or Last-Modified and size.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from enum import Enum
from typing import Final

from yarl import URL

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.answers import check_no_page
from motet_operator.store.sources.contract import (
    Credentials,
    Listing,
    RemoteFile,
    SourceChangedError,
    SourceError,
    SourceRef,
)
from motet_operator.store.sources.file_names import is_plain, listing, too_large
from motet_operator.store.sources.http_client import HttpClient, read_url, shown
from motet_operator.store.sources.transfer import transfer

_INDEX: Final = "model.safetensors.index.json"
_MAX_INDEX_BYTES: Final = 10 << 20
"""The index of the largest open model, of 90,000 tensors, has 9 MB."""
_MAX_INDEX_NESTING: Final = 100
_ADAPTER: Final = ("adapter_config.json", "adapter_model.safetensors", "adapter.sig")
_WEIGHTS: Final = frozenset({"adapter_model.safetensors"})
_BASE: Final = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    _INDEX,
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def authorization(credentials: Credentials) -> dict[str, str]:
    """The header for `token`, or for `username` and `password`; nothing where the Secret has neither."""
    if "token" in credentials:
        return {"Authorization": f"Bearer {_text(credentials['token'])}"}
    if "username" in credentials:
        pair = credentials["username"].strip() + b":" + credentials.get("password", b"").strip()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}


def identity(headers: Mapping[str, str]) -> str | None:
    """What changes with the bytes; None where the server says nothing of the kind."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return f"etag:{etag}"
    if "Last-Modified" in headers:
        return f"modified:{headers['Last-Modified']}"
    return None


class _Absent(Enum):
    """Why a name gives no file. Object stores answer 403 for what is not there, unless one may list it."""

    MISSING = "missing"
    REFUSED = "refused"


class HttpSource:
    """A folder of files below a URL."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    async def list(self, ref: SourceRef, credentials: Credentials) -> Listing:
        """Ask for the files by name. Raises: SourceError."""
        folder = read_url(ref.uri)
        if ref.revision is not None:
            raise SourceError(AdapterReason.INVALID_SOURCE, "source.revision means nothing for http(s): remove it")
        secret = authorization(credentials)
        first = await self._look(folder, _ADAPTER[0], secret)
        names = _ADAPTER[1:] if isinstance(first, RemoteFile) else _BASE
        found = [first, *await self._look_for(folder, names, secret)]
        files = [file for file in found if isinstance(file, RemoteFile)]
        if not files and _Absent.REFUSED in found:
            message = f"{shown(folder)} answers 403: check the credentials in source.secretRef, and that it exists"
            raise SourceError(AdapterReason.SOURCE_FORBIDDEN, message)
        if any(file.name == _INDEX for file in files):
            parts = await self._parts(folder, secret)
            found = [*await self._look_for(folder, parts, secret)]
            files += [file for file in found if isinstance(file, RemoteFile)]
        return listing(files, self._client.limits, shown(folder))

    async def read(
        self, ref: SourceRef, listing: Listing, file: RemoteFile, offset: int, credentials: Credentials
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of one file. Raises: SourceError."""
        url = _below(read_url(ref.uri), file.name)
        headers = {}
        if file.identity.startswith("etag:"):
            headers["If-Match"] = file.identity.removeprefix("etag:")
        elif offset and not file.identity.startswith("modified:"):
            raise SourceChangedError(f"{file.name} cannot be resumed: its server gives neither ETag nor Last-Modified")
        secret = authorization(credentials)
        async with aclosing(transfer(self._client, url, file, offset, identity, headers, secret)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def release(self, listing: Listing) -> None:
        """Nothing is kept."""

    async def _look_for(
        self, folder: URL, names: tuple[str, ...], secret: Mapping[str, str]
    ) -> "tuple[RemoteFile | _Absent, ...]":
        if len(names) > self._client.limits.max_files:
            raise too_large(f"{shown(folder)} has {len(names)} files", self._client.limits.max_files)
        few = asyncio.Semaphore(4)

        async def look(name: str) -> RemoteFile | _Absent:
            async with few:
                return await self._look(folder, name, secret)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(look(name)) for name in names]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return tuple(task.result() for task in tasks)

    async def _look(self, folder: URL, name: str, secret: Mapping[str, str]) -> "RemoteFile | _Absent":
        """What the server says of one file. Some servers know no HEAD."""
        url = _below(folder, name)
        for method in ("HEAD", "GET"):
            passing = frozenset({403, 404, 405, 410, 501}) - ({403} if name in _WEIGHTS else set())
            async with self._client.open(url, method=method, secret=secret, passing=passing) as answer:
                if answer.status in {403, 404, 410}:
                    return _Absent.REFUSED if answer.status == 403 else _Absent.MISSING
                if answer.status in {405, 501}:
                    continue
                check_no_page(answer.headers.get("Content-Type", "").partition(";")[0], b"", shown(url))
                length = answer.headers.get("Content-Length", "")
                size = int(length) if length.isdecimal() else None
                # An identity that nobody gives is another one each time: nothing can be known to be the same file.
                known = identity(answer.headers) or f"unknown:{secrets.token_hex(8)}"
                return RemoteFile(name, size, known)
        raise SourceError(AdapterReason.FETCH_FAILED, f"{shown(url)} answers neither HEAD nor GET")

    async def _parts(self, folder: URL, secret: Mapping[str, str]) -> tuple[str, ...]:
        """The weight files that the index names."""
        document = await self._client.document(_below(folder, _INDEX), _MAX_INDEX_BYTES, secret=secret)
        try:
            if document.count(b"{") + document.count(b"[") > _MAX_INDEX_NESTING:
                raise ValueError("it is flat, and has few brackets")
            parts = sorted(set(json.loads(document)["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise SourceError(AdapterReason.INVALID_CONFIG, f"{_INDEX} has no weight_map of names") from error
        if not all(isinstance(part, str) and is_plain(part) and part.endswith(".safetensors") for part in parts):
            raise SourceError(AdapterReason.INVALID_CONFIG, f"{_INDEX} names what is no safetensors file beside it")
        return tuple(part for part in parts if part not in _BASE)


def _below(folder: URL, name: str) -> URL:
    return folder.with_path(f"{folder.path.rstrip('/')}/{name}", keep_query=True)


def _text(value: bytes) -> str:
    """A header's value. Raises: SourceError where the bytes cannot be one."""
    text = value.decode("latin-1").strip()
    if not text.isprintable():
        raise SourceError(AdapterReason.SOURCE_FORBIDDEN, "the token of source.secretRef is no single line of text")
    return text

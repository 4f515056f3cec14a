"""The API server as the benchmark uses it: many creates at once, one watch, and its own count of requests."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import aiohttp

from localkube_lib.certificates import Certificates
from localkube_lib.components import API_PORT

CREATES_AT_ONCE = 32
_LINE_BYTES = 4 * 1024 * 1024
_REQUESTS = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_WRITES = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE"})

Object = dict[str, Any]


class Api:
    """The administrator's view, from inside the cluster's network namespace."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def create_all(self, path: str, manifests: Iterable[Mapping[str, Any]]) -> None:
        """Post every manifest to a collection."""
        left = iter(manifests)

        async def worker() -> None:
            for manifest in left:
                async with self._session.post(path, json=manifest) as answer:
                    if answer.status != 201:
                        raise RuntimeError(f"POST {path}: {answer.status}: {await answer.text()}")

        async with asyncio.TaskGroup() as group:
            for _ in range(CREATES_AT_ONCE):
                group.create_task(worker())

    async def read(self, path: str) -> Object:
        """What is at a path."""
        async with self._session.get(path, raise_for_status=True) as answer:
            found: Object = await answer.json()
            return found

    async def merge(self, path: str, change: Mapping[str, Any]) -> Object:
        """Patch an object; returns it."""
        headers = {"Content-Type": "application/merge-patch+json"}
        async with self._session.patch(path, data=json.dumps(change), headers=headers) as answer:
            if answer.status != 200:
                raise RuntimeError(f"PATCH {path}: {answer.status}: {await answer.text()}")
            found: Object = await answer.json()
            return found

    async def watch(self, path: str) -> AsyncIterator[Object]:
        """Every object of a collection, and again whenever it changes; until the API server ends it."""
        query = {"watch": "true", "allowWatchBookmarks": "false"}
        async with self._session.get(path, params=query, raise_for_status=True) as answer:
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event["object"]

    async def writes(self) -> dict[tuple[str, str], int]:
        """How many writes the API server has answered, by resource and verb, by its own count."""
        async with self._session.get("/metrics", raise_for_status=True) as answer:
            text = await answer.text()
        found: dict[tuple[str, str], int] = {}
        for labels, value in _REQUESTS.findall(text):
            of = dict(_LABEL.findall(labels))
            if of["verb"] in _WRITES:
                key = (of["resource"], of["verb"])
                found[key] = found.get(key, 0) + int(float(value))
        return found


def connect(certificates: Certificates) -> aiohttp.ClientSession:
    """A session of the administrator."""
    context = ssl.create_default_context(cafile=certificates.crt("ca"))
    context.load_cert_chain(certificates.crt("admin"), certificates.key("admin"))
    return aiohttp.ClientSession(
        f"https://127.0.0.1:{API_PORT}",
        connector=aiohttp.TCPConnector(ssl=context, limit=CREATES_AT_ONCE + 8),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        read_bufsize=_LINE_BYTES,
    )

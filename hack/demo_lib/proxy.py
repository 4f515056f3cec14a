"""The cluster's API over plain HTTP on loopback, as `kubectl proxy` serves it: one process for all questions."""

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KubeProxy:
    """Reads of the Kubernetes API."""

    url: str

    async def read(self, session: aiohttp.ClientSession, path: str) -> JsonObject | None:
        """The object at a path, or None where the API server answers with an error."""
        async with session.get(self.url + path, timeout=aiohttp.ClientTimeout(total=10)) as answer:
            if answer.status != 200:
                return None
            body: JsonObject = await answer.json(content_type=None)
            return body

    async def watch(self, session: aiohttp.ClientSession, path: str) -> AsyncIterator[JsonObject]:
        """Each object of a list, and each again when it changes, until the caller stops."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with session.get(
            f"{self.url}{path}", params={"watch": "1"}, timeout=timeout, read_bufsize=2**20
        ) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] in {"ADDED", "MODIFIED"}:
                    yield event["object"]


@contextmanager
def kube_proxy(kubectl: Path, kubeconfig: Path) -> Iterator[KubeProxy]:
    """Run `kubectl proxy` while the block runs."""
    process = subprocess.Popen(
        [str(kubectl), f"--kubeconfig={kubeconfig}", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield KubeProxy("http://" + line.strip().rpartition(" ")[2])
    finally:
        process.terminate()
        process.wait(timeout=10)
        if process.stdout is not None:
            process.stdout.close()

"""A store in this process, over a fake source, with its two ports on loopback."""

import asyncio
import io
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from motet_api.names import ARTIFACTS_PATH, BASES_PATH, REFERENCES_PATH
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactReport, ArtifactRequest, ArtifactsAnswer, ArtifactsQuery, ArtifactState, References
from motet_api.wire import BaseDescription
from motet_operator.store.assembly import Store, StoreSettings
from motet_operator.store.disk import Disk
from motet_operator.store.errors import StoreError
from motet_operator.store.metrics import StoreMetrics
from motet_operator.store.policy_file import PolicyFile
from motet_operator.store.sources.contract import Credentials
from tests.operator.store.material import FakeSources

SETTLED = {ArtifactState.VERIFIED, ArtifactState.FAILED}


class Clock:
    """Unix seconds that move when told."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class FakeSecrets:
    """Secrets by namespace and name."""

    def __init__(self, secrets: Mapping[tuple[str, str], Credentials] | None = None) -> None:
        self.secrets = dict(secrets or {})

    async def read(self, namespace: str, name: str) -> Credentials:
        if (namespace, name) not in self.secrets:
            raise StoreError(AdapterReason.SECRET_NOT_FOUND, f"namespace {namespace} has no Secret {name}")
        return self.secrets[namespace, name]


def request(name: str = "good", namespace: str = "team-a", **fields: Any) -> ArtifactRequest:
    return ArtifactRequest(namespace=namespace, uri=f"https://host/{name}", **fields)


class Running:
    """A store and what it is asked by HTTP."""

    def __init__(self, store: Store, session: aiohttp.ClientSession, read_url: str, admin_url: str) -> None:
        self.store = store
        self.session = session
        self.read_url = read_url
        self.admin_url = admin_url

    async def ask(self, *requests: ArtifactRequest) -> ArtifactsAnswer:
        body = io.BytesIO(ArtifactsQuery(artifacts=list(requests)).model_dump_json(by_alias=True).encode())
        async with self.session.post(self.admin_url + ARTIFACTS_PATH, data=body) as answer:
            assert answer.status == 200, await answer.text()
            return ArtifactsAnswer.model_validate_json(await answer.read())

    async def settled(
        self,
        one: ArtifactRequest,
        accept: Callable[[ArtifactReport], bool] = lambda report: report.state in SETTLED,
    ) -> ArtifactReport:
        """Ask until the report is as it should be."""
        async with asyncio.timeout(30):
            while True:
                report = (await self.ask(one)).artifacts[0]
                if accept(report):
                    return report
                await asyncio.sleep(0.01)

    async def put_base(self, base: BaseDescription) -> int:
        url = f"{self.admin_url}{BASES_PATH}/{base.digest()}"
        async with self.session.put(url, json=base.to_wire()) as answer:
            return answer.status

    async def put_references(self, *digests: str) -> int:
        body = References(digests=list(digests)).to_wire()
        async with self.session.put(self.admin_url + REFERENCES_PATH, json=body) as answer:
            return answer.status

    async def get(self, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        async with self.session.get(self.read_url + path, headers=headers) as answer:
            return answer.status, answer.headers, await answer.read()


@asynccontextmanager
async def running(
    folder: Path,
    sources: FakeSources,
    *,
    secrets: FakeSecrets | None = None,
    policy: Path | None = None,
    clock: Callable[[], float] | None = None,
    registry: CollectorRegistry | None = None,
    disk: Disk | None = None,
    disk_bytes: int = 1 << 30,
    **settings: Any,
) -> AsyncIterator[Running]:
    """A store that works until the block ends."""
    policy_file = PolicyFile(policy)
    store = Store(
        StoreSettings(folder=folder, **settings),
        disk or Disk(disk_bytes),
        sources,
        secrets or FakeSecrets(),
        policy_file,
        StoreMetrics(registry or CollectorRegistry()),
        clock or Clock(),
        random.Random(0),
    )
    store.open()
    async with _site(store.reads.application()) as read_url, _site(store.admin.application()) as admin_url:
        work = asyncio.create_task(store.run())
        try:
            async with aiohttp.ClientSession() as session:
                yield Running(store, session, read_url, admin_url)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


@asynccontextmanager
async def _site(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()

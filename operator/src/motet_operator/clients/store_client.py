"""Talks to the adapter store: what is known of these artifacts, this base is to be checked against, keep these."""

from typing import Final

import aiohttp
from pydantic import ValidationError

from motet_api.identity import Digest
from motet_api.names import ARTIFACTS_PATH, BASES_PATH, REFERENCES_PATH
from motet_api.objects import KubeModel
from motet_api.store import ArtifactsAnswer, ArtifactsQuery, References
from motet_api.wire import BaseDescription
from motet_operator.errors import SilentStoreError

TIMEOUT_SECONDS: Final = 10.0


class StoreClient:
    """`url` is the store's address, `http://host:port`. Every call ends within ten seconds, one way or the other."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def query(self, query: ArtifactsQuery) -> ArtifactsAnswer:
        """What is known of the artifacts; unknown ones are begun. Raises: SilentStoreError."""
        text = await self._call("POST", ARTIFACTS_PATH, query)
        try:
            answer = ArtifactsAnswer.model_validate_json(text)
        except ValidationError as error:
            raise SilentStoreError(f"it answers what is no answer: {error.errors()[0]['msg']}") from error
        if len(answer.artifacts) != len(query.artifacts):
            raise SilentStoreError(f"it answers {len(answer.artifacts)} of {len(query.artifacts)} artifacts")
        return answer

    async def put_base(self, digest: Digest, base: BaseDescription) -> None:
        """Say what a base looks like. Raises: SilentStoreError."""
        await self._call("PUT", f"{BASES_PATH}/{digest}", base)

    async def put_references(self, references: References) -> None:
        """Say what must not be deleted. Raises: SilentStoreError."""
        await self._call("PUT", REFERENCES_PATH, references)

    async def _call(self, method: str, path: str, body: KubeModel) -> bytes:
        within = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with self._session.request(
                method, f"{self._url}{path}", json=body.to_wire(), timeout=within
            ) as response:
                if response.status >= 300:
                    raise SilentStoreError(f"it answers {method} {path} with status {response.status}")
                return await response.read()
        except aiohttp.ClientConnectorError as error:
            raise SilentStoreError(f"cannot connect to {self._url}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SilentStoreError(str(error) or f"no answer within {TIMEOUT_SECONDS:g} s") from error

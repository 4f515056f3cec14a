"""vLLM's API, as far as the agent uses it: is it up, which adapters has it, load one, unload one.

Checked against vLLM 0.32 (`entrypoints/openai/models/serving.py`, `entrypoints/serve/lora/api_router.py`). Loading and
unloading at run time must be allowed to it: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.
"""

import json
from typing import Any, Final

import aiohttp

from motet_api.identity import AdapterId

_QUICK: Final = aiohttp.ClientTimeout(total=5)
_LOADING: Final = aiohttp.ClientTimeout(total=120)


class EngineSilentError(Exception):
    """The engine did not answer, or not as agreed: what it holds is unknown."""


class EngineRefusedError(Exception):
    """The engine understood and said no; the message is its own."""


class EngineClient:
    """One engine at `url`. Every call ends, one way or the other."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def adapters(self) -> dict[AdapterId, str]:
        """The folder of each adapter that it has. Raises: EngineSilentError."""
        status, body = await self._call("GET", "/v1/models", None, _QUICK)
        try:
            # The base's card has no parent; an adapter's root is the folder that it was loaded from.
            return {AdapterId(card["id"]): str(card["root"]) for card in body["data"] if card.get("parent")}
        except (KeyError, TypeError) as error:
            raise EngineSilentError(f"/v1/models answers {status} with something else than a list of models") from error

    async def load(self, adapter: AdapterId, folder: str) -> None:
        """Load an adapter from a folder that the engine sees too. Raises: EngineRefusedError, EngineSilentError."""
        body = {"lora_name": adapter, "lora_path": folder}
        status, answer = await self._call("POST", "/v1/load_lora_adapter", body, _LOADING)
        if status != 200:
            raise EngineRefusedError(_message(answer))

    async def unload(self, adapter: AdapterId) -> None:
        """Unload an adapter; no error if it is not there. Raises: EngineRefusedError, EngineSilentError."""
        status, answer = await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": adapter}, _LOADING)
        if status not in {200, 404}:
            raise EngineRefusedError(_message(answer))

    async def _call(self, method: str, path: str, body: Any, within: aiohttp.ClientTimeout) -> tuple[int, Any]:
        status, text = await self._exchange(method, path, body, within)
        try:
            # Success of a load is a sentence, everything else is JSON.
            return status, json.loads(text) if text.startswith(("{", "[")) else text
        except ValueError as error:
            raise EngineSilentError(f"{path} answers {status} with broken JSON") from error

    async def _exchange(self, method: str, path: str, body: Any, within: aiohttp.ClientTimeout) -> tuple[int, str]:
        try:
            async with self._session.request(method, self._url + path, json=body, timeout=within) as response:
                return response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError) as error:
            raise EngineSilentError(f"{path}: {error or type(error).__name__}") from error


def _message(answer: Any) -> str:
    """vLLM's own words, of an answer that is an error."""
    detail = answer.get("error", answer) if isinstance(answer, dict) else answer
    return str(detail.get("message", detail) if isinstance(detail, dict) else detail)[:500]

"""Run by lorax-client's own interpreter: every way of asking that the client has, printed as JSON.

Arguments: URL, ModelDeployment (namespace/name), adapter (namespace/name or name@version).
"""

import asyncio
import json
import sys
import warnings
from typing import Any

from lorax import AsyncClient, Client
from lorax.errors import NotFoundError

PROMPT = "Where is my parcel?"
TOKENS = 8


def main() -> None:
    """Ask the base and the adapter by generate and by stream, sync and async; then a name that nobody has."""
    warnings.filterwarnings("ignore")
    url, model, adapter = sys.argv[1:]
    headers = {"x-motet-model": model}
    client = Client(url, headers=headers)
    found: dict[str, Any] = {}
    for name, adapter_id in {"base": None, "adapter": adapter}.items():
        response = client.generate(PROMPT, adapter_id=adapter_id, max_new_tokens=TOKENS)
        found[f"{name} sync"] = response.generated_text
        found[f"{name} details"] = [
            response.details.finish_reason.value,
            response.details.generated_tokens,
            len(response.details.tokens),
        ]
        chunks = list(client.generate_stream(PROMPT, adapter_id=adapter_id, max_new_tokens=TOKENS))
        found[f"{name} stream"] = chunks[-1].generated_text
        found[f"{name} stream tokens"] = len(chunks)
        found.update(asyncio.run(ask_async(AsyncClient(url, headers=headers), name, adapter_id)))
    try:
        client.generate(PROMPT, adapter_id="nobody-has-this", max_new_tokens=TOKENS)
    except NotFoundError as error:
        found["unknown adapter"] = str(error)
    print(json.dumps(found))


async def ask_async(client: AsyncClient, name: str, adapter_id: str | None) -> dict[str, Any]:
    """The same by the asynchronous client."""
    response = await client.generate(PROMPT, adapter_id=adapter_id, max_new_tokens=TOKENS)
    text = ""
    async for chunk in client.generate_stream(PROMPT, adapter_id=adapter_id, max_new_tokens=TOKENS):
        text = chunk.generated_text or text
    return {f"{name} async": response.generated_text, f"{name} async stream": text}


if __name__ == "__main__":
    main()

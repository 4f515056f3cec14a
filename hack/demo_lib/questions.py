"""Questions through the gateway, with lorax-client and with the OpenAI API, and what came back from whom."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from localkube_lib.paths import REPOSITORY
from motet_api.names import ADAPTER_VERSION_HEADER, POD_HEADER, USER_HEADER

BASE: Final = "smollm2"
ASKED: Final = (BASE, "call-topic", "call-topic@v1", "call-topic@v2", "call-sentiment")
ANSWER_TOKENS: Final = 12
TIMEOUT: Final = aiohttp.ClientTimeout(total=120)
SPLIT_USERS: Final = 200
SPLIT_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of the table."""

    api: str
    model: str
    version: str
    pod: str
    text: str
    seconds: float

    def row(self) -> tuple[str, str, str, str, str, str]:
        """As text, in the table's columns."""
        shown = " ".join(self.text.split())
        shown = shown if len(shown) <= 48 else shown[:45] + "..."
        return (self.api, self.model, self.version or "-", self.pod, shown, f"{self.seconds:.2f} s")


def look_alike(answers: list[Answer]) -> list[str]:
    """Adapters that answer as the base does through the same API: training was meant to make a difference."""
    base = {answer.api: answer.text.strip() for answer in answers if not answer.version}
    same = [answer for answer in answers if answer.version and answer.text.strip() == base.get(answer.api)]
    return [f"{answer.model} answers through {answer.api} as the base does: {answer.text!r}" for answer in same]


HEADINGS: Final = ("api", "asked for", "version", "pod", "answer", "latency")


def prompt(text: str) -> str:
    """The form that the example adapters were trained on."""
    return f"Customer: {text}\nLabel:"


async def complete(
    session: aiohttp.ClientSession,
    url: str,
    model: str,
    text: str,
    user: str | None = None,
    tokens: int = ANSWER_TOKENS,
) -> Answer:
    """One answer by the OpenAI API."""
    started = time.monotonic()
    body = {"model": model, "prompt": prompt(text), "max_tokens": tokens, "temperature": 0}
    headers = {USER_HEADER: user} if user else {}
    async with session.post(f"{url}/v1/completions", json=body, headers=headers, timeout=TIMEOUT) as answer:
        document = await answer.json()
        if answer.status != 200:
            raise RuntimeError(f"{model}: {answer.status} {document}")
        return Answer(
            "OpenAI",
            model,
            answer.headers.get(ADAPTER_VERSION_HEADER, ""),
            answer.headers.get(POD_HEADER, ""),
            document["choices"][0]["text"],
            time.monotonic() - started,
        )


async def ask_openai(url: str, text: str) -> list[Answer]:
    """The same question to the base and to every adapter and version, one after the other."""
    async with aiohttp.ClientSession() as session:
        return [await complete(session, url, model, text) for model in ASKED]


async def ask_lorax(python: Path, url: str, text: str) -> list[Answer]:
    """The same by lorax-client, in its own environment."""
    adapters = [part for model in ASKED for part in ("--adapter", "" if model == BASE else model)]
    process = await asyncio.create_subprocess_exec(
        *(str(python), str(REPOSITORY / "examples" / "ask_lorax.py"), "--url", url, "--json"),
        *("--tokens", str(ANSWER_TOKENS), *adapters, text),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"examples/ask_lorax.py failed with exit code {process.returncode}")
    found = [json.loads(line) for line in out.decode().splitlines()]
    return [
        Answer("LoRAX", row["adapter"] or BASE, row["version"], row["pod"], row["answer"], row["seconds"])
        for row in found
    ]


async def count_split(url: str, model: str, texts: Sequence[str], users: int = SPLIT_USERS) -> Counter[str]:
    """Versions that answered, over one request each of many users."""
    gate = asyncio.Semaphore(SPLIT_AT_ONCE)

    async def one(session: aiohttp.ClientSession, index: int) -> str:
        async with gate:
            text = texts[index % len(texts)]
            return (await complete(session, url, model, text, user=f"user-{index}", tokens=1)).version

    async with aiohttp.ClientSession() as session:
        return Counter(await asyncio.gather(*(one(session, index) for index in range(users))))

"""Requests to the gateway: one at a time, or a steady load in the background whose every answer is kept."""

import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from motet_api.names import ADAPTER_VERSION_HEADER, POD_HEADER

PROMPT = "Where is my parcel?"
TIMEOUT = 90.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gateway said. `status` 0 means that the connection failed."""

    model: str
    status: int
    body: Any
    version: str
    pod: str
    seconds: float

    @property
    def text(self) -> str:
        """The completion."""
        found: str = self.body["choices"][0]["text"]
        return found

    @property
    def code(self) -> str:
        """The machine-readable code of an error."""
        found: str = self.body["error"]["code"]
        return found

    @property
    def message(self) -> str:
        """The text of an error."""
        found: str = self.body["error"]["message"]
        return found


def ask(url: str, model: str, tokens: int = 8, prompt: str = PROMPT, user: str = "") -> Answer:
    """One completion by the OpenAI API, greedy."""
    where = urlsplit(url)
    assert where.hostname is not None
    started = time.monotonic()
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=TIMEOUT)
    headers = {"content-type": "application/json"} | ({"x-motet-user": user} if user else {})
    body = json.dumps({"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0})
    try:
        connection.request("POST", "/v1/completions", body, headers)
        response = connection.getresponse()
        document = json.loads(response.read())
        status, found = response.status, response.headers
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(model, 0, repr(error), "", "", time.monotonic() - started)
    finally:
        connection.close()
    version, pod = found.get(ADAPTER_VERSION_HEADER, ""), found.get(POD_HEADER, "")
    return Answer(model, status, document, version, pod, time.monotonic() - started)


@dataclass
class Load:
    """Asks for the given models in turn, without a pause, from several threads, until the block ends."""

    url: str
    models: Sequence[str]
    threads: int = 2
    tokens: int = 8
    answers: list[Answer] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._workers = [threading.Thread(target=self._run, args=(index,)) for index in range(self.threads)]
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.join()

    def _run(self, index: int) -> None:
        while not self._stop.is_set():
            index += 1
            answer = ask(self.url, self.models[index % len(self.models)], self.tokens)
            self.answers.append(answer)
            if answer.status != 200:
                # A refusal is quick; without a pause it would only keep the machine busy.
                self._stop.wait(0.1)

    @property
    def failed(self) -> list[Answer]:
        """Answers other than 200."""
        return [answer for answer in self.answers if answer.status != 200]

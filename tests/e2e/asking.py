"""Requests to the gateway: one at a time, or a steady load in the background whose every answer is kept."""

import http.client
import itertools
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
    user: str = ""
    at: float = 0.0
    """When it was asked, by the monotonic clock."""

    @property
    def ended(self) -> float:
        """When the answer was there."""
        return self.at + self.seconds

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
        return Answer(model, 0, repr(error), "", "", time.monotonic() - started, user, started)
    finally:
        connection.close()
    version, pod = found.get(ADAPTER_VERSION_HEADER, ""), found.get(POD_HEADER, "")
    return Answer(model, status, document, version, pod, time.monotonic() - started, user, started)


@dataclass
class Load:
    """Asks for the given models in turn, from several threads, until the block ends.

    With a `rate` (requests a second, of all threads together) it keeps to it, however long answers take, as long as a
    thread is free; without one there is no pause. With `users`, each request is one of so many users'.
    """

    url: str
    models: Sequence[str]
    threads: int = 2
    tokens: int = 8
    rate: float | None = None
    users: int = 0
    answers: list[Answer] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._started = time.monotonic()
        self._workers = [threading.Thread(target=self._run) for _ in range(self.threads)]
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            number = next(self._numbers)
            if self.rate is not None and self._stop.wait(max(0.0, self._due(number, self.rate))):
                return
            user = f"user-{number % self.users}" if self.users else ""
            # Models change with each round of the users: every user asks every model.
            index = number // self.users if self.users else number
            answer = ask(self.url, self.models[index % len(self.models)], self.tokens, user=user)
            self.answers.append(answer)
            if answer.status != 200:
                # A refusal is quick; without a pause it would only keep the machine busy.
                self._stop.wait(0.1)

    def _due(self, number: int, rate: float) -> float:
        """Seconds until a request is to be sent."""
        return self._started + number / rate - time.monotonic()

    @property
    def failed(self) -> list[Answer]:
        """Answers other than 200."""
        return [answer for answer in self.answers if answer.status != 200]

    def since(self, moment: float) -> list[Answer]:
        """Answers to requests that were sent after a moment."""
        return [answer for answer in self.answers if answer.at > moment]

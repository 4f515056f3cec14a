"""The installation's policy: read at the start, and again whenever its file has changed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NoReturn

import yaml
from pydantic import ValidationError

from motet_api.policy import Policy

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0


class PolicySource:
    """The policy in force. Without a file everything is allowed and nothing is counted."""

    def __init__(self, path: Path | None, check: Callable[[Policy], object] = lambda _: None) -> None:
        """`check` raises ValueError for a policy that its reader cannot use.

        Raises:
            OSError, ValueError: the file cannot be read, or says what is no policy.
        """
        self._path = path
        self._check = check
        self._text = path.read_bytes() if path is not None else b""
        self.broken = False
        """Whether the file holds something else than what is in force."""
        self.current = self._parsed(self._text)

    async def run(self, changed: Callable[[], None], sleep: Callable[[float], Awaitable[None]]) -> NoReturn:
        """Look at the file for ever; `changed` is called when another policy is in force."""
        while True:
            await sleep(LOOK_SECONDS)
            if await asyncio.to_thread(self.read):
                changed()

    def read(self) -> bool:
        """Take in the file if it has changed; what is no policy leaves the old one in force. Whether another one is."""
        if self._path is None:
            return False
        try:
            text = self._path.read_bytes()
            if text == self._text:
                return False
            self._text = text
            policy = self._parsed(text)
        except (OSError, ValueError) as error:
            self.broken = True
            log.error("%s is no policy, and the one before stays in force: %s", self._path, error)
            return False
        changed = policy != self.current
        self.current, self.broken = policy, False
        log.info("%s: another policy is in force", self._path)
        return changed

    def _parsed(self, text: bytes) -> Policy:
        policy = parse_policy(text)
        self._check(policy)
        return policy


def parse_policy(text: bytes) -> Policy:
    """Read a policy. Raises: ValueError: it is not YAML, or a field is unknown or wrong; the message names it."""
    try:
        document = yaml.safe_load(text)
        return Policy.model_validate({} if document is None else document)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error

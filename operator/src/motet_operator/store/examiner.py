"""Asks the process that looks at files, and starts it anew when it does not answer."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from motet_api.identity import Digest
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactKind
from motet_api.wire import BaseDescription
from motet_operator.store.errors import StoreError
from motet_operator.store.records import Facts, Fit

log = logging.getLogger(__name__)

MEMORY_BYTES: Final = 1 << 30
CPU_SECONDS: Final = 10.0
_WALL_SECONDS: Final = 60.0
_WALL_BYTES_PER_SECOND: Final = 5_000_000
_LONGEST_LINE: Final = 1 << 20


class Examiner:
    """One process, asked one question at a time. It is started by the first."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES, cpu_seconds: float = CPU_SECONDS) -> None:
        self._words = ("-m", "motet_operator.store.examiner_process", str(memory_bytes), str(cpu_seconds))
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def examine(self, kind: ArtifactKind, digest: Digest, files: Mapping[str, Path]) -> Facts:
        """Check an artifact's files, by name (an adapter's: `config` and `weights`). Raises: StoreError."""
        ask = "adapter" if kind is ArtifactKind.ADAPTER else "base"
        said = await self._ask({"ask": ask, "digest": digest}, files)
        if "reason" in said:
            raise StoreError(AdapterReason(said["reason"]), said["message"])
        return Facts.model_validate(said)

    async def fit(self, digest: Digest, files: Mapping[str, Path], base: BaseDescription) -> Fit:
        """Whether an adapter fits a base. Raises: StoreError if that could not be found out."""
        said = await self._ask({"ask": "fit", "digest": digest, "base": base.to_wire()}, files)
        return Fit.model_validate(said)

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _ask(self, question: dict[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
        size = sum(path.stat().st_size for path in files.values())
        line = json.dumps(question | {"files": {name: str(path) for name, path in files.items()}})
        async with self._turn:
            try:
                async with asyncio.timeout(_WALL_SECONDS + size / _WALL_BYTES_PER_SECOND):
                    said = await self._exchange(line.encode() + b"\n")
            except TimeoutError as error:
                await self.close()
                message = "the files could not be checked in time"
                raise StoreError(AdapterReason.LOAD_FAILED, message) from error
            except BaseException:
                # An answer may still come, and it is not the next question's.
                await self.close()
                raise
            if not said:
                log.error("the process that checks files ended while it looked at %s", question["digest"])
                await self.close()
                raise StoreError(AdapterReason.LOAD_FAILED, "the files end the process that checks them")
        answer: dict[str, Any] = json.loads(said)
        return answer

    async def _exchange(self, line: bytes) -> bytes:
        if self._process is None or self._process.returncode is not None:
            # The child needs where the code is, and one thread: every thread of the linear algebra takes memory.
            environment = {
                "PATH": os.environ.get("PATH", ""),
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "OPENBLAS_NUM_THREADS": "1",
            }
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=environment,
                limit=_LONGEST_LINE,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(line)
            await stdin.drain()
        except ConnectionError:
            return b""
        return await stdout.readline()

"""Processes that outlive the command that started them, and are ended only if they are still the same process.

Invariant: a record holds pid and start time (clock ticks since boot, from /proc/PID/stat), written before anybody
relies on the process. A pid whose start time differs has been recycled and is never touched.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from socket import socket

from localkube_lib.errors import LocalKubeError
from localkube_lib.files import write_changed

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One started process."""

    name: str
    pid: int
    start_ticks: int
    argv: tuple[str, ...]

    def alive(self) -> bool:
        """Whether that very process still runs."""
        return start_ticks(self.pid) == self.start_ticks

    def started_at(self) -> float:
        """When it started, in seconds since the epoch (to a hundredth or so)."""
        since_boot = self.start_ticks / os.sysconf("SC_CLK_TCK")
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot

    def option(self, name: str) -> str | None:
        """The word after an option of its command line."""
        return self.argv[self.argv.index(name) + 1] if name in self.argv else None


def start_ticks(pid: int) -> int | None:
    """Start time of a running process, None when there is none (a zombie counts as none)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


class ProcessTable:
    """The recorded processes of one cluster."""

    def __init__(self, run: Path, logs: Path) -> None:
        self._run = run
        self._logs = logs

    def records(self) -> list[ProcessRecord]:
        """All records, also those of processes that have ended."""
        return [_read(path) for path in sorted(self._run.glob("*.process.json"))]

    def find(self, name: str) -> ProcessRecord | None:
        """The record of a process that is alive."""
        path = self._path(name)
        record = _read(path) if path.exists() else None
        return record if record and record.alive() else None

    def start(self, name: str, argv: Sequence[str], path: str = PATH, listener: socket | None = None) -> ProcessRecord:
        """Start a process in a session of its own, its output in a log file, unless it already runs.

        Its environment is the same whoever calls: nobody's proxy or language settings get into a cluster. A
        listening socket becomes its standard input, so that its port is taken before anybody is told of it.
        """
        running = self.find(name)
        if running:
            return running
        self._run.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        stdin = (
            (os.POSIX_SPAWN_DUP2, listener.fileno(), 0)
            if listener
            else (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        )
        # Not subprocess.Popen, which warns when it is dropped before its process has ended: these outlive us.
        with self.log(name).open("ab") as log:
            pid = os.posix_spawnp(
                argv[0],
                list(argv),
                {"PATH": path, "HOME": str(Path.home()), "LANG": "C.UTF-8"},
                file_actions=[
                    stdin,
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                ],
                setsid=True,
            )
        ticks = start_ticks(pid)
        if ticks is None:
            raise LocalKubeError(f"{name} ended at once; see {self.log(name)}")
        record = ProcessRecord(name, pid, ticks, tuple(argv))
        write_changed(self._path(name), json.dumps(asdict(record)))
        return record

    def stop(self, name: str, grace: float = 10.0) -> None:
        """End a process, by SIGTERM first. Harmless when it does not run."""
        record = self.find(name)
        if record:
            _signal(record, signal.SIGTERM)
            if not _gone(record, grace):
                _signal(record, signal.SIGKILL)
                _gone(record, 5.0)
        self._path(name).unlink(missing_ok=True)

    def log(self, name: str) -> Path:
        """Where the process writes."""
        return self._logs / f"{name}.log"

    def _path(self, name: str) -> Path:
        return self._run / f"{name}.process.json"


def _read(path: Path) -> ProcessRecord:
    data = json.loads(path.read_text())
    return ProcessRecord(data["name"], data["pid"], data["start_ticks"], tuple(data["argv"]))


def _signal(record: ProcessRecord, number: int) -> None:
    if record.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)


def _gone(record: ProcessRecord, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while record.alive():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(record.pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True

"""The control groups (v1 or v2) below which every pod of a cluster lives, and their removal."""

import contextlib
import os
import signal
import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """The mounted hierarchies: one with v2, one for each controller with v1."""
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [path for path in sorted(_ROOT.iterdir()) if (path / "cgroup.procs").exists() and not path.is_symlink()]


def ensure(name: str) -> None:
    """Make the cluster's group in every hierarchy; kubelet wants it to exist."""
    for hierarchy in hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        # A new cpuset is empty, and no process may enter it before it has been given processors and memory.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (group / setting).exists() and not (group / setting).read_text().strip():
                (group / setting).write_text((hierarchy / setting).read_text())


def members(name: str) -> set[int]:
    """Processes in the cluster's groups."""
    pids: set[int] = set()
    for hierarchy in hierarchies():
        # Not by `rglob`, which fails where a group goes while it walks.
        for folder, _, files in os.walk(hierarchy / name):
            with contextlib.suppress(OSError):
                if "cgroup.procs" in files:
                    pids.update(int(line) for line in (Path(folder) / "cgroup.procs").read_text().split())
    return pids


def remove(name: str, seconds: float = 10.0) -> list[Path]:
    """End what still runs in the cluster's groups and remove them; returns the groups that could not be removed."""
    deadline = time.monotonic() + seconds
    while True:
        for pid in members(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        left = [group for hierarchy in hierarchies() for group in _rmdir_tree(hierarchy / name)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def _rmdir_tree(group: Path) -> list[Path]:
    if not group.exists():
        return []
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return [group] if group.exists() else []

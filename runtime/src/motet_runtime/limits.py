"""What this process may use of the machine: the container's limits where there are some. Imports no torch."""

import os
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")


def usable_processors() -> int:
    """Processors that this process may use: the container's CPU limit, where there is one, rounded up."""
    count = len(os.sched_getaffinity(0))
    for path in (_CGROUP / "cpu.max", _CGROUP / "cpu/cpu.cfs_quota_us"):
        try:
            words = path.read_text().split()
            period = words[1] if len(words) > 1 else (_CGROUP / "cpu/cpu.cfs_period_us").read_text()
            quota = int(words[0]) if words[0] != "max" else -1
        except (OSError, ValueError):
            continue
        if quota > 0:
            return max(1, min(count, -(-quota // int(period))))
    return count


def usable_memory() -> int:
    """Bytes of memory that this process may use: the container's limit, where there is one, else the machine's."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in (_CGROUP / "memory.max", _CGROUP / "memory/memory.limit_in_bytes"):
        try:
            return min(total, int(path.read_text()))
        except (OSError, ValueError):
            continue
    return total

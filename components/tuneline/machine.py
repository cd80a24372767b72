"""What this process may use of the machine: its affinity, and the quota of its container."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: its affinity, and the quota of its container (cgroup v2, else v1)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        return max(1, min(cores, math.ceil(_quota(cgroup))))
    return cores


def threads_each(processes: int) -> int:
    """Threads of arithmetic for each of so many processes side by side: OMP_NUM_THREADS, else an equal share."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # OpenMP takes a list, of levels
    return int(first) if first.isdecimal() else max(1, usable_cores() // processes)


def _quota(cgroup: Path) -> float:
    if (cgroup / "cpu.max").is_file():
        quota, period = (cgroup / "cpu.max").read_text().split()
    else:
        quota, period = ((cgroup / f"cpu/cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    if float(quota) <= 0:
        raise ValueError("no limit")
    return float(quota) / float(period)

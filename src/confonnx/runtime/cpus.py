"""How many processors this process may use: as its affinity and the quotas of its control groups say."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from confonnx.errors import ConfigurationError

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")

_MOST_RUNS = 4
"""Requests that run at once by default: beyond it, threads for one request help its latency more."""


@dataclass(frozen=True, slots=True)
class Threads:
    """A division of the processors: ``runs`` requests at once, ``intra_op`` threads each."""

    runs: int
    intra_op: int

    @classmethod
    def plan(cls, cpus: int, *, runs: int | None = None, intra_op: int | None = None) -> Threads:
        """A division of ``cpus`` whose product is at most ``cpus`` where what the caller fixed allows it.

        Raises ConfigurationError for a number below 1.
        """
        for name, value in (("cpus", cpus), ("runs", runs), ("intra_op", intra_op)):
            if value is not None and value < 1:
                raise ConfigurationError(f"the number of threads ({name}) is {value}; expected at least 1")
        if runs is None:
            runs = max(1, cpus // intra_op) if intra_op is not None else min(cpus, _MOST_RUNS)
        if intra_op is None:
            intra_op = max(1, cpus // runs)
        return cls(runs, intra_op)


def available_cpus(*, root: Path = _CGROUP_ROOT, own_groups: Path = _OWN_GROUPS) -> int:
    """At least 1. A quota of a fraction counts as the next whole processor.

    ``root`` and ``own_groups`` are where Linux shows control groups; elsewhere they do not exist and do not
    count.
    """
    quotas = [quota for path in _group_paths(own_groups) if (quota := _quota(root, path)) is not None]
    return max(1, min([_affinity(), *map(math.ceil, quotas)]))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _group_paths(own_groups: Path) -> list[str]:
    """Our control group and all above it: each may have a quota. A container sees its own as ``/``."""
    text = _read(own_groups) or ""
    # cgroups(7): hierarchy:controllers:path. Version 2 has the one line "0::path".
    paths = {line.split(":", 2)[2] for line in text.splitlines() if line.count(":") >= 2}
    found = {"/"}
    for path in paths:
        parts = [part for part in path.split("/") if part and part != ".."]
        found |= {"/" + "/".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return sorted(found)


def _quota(root: Path, group: str) -> float | None:
    """Processors that the group's quota is worth; None without one."""
    relative = group.lstrip("/")
    if text := _read(root / relative / "cpu.max"):  # version 2: "max 100000" or "150000 100000"
        quota, _, period = text.strip().partition(" ")
        return None if quota == "max" else _ratio(quota, period)
    version_1 = root / "cpu" / relative
    quota = (_read(version_1 / "cpu.cfs_quota_us") or "-1").strip()
    return None if quota == "-1" else _ratio(quota, _read(version_1 / "cpu.cfs_period_us") or "")


def _ratio(quota: str, period: str) -> float | None:
    try:
        ratio = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return ratio if ratio > 0 else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None

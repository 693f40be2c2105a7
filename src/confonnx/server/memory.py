"""Keeping the process's memory in the process: no core dumps, and no other process that attaches to this one.

In a TEE the host cannot read memory anyway; these measures are against what runs beside us inside, and they
are all that a simulated server has.
"""

from __future__ import annotations

import ctypes
import sys

_PR_SET_DUMPABLE = 4  # prctl(2)


def harden_memory() -> tuple[str, ...]:
    """Forbid core dumps and, on Linux, attaching to this process. Returns which measures failed."""
    failed = []
    if not _forbid_core_dumps():
        failed.append("RLIMIT_CORE = 0")
    if sys.platform == "linux" and not _forbid_attaching():
        failed.append("PR_SET_DUMPABLE = 0")
    return tuple(failed)


def raise_descriptor_limit(wanted: int) -> bool:
    """Let the process open ``wanted`` files and sockets. ``False`` if the system allows fewer."""
    if sys.platform == "win32":
        return True
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return True
    reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    except (OSError, ValueError):
        return False
    return reachable == wanted


def _forbid_core_dumps() -> bool:
    if sys.platform == "win32":
        return True
    import resource  # not on Windows

    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        return False
    return True


def _forbid_attaching() -> bool:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return int(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)) == 0
    except (OSError, AttributeError):  # a library OS without it
        return False

"""What a process asks of the system, as ``strace`` saw it.

``strace -D`` stays out of the way: the traced process is the direct child of the test, gets its signals and
gives its exit status, and the hardening that it does (no dumps, nobody attaches) holds against others only.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

_WAIT_SECONDS = 20.0
_FAMILIES = ("AF_INET", "AF_INET6")


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace file that grows while the process runs. ``calls``: the system calls to watch."""

    path: Path
    calls: tuple[str, ...]

    def prefix(self) -> tuple[str, ...]:
        """What to put before the command. Buffers are shown whole, as ``\\xHH`` for every byte."""
        return (
            *("strace", "-D", "-f", "-q", "-xx", "-s", str(1 << 20), "-e", "signal=none"),
            *("-e", f"trace={','.join(self.calls)}", "-o", str(self.path), "--"),
        )

    def finished(self, pid: int) -> list[str]:
        """Every line, once the process has ended and the tracer has written its end."""
        end = re.compile(rf"^{pid} +\+\+\+ (exited|killed)", re.MULTILINE)
        deadline = time.monotonic() + _WAIT_SECONDS
        while not end.search(text := self.path.read_text("ascii")):
            assert time.monotonic() < deadline, "strace did not finish"
            time.sleep(0.05)
        return text.splitlines()


def traced(path: Path, *calls: str) -> Trace:
    """A trace in the file ``path``. Skips where there is no strace, except in CI, which must have it."""
    if shutil.which("strace") is None:
        if os.environ.get("CI"):
            pytest.fail("CI must watch system calls, but strace is not installed")
        pytest.skip("strace is not installed")
    return Trace(path, calls)


def buffers(line: str) -> bytes:
    """Every byte in the quoted strings of a line, in order."""
    return b"".join(
        bytes.fromhex(text.replace("\\x", "")) for text in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', line)
    )


def internet_addresses(lines: list[str]) -> list[str]:
    """The lines that name an internet address: connections, and datagrams to somebody."""
    return [line for line in lines if any(f"sa_family={family}" in line for family in _FAMILIES)]

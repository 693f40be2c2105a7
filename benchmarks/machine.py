"""What Linux says about the machine and about one process on it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("confonnx", "onnxruntime", "cryptography", "numpy", "uvloop", "httptools", "h11")
_RESET_PEAK = "5"  # proc_pid_clear_refs(5): the peak resident set size becomes the present one


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the server runs and where the load generator runs; the same core where there is only one."""

    server: int
    generator: int

    @property
    def apart(self) -> bool:
        """Whether the two have a core each. Where not, figures mean little."""
        return self.server != self.generator


@dataclass(frozen=True, slots=True)
class Machine:
    """What a reader must know to judge the figures. ``load``: the 1-minute load average, begin and end."""

    started_at: str
    cpu: str
    cpus: int
    kernel: str
    python: str
    packages: dict[str, str]
    cores: Cores
    load: tuple[float, ...]


def describe_machine(cores: Cores) -> Machine:
    """This machine, now."""
    return Machine(
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=_cpu_model(),
        cpus=os.cpu_count() or 1,
        kernel=platform.release(),
        python=platform.python_version(),
        packages={name: version(name) for name in _PACKAGES},
        cores=cores,
        load=(os.getloadavg()[0],),
    )


def choose_cores() -> Cores:
    """The first two cores that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[1 % len(allowed)])


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run on ``core`` alone for a while; processes started meanwhile stay there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process so far, to the nanosecond.

    It is the sum of ``utime`` and ``stime`` in ``/proc/PID/stat``, which are rounded to 10 ms; the process's
    CPU clock (clock_getcpuclockid(3); the number is made as the kernel's posix-timers.h does) is not.
    """
    return time.clock_gettime((~pid << 3) | 2)


def idle_seconds(core: int) -> float:
    """How long ``core`` has had nothing to do, to 10 ms. What is left of a time belongs to its processes."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            return (int(ticks[3]) + int(ticks[4])) / os.sysconf("SC_CLK_TCK")  # idle, iowait: proc_stat(5)
    raise ValueError(f"/proc/stat has no core {core}")


def core_of(pid: int) -> int:
    """The core that a process is bound to, or the first of them; 0 is this process."""
    return min(os.sched_getaffinity(pid))


def family(pid: int) -> tuple[int, ...]:
    """``pid`` and all processes below it that are there now, it first."""
    parents = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
                parents[int(directory.name)] = int(fields[1])  # proc_pid_stat(5): state, ppid, …
    found = [pid]
    for member in found:  # which grows meanwhile
        found += [child for child, parent in parents.items() if parent == member]
    return tuple(found)


def resident_bytes(pid: int) -> int:
    """Resident set size."""
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The largest resident set size since the start, or since ``reset_peak``."""
    return _status_bytes(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Count ``peak_bytes`` anew. Raises ``PermissionError`` where the process is not dumpable and we are not
    root.
    """
    Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)


def _status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/status has no {field}: has the process ended?")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()

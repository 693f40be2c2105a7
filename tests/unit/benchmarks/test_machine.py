"""What the benchmarks read of Linux, held against what is known about this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from subprocess import PIPE

import pytest

from benchmarks.machine import (
    choose_cores,
    core_of,
    cpu_seconds,
    family,
    idle_seconds,
    on_core,
    peak_bytes,
    reset_peak,
    resident_bytes,
)


def test_cpu_time_of_a_process_is_its_own() -> None:
    before = time.process_time()
    measured = cpu_seconds(os.getpid())
    assert before <= measured <= time.process_time()


def test_idle_time_only_grows() -> None:
    core = core_of(0)
    before = idle_seconds(core)
    time.sleep(0.05)
    assert 0 <= before <= idle_seconds(core)


def test_a_core_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="no core 99999"):
        idle_seconds(99999)


def test_a_process_started_on_a_core_stays_there_and_we_do_not() -> None:
    before = os.sched_getaffinity(0)
    core = choose_cores().generator
    with on_core(core):
        assert os.sched_getaffinity(0) == {core}
        assert core_of(0) == core
    assert os.sched_getaffinity(0) == before


def test_a_family_is_a_process_and_those_below_it() -> None:
    code = (
        "import subprocess, sys;"
        "inner = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=sys.stdin);"
        "print(inner.pid, flush=True); inner.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        assert family(child.pid) == (child.pid, grandchild)
        assert {child.pid, grandchild} < set(family(os.getpid()))
        child.communicate(b"\n")


def test_the_peak_shows_memory_that_is_gone() -> None:
    # A process of its own: one that some test hardened does not let its peak be reset.
    code = "import sys; bytearray(b'1') * (64 << 20); print('x', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        resident = resident_bytes(child.pid)
        assert peak_bytes(child.pid) - resident > 48 << 20
        reset_peak(child.pid)
        assert peak_bytes(child.pid) - resident < 8 << 20
        child.communicate()

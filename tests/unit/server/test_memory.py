"""Measures that keep memory in the process, tried in a process of its own because they cannot be undone."""

from __future__ import annotations

import subprocess
import sys

import pytest

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc are Linux's")


def python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout.strip()


@linux_only
def test_no_core_dumps_and_not_dumpable() -> None:
    code = """
import ctypes, resource
from confonnx.server.memory import harden_memory
before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE
failed = harden_memory()
print(before, failed, resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    assert python(code) == "1 () (0, 0) 0"


@linux_only
def test_failures_are_named() -> None:
    code = """
import ctypes, resource
from confonnx.server import memory
def refuse(*_, **__):
    raise OSError
memory.ctypes.CDLL = refuse
resource.setrlimit = refuse
print(memory.harden_memory(), memory.raise_descriptor_limit(10**9))
"""
    assert python(code) == "('RLIMIT_CORE = 0', 'PR_SET_DUMPABLE = 0') False"


@linux_only
def test_descriptor_limit_goes_up_to_what_is_wanted_or_allowed() -> None:
    code = """
import resource
from confonnx.server.memory import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 300))
print(raise_descriptor_limit(32), resource.getrlimit(resource.RLIMIT_NOFILE))
print(raise_descriptor_limit(200), resource.getrlimit(resource.RLIMIT_NOFILE))
print(raise_descriptor_limit(400), resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    assert python(code).splitlines() == ["True (64, 300)", "True (200, 300)", "False (300, 300)"]

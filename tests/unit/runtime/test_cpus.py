"""Processors by affinity and control group, and their division."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from confonnx.errors import ConfigurationError
from confonnx.runtime import cpus
from confonnx.runtime.cpus import Threads, available_cpus

MACHINE = 64


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cpus, "_affinity", lambda: MACHINE)
    return tmp_path


def count(root: Path, groups: str = "0::/\n", **quotas: str) -> int:
    """Processors where the files ``quotas`` lie below ``root``; ``__`` is a slash, ``_dot_`` a dot."""
    (root / "self").write_text(groups)
    for name, content in quotas.items():
        path = root / "cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return available_cpus(root=root / "cgroup", own_groups=root / "self")


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000\n", MACHINE),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("9900000 100000\n", MACHINE),
        ("nonsense\n", MACHINE),
        ("1 0\n", MACHINE),
        ("-5 1\n", MACHINE),
        ("\n", MACHINE),
    ],
)
def test_version_2(machine: Path, quota: str, expected: int) -> None:
    assert count(machine, cpu_dot_max=quota) == expected


def test_the_smallest_quota_above_us_counts(machine: Path) -> None:
    quotas = {
        "pod__cpu_dot_max": "400000 100000",
        "pod__box__cpu_dot_max": "max 100000",
        "other__cpu_dot_max": "1 1",
    }
    assert count(machine, "0::/pod/box\n", **quotas) == 4


def test_version_1(machine: Path) -> None:
    group = "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n"
    quotas = {"cpu__docker__abc__cpu.cfs_quota_us": "300000", "cpu__docker__abc__cpu.cfs_period_us": "100000"}
    assert count(machine, group, **quotas, **{"cpu__cpu.cfs_quota_us": "-1"}) == 3


def test_a_group_path_never_leaves_the_root(machine: Path) -> None:
    (machine / "cpu.max").write_text("100000 100000")
    assert count(machine, "0::/../..\nbroken line\n") == MACHINE


def test_no_control_groups_at_all(machine: Path) -> None:
    assert available_cpus(root=machine / "none", own_groups=machine / "none") == MACHINE


def test_this_machine() -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


def test_without_affinity_the_machine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert available_cpus(root=tmp_path, own_groups=tmp_path / "none") == 5


@pytest.mark.parametrize(
    ("available", "runs", "intra_op", "expected"),
    [
        (1, None, None, Threads(1, 1)),
        (2, None, None, Threads(2, 1)),
        (8, None, None, Threads(4, 2)),
        (64, None, None, Threads(4, 16)),
        (8, 8, None, Threads(8, 1)),
        (8, 3, None, Threads(3, 2)),
        (8, None, 4, Threads(2, 4)),
        (2, None, 4, Threads(1, 4)),
        (2, 4, 4, Threads(4, 4)),
    ],
)
def test_division(available: int, runs: int | None, intra_op: int | None, expected: Threads) -> None:
    assert Threads.plan(available, runs=runs, intra_op=intra_op) == expected


@pytest.mark.parametrize("bad", [{"cpus": 0}, {"cpus": 2, "runs": 0}, {"cpus": 2, "intra_op": -1}])
def test_numbers_below_one(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="expected at least 1"):
        Threads.plan(**bad)

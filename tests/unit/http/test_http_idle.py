"""Which idle connections are used again."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from confonnx.http import idle
from confonnx.http.idle import Idle
from confonnx.http.url import Origin

HERE, THERE = Origin("http", "a", 80), Origin("http", "b", 80)


@dataclass(eq=False)
class Fake:
    """A connection."""

    idle_since: float = 0.0
    quiet: bool = True
    closed: bool = False

    def is_quiet(self) -> bool:
        return self.quiet

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(idle, "monotonic", lambda: now[0])
    return now


def test_the_one_used_last_comes_first_and_only_for_its_origin() -> None:
    kept: Idle[Fake] = Idle()
    first, second, other = Fake(), Fake(), Fake()
    for origin, connection in ((HERE, first), (HERE, second), (THERE, other)):
        kept.put(origin, connection)
    assert [kept.take(HERE) for _ in range(3)] == [second, first, None]
    assert kept.take(THERE) is other


def test_old_ones_and_broken_ones_are_closed(clock: list[float]) -> None:
    kept: Idle[Fake] = Idle()
    old, broken, good = Fake(), Fake(quiet=False), Fake()
    kept.put(HERE, old)
    clock[0] += 20
    kept.put(HERE, good)
    kept.put(HERE, broken)
    clock[0] += 11
    assert [kept.take(HERE), kept.take(HERE)] == [good, None]
    assert (old.closed, broken.closed, good.closed) == (True, True, False)


def test_old_ones_go_when_another_comes(clock: list[float]) -> None:
    kept: Idle[Fake] = Idle()
    connections = [Fake() for _ in range(3)]
    for connection in connections:
        kept.put(HERE, connection)
        clock[0] += 16
    assert [connection.closed for connection in connections] == [True, False, False]


def test_there_are_not_too_many() -> None:
    kept: Idle[Fake] = Idle()
    connections = [Fake() for _ in range(65)]
    for connection in connections:
        kept.put(HERE, connection)
    assert [connection.closed for connection in connections] == [False] * 64 + [True]


def test_none_is_kept_after_the_end() -> None:
    kept: Idle[Fake] = Idle()
    before, after = Fake(), Fake()
    kept.put(HERE, before)
    kept.close()
    kept.put(HERE, after)
    assert (before.closed, after.closed, kept.take(HERE)) == (True, True, None)

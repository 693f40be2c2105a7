"""Waiting for sockets, also the way in which systems without ``poll`` do."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from time import monotonic

import pytest

from confonnx.http.blocking import Waiter
from confonnx.http.message import OutOfTimeError


@pytest.fixture(params=["poll", "select"])
def pair(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[socket.socket, ...]]:
    """Two ends; neither blocks."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    if request.param == "select":
        monkeypatch.setattr(sys, "platform", "win32")
    with left, right:
        yield left, right


def fill(end: socket.socket) -> None:
    """So much that it takes no more."""
    try:
        while True:
            end.send(bytes(1 << 16))
    except BlockingIOError:
        pass


def test_what_can_be_read(pair: tuple[socket.socket, ...]) -> None:
    here, there = pair
    waiter = Waiter(here)
    assert not waiter.is_readable()
    there.send(b"x")
    assert waiter.is_readable()
    assert waiter.wait(monotonic() + 10)
    assert waiter.wait(None)


def test_an_end_can_be_read(pair: tuple[socket.socket, ...]) -> None:
    here, there = pair
    there.close()
    assert Waiter(here).is_readable()
    assert Waiter(here).wait(monotonic() + 10)


def test_what_can_be_written_need_not_be_readable(pair: tuple[socket.socket, ...]) -> None:
    here, there = pair
    waiter = Waiter(here)
    assert waiter.wait(monotonic() + 10, write=True) is False
    there.send(b"x")
    assert waiter.wait(monotonic() + 10, write=True) is True


@pytest.mark.parametrize("write", [True, False])
def test_time_runs_out(pair: tuple[socket.socket, ...], write: bool) -> None:
    here, _ = pair
    fill(here)
    for deadline in (monotonic() - 1, monotonic() + 0.02):
        with pytest.raises(OutOfTimeError):
            Waiter(here).wait(deadline, write=write)


def test_a_deadline_that_is_centuries_away(pair: tuple[socket.socket, ...]) -> None:
    here, there = pair
    there.send(b"x")
    assert Waiter(here).wait(monotonic() + 1e11)

"""The open loop, against a server of a few lines."""

from __future__ import annotations

import os
import resource
import threading

import numpy as np
import pytest

from benchmarks.load import LoadError
from benchmarks.open_loop import OpenLoop, Served, allow_connections, run_open_loop
from tests.support.answering import HEAD, REQUEST, answering, echo


def run(port: int, *, due: list[float], connections: int) -> Served:
    return run_open_loop(
        port=port,
        pids=(os.getpid(),),
        messages=[REQUEST + b"%04d" % number for number in range(len(due))],
        due=due,
        connections=connections,
        room=128,
    )


def test_every_request_has_its_answer_and_its_time() -> None:
    due = [0.002 * number for number in range(20)]
    with answering(echo) as port:
        found = run(port, due=due, connections=20)
    assert found.answers == [HEAD + b"%04d" % number for number in range(20)]
    assert found.no_connection == 0
    assert np.all(found.latencies > 0)
    assert len(found.timings.latencies) == 20
    assert found.timings.elapsed >= due[-1]


def test_requests_come_though_others_wait() -> None:
    all_there = threading.Barrier(5, timeout=10)

    def together(body: bytes) -> list[bytes]:
        all_there.wait()  # none is answered before the last has come
        return [HEAD + body]

    with answering(together) as port:
        found = run(port, due=[0.0] * 5, connections=5)
    assert None not in found.answers


def test_a_request_without_a_free_connection_is_counted_and_not_sent() -> None:
    asked: list[bytes] = []

    def note(body: bytes) -> list[bytes]:
        asked.append(body)
        return [HEAD + body]

    with answering(note) as port:
        found = run(port, due=[0.0] * 5, connections=2)
    assert asked
    assert found.no_connection == 3
    assert [answer is None for answer in found.answers] == [False, False, True, True, True]
    assert np.isnan(found.latencies[2:]).all()


def one_after_the_other(port: int, count: int) -> OpenLoop:
    """``count`` requests over one connection, each sent when the one before is done with."""
    loop = OpenLoop(port, [REQUEST + b"%04d" % number for number in range(count)], [], room=128)
    loop.connect()
    for number in range(count):
        loop.send(number, due=0.0)
        while loop.busy:
            assert loop.step(10)
    loop.close()
    return loop


def test_a_connection_that_the_server_closes_is_replaced() -> None:
    def refuse_odd(body: bytes) -> list[bytes]:
        return [b""] if int(body) % 2 else [HEAD + body]

    with answering(refuse_odd) as port:
        found = one_after_the_other(port, 6)
    assert [answer is None for answer in found.answers] == [False, True] * 3
    assert found.no_connection == 0


def test_a_connection_that_says_it_closes_is_not_used_again() -> None:
    head = HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with answering(lambda body: [head + body, b""]) as port:
        found = one_after_the_other(port, 4)
    assert found.answers == [head + b"%04d" % number for number in range(4)]


def test_more_connections_than_the_system_allows_are_refused() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] == resource.RLIM_INFINITY:
        pytest.skip("the system has no limit of open files")
    with pytest.raises(LoadError, match="open files"):
        allow_connections(before[1])
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before

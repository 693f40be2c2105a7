"""A window that broke off: a peer has another try, ours have none."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from benchmarks.figures import Cell, Results
from benchmarks.load import BrokenOffError, LoadError
from benchmarks.rounds import Bench
from benchmarks.servers import Server
from benchmarks.variants import Variant
from benchmarks.workloads import Workload


class Generator:
    """Fails as it is told, then gives ``done``."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def run(self, work: object, argument: object) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def run(variant: Variant, *errors: Exception) -> object:
    workload = cast(Workload, type("W", (), {"name": "tiny", "input_bytes": 1024})())
    servers = {variant: Server(1, (1,), "")}
    generator = cast(Any, Generator(*errors))
    bench = Bench(workload, servers, generator, generator, random.Random(1), Results(), 0.1)
    return bench._run(Cell("server", "tiny", 1, variant), 3)


def test_a_peer_that_cuts_a_connection_is_asked_once_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Variant.MLSERVER, BrokenOffError("answer 65 broke off")) == "done"
    assert capsys.readouterr().err == "MLServer, tiny, c = 1: answer 65 broke off\n"
    with pytest.raises(BrokenOffError):
        run(Variant.MLSERVER, BrokenOffError("one"), BrokenOffError("two"))


@pytest.mark.parametrize(
    ("variant", "error"),
    [(Variant.SESSION_XWING, BrokenOffError("cut")), (Variant.MLSERVER, LoadError("a wrong answer"))],
)
def test_what_ours_cut_and_what_is_wrong_ends_the_benchmark(variant: Variant, error: Exception) -> None:
    with pytest.raises(LoadError, match=str(error)):
        run(variant, error)

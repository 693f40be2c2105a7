"""Batches of whatever comes: each request gets its own answer, and no run is larger than it may be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from confonnx.errors import InferenceError
from confonnx.oip.values import Value
from confonnx.runtime.batching import Batcher, BatchOptions, Observers
from confonnx.runtime.scheduler import Scheduler
from confonnx.runtime.session import Session

BAD = -1


class Negating:
    """Stands for a model, ``y = -x``, that fails where a value is ``BAD``."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def run(
        self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None, *, abort: Any = None
    ) -> dict[str, Value]:
        x = np.asarray(inputs["x"])
        self.runs.append(len(x))
        if (x == BAD).any():
            raise InferenceError("bad")
        return {"y": -x}


def nothing(seconds: float) -> None:
    """Nobody observes."""


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(
        st.tuples(st.lists(st.integers(BAD, 40), min_size=1, max_size=6), st.integers(1, 2)),
        min_size=1,
        max_size=25,
    ),
    size=st.integers(2, 8),
    left=st.sets(st.integers(0, 24)),
)
def test_each_gets_its_own(requests: list[tuple[list[int], int]], size: int, left: set[int]) -> None:
    """``requests`` are rows and their width; those whose number is in ``left`` are cancelled at once."""
    model = Negating()

    async def scenario() -> list[Any]:
        batcher: Batcher[Any] = Batcher(
            cast(Session, model),
            BatchOptions(size),
            scheduler=Scheduler(threads=1, max_queue=100),
            kind="m",
            observers=Observers(nothing, nothing),
        )
        asked = []
        for number, (rows, width) in enumerate(requests):
            x = np.repeat(np.array(rows)[:, None], width, axis=1)
            run = batcher.run({"x": x}, [], lambda answer: answer["y"], deadline=time.monotonic() + 60)
            asked.append(asyncio.ensure_future(run))
            if number in left:
                await asyncio.sleep(0)
                asked[-1].cancel()
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(scenario())
    for number, ((rows, width), answer) in enumerate(zip(requests, answers, strict=True)):
        if isinstance(answer, asyncio.CancelledError):
            assert number in left
        elif BAD in rows:
            assert isinstance(answer, InferenceError)
        else:
            assert answer.tolist() == [[-row] * width for row in rows]
    assert all(rows <= max(size, max(len(rows) for rows, _ in requests)) for rows in model.runs)

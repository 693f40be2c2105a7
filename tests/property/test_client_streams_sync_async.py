"""Whatever happens to a stream, `Client` and `AsyncClient` give the same, from inputs of either kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from confonnx import AsyncClient, Client, ConfonnxError
from tests.support.fake_server import BASE_URL, policy
from tests.support.fake_streams import AsyncFakeStreamServer, Does, FakeStreamServer

Inputs = list[Mapping[str, object]]

# With a window of one it does not matter who is faster, so both kinds of client must agree on everything.
PLANS = st.dictionaries(st.integers(0, 9), st.sampled_from(Does), max_size=3)
INPUTS = st.lists(st.integers(0, 5), max_size=9).map(
    lambda numbers: [{"a": [float(n)], "b": [1.0]} if n else {"a": [1.0]} for n in numbers]
)


def seen(result: object) -> object:
    if isinstance(result, dict):
        return {name: np.asarray(value).tolist() for name, value in result.items()}
    return f"{type(result).__name__}: {result}"


def by_thread(server: FakeStreamServer, inputs: Inputs, *, window: int, return_errors: bool) -> list[object]:
    found: list[object] = []
    with Client(BASE_URL, transport=server, policy=policy()) as client:
        try:
            results: Iterator[object] = client.predict_stream(
                inputs, max_in_flight=window, return_errors=return_errors
            )
            found.extend(seen(result) for result in results)
        except ConfonnxError as error:
            found.append(("raised", seen(error)))
    return found


async def by_task(
    server: FakeStreamServer, inputs: Inputs, *, window: int, return_errors: bool, late: bool
) -> list[object]:
    async def slowly() -> AsyncIterator[Mapping[str, object]]:
        for item in inputs:
            await asyncio.sleep(0)
            yield item

    found: list[object] = []
    async with AsyncClient(BASE_URL, transport=AsyncFakeStreamServer(server), policy=policy()) as client:
        try:
            results: AsyncIterator[object] = client.predict_stream(
                slowly() if late else inputs, max_in_flight=window, return_errors=return_errors
            )
            async for result in results:
                found.append(seen(result))
        except ConfonnxError as error:
            found.append(("raised", seen(error)))
    return found


@settings(deadline=None, max_examples=150)
@given(INPUTS, PLANS, st.booleans(), st.booleans())
def test_both_give_the_same(inputs: Inputs, plan: dict[int, Does], return_errors: bool, late: bool) -> None:
    one, other = FakeStreamServer(plan=dict(plan)), FakeStreamServer(plan=dict(plan))
    expected = by_thread(one, inputs, window=1, return_errors=return_errors)
    found = asyncio.run(by_task(other, inputs, window=1, return_errors=return_errors, late=late))
    assert found == expected
    assert one.bodies == other.bodies
    assert all(stream.closed for stream in (*one.streams, *other.streams))


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 30),
    st.sets(st.integers(0, 29), max_size=4),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
)
def test_servers_that_stop_lose_nothing_whatever_the_window(
    count: int, notices: set[int], window: int, eager: bool, late: bool
) -> None:
    inputs: Inputs = [{"a": [float(number)], "b": [1.0]} for number in range(count)]
    expected = [{"sum": [number + 1.0], "product": [float(number)]} for number in range(count)]
    plan = dict.fromkeys(notices, Does.NOTICE)
    one = FakeStreamServer(plan=dict(plan), eager=eager)
    assert by_thread(one, inputs, window=window, return_errors=False) == expected
    other = FakeStreamServer(plan=dict(plan))
    found = asyncio.run(by_task(other, inputs, window=window, return_errors=False, late=late))
    assert found == expected
    assert len(one.bodies) == len(other.bodies) == count  # none was sent twice

"""What only `AsyncClient` does: tasks, cancellation, time-outs, closing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest

from confonnx import AsyncClient, errors
from confonnx.client.exchange import HttpRequest, HttpResponse
from tests.support.fake_server import BASE_URL, AsyncFakeServer, FakeServer, policy

INPUTS = {"a": [1.0], "b": [2.0]}
TASKS = 8


@dataclass
class HeldServer(AsyncFakeServer):
    """Answers attestations only while ``gate`` is open."""

    def __post_init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()

    async def send(self, request: HttpRequest, *, timeout: float | None) -> HttpResponse:
        if request.method == "GET":
            self.asked.set()
            await self.gate.wait()
        return await super().send(request, timeout=timeout)


def client_of(transport: AsyncFakeServer) -> AsyncClient:
    return AsyncClient(BASE_URL, transport=transport, policy=policy())


async def outcome(call: Awaitable[object]) -> object:
    try:
        return await call
    except errors.ConfonnxError as error:
        return error


async def started(*calls: Awaitable[object]) -> list[asyncio.Task[object]]:
    """Tasks that have come as far as they can."""
    tasks = [asyncio.create_task(outcome(call)) for call in calls]
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(), 20)

    asyncio.run(main())


def test_tasks_share_one_attestation_before_and_after_a_restart() -> None:
    async def test() -> None:
        held = HeldServer(FakeServer())
        held.gate.set()
        client = client_of(held)
        for attestations in (1, 2):
            results = await asyncio.gather(*(client.predict(INPUTS) for _ in range(TASKS)))
            assert [np.asarray(result["sum"]).tolist() for result in results] == [[3.0]] * TASKS
            assert held.server.paths.count("GET /attestation") == attestations
            held.server.restart(same_key_ids=True)

    run(test)


def test_tasks_share_the_verdict_on_a_wrong_server() -> None:
    async def test() -> None:
        held = HeldServer(FakeServer())
        held.server.outer = lambda _: held.server.answer(200, "text/html")
        client = client_of(held)
        tasks = await started(*(client.predict(INPUTS) for _ in range(TASKS)))
        held.gate.set()
        outcomes = await asyncio.gather(*tasks)
        assert {type(result) for result in outcomes} == {errors.NotConfonnxError}
        assert held.server.paths == ["GET /attestation"]

    run(test)


def test_a_network_failure_of_one_task_is_no_verdict_for_the_others() -> None:
    async def test() -> None:
        held = HeldServer(FakeServer())
        held.server.outer = lambda _: errors.TransportError("x") if len(held.server.received) == 1 else None
        client = client_of(held)
        tasks = await started(*(client.predict(INPUTS) for _ in range(TASKS)))
        held.gate.set()
        outcomes = await asyncio.gather(*tasks)
        assert [type(result) for result in outcomes] == [errors.TransportError, *[dict] * (TASKS - 1)]
        assert held.server.paths.count("GET /attestation") == 2

    run(test)


@pytest.mark.parametrize("cancelled", [0, 1], ids=["the one that attests", "one that waits"])
def test_a_cancelled_task_does_not_take_the_others_along(cancelled: int) -> None:
    async def test() -> None:
        held = HeldServer(FakeServer())
        client = client_of(held)
        tasks = await started(*(client.predict(INPUTS) for _ in range(3)))
        tasks[cancelled].cancel()
        held.gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(outcomes.pop(cancelled), asyncio.CancelledError)
        assert [type(result) for result in outcomes] == [dict, dict]
        assert client.attestation is not None

    run(test)


def test_a_task_waits_no_longer_than_its_time() -> None:
    async def test() -> None:
        held = HeldServer(FakeServer())
        client = client_of(held)
        first, second = await started(client.predict(INPUTS), client.predict(INPUTS, timeout=0.02))
        assert isinstance(await second, errors.TransportError)
        held.gate.set()
        assert isinstance(await first, dict)
        assert held.server.paths == ["GET /attestation", "POST /ohttp"]

    run(test)


def test_every_method_and_closing() -> None:
    async def test() -> None:
        server = AsyncFakeServer(FakeServer())
        async with client_of(server) as client:
            assert repr(client) == f"<AsyncClient {BASE_URL}/ not verified yet>"
            keys = await client.verify()
            assert client.attestation is keys
            assert [model.name for model in await client.models()] == ["add"]
            assert (await client.server_metadata()).name == "confonnx"
            assert await client.ready() is True
            assert (await client.predict(INPUTS, outputs=["sum"])).keys() == {"sum"}
        assert server.server.closed
        await client.close()
        with pytest.raises(errors.ConfigurationError, match="closed"):
            await client.predict(INPUTS)

    run(test)


def test_a_failed_verification_forgets_the_keys() -> None:
    async def test() -> None:
        server = FakeServer()
        client = client_of(AsyncFakeServer(server))
        await client.predict(INPUTS)
        server.clock_ahead = timedelta(days=2)
        with pytest.raises(errors.PolicyError):
            await client.verify()
        assert client.attestation is None
        assert server.paths == ["GET /attestation", "POST /ohttp", "GET /attestation"]

    run(test)


def test_a_failed_early_renewal_does_not_fail_the_call() -> None:
    async def test() -> None:
        server = FakeServer()
        client = client_of(AsyncFakeServer(server))
        first = await client.verify()
        server.clock = first.valid_until - timedelta(seconds=5)
        server.outer = lambda request: errors.TransportError("x") if request.method == "GET" else None
        await client.predict(INPUTS)
        assert client.attestation is first
        assert server.paths == ["GET /attestation", "GET /attestation", "POST /ohttp"]

    run(test)

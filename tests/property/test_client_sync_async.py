"""Whatever happens to a server, `Client` and `AsyncClient` send the same and give the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeAlias

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from confonnx import AsyncClient, Client, ConfonnxError, TransportError
from confonnx.client.exchange import HttpRequest, HttpResponse
from confonnx.ohttp.session import SESSION_REQUEST_MEDIA_TYPE
from tests.support.fake_server import BASE_URL, PROBLEM, AsyncFakeServer, FakeServer, model, policy

INPUTS = {"a": [1.0, 2.0], "b": [3.0, 4.0]}
Event: TypeAlias = Callable[[FakeServer], None]


@dataclass(frozen=True)
class Scene:
    """Something that happens to a server, and the calls after it."""

    name: str
    event: Event

    def __repr__(self) -> str:
        return self.name


def _tampered(server: FakeServer) -> None:
    def outer(request: HttpRequest) -> HttpResponse | None:
        if request.method == "GET":
            return None
        answer = server._answer(request)
        return replace(answer, body=bytes(answer.body)[:-1] + b"\0\0")

    server.outer = outer


def _answers(status: int, media_type: str) -> Event:
    def event(server: FakeServer) -> None:
        server.outer = lambda _: server.answer(status, media_type, b"{}")

    return event


def _offers_no_evidence(server: FakeServer) -> None:
    server.outer = lambda request: TransportError("broken") if request.method == "GET" else None


def _refuses(status: int) -> Event:
    def event(server: FakeServer) -> None:
        server.inner = lambda _: server.error(status, "the reason")

    return event


def _heals(server: FakeServer) -> None:
    server.outer = lambda _: None
    server.inner = lambda _: None


def _passes(hours: float) -> Event:
    def event(server: FakeServer) -> None:
        server.clock += timedelta(hours=hours)

    return event


def _drifts(seconds: int) -> Event:
    def event(server: FakeServer) -> None:
        server.clock_ahead += timedelta(seconds=seconds)

    return event


def _serves(*models: str) -> Event:
    def event(server: FakeServer) -> None:
        server.models = [model(name) for name in models]

    return event


SCENES = [
    Scene("restart, other ids", lambda server: server.restart(same_key_ids=False)),
    Scene("restart, same ids", lambda server: server.restart(same_key_ids=True)),
    Scene("an hour", _passes(1)),
    Scene("a day", _passes(24)),
    Scene("all but 30 s of a day", _passes(24 - 30 / 3600)),
    Scene("minutes back", _passes(-0.05)),
    Scene("drift", _drifts(150)),
    Scene("drift back", _drifts(-150)),
    Scene("tampering", _tampered),
    Scene("no evidence", _offers_no_evidence),
    Scene("cannot open", _answers(400, PROBLEM)),
    Scene("ingress page", _answers(200, "text/html")),
    Scene("unauthorized outside", _answers(401, "text/html")),
    Scene("overload outside", _answers(503, "text/html")),
    Scene("overload inside", _refuses(503)),
    Scene("failure inside", _refuses(500)),
    Scene("health", _heals),
    Scene("two models", _serves("add", "other")),
    Scene("one model", _serves("add")),
]


def _shown(outcome: object) -> object:
    if isinstance(outcome, dict):
        return {name: np.asarray(value).tolist() for name, value in outcome.items()}
    return (type(outcome), str(outcome)) if isinstance(outcome, ConfonnxError) else outcome


def _seals(server: FakeServer) -> list[object]:
    """What went out sealed: in which kind, in which session (by its first appearance), with which number."""
    order: dict[bytes, int] = {}
    seen: list[object] = []
    for request in server.received:
        kind = dict(request.fields).get("content-type")
        if kind == SESSION_REQUEST_MEDIA_TYPE:
            session = order.setdefault(bytes(request.body[:1127]), len(order))  # hdr ‖ enc of X-Wing
            seen.append((session, bytes(request.body[1127:1135]).hex()))
        elif kind is not None:
            seen.append(kind)
    return seen


def _sync(scenes: list[Scene], sessions: bool) -> list[object]:
    server = FakeServer()
    seen: list[object] = []
    with Client(BASE_URL, transport=server, policy=policy("aa" * 32), sessions=sessions) as client:
        for scene in scenes:
            scene.event(server)
            calls: tuple[Callable[[], object], ...] = (
                lambda: client.predict(INPUTS),
                client.ready,
                lambda: client.predict({"a": [1.0]}, model="add"),
            )
            for call in calls:
                try:
                    seen.append(_shown(call()))
                except ConfonnxError as error:
                    seen.append(_shown(error))
            seen += [repr(client)[len("<Client") :], *server.paths, *(inner.path for inner in server.opened)]
    return [*seen, *_seals(server)]


async def _async(scenes: list[Scene], sessions: bool) -> list[object]:
    server = FakeServer()
    seen: list[object] = []
    async with AsyncClient(
        BASE_URL, transport=AsyncFakeServer(server), policy=policy("aa" * 32), sessions=sessions
    ) as client:
        for scene in scenes:
            scene.event(server)
            for call in (
                client.predict(INPUTS),
                client.ready(),
                client.predict({"a": [1.0]}, model="add"),
            ):
                try:
                    seen.append(_shown(await call))
                except ConfonnxError as error:
                    seen.append(_shown(error))
            seen += [repr(client)[len("<AsyncClient") :], *server.paths]
            seen += [inner.path for inner in server.opened]
    return [*seen, *_seals(server)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(SCENES), min_size=1, max_size=6), st.booleans())
def test_sync_and_async_do_the_same(scenes: list[Scene], sessions: bool) -> None:
    assert _sync(scenes, sessions) == asyncio.run(_async(scenes, sessions))

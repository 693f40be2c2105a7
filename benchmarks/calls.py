"""The client's view: what a call costs in Python, with the real client and with a plain one.

The plain client leaves out attestation, Binary HTTP and the seal, and nothing else: the same checks of inputs
and answers, the same Open Inference Protocol, the same transport.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.generator import Outcome, Window, peak_sum, reset_peaks
from benchmarks.load import LoadError, Mark, Timings
from benchmarks.variants import Form
from benchmarks.workloads import Case
from confonnx import AsyncClient, Client, Policy
from confonnx.attestation import result
from confonnx.attestation.statement import ModelDescription
from confonnx.client import inference
from confonnx.client.exchange import HttpRequest, HttpResponse
from confonnx.client.options import Connection, parse_url
from confonnx.client.transport import AsyncHttpTransport, HttpTransport
from confonnx.ohttp import bhttp
from confonnx.oip import binary
from confonnx.oip.values import Value

_MAX_ANSWER = 1 << 30

Answer = dict[str, Value]


@dataclass(frozen=True, slots=True)
class CallWindow:
    """Calls of ``predict`` as ``load`` says: one at a time blocks, more are asyncio tasks.

    ``measurement`` is what the server must attest to, in hex.
    """

    load: Window
    measurement: str

    @property
    def connection(self) -> Connection:
        """How to reach the server."""
        return Connection(parse_url(f"http://127.0.0.1:{self.load.port}/"))

    @property
    def case(self) -> Case:
        """What is asked."""
        return self.load.workload.case(0)

    @property
    def model(self) -> str:
        """The model's name."""
        return self.load.workload.name

    @property
    def sessions(self) -> bool:
        """Whether the calls share a session, as is the client's default."""
        return self.load.variant.form is Form.SESSION

    @property
    def policy(self) -> Policy:
        """This server, whatever its model."""
        return Policy.simple(enclave_hash=self.measurement, allow_simulated=True, dangerous_any_model=True)


def run_calls(window: CallWindow) -> Outcome:
    """Call a server through a client, and check every answer. Raises ``LoadError`` for a wrong one."""
    if window.load.variant.kem is not None:
        # The client chooses by preference alone. This process is the generator's, and every window sets it.
        setattr(result, "KEM_PREFERENCE", (window.load.variant.kem,))  # noqa: B010
    reset_peaks(window.load.pids)
    timings = _run_blocking(window) if window.load.concurrency == 1 else asyncio.run(_run_tasks(window))
    return Outcome(timings, peak_sum(window.load.pids))


def _run_blocking(window: CallWindow) -> Timings:
    transport = HttpTransport(window.connection)
    with Client(
        str(window.connection.url), policy=window.policy, transport=transport, sessions=window.sessions
    ) as client:
        if window.load.variant.kem is not None:
            return _time_blocking(
                window, partial(client.predict, {"x": window.case.input}, model=window.model)
            )
        model = _described(client.models(), window)
        return _time_blocking(window, partial(_predict_plain, transport, model, window))


async def _run_tasks(window: CallWindow) -> Timings:
    transport = AsyncHttpTransport(window.connection)
    async with AsyncClient(
        str(window.connection.url), policy=window.policy, transport=transport, sessions=window.sessions
    ) as client:
        if window.load.variant.kem is not None:
            return await _time_tasks(
                window, partial(client.predict, {"x": window.case.input}, model=window.model)
            )
        model = _described(await client.models(), window)
        return await _time_tasks(window, partial(_predict_plain_async, transport, model, window))


def _described(models: Sequence[ModelDescription], window: CallWindow) -> ModelDescription:
    (found,) = (model for model in models if model.name == window.model)
    return found


def _time_blocking(window: CallWindow, call: Callable[[], Answer]) -> Timings:
    for _ in range(1 + window.load.count // 20):
        _check(call(), window)
    answers = []
    latencies = np.zeros(window.load.count)
    begin = Mark.now(window.load.pids)
    for number in range(window.load.count):
        start = time.perf_counter()
        answers.append(call())
        latencies[number] = time.perf_counter() - start
    timings = begin.until(Mark.now(window.load.pids), latencies)
    for answer in answers:
        _check(answer, window)
    return timings


async def _time_tasks(window: CallWindow, call: Callable[[], Awaitable[Answer]]) -> Timings:
    latencies = np.zeros(window.load.count)
    answers: list[Answer] = []
    numbers = iter(range(window.load.count))

    async def one_after_another() -> None:
        for number in numbers:
            start = time.perf_counter()
            answers.append(await call())
            latencies[number] = time.perf_counter() - start

    for answer in await asyncio.gather(
        *(call() for _ in range(window.load.concurrency))
    ):  # opens the connections
        _check(answer, window)
    begin = Mark.now(window.load.pids)
    await asyncio.gather(*(one_after_another() for _ in range(window.load.concurrency)))
    timings = begin.until(Mark.now(window.load.pids), latencies)
    for answer in answers:
        _check(answer, window)
    return timings


def _predict_plain(transport: HttpTransport, model: ModelDescription, window: CallWindow) -> Answer:
    question, request = _ask_plain(model, window)
    return _read_plain(question, transport.send(request, timeout=60.0))


async def _predict_plain_async(
    transport: AsyncHttpTransport, model: ModelDescription, window: CallWindow
) -> Answer:
    question, request = _ask_plain(model, window)
    return _read_plain(question, await transport.send(request, timeout=60.0))


def _ask_plain(model: ModelDescription, window: CallWindow) -> tuple[inference.Question, HttpRequest]:
    question = inference.ask(model, {"x": window.case.input}, outputs=None)
    request = HttpRequest(
        "POST",
        f"/v2/models/{model.name}/versions/{model.version}/infer",
        accept=binary.BINARY_MEDIA_TYPE,
        max_response_bytes=_MAX_ANSWER,
        fields=question.fields,
        body=b"".join(question.body),
    )
    return question, request


def _read_plain(question: inference.Question, response: HttpResponse) -> Answer:
    if response.status != 200:
        raise LoadError(f"an answer has status {response.status}: {bytes(response.body[:200])!r}")
    return question.read(bhttp.Response(response.status, response.fields, response.body))


def _check(answer: Answer, window: CallWindow) -> None:
    value = answer["y"]
    if not (isinstance(value, np.ndarray) and np.array_equal(value, window.case.answer)):
        raise LoadError(f"an answer of {window.load.workload.name} is not what onnxruntime says in process")

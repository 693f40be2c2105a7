"""More than the server can do: some are answered in time, the others are told when to come back."""

from __future__ import annotations

import http.client
import resource
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from prometheus_client.parser import text_string_to_metric_families

from confonnx import Client
from confonnx.errors import OverloadedError
from tests.support.models import add_model, save
from tests.support.running import RunningServer, running_server

SIZE = 384
WARM = 8
INPUT: dict[str, object] = {"x": np.full((SIZE, SIZE), 1e-3, np.float32)}
TINY: dict[str, object] = {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)}


def multiplying_model(path: Path, times: int) -> Path:
    """``y`` is ``x`` multiplied by itself ``times`` times: work that grows with ``times``."""
    shape = [SIZE, SIZE]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    names = ["x", *(f"t{number}" for number in range(times - 1)), "y"]
    nodes: list[onnx.NodeProto] = [
        helper.make_node("MatMul", [before, "x"], [after]) for before, after in pairwise(names)
    ]
    return save(helper.make_graph(nodes, "multiply", [x], [y]), path)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    add_model(directory / "tiny.onnx")
    multiplying_model(directory / "middle.onnx", 6)
    multiplying_model(directory / "large.onnx", 240)
    return directory


@contextmanager
def serving(repository: Path, *options: str) -> Iterator[RunningServer]:
    threads = ("--inference-threads", "1", "--intra-op-threads", "1")
    with running_server("--model-repository", str(repository), *threads, *options) as server:
        yield server


def client_of(server: RunningServer, stack: ExitStack) -> Client:
    return stack.enter_context(
        Client(
            server.url,
            enclave_hash=server.measurement,
            dangerous_any_model=True,
            allow_simulated=True,
            timeout=120,
        )
    )


def metrics(server: RunningServer) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    connection = http.client.HTTPConnection("127.0.0.1", server.metrics_port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@dataclass(frozen=True)
class Answer:
    """One call: how long it took, and when to come back if it was refused."""

    seconds: float
    retry_after: int | None


def call(client: Client, model: str, inputs: dict[str, object]) -> Answer:
    started = time.monotonic()
    try:
        client.predict(inputs, model=model)
    except OverloadedError as error:
        return Answer(time.monotonic() - started, error.retry_after)
    return Answer(time.monotonic() - started, None)


def test_at_twice_its_capacity_every_request_is_answered_or_told_when_to_come_back(repository: Path) -> None:
    wait, timeout = 0.5, 30.0
    options = ("--max-queue-wait", "500ms", "--request-timeout", "30s")
    with serving(repository, *options) as server, ExitStack() as stack:
        client = client_of(server, stack)
        for _ in range(WARM):
            assert call(client, "middle", INPUT).retry_after is None
        measured = metrics(server)
        name = "confonnx_inference_duration_seconds"
        run = measured[f"{name}_sum", frozenset()] / measured[f"{name}_count", frozenset()]
        number = max(100, int(4 * wait / run))  # long enough for the queue to be full most of the time
        callers = stack.enter_context(ThreadPoolExecutor(number))  # fewer might never fill it
        began = time.monotonic()
        answers = []
        for index in range(number):
            time.sleep(max(0.0, began + index * run / 2 - time.monotonic()))
            answers.append(callers.submit(call, client, "middle", INPUT))
        done = [answer.result() for answer in answers]
        counted = metrics(server)
    refused = [answer for answer in done if answer.retry_after is not None]
    answered = [answer for answer in done if answer.retry_after is None]
    assert refused
    assert len(answered) >= number / 10
    assert all(1 <= (answer.retry_after or 0) <= 60 for answer in refused)
    # What was accepted began in time: the bound is the server's promise, and its own clock says if it holds.
    name = "confonnx_queue_duration_seconds_bucket"
    assert counted[name, frozenset({("le", "1.0")})] == counted[name, frozenset({("le", "+Inf")})]
    assert max(answer.seconds for answer in answered) < timeout
    labels = {"model": "middle", "version": "1"}
    told = [
        counted["confonnx_requests_total", frozenset({**labels, "outcome": outcome}.items())]
        for outcome in ("ok", "overloaded")
    ]
    assert told == [len(answered) + WARM, len(refused)], "nothing was lost"


def test_small_models_are_answered_while_a_large_one_has_all_threads(repository: Path) -> None:
    with serving(repository) as server, ExitStack() as stack:
        client = client_of(server, stack)
        for model, inputs in (("large", INPUT), ("middle", INPUT), ("tiny", TINY)):
            call(client, model, inputs)
        alone = [call(client, "large", INPUT).seconds for _ in range(3)]
        stop = False

        def saturate() -> int:
            count = 0
            while not stop:
                count += call(client, "large", INPUT).retry_after is None
            return count

        callers = stack.enter_context(ThreadPoolExecutor(4))
        busy = [callers.submit(saturate) for _ in range(4)]
        until(lambda: metrics(server)["confonnx_in_flight", frozenset()] == 4)
        tiny = [call(client, "tiny", TINY).seconds for _ in range(20)]
        middle = [call(client, "middle", INPUT).seconds for _ in range(10)]
        stop = True
        large = sum(each.result() for each in busy)
    assert large >= len(busy)
    # Behind four large runs they would wait for more than three of them.
    assert statistics.median(tiny) < min(alone)
    assert statistics.median(middle) < min(alone)


def until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")


def test_a_thousand_open_connections_leave_the_server_to_those_who_ask(repository: Path) -> None:
    idle = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < idle + 200:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, idle + 200), hard))
    with (
        serving(repository, "--max-connections", str(idle + 50), "--header-timeout", "10m") as server,
        ExitStack() as stack,
    ):
        for _ in range(idle):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
        client = client_of(server, stack)
        for number in range(100):
            inputs: dict[str, object] = {"a": np.full(3, number, np.float32), "b": np.ones(3, np.float32)}
            assert np.array_equal(np.asarray(client.predict(inputs, model="tiny")["sum"]), [number + 1.0] * 3)
        until(lambda: metrics(server)["confonnx_connections", frozenset()] >= idle)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

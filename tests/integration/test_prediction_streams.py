"""Streams of predictions between real processes: long ones, large ones, cut ones, many at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from confonnx import AsyncClient, Client, errors
from confonnx.ohttp import bhttp
from confonnx.ohttp.bhttp_stream import content_chunks, encode_request_head
from confonnx.ohttp.reader import Buffer
from confonnx.oip import binary, messages
from confonnx.oip.datatypes import Datatype, TensorType
from confonnx.oip.records import CHUNK_BYTES, RECORDS_MEDIA_TYPE, encode_record
from confonnx.oip.values import Value
from tests.support.cutting_proxy import cutting_proxy
from tests.support.models import add_model, identity_model
from tests.support.nginx_front import NginxFront, need_nginx, nginx_front
from tests.support.running import RunningServer, running_server

MIB = 1 << 20


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    add_model(directory / "add.onnx")
    identity_model(directory / "same.onnx", TensorProto.FLOAT)
    return directory


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[RunningServer]:
    with running_server("--model-repository", str(models), "--log-level", "debug") as running:
        yield running


def options(server: RunningServer) -> dict[str, Any]:
    return {
        "enclave_hash": server.measurement,
        "dangerous_any_model": True,
        "allow_simulated": True,
        "timeout": 60,
    }


def client_of(server: RunningServer, url: str | None = None) -> Client:
    return Client(url or server.url, **options(server))


def item(number: float) -> dict[str, object]:
    return {"a": [number], "b": [1.0]}


def total(result: Mapping[str, Value]) -> float:
    return float(np.asarray(result["sum"])[0])


def collect(results: Iterator[dict[str, Value]], found: list[float]) -> None:
    found.extend(total(result) for result in results)


def stream_of(server: RunningServer, *, predictions: int) -> dict[str, Any]:
    """The log's entry about the stream of so many; the end of a stream is logged behind its last byte."""
    while True:
        for entry in server.log():
            if entry["event"] == "stream" and entry["predictions"] == predictions:
                return entry


def open_streams(server: RunningServer) -> float:
    address = f"http://127.0.0.1:{server.metrics_port}/metrics"
    text = urllib.request.urlopen(address, timeout=10).read().decode()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("confonnx_streams "))


def test_ten_thousand_predictions(server: RunningServer) -> None:
    with client_of(server) as client:
        results = client.predict_stream((item(number) for number in range(10_000)), model="add")
        for number, result in enumerate(results):
            assert total(result) == number + 1
        assert number == 9_999
    assert stream_of(server, predictions=10_000)["ending"] == "complete"


def test_both_kinds_of_client_and_of_inputs_agree(server: RunningServer) -> None:
    inputs = [item(number) for number in range(300)]

    async def late() -> AsyncIterator[Mapping[str, object]]:
        for each in inputs:
            await asyncio.sleep(0)
            yield each

    async def ask(source: Any, window: int) -> list[float]:
        async with AsyncClient(server.url, **options(server)) as client:
            results = client.predict_stream(source, model="add", max_in_flight=window)
            return [total(result) async for result in results]

    expected = [number + 1.0 for number in range(300)]
    with client_of(server) as client:
        for window in (1, 8, 1000):
            results = client.predict_stream(inputs, model="add", max_in_flight=window)
            assert [total(result) for result in results] == expected
            assert asyncio.run(ask(inputs, window)) == expected
            assert asyncio.run(ask(late(), window)) == expected


def test_ping_pong(server: RunningServer) -> None:
    last = [0.0]

    def inputs() -> Iterator[Mapping[str, object]]:
        for _ in range(100):
            yield item(last[0])

    with client_of(server) as client:
        for result in client.predict_stream(inputs(), model="add", max_in_flight=1):
            last[0] = total(result)
    assert last[0] == 100


def test_a_late_input_keeps_no_answer_back(server: RunningServer) -> None:
    """The second input comes only once the first was answered, though more might be in flight."""

    async def ask() -> list[float]:
        answered = asyncio.Event()

        async def inputs() -> AsyncIterator[Mapping[str, object]]:
            yield item(1)
            await answered.wait()
            yield item(2)

        found = []
        async with AsyncClient(server.url, **options(server)) as client:
            async for result in client.predict_stream(inputs(), model="add"):
                found.append(total(result))
                answered.set()
        return found

    assert asyncio.run(ask()) == [2.0, 3.0]


def test_large_tensors_are_held_once(models: Path) -> None:
    """Three records of 64 MiB there and back: the peak is one record, its answer and little more."""
    size = 64 * MIB
    with running_server("--model-repository", str(models), "--no-mem-arena") as running:
        with client_of(running) as client:
            list(client.predict_stream([{"x": np.zeros(1, np.float32)}], model="same"))
            before = memory(running, "VmRSS")
            arrays = (np.full(size // 4, number, np.float32) for number in range(3))
            results = client.predict_stream(({"x": array} for array in arrays), model="same", max_in_flight=1)
            for number, result in enumerate(results):
                answer = np.asarray(result["y"])
                assert answer.nbytes == size
                assert (answer[0], answer[-1]) == (number, number)
            assert number == 2
        peak = memory(running, "VmHWM")
    assert (peak - before) / size <= 2.5


def memory(server: RunningServer, name: str) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{name}:"))


def test_a_server_that_is_killed_in_mid_stream_is_an_error(models: Path) -> None:
    with running_server("--model-repository", str(models)) as running, client_of(running) as client:

        def inputs() -> Iterator[Mapping[str, object]]:
            for number in range(100):
                if number == 50:
                    running.process.send_signal(signal.SIGKILL)
                    running.process.wait()
                yield item(number)

        results = client.predict_stream(inputs(), model="add", max_in_flight=4)
        with pytest.raises((errors.TransportError, errors.EncapsulationError)):
            list(results)


@pytest.mark.parametrize("max_in_flight", [1, 8])
def test_a_request_that_is_cut_on_the_way_is_an_error(server: RunningServer, max_in_flight: int) -> None:
    with cutting_proxy(server.port, request_chunks=5) as url, client_of(server, url) as client:
        found: list[float] = []
        inputs = [item(number) for number in range(20)]
        results = client.predict_stream(inputs, model="add", max_in_flight=max_in_flight)
        with pytest.raises((errors.TransportError, errors.EncapsulationError)):
            collect(results, found)
    assert found == [number + 1.0 for number in range(len(found))]
    assert len(found) <= 4
    assert stream_of(server, predictions=4)["ending"] == "broken"


@pytest.mark.parametrize("answer_chunks", [1, 3, 10, 11])
def test_an_answer_that_is_cut_on_the_way_is_an_error(server: RunningServer, answer_chunks: int) -> None:
    """The last of them is cut right before its sealed end: every answer came, and still it is no whole."""
    with cutting_proxy(server.port, answer_chunks=answer_chunks) as url, client_of(server, url) as client:
        found: list[float] = []
        results = client.predict_stream([item(number) for number in range(10)], model="add")
        with pytest.raises(errors.EncapsulationError, match="sealed end is missing"):
            collect(results, found)
    assert found == [number + 1.0 for number in range(answer_chunks - 1)]


def test_a_client_that_leaves_early_leaves_nothing_behind(server: RunningServer) -> None:
    with client_of(server) as client:
        results = client.predict_stream((item(number) for number in range(100)), model="add")
        next(results)
        assert open_streams(server) == 1
        results.close()  # type: ignore[attr-defined]
        while open_streams(server):
            pass
        assert total(client.predict(item(1), model="add")) == 2


def test_many_streams_share_the_memory_that_there_is(models: Path) -> None:
    """A hundred at once, each with more than its share: those without room are told so, and all go on."""
    inputs = [{"x": np.zeros(64 * 1024, np.float32)} for _ in range(3)]

    async def ask(client: AsyncClient) -> list[object]:
        results = client.predict_stream(inputs, model="same", return_errors=True)
        return [result async for result in results]

    async def ask_all(running: RunningServer) -> list[list[object]]:
        async with AsyncClient(running.url, **options(running)) as client:
            await client.verify()
            return await asyncio.gather(*(ask(client) for _ in range(100)))

    with running_server(
        "--model-repository", str(models), "--max-request-bytes", "512KiB", "--max-buffered-bytes", "1MiB"
    ) as running:
        answers = [answer for stream in asyncio.run(ask_all(running)) for answer in stream]
        while open_streams(running):
            pass
    assert len(answers) == 300
    assert all(isinstance(answer, dict | errors.OverloadedError) for answer in answers)
    assert any(isinstance(answer, dict) for answer in answers)


def test_a_draining_server_ends_streams_at_once(models: Path) -> None:
    """One that waits for an input is ended; one that has inputs goes on until they are answered."""
    with running_server("--model-repository", str(models)) as running, client_of(running) as client:

        def inputs() -> Iterator[Mapping[str, object]]:
            yield item(1)
            running.process.send_signal(signal.SIGTERM)
            running.process.wait(10)
            yield item(2)

        results = client.predict_stream(inputs(), model="add")
        assert total(next(results)) == 2
        with pytest.raises(errors.ConfonnxError):
            next(results)
        assert running.process.returncode == 0
        assert running.log()[-1] == {**running.log()[-1], "event": "stopped", "complete": True}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_client_that_was_idle_for_too_long_goes_on_in_another_request(models: Path, kind: str) -> None:
    options_ = ("--model-repository", str(models), "--idle-timeout", "1s", "--log-level", "debug")
    with running_server(*options_) as running:

        def inputs() -> Iterator[Mapping[str, object]]:
            for number in range(3):
                yield item(number)
            assert stream_of(running, predictions=3)["ending"] == "closed"
            for number in range(3, 8):
                yield item(number)

        async def ask() -> list[float]:
            async with AsyncClient(running.url, **options(running)) as client:
                results = client.predict_stream(in_a_thread(inputs()), model="add")
                return [total(result) async for result in results]

        if kind == "async":
            found = asyncio.run(ask())
        else:
            with client_of(running) as client:
                found = [total(result) for result in client.predict_stream(inputs(), model="add")]
        assert found == [number + 1.0 for number in range(8)]
        assert stream_of(running, predictions=5)["ending"] == "complete"


async def in_a_thread(inputs: Iterator[Mapping[str, object]]) -> AsyncIterator[Mapping[str, object]]:
    while (each := await asyncio.to_thread(next, inputs, None)) is not None:
        yield each


def test_a_stream_of_announced_length_is_refused(server: RunningServer) -> None:
    request = urllib.request.Request(
        f"{server.url}ohttp", data=b"x" * 50, headers={"content-type": "message/ohttp-chunked-req"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code == 415
    caught.value.close()


class RawStream:
    """A client by hand, which sends and does not read unless told to."""

    def __init__(self, client: Client, port: int, model: str) -> None:
        keys = client.verify()
        now = datetime.now(UTC)
        _, self._sealer = keys.begin_stream(now=now)
        fields = (("date", format_datetime(now, usegmt=True)), ("content-type", RECORDS_MEDIA_TYPE))
        head = bhttp.Request("POST", "http", "x", f"/v2/models/{model}/infer_stream", fields)
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(
            b"POST /ohttp HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
            b"content-type: message/ohttp-chunked-req\r\n\r\n"
        )
        self.seal([encode_request_head(head)])

    def seal(self, parts: Sequence[Buffer]) -> None:
        sealed = self._sealer.seal(parts)
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(sealed), bytes(sealed)))

    def send_for_ever(self, record: Sequence[Buffer]) -> None:
        for chunk in itertools.cycle(content_chunks(record, size=CHUNK_BYTES)):
            self.seal(chunk)


def test_a_client_that_does_not_read_is_held_up_and_then_cut(models: Path) -> None:
    array = np.zeros(8 * MIB // 4, np.float32)
    message = messages.InferRequest(
        (messages.InferInput("x", TensorType(Datatype.FP32, array.shape), array),),
        parameters={"binary_data_output": True},
    )
    encoded = binary.encode_infer_request(message)
    record = encode_record(tuple(encoded.parts), header_length=encoded.header_length)
    options_ = ("--model-repository", str(models), "--transfer-grace", "1s", "--log-level", "debug")
    with running_server(*options_) as running, client_of(running) as client:
        before = memory(running, "VmRSS")
        stream = RawStream(client, running.port, "same")
        with stream.socket, pytest.raises(ConnectionError):
            stream.send_for_ever(record)
        while open_streams(running):
            pass
        peak = memory(running, "VmHWM")
    assert peak - before < 8 * 8 * MIB  # a record, its answer and what onnxruntime keeps: not all that came


def test_a_record_that_does_not_come_is_not_waited_for(models: Path) -> None:
    options_ = ("--model-repository", str(models), "--transfer-grace", "1s", "--log-level", "debug")
    with running_server(*options_) as running, client_of(running) as client:
        stream = RawStream(client, running.port, "same")
        stream.seal([b"\x18", encode_record((bytes(100),))[0]])
        with stream.socket:
            came = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := stream.socket.recv(1 << 16):
                    came += piece
        assert came.startswith(b"HTTP/1.1 200 OK")
        assert not came.endswith(b"0\r\n\r\n")
        assert stream_of(running, predictions=0)["ending"] == "broken"


def test_a_task_that_is_cancelled_leaves_nothing_behind(server: RunningServer) -> None:
    async def ask() -> None:
        answered = asyncio.Event()

        async def inputs() -> AsyncIterator[Mapping[str, object]]:
            yield item(1)
            await asyncio.Event().wait()

        async def consume(client: AsyncClient) -> None:
            async for _ in client.predict_stream(inputs(), model="add"):
                answered.set()

        async with AsyncClient(server.url, **options(server)) as client:
            task = asyncio.create_task(consume(client))
            await answered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        while await asyncio.to_thread(open_streams, server):
            pass

    asyncio.run(ask())


@pytest.fixture(scope="module")
def front(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NginxFront]:
    need_nginx()
    with nginx_front(
        tmp_path_factory.mktemp("nginx"), servers=[server.port], locations=UNBUFFERED
    ) as running:
        yield running


UNBUFFERED = """
        location / {
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
            client_max_body_size 0;
        }
"""


def test_large_tensors_both_ways_at_once(server: RunningServer) -> None:
    """More than all buffers between hold, with several unanswered: neither side waits for the other."""
    inputs = [{"x": np.full(MIB, number, np.float32)} for number in range(20)]
    with client_of(server) as client:
        for number, answer in enumerate(client.predict_stream(inputs, model="same", max_in_flight=8)):
            assert np.asarray(answer["y"]).tobytes() == inputs[number]["x"].tobytes()
        assert number == 19

    async def ask() -> int:
        async with AsyncClient(server.url, **options(server)) as client:
            results = client.predict_stream(inputs, model="same", max_in_flight=8)
            return len([result async for result in results])

    assert asyncio.run(ask()) == 20


def test_through_nginx_that_passes_bodies_on(server: RunningServer, front: NginxFront) -> None:
    last = [0.0]

    def inputs() -> Iterator[Mapping[str, object]]:
        for _ in range(50):
            yield item(last[0])

    with Client(front.url, ca_file=front.ca_file, **options(server)) as client:
        for result in client.predict_stream(inputs(), model="add", max_in_flight=1):
            last[0] = total(result)
        assert last[0] == 50

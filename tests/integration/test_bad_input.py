"""Whatever arrives, only the documented error comes out; the server stays up and its memory bounded."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from confonnx.ohttp import bhttp
from tests.support import onnx_models
from tests.support.models import add_model
from tests.support.running import RunningServer, running_server
from tests.support.sealed_calls import Outer, SealedCalls

PROBLEM = "application/problem+json"
KEY_PROBLEM = "https://iana.org/assignments/http-problem-types#ohttp-key"  # RFC 9458 §5.3
DATE_PROBLEM = "https://iana.org/assignments/http-problem-types#date"  # RFC 9458 §6.5.2
MEBIBYTE = 1 << 20
MAX_REQUEST = 4 * MEBIBYTE
MAX_RESPONSE = 2 * MEBIBYTE


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """``add`` (a, b: FP32 [n]) and ``echo`` (x: BYTES [n]), with small limits."""
    directory = tmp_path_factory.mktemp("models")
    add_model(directory / "add.onnx")
    strings = onnx_models.tensor(TensorProto.STRING, ["n"])
    echo = onnx_models.model({"x": strings}, {"y": strings}, [helper.make_node("Identity", ["x"], ["y"])])
    onnx_models.save(echo, directory / "echo.onnx")
    with running_server(
        *("--model-repository", str(directory), "--max-request-bytes", "4MiB"),
        *("--max-response-bytes", "2MiB", "--max-buffered-bytes", "16MiB"),
        *("--header-timeout", "1s", "--transfer-grace", "1s"),
    ) as server:
        yield server


@pytest.fixture(scope="module")
def calls(server: RunningServer) -> SealedCalls:
    """Seals anything to the server."""
    return SealedCalls.to(server)


@pytest.fixture(autouse=True)
def _still_answers(calls: SealedCalls, server: RunningServer) -> Iterator[None]:
    yield
    answer = calls.infer("add", _json(_tensor("a"), _tensor("b")))
    assert (answer.status, json.loads(bytes(answer.body))["outputs"][0]["data"]) == (200, [2.0, 4.0])
    assert server.process.poll() is None
    assert [entry for entry in server.log() if entry["level"] == "error"] == []


def _tensor(
    name: str, datatype: str = "FP32", shape: Sequence[float] = (2,), data: object = (1, 2)
) -> object:
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data}


def _binary(name: str, size: float, datatype: str = "FP32", shape: Sequence[int] = (2,)) -> object:
    parameters = {"binary_data_size": size}
    return {"name": name, "datatype": datatype, "shape": list(shape), "parameters": parameters}


def _json(*inputs: object, **members: object) -> bytes:
    return json.dumps({"inputs": inputs, **members}).encode()


@dataclass(frozen=True, slots=True)
class _Wrong:
    """An inference request, and words that the sealed 400 must have."""

    header: bytes
    words: tuple[str, ...]
    model: str = "add"
    tensors: bytes | None = None


A, B = _tensor("a"), _tensor("b")
INFERENCES = {
    # Well-formed, but not what the model takes: the message names tensor, expected and found.
    "missing": _Wrong(_json(A), ("missing", "'b'", "expected", "a, b")),
    "none": _Wrong(_json(), ("missing", "'a'", "'b'")),
    "extra": _Wrong(_json(A, B, _tensor("c")), ("'c'", "expected", "a, b")),
    "twice": _Wrong(_json(A, A), ("'a'", "twice")),
    "dtype": _Wrong(_json(_tensor("a", "INT64"), B), ("'a'", "expected FP32", "found", "INT64")),
    "rank": _Wrong(_json(_tensor("a", shape=(1, 2)), B), ("'a'", "expected shape [n]", "found [1, 2]")),
    "count": _Wrong(_json(_tensor("a", shape=(3,)), B), ("'a'", "2 elements", "expected", "3")),
    "strings": _Wrong(_json(_tensor("a", "BYTES", data=["x", "y"]), B), ("'a'", "expected FP32", "BYTES")),
    "texts": _Wrong(_json(_tensor("a", data=["x", "y"]), B), ("'a'", "FP32")),
    "too large a number": _Wrong(_json(_tensor("a", data=[1e300, 1]), B), ("'a'", "FP32")),
    "output": _Wrong(_json(A, B, outputs=[{"name": "none"}]), ("'none'", "sum")),
    "output twice": _Wrong(_json(A, B, outputs=[{"name": "sum"}] * 2), ("'sum'", "twice")),
    # Malformed.
    "empty": _Wrong(b"", ("empty", "expected JSON")),
    "no JSON": _Wrong(b"{nothing", ("JSON",)),
    "no UTF-8": _Wrong(b'{"inputs": "\xff"}', ("JSON",)),
    "an array": _Wrong(b"[]", ("object",)),
    "null": _Wrong(b"null", ("object",)),
    "no inputs": _Wrong(b"{}", ("inputs",)),
    "inputs of another kind": _Wrong(b'{"inputs": {"a": 1}}', ("array",)),
    "a bare NaN": _Wrong(b'{"inputs":[{"name":"a","datatype":"FP32","shape":[1],"data":[NaN]}]}', ("JSON",)),
    "unknown type": _Wrong(_json(_tensor("a", "FP31"), B), ("'FP31'",)),
    "negative shape": _Wrong(_json(_tensor("a", shape=(-2,)), B), ("'a'", "negative")),
    "broken shape": _Wrong(_json(_tensor("a", shape=(2.5,)), B), ("shape",)),
    "endless shape": _Wrong(_json(_tensor("a", shape=(10**18, 10**18), data=[]), B), ("'a'", "elements")),
    "overflowing shape": _Wrong(_json(_tensor("a", shape=(2**32, 2**32), data=[]), B), ("'a'", "elements")),
    "zero times endless": _Wrong(_json(_tensor("a", shape=(0, 2**62), data=[]), B), ("'a'",)),
    "deep JSON": _Wrong(b'{"inputs":' + b"[" * 200_000, ()),
    "deep data": _Wrong(_json(_tensor("a", data=json.loads("[" * 300 + "1" + "]" * 300)), B), ("'a'",)),
    "uneven data": _Wrong(_json(_tensor("a", shape=(2, 2), data=[[1, 2], [3]]), B), ("'a'",)),
    "deep parameters": _Wrong(
        b'{"parameters":{"x":' + b'{"x":' * 5000 + b"1" + b"}" * 5000 + b'},"inputs":[]}', ()
    ),
    # Binary tensors.
    "short": _Wrong(_json(_binary("a", 8), _binary("b", 8)), ("'b'", "7 bytes"), tensors=bytes(15)),
    "long": _Wrong(_json(_binary("a", 8), _binary("b", 8)), ("1 bytes",), tensors=bytes(17)),
    "misfit": _Wrong(_json(_binary("a", 12), _binary("b", 8)), ("'a'", "8 bytes", "12"), tensors=bytes(20)),
    "negative": _Wrong(_json(_binary("a", -1), _binary("b", 8)), ("'a'",), tensors=bytes(20)),
    "enormous": _Wrong(_json(_binary("a", 10**30), _binary("b", 8)), ("'a'",), tensors=bytes(20)),
    "fraction": _Wrong(_json(_binary("a", 8.5), _binary("b", 8)), ("'a'",), tensors=bytes(20)),
    "element too long": _Wrong(
        _json(_binary("x", 8, "BYTES")), ("'x'", "element 0"), "echo", b"\xff\xff\xff\xff\0\0\0\0"
    ),
    "too few elements": _Wrong(
        _json(_binary("x", 8, "BYTES")), ("'x'", "element 1"), "echo", b"\4\0\0\0abcd"
    ),
    "too many elements": _Wrong(
        _json(_binary("x", 12, "BYTES")), ("'x'",), "echo", b"\0\0\0\0\0\0\0\0\0\0\0\0"
    ),
    "no text": _Wrong(_json(_binary("x", 6, "BYTES", (1,))), ("'x'", "UTF-8"), "echo", b"\2\0\0\0\xff\xfe"),
}


@pytest.mark.parametrize("name", INFERENCES)
def test_an_inference_that_is_wrong(name: str, calls: SealedCalls) -> None:
    wrong = INFERENCES[name]
    answer = calls.infer(wrong.model, wrong.header, wrong.tensors)
    assert answer.status == 400
    error = _error(answer)
    assert [word for word in wrong.words if word not in error] == [], error
    assert len(error) < 1000


def test_mutations_of_a_good_inference(calls: SealedCalls) -> None:
    """Random damage to header and tensors: an answer or a sealed error, and nothing else."""
    chance = random.Random(1)
    good = _json(_binary("a", 8), _binary("b", 8))
    statuses = set()
    for _ in range(300):
        header, tensors = bytearray(good), bytearray(16)
        for _ in range(chance.randint(1, 4)):
            target = chance.choice((header, tensors))
            place = chance.randrange(len(target))
            match chance.randrange(3):
                case 0:
                    target[place] ^= 1 << chance.randrange(8)
                case 1:
                    del target[place : place + chance.randint(1, 8)]
                case _:
                    target[place:place] = chance.randbytes(chance.randint(1, 8))
        answer = calls.infer("add", bytes(header), bytes(tensors))
        statuses.add(answer.status)
        assert answer.status == 200 or _error(answer)
    assert statuses <= {200, 400, 500}
    assert {200, 400} <= statuses


BINARY_HTTP = {
    "nothing": b"",
    "zeros": bytes(1000),
    "junk": b"GET / HTTP/1.1\r\n\r\n",
    "a response": b"\x01\x40\xc8\x00\x00",
    "an indeterminate response": b"\x03\x40\xc8\x00\x00\x00",
    "unknown framing": b"\x07",
    "a length beyond the end": b"\x00\x03GET\x04http\x01h\x01/\xc0\x00\x00\x00\xff\xff\xff\xff",
    "the largest length": b"\x00" + b"\xff" * 8,
    "ends in the fields": b"\x00\x03GET\x04http\x01h\x01/\x40\xff\x04date",
}


@pytest.mark.parametrize("name", BINARY_HTTP)
def test_binary_http_that_is_wrong(name: str, calls: SealedCalls) -> None:
    answer = calls.ask_with([BINARY_HTTP[name]])
    assert answer.status == 400
    assert _sealed_type(answer) in ("application/json", PROBLEM)


def test_padding_that_is_not_zero(calls: SealedCalls) -> None:
    assert calls.ask_with([*_dated_request(), bytes(3)]).status == 200
    assert calls.ask_with([*_dated_request(), b"\0\0\1"]).status == 400


@pytest.mark.parametrize(
    ("method", "path", "fields", "status"),
    [
        ("GET", "/", (), 404),
        ("GET", "/metrics", (), 404),
        ("GET", "/attestation", (), 404),
        ("POST", "/ohttp", (), 404),
        ("GET", "/v2/models/none", (), 404),
        ("GET", "/v2/models/add/versions/9", (), 404),
        ("GET", "/v2/models/..%2Fadd", (), 404),
        ("GET", "/v2/models/%ff%00", (), 404),
        ("POST", "/v2/models/none/infer", (), 404),
        ("GET", "/v2/models/add/infer", (), 405),
        ("DELETE", "/v2/models/add", (), 405),
        ("POST", "/v2/repository/models/add/unload", (), 404),
        ("POST", "/v2/models/add/infer", (("content-encoding", "gzip"),), 415),
        ("POST", "/v2/models/add/infer", (("inference-header-content-length", "-1"),), 400),
        ("POST", "/v2/models/add/infer", (("inference-header-content-length", "9" * 30),), 400),
        ("POST", "/v2/models/add/infer", (("inference-header-content-length", "99"),), 400),
    ],
)
def test_a_resource_that_is_not_there(
    method: str, path: str, fields: bhttp.Fields, status: int, calls: SealedCalls
) -> None:
    answer = calls.ask(method, path, fields=fields, body=b"{}" if method == "POST" else b"")
    assert answer.status == status
    assert _error(answer)


@pytest.mark.parametrize("offset", [timedelta(minutes=-3), timedelta(minutes=3), timedelta(days=3650)])
def test_a_date_outside_the_window_is_told_the_servers(offset: timedelta, calls: SealedCalls) -> None:
    answer = calls.ask("GET", "/v2", date=datetime.now(UTC) + offset)
    assert (answer.status, _sealed_type(answer)) == (400, PROBLEM)
    assert json.loads(bytes(answer.body))["type"] == DATE_PROBLEM
    date = parsedate_to_datetime(answer.field("date") or "")
    assert abs(date - datetime.now(UTC)) < timedelta(seconds=10)


@pytest.mark.parametrize("date", [None, "yesterday", "Tue, 24 Nov 2026 09:04:20 +0100", "1"])
def test_a_date_that_is_none(date: str | None, calls: SealedCalls) -> None:
    fields: bhttp.Fields = () if date is None else (("date", date),)
    answer = calls.ask_with(bhttp.encode_request(bhttp.Request("GET", "http", "h", "/v2", fields)))
    assert (answer.status, json.loads(bytes(answer.body))["type"]) == (400, DATE_PROBLEM)


# Outside the seal.


def test_what_does_not_open_has_one_answer(calls: SealedCalls) -> None:
    message, _ = calls.seal([b"anything"])
    replayed, _ = calls.seal(_dated_request())
    assert calls.post(bytes(replayed)).status == 200
    header = 7  # RFC 9458 §4.3: key_id, kem_id, kdf_id, aead_id
    variants = {
        "replay": bytes(replayed),
        "nothing": b"",
        "one byte": bytes(message[:1]),
        "header alone": bytes(message[:header]),
        "without its end": bytes(message[:-1]),
        "one byte more": bytes(message) + b"\0",
        "other key share": _flipped(message, header),
        "other end of the key share": _flipped(message, header + 1100),
        "other text": _flipped(message, len(message) - 20),
        "other tag": _flipped(message, len(message) - 1),
        "other KEM": bytes(message[:1]) + b"\x00\x10" + bytes(message[3:]),
        "other KDF": bytes(message[:3]) + b"\x00\x02" + bytes(message[5:]),
        "other AEAD": bytes(message[:5]) + b"\x00\x03" + bytes(message[7:]),
        "export only": bytes(message[:5]) + b"\xff\xff" + bytes(message[7:]),
        "zeros": bytes(message[:header]) + bytes(len(message) - header),
    }
    answers = {name: calls.post(variant) for name, variant in variants.items()}
    seen = {_comparable(answer) for answer in answers.values()}
    assert len(seen) == 1, answers
    status, body, fields = next(iter(seen))
    assert status == 400
    assert json.loads(body) == {"type": "about:blank", "title": "Bad Request", "status": 400}
    assert dict(fields)["content-type"] == PROBLEM


def test_an_unknown_key_has_its_problem_type(calls: SealedCalls) -> None:
    message, _ = calls.seal([b"anything"])
    known = {key.config.key_id for key in calls.keys.statement.keys}
    unknown = next(number for number in range(256) if number not in known)
    answer = calls.post(bytes([unknown]) + bytes(message[1:]))
    assert (answer.status, answer.media_type) == (400, PROBLEM)
    assert json.loads(answer.body)["type"] == KEY_PROBLEM


@pytest.mark.parametrize(
    ("method", "path", "fields", "body", "status"),
    [
        ("POST", "/ohttp", {"content-type": "application/json"}, b"{}", 415),
        ("POST", "/ohttp", {}, b"{}", 415),
        ("POST", "/ohttp", {"content-type": "message/ohttp-chunked-req"}, b"x", 415),
        ("POST", "/ohttp", {"content-type": "message/ohttp-req", "content-encoding": "gzip"}, b"x", 415),
        ("PUT", "/ohttp", {"content-type": "message/ohttp-req"}, b"x", 405),
        ("DELETE", "/ohttp", {}, None, 405),
        ("POST", "/", {}, b"x", 405),
        ("POST", "/attestation", {}, b"x", 405),
        ("GET", "/v2/models/add", {}, None, 404),
        ("POST", "/v2/models/add/infer", {}, b"{}", 404),
        ("GET", "/attestation?nonce=AAAA", {}, None, 400),
        ("GET", "/attestation?nonce=", {}, None, 400),
        ("GET", f"/attestation?nonce={'A' * 200}", {}, None, 400),
        ("GET", "/attestation?other=1", {}, None, 400),
        ("GET", f"/{'x' * 10_000}", {}, None, 414),
        ("GET", "/", {f"x-{number}": "y" for number in range(200)}, None, 431),
        ("GET", "/", {"x": "y" * 20_000}, None, 431),
    ],
)
def test_outer_requests_that_are_wrong(
    method: str, path: str, fields: Mapping[str, str], body: bytes | None, status: int, calls: SealedCalls
) -> None:
    answer = calls.exchange(method, path, fields, body)
    assert (answer.status, answer.media_type) == (status, PROBLEM)
    assert json.loads(answer.body)["status"] == status


def test_a_request_that_is_too_large_is_refused_before_it_is_read(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        length = MAX_REQUEST + 1
        connection.sendall(_head(f"content-length: {length}"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(_head("transfer-encoding: chunked"))
        chunk = b"100000\r\n" + bytes(MEBIBYTE) + b"\r\n"
        try:
            for _ in range(MAX_REQUEST // MEBIBYTE + 2):
                connection.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was refused meanwhile
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_an_answer_that_would_be_too_large_is_a_sealed_error(calls: SealedCalls) -> None:
    text = "x" * (MAX_RESPONSE + 1)
    answer = calls.infer("echo", _json(_tensor("x", "BYTES", (1,), [text])))
    assert answer.status == 413
    assert str(MAX_RESPONSE) in _error(answer)


def test_slow_and_silent_senders_are_cut_off(server: RunningServer) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(_connection(server)) for _ in range(20)]
        for number, connection in enumerate(silent):
            connection.sendall(
                (b"", b"POST /ohttp HTTP/1.1\r\nhost: x\r\n", _head("content-length: 100000"))[number % 3]
            )
        started = time.monotonic()
        for connection in silent:
            connection.settimeout(15)
            while connection.recv(65536):
                pass
        assert time.monotonic() - started < 12


def test_memory_stays_bounded(server: RunningServer, calls: SealedCalls) -> None:
    """Promised bodies, half-sent bodies, garbage and refused inferences, again and again."""
    for _ in range(2):
        _attack(server, calls)
    settled = _resident(server)
    for _ in range(6):
        _attack(server, calls)
    assert _resident(server) - settled < 32 * MEBIBYTE


def _attack(server: RunningServer, calls: SealedCalls) -> None:
    before = _resident(server)
    with ExitStack() as stack:
        for _ in range(100):  # of which the server holds four at a time, by its limit of 16 MiB
            connection = stack.enter_context(_connection(server))
            connection.sendall(_head(f"content-length: {MAX_REQUEST - 1}") + bytes(100_000))
        assert _resident(server) - before < 64 * MEBIBYTE
    for _ in range(3):
        assert calls.post(bytes(MAX_REQUEST - 1)).status == 400
        misfit = _json(_tensor("a", shape=(200_001,), data=[1.5] * 200_000), B)
        assert calls.infer("add", misfit).status == 400
    for wrong in INFERENCES.values():
        assert calls.infer(wrong.model, wrong.header, wrong.tensors).status == 400


def _head(line: str) -> bytes:
    return f"POST /ohttp HTTP/1.1\r\nhost: x\r\ncontent-type: message/ohttp-req\r\n{line}\r\n\r\n".encode()


def _connection(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def _dated_request() -> list[bytes | bytearray | memoryview]:
    date = format_datetime(datetime.now(UTC), usegmt=True)
    return bhttp.encode_request(bhttp.Request("GET", "http", "h", "/v2", (("date", date),)))


def _flipped(message: bytearray, place: int) -> bytes:
    changed = bytearray(message)
    changed[place] ^= 1
    return bytes(changed)


def _comparable(answer: Outer) -> tuple[int, bytes, tuple[tuple[str, str], ...]]:
    """An outer answer without what differs for every request."""
    fields = {name: value for name, value in answer.fields.items() if name not in ("date", "x-request-id")}
    return answer.status, answer.body, tuple(sorted(fields.items()))


def _error(answer: bhttp.Response) -> str:
    """The text of a sealed error, which has the protocol's shape and nothing else."""
    document = json.loads(bytes(answer.body))
    assert list(document) == ["error"], document
    return str(document["error"])


def _sealed_type(answer: bhttp.Response) -> str | None:
    return answer.field("content-type")


def _resident(server: RunningServer) -> int:
    """Bytes of memory that the server's process holds now."""
    status = Path("/proc") / str(server.process.pid) / "status"
    if not status.exists():
        pytest.skip("no /proc here")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024

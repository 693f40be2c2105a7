"""Nothing that a client sends or gets shows anywhere but in the client.

A run with canaries: in tensors, answers, names, credentials, malformed requests. Searched is whatever comes
out of the server: every byte on the network, the log at its most talkative, metrics, files, the command line,
and every byte that the process hands to the system.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from confonnx.client import Client
from confonnx.errors import AuthenticationError, InferenceError, InvalidInputError
from confonnx.models.repository import load_single
from confonnx.ohttp import bhttp
from confonnx.oip import binary
from confonnx.oip.messages import InferInput, InferRequest
from confonnx.oip.values import check_inputs
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.session import Session
from confonnx.server.auth import hash_credential
from tests.support import onnx_models
from tests.support.canaries import Canary, float_canary, found, text_canary
from tests.support.recording_proxy import RecordingProxy, recording_proxy
from tests.support.running import RunningServer, running_server
from tests.support.sealed_calls import SealedCalls, exchange
from tests.support.system_calls import buffers, traced

INPUT = (7301947.5, -5182736.25, 91827.640625)
ADDED = (0.25, 0.5, 0.125)
TEXT = "canary-record-7f3a9c"
KEY = "canary-key-51d0e8b2a4"
WRONG_KEY = "canary-wrong-key-90ab12"
PASSWORD = "canary-password-3c77e0"
NAME = "canary-name-4be1d2"
FIELD = "canary-field-77aa01"
JUNK = "canary-junk-c0ffee"
CLEAR = "canary-clear-e11d05"  # sent outside the seal: it may be in requests, but must not be repeated

SECRETS = (
    float_canary("input", INPUT),
    float_canary("output", np.add(INPUT, ADDED, dtype=np.float32).tolist()),
    *(text_canary(text, text) for text in (TEXT, KEY, WRONG_KEY, PASSWORD)),
)
CANARIES: tuple[Canary, ...] = (*SECRETS, *(text_canary(text, text) for text in (NAME, FIELD, JUNK)))
WRITING = ("write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg", "sendmmsg", "openat", "creat")


@dataclass(frozen=True, slots=True)
class _Run:
    server: RunningServer
    proxy: RecordingProxy
    home: Path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository: add (floats), echo (strings), number (fails for a string that is no number)."""
    directory = tmp_path_factory.mktemp("models")
    floats, strings = (onnx_models.tensor(kind, ["n"]) for kind in (TensorProto.FLOAT, TensorProto.STRING))
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    for name, node, given, gives in (
        ("add", helper.make_node("Add", ["a", "b"], ["y"]), {"a": floats, "b": floats}, floats),
        ("echo", helper.make_node("Identity", ["x"], ["y"]), {"x": strings}, strings),
        ("number", cast, {"x": strings}, floats),
    ):
        onnx_models.save(onnx_models.model(given, {"y": gives}, [node]), directory / f"{name}.onnx")
    return directory


def test_no_canary_leaves_the_client(models: Path, tmp_path: Path) -> None:
    with _running(models, tmp_path) as run:
        _use(run)
        metrics = exchange(run.server.metrics_port, "GET", "/metrics").body
        command = Path("/proc") / str(run.server.process.pid) / "cmdline"
        command_line = command.read_bytes() if command.exists() else b"(no /proc here)"
        assert run.server.terminate() == 0
        requests, answers = bytes(run.proxy.to_server), bytes(run.proxy.to_client)
    log = "".join(run.server.lines).encode()

    assert b'confonnx_requests_total{model="add",outcome="ok",version="1"}' in metrics
    assert log.count(b'"event": "request"') > 10, "the log was at its most talkative"
    for place, data in {
        "requests": requests,
        "answers": answers,
        "log": log,
        "metrics": metrics,
        "command line": command_line,
    }.items():
        assert data, f"{place}: nothing was recorded"
        assert found(CANARIES, data) == [], place
    clear = (text_canary(CLEAR, CLEAR),)
    assert found(clear, requests), "it was sent in the clear, and the record has it"
    assert found(clear, answers + log + metrics) == []
    assert list(run.home.rglob("*")) == [], "the server wrote files"


def test_no_canary_is_handed_to_the_system(models: Path, tmp_path: Path) -> None:
    trace = traced(tmp_path / "calls", *WRITING)
    with _running(models, tmp_path, prefix=trace.prefix()) as run:
        _use(run)
        assert run.server.terminate() == 0
    lines = trace.finished(run.server.process.pid)
    opened = [line for line in lines if "openat(" in line or "creat(" in line]
    written = [buffers(line) for line in lines if line not in set(opened)]

    assert any(b'"event": "request"' in data for data in written), "the trace has the log"
    assert any(b"message/ohttp-res" in data for data in written), "the trace has the answers"
    assert [names for data in written if (names := found(CANARIES, data))] == []
    for_writing = [
        buffers(line).decode()
        for line in opened
        if any(flag in line for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "creat(")) and "= -1" not in line
    ]
    assert [name for name in for_writing if not name.startswith(("/dev/", "/sys/", "/proc/"))] == []


def test_the_search_finds_what_is_not_sealed(models: Path) -> None:
    """The same search over the same requests as they are before sealing: it can fail."""
    add = Session.load(load_single(models / "add.onnx"), SessionOptions())
    values = check_inputs({"a": list(INPUT), "b": list(ADDED)}, add.inputs)
    inputs = tuple(InferInput(spec.name, spec.type, values[spec.name]) for spec in add.inputs)
    for as_binary, form in ((True, "input (raw)"), (False, "input (decimal 0)")):
        body = binary.encode_infer_request(InferRequest(inputs), binary=as_binary).parts
        assert form in found(CANARIES, b"".join(body))
    output = add.run(values)["y"]
    assert isinstance(output, np.ndarray)
    assert "output (raw)" in found(CANARIES, output.tobytes())

    fields = (("authorization", f"Bearer {KEY}"), ("x-other", FIELD))
    request = bhttp.Request("POST", "http", "host", f"/v2/models/{NAME}/infer", fields, TEXT.encode())
    raw = {name for name in found(CANARIES, b"".join(bhttp.encode_request(request))) if "(raw)" in name}
    assert raw == {f"{text} (raw)" for text in (KEY, FIELD, NAME, TEXT)}
    for user in ("u", "us", "use"):
        pair = base64.b64encode(f"{user}:{PASSWORD}".encode())
        assert [name for name in found(CANARIES, pair) if PASSWORD in name]
    assert found(CANARIES, repr(TEXT.encode().hex(" ")).encode()) == [f"{TEXT} (hex dump)"]


@contextmanager
def _running(models: Path, directory: Path, *, prefix: Sequence[str] = ()) -> Iterator[_Run]:
    """A server that knows its clients' credentials as hashes, behind a proxy that records."""
    home = directory / "home"
    home.mkdir()
    credentials = directory / "credentials"
    lines = (hash_credential("tests", KEY, basic=False), hash_credential("user", PASSWORD, basic=True))
    credentials.write_text("\n".join(lines) + "\n")
    with (
        running_server(
            *("--model-repository", str(models), "--auth-file", str(credentials), "--log-level", "debug"),
            environment={
                "HOME": str(home),
                "TMPDIR": str(home),
                "XDG_CACHE_HOME": str(home / "cache"),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            directory=home,
            prefix=prefix,
        ) as server,
        recording_proxy(server.port) as proxy,
    ):
        yield _Run(server, proxy, home)


def _use(run: _Run) -> None:
    """Everything that clients do, right and wrong, with a canary in every place that a client fills."""
    _predict(run)
    _be_refused(run)
    _send_malformed(run)


def _predict(run: _Run) -> None:
    with _client(run, auth_key=KEY) as client:
        output = client.predict({"a": list(INPUT), "b": list(ADDED)}, model="add")["y"]
        assert np.array_equal(output, np.add(INPUT, ADDED, dtype=np.float32))  # type: ignore[arg-type]
        assert client.ready()
    with _client(run, auth_user="user", auth_pass=PASSWORD) as client:
        assert client.predict({"x": [TEXT]}, model="echo")["y"].tolist() == [TEXT]  # type: ignore[union-attr]


def _be_refused(run: _Run) -> None:
    errors: list[Exception] = []
    with _client(run, auth_key=KEY) as client:
        with pytest.raises(InferenceError) as failed:
            client.predict({"x": [TEXT]}, model="number")
        with pytest.raises(InvalidInputError) as unfit:
            client.predict({"a": list(INPUT), "b": [TEXT]}, model="add")
        errors += [failed.value, unfit.value]
    with _client(run, auth_key=WRONG_KEY) as client, pytest.raises(AuthenticationError) as refused:
        client.predict({"x": [TEXT]}, model="echo")
    with (
        _client(run, auth_user=NAME, auth_pass=f"{PASSWORD}{FIELD}") as client,
        pytest.raises(AuthenticationError) as refused_too,
    ):
        client.predict({"x": [TEXT]}, model="echo")
    errors += [refused.value, refused_too.value]
    assert [names for error in errors if (names := found(SECRETS, str(error).encode()))] == []


def _send_malformed(run: _Run) -> None:
    calls = SealedCalls.to(run.server, port=run.proxy.port)
    fields = (("authorization", f"Bearer {KEY}"), ("x-field", FIELD))
    for method, path, body, status in (
        ("GET", f"/v2/models/{NAME}", b"", 404),
        ("GET", f"/{NAME}?{FIELD}", b"", 404),
        ("POST", f"/v2/models/{NAME}/infer", JUNK.encode(), 404),
        ("POST", "/v2/models/add/infer", JUNK.encode(), 400),
        ("POST", "/v2/models/add/infer", f'{{"inputs": [{{"name": "{JUNK}"}}]}}'.encode(), 400),
        ("POST", "/v2/models/echo/infer", _oip_bytes(JUNK).replace(b'"BYTES"', b'"FP32"'), 400),
        ("POST", "/v2/models/number/infer", _oip_bytes(TEXT), 500),
    ):
        answer = calls.ask(method, path, fields=fields, body=body)
        assert (answer.status, path) == (status, path)
        assert found(SECRETS, bytes(answer.body)) == []
    assert calls.ask_with([JUNK.encode()]).status == 400

    message, _ = calls.seal([JUNK.encode()])
    assert calls.post(bytes(message[:-1]) + bytes([message[-1] ^ 1])).status == 400
    assert calls.post(CLEAR.encode()).status == 400
    assert calls.exchange("GET", f"/{CLEAR}?{CLEAR}", {"authorization": f"Bearer {CLEAR}"}).status == 404
    assert calls.exchange(CLEAR.upper()[:6], f"/{CLEAR}").status in (400, 404)
    assert calls.exchange("GET", f"/attestation?nonce={CLEAR}").status == 400


def _oip_bytes(text: str) -> bytes:
    return f'{{"inputs": [{{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["{text}"]}}]}}'.encode()


def _client(
    run: _Run, *, auth_key: str | None = None, auth_user: str | None = None, auth_pass: str | None = None
) -> Client:
    return Client(
        run.proxy.url,
        auth_key=auth_key,
        auth_user=auth_user,
        auth_pass=auth_pass,
        enclave_hash=run.server.measurement,
        dangerous_any_model=True,
        allow_simulated=True,
    )

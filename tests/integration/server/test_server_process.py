"""The server as a process and as a context: start, answer, roll keys over, drain, refuse to start."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from confonnx.attestation import statement
from confonnx.attestation.attest.simulated import SimulatedAttester
from confonnx.errors import BundleError, ConfigurationError, ModelFormatError, ModelNotFoundError, TeeError
from confonnx.ohttp import bhttp
from confonnx.ohttp.encapsulation import encapsulate_request
from confonnx.ohttp.key_config import parse_key_configs
from confonnx.server import lifecycle
from confonnx.server.auth import hash_credential
from confonnx.server.lifecycle import Running, running
from confonnx.server.logs import Log, LogFormat, LogLevel
from confonnx.server.messages import HttpRequest
from confonnx.server.settings_sources import load_settings
from tests.support.models import add_model

SERVE = """
import sys
from confonnx.server.lifecycle import serve
from confonnx.server.settings_sources import load_settings
settings, warnings = load_settings(dict(item.split("=", 1) for item in sys.argv[1:]))
sys.exit(serve(settings, warnings=warnings))
"""
LOOPBACK = {"address": "127.0.0.1", "http_port": "0", "metrics_port": "0", "log_format": "json"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_model(tmp_path_factory.mktemp("model") / "add.onnx")


class Process:
    """``serve`` in a process; ``lines`` is its log so far."""

    def __init__(self, model: Path, **options: str) -> None:
        given = {**LOOPBACK, "model_path": str(model), **options}
        arguments = [f"{name}={value}" for name, value in given.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        assert self.ready.wait(60)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(json.loads(line))
            if self.lines[-1]["event"] == "ready":
                self.ready.set()

    def event(self, name: str) -> dict[str, Any]:
        return next(line for line in self.lines if line["event"] == name)

    def get(self, path: str, *, port: str = "port") -> bytes:
        url = f"http://127.0.0.1:{self.event('ready')[port]}{path}"
        with urllib.request.urlopen(url, timeout=10) as response:
            content: bytes = response.read()
            return content

    def sealed(self, path: str, **fields: str) -> bhttp.Response:
        """The opened answer to a sealed GET, by an unproven key: good enough to see the server work."""
        config = parse_key_configs(self.get("/ohttp"))[0]
        date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        request = bhttp.Request("GET", "https", "x", path, (("date", date), *fields.items()))
        message, opener = encapsulate_request(config, bhttp.encode_request(request))
        url = f"http://127.0.0.1:{self.event('ready')['port']}/ohttp"
        headers = {"content-type": "message/ohttp-req"}
        with urllib.request.urlopen(
            urllib.request.Request(url, bytes(message), headers), timeout=10
        ) as response:
            return bhttp.parse_response(opener.open(response.read()))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(30)
        self.reader.join(10)
        return status


@pytest.fixture(scope="module")
def process(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    credentials = tmp_path_factory.mktemp("auth") / "credentials"
    credentials.write_text(
        hash_credential("one", "0123456789abcdef", basic=False)
        + "\n"
        + hash_credential("al", "pw", basic=True)
    )
    process = Process(model, auth_file=str(credentials), url_prefix="/m", deployment="here")
    yield process
    if process.process.poll() is None:
        process.stop()
    for stream in (process.process.stderr, process.process.stdout):
        assert stream is not None
        stream.close()


def test_announces_what_it_is(process: Process, model: Path) -> None:
    ready = process.event("ready")
    assert ready["url"] == f"http://127.0.0.1:{ready['port']}/m/"
    assert ready["tee"] == "simulated"
    assert len(bytes.fromhex(ready["measurement"])) == 32
    assert ready["authentication"] == ["basic", "bearer"]
    assert [entry.partition(" sha256:")[0] for entry in ready["models"]] == ["add/1"]
    warning = process.event("no protection: the TEE is simulated")
    assert "--allow-simulated" in warning["advice"]
    assert process.lines.index(warning) < process.lines.index(ready)


def test_answers(process: Process) -> None:
    assert process.get("/") == process.get("/m") == process.get("/m/") == b"Healthy"
    assert process.get("/readyz") == b"ready"
    assert json.loads(process.get("/attestation"))["evidence"][0].startswith(
        "application/vnd.confonnx.simulated"
    )
    assert process.sealed("/v2/health/ready").status == 401
    assert process.sealed("/v2/health/ready", authorization="Bearer 0123456789abcdef").status == 200
    basic = base64.b64encode(b"al:pw").decode()
    assert process.sealed("/v2/models", authorization=f"Basic {basic}").status == 200
    metrics = process.get("/metrics", port="metrics_port").decode()
    assert 'confonnx_requests_total{model="",outcome="unauthenticated",version=""} 1.0' in metrics
    assert "confonnx_connections" in metrics


def test_memory_is_hardened(process: Process) -> None:
    if sys.platform != "linux":
        pytest.skip("/proc is Linux's")
    limits = Path(f"/proc/{process.process.pid}/limits")
    core = next(line for line in limits.read_text().splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


def test_sigterm_ends_it_cleanly_and_nothing_was_printed(process: Process) -> None:
    assert process.stop() == 0
    assert [line["event"] for line in process.lines[-2:]] == ["draining", "stopped"]
    assert process.lines[-1]["complete"] is True
    assert process.process.stdout is not None
    assert process.process.stdout.read() == ""


def test_sigint_too(model: Path) -> None:
    process = Process(model, metrics="false", num_http_threads="4")
    assert process.event("ready")["metrics_port"] is None
    assert "--num-http-threads" in process.event("settings")["warning"]
    assert process.stop(signal.SIGINT) == 0
    for stream in (process.process.stderr, process.process.stdout):
        assert stream is not None
        stream.close()


def settings_for(model: Path | None, **options: object) -> Any:
    given = {**LOOPBACK, "drain_timeout": "0.2s", **options}
    if model is not None:
        given["model_path"] = str(model)
    return load_settings(given)[0]


async def serving(model: Path | None, **options: object) -> Running:
    """Start and stop a server in this loop; what start-up raises comes out."""
    stream = io.StringIO()
    async with running(
        settings_for(model, **options), Log(form=LogFormat.JSON, level=LogLevel.INFO, stream=stream)
    ) as server:
        return server


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, ConfigurationError, "--model-path FILE or --model-repository"),
        ({"model_path": "/nowhere/m.onnx"}, ModelNotFoundError, "/nowhere/m.onnx"),
        ({"model_repository": "/nowhere"}, ModelNotFoundError, "/nowhere"),
        ({"require_tee": True, "model": True}, TeeError, "required"),
        ({"tee": "sgx", "model": True}, TeeError, "sgx"),
        ({"auth_file": "/nowhere", "model": True}, ConfigurationError, "--auth-file /nowhere"),
        (
            {"simulated_signing_key_file": "/nowhere", "model": True},
            ConfigurationError,
            "--simulated-signing-key",
        ),
        ({"address": "203.0.113.1", "model": True}, ConfigurationError, "cannot listen on 203"),
    ],
)
def test_does_not_start(model: Path, options: dict[str, object], error: type[Exception], text: str) -> None:
    given = dict(options)
    path = model if given.pop("model", False) else None
    with pytest.raises(error, match=text):
        asyncio.run(serving(path, **given))


def test_a_tee_that_gives_no_evidence_ends_the_start(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def collect(self: SimulatedAttester, report_data: bytes) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
        raise TeeError("the device is gone")

    monkeypatch.setattr(SimulatedAttester, "collect", collect)
    with pytest.raises(TeeError, match="the device is gone"):
        asyncio.run(serving(model))


def test_a_statement_over_its_bounds_ends_the_start(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statement, "MAX_MODELS", 0)
    with pytest.raises(BundleError, match="models"):
        asyncio.run(serving(model))


def test_broken_model(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    with pytest.raises(ModelFormatError, match=r"broken\.onnx"):
        asyncio.run(serving(broken))


@pytest.mark.parametrize("option", ["http_port", "metrics_port"])
def test_port_in_use_names_its_option(model: Path, option: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port}: .*--{option.replace('_', '-')}"):
            asyncio.run(serving(model, **{option: port}))


def test_signing_key_shows_in_the_evidence(model: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from confonnx.attestation.bundle import parse_bundle
    from confonnx.attestation.policy import simulated_signer
    from confonnx.attestation.verify.simulated import verify

    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    path = tmp_path / "key.pem"
    path.write_bytes(
        key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )

    async def scenario() -> None:
        settings = settings_for(model, simulated_signing_key_file=str(path), simulated_debug=True)
        async with running(
            settings, Log(form=LogFormat.JSON, level=LogLevel.ERROR, stream=io.StringIO())
        ) as server:
            response = await server.app.handle(HttpRequest("GET", "/attestation", {}, bytearray()))
            claims = verify(parse_bundle(b"".join(response.body)).evidence)
            assert claims.signer == simulated_signer(key)
            assert claims.debug
            assert claims.measurement == server.measurement

    asyncio.run(scenario())


def test_keys_roll_over_while_it_runs(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_KEY_CHECK_SECONDS", 0.05)
    stream = io.StringIO()

    async def scenario() -> None:
        settings = settings_for(model, key_rollover_interval="1s", key_grace="1s")
        async with running(settings, Log(form=LogFormat.JSON, level=LogLevel.INFO, stream=stream)) as server:
            first = server.ring.epoch
            deadline = time.monotonic() + 5
            while server.ring.epoch == first and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            assert server.ring.epoch > first

    asyncio.run(scenario())
    assert any(json.loads(line)["event"] == "key rollover" for line in stream.getvalue().splitlines())


def test_clock_that_jumps_by_ages_is_reported_and_survived(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_KEY_CHECK_SECONDS", 0.02)
    stream = io.StringIO()

    async def scenario() -> None:
        settings = settings_for(model, key_rollover_interval="1s")
        async with running(settings, Log(form=LogFormat.JSON, level=LogLevel.INFO, stream=stream)) as server:
            epoch = server.ring.epoch
            monkeypatch.setattr(lifecycle, "_now", lambda: datetime.now(UTC) + timedelta(days=3650))
            await asyncio.sleep(0.1)
            assert server.ring.epoch == epoch

    asyncio.run(scenario())
    assert "clock" in stream.getvalue()


def test_options_reach_their_parts(model: Path) -> None:
    async def scenario() -> None:
        settings = settings_for(
            model,
            url_prefix="/p",
            dangerous_no_padding=True,
            max_request_bytes="300KiB",
            max_buffered_bytes="400KiB",
            max_connections="7",
            min_transfer_rate="5",
            header_timeout="3s",
            max_header_bytes="5KiB",
        )
        log = Log(form=LogFormat.JSON, level=LogLevel.ERROR, stream=io.StringIO())
        async with running(settings, log) as server:
            limits = server.http.limits
            assert (limits.max_body, limits.max_buffered, limits.max_connections) == (300 << 10, 400 << 10, 7)
            assert (limits.min_rate, limits.header_timeout, limits.head.max_bytes) == (5, 3.0, 5 << 10)
            assert (await server.app.handle(HttpRequest("GET", "/p/readyz", {}, bytearray()))).status == 200
            sizes = {len(await sealed_answer(server, f"/v2/models/{'x' * length}")) for length in (5, 6, 7)}
            assert len(sizes) == 3  # not padded
        answer = await server.app.handle(HttpRequest("GET", "/readyz", {}, bytearray()))
        assert answer.status == 503

    asyncio.run(scenario())


async def sealed_answer(server: Running, path: str) -> bytes:
    config = server.ring.attested_keys(datetime.now(UTC))[0].config
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    request = bhttp.Request("GET", "https", "x", path, (("date", date),))
    message, _ = encapsulate_request(config, bhttp.encode_request(request))
    headers = {"content-type": "message/ohttp-req"}
    return b"".join((await server.app.handle(HttpRequest("POST", "/ohttp", headers, message))).body)


def test_serve_warns_hardens_and_silences_before_it_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    before = (sys.unraisablehook, threading.excepthook)
    monkeypatch.setattr(lifecycle, "harden_memory", lambda: ("a measure",))
    monkeypatch.setattr(lifecycle, "raise_descriptor_limit", lambda wanted: wanted < 1000)
    monkeypatch.setattr(lifecycle, "run", lambda main: main.close() or 0)
    assert lifecycle.serve(settings_for(None), warnings=("a warning",)) == 0
    assert before[0] is not sys.unraisablehook
    assert before[1] is not threading.excepthook
    logged = capsys.readouterr().err
    for text in ("a measure", "a warning", "--max-connections is over"):
        assert text in logged


def test_background_errors_are_logged_without_their_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    stream = io.StringIO()
    lifecycle.silence_hooks(Log(form=LogFormat.JSON, level=LogLevel.INFO, stream=stream))

    def fail() -> None:
        raise ValueError("canary")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert json.loads(stream.getvalue())["exception"] == "ValueError"
    assert "canary" not in stream.getvalue()

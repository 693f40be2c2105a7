"""Running a server: health, metrics, logs, draining, and every way not to start."""

from __future__ import annotations

import functools
import http.server
import itertools
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from onnx import TensorProto, helper

from confonnx.client import Client
from confonnx.errors import NotConfonnxError, OverloadedError, PolicyError, TransportError
from confonnx.oip.datatypes import Array
from tests.support import onnx_models
from tests.support.models import add_model
from tests.support.running import RunningServer, running_server
from tests.support.sealed_calls import exchange

PRODUCTS = 100  # of matrices in the slow model
SLOW, ENDLESS = 640, 2560  # sizes with which it takes a second or so, and a minute or so


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_model(tmp_path_factory.mktemp("model") / "add.onnx")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[RunningServer]:
    """Under the path prefix ``/mymodel``, at the log's most talkative."""
    with running_server(str(model), "--url-prefix", "/mymodel", "--log-level", "debug") as server:
        yield server


@pytest.mark.parametrize("path", ["/", "/mymodel", "/mymodel/"])
def test_healthy_for_a_browser(path: str, server: RunningServer) -> None:
    answer = exchange(server.port, "GET", path, {"accept": "text/html"})
    assert (answer.status, answer.media_type, answer.body) == (200, "text/plain", b"Healthy")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/mymodel/healthz", "/mymodel/readyz"])
def test_probes(path: str, server: RunningServer) -> None:
    assert exchange(server.port, "GET", path).status == 200


def test_the_metrics_say_how_many_and_how_long_and_no_more(model: Path) -> None:
    with running_server(str(model)) as server:
        with _client(server) as client:
            for _ in range(3):
                client.predict({"a": [1.0], "b": [2.0]})
            client.ready()
        assert (
            exchange(server.port, "POST", "/ohttp", {"content-type": "message/ohttp-req"}, b"x").status == 400
        )
        answer = exchange(server.metrics_port, "GET", "/metrics")
        assert exchange(server.metrics_port, "GET", "/attestation").status == 404
        assert exchange(server.port, "GET", "/metrics").status == 404
    assert answer.media_type == "text/plain"
    samples = dict(
        line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#")
    )
    for sample, value in {
        'confonnx_requests_total{model="add",outcome="ok",version="1"}': 3,
        'confonnx_requests_total{model="",outcome="ok",version=""}': 1,
        'confonnx_unopened_total{reason="unopenable"}': 1,
        'confonnx_unopened_total{reason="replayed"}': 0,
        'confonnx_attestations_total{outcome="ok"}': 1,
        "confonnx_request_duration_seconds_count": 5,
        "confonnx_inference_duration_seconds_count": 3,
        "confonnx_in_flight": 0,
    }.items():
        assert float(samples[sample]) == value, sample
    assert float(samples["confonnx_key_age_seconds"]) < 60
    labels = set(re.findall(r"([a-z_]+)=", "\n".join(samples)))
    assert labels <= {"model", "version", "outcome", "reason", "le"}, "labels are a closed set"


def test_no_metrics_when_told_so(model: Path) -> None:
    with running_server(str(model), "--no-metrics") as server:
        assert server.ready["metrics_port"] is None


def test_the_log_is_json_and_names_requests_by_id(server: RunningServer) -> None:
    assert (
        exchange(server.port, "GET", "/healthz", {"x-request-id": "ingress-17"}).fields["x-request-id"]
        == "ingress-17"
    )
    answer = exchange(server.port, "GET", "/readyz", {"x-request-id": "with spaces, so not taken"})
    own = answer.fields["x-request-id"]
    assert re.fullmatch("[0-9a-f]{16}", own)
    _wait_until(lambda: {"ingress-17", own} <= {entry.get("request_id") for entry in server.log()})
    entries = server.log()
    assert len(entries) == len([line for line in server.lines if line.strip()]), "every line is JSON"
    requests = [entry for entry in entries if entry["event"] == "request"]
    assert {frozenset(entry) for entry in requests} == {
        frozenset({"event", "level", "timestamp", "request_id", "route", "status", "milliseconds"})
    }
    assert entries[0]["event"] == "no protection: the TEE is simulated"
    assert entries[0]["level"] == "warning"
    assert entries[1]["event"] == "ready"


def test_an_option_as_variable_and_in_a_file(model: Path, tmp_path: Path) -> None:
    """The command line wins over a variable, that over the file."""
    settings = tmp_path / "settings.toml"
    lines = (f'model_path = "{model}"', 'model_name = "from_file"', 'url_prefix = "/x"', 'deployment = "x"')
    settings.write_text("\n".join(lines))
    variables = {"CONFONNX_URL_PREFIX": "/from-variable", "CONFONNX_DEPLOYMENT": "from-variable"}
    with (
        running_server(
            "--config", str(settings), "--deployment", "from-line", environment=variables
        ) as server,
        _client(server, path="from-variable") as client,
    ):
        statement = client.verify().statement
        assert [described.name for described in statement.models] == ["from_file"]
        assert statement.deployment == "from-line"


# What is attested.


def test_the_measurement_without_a_server_is_that_of_a_server(model: Path) -> None:
    """… with the same options, and another one with others."""
    options = ("--key-rollover-interval", "90m")
    measured = {words: _measure(str(model), *words) for words in ((), options)}
    with running_server(str(model), *options) as server:
        assert measured[options] == server.measurement
    assert measured[()] != measured[options]


def test_a_debug_server_is_refused_unless_debug_is_allowed(model: Path) -> None:
    with running_server(str(model), "--simulated-debug") as server:
        for allowed in (False, True):
            with Client(
                server.url,
                enclave_hash=server.measurement,
                dangerous_any_model=True,
                allow_simulated=True,
                enclave_allow_debug=allowed,
            ) as client:
                if allowed:
                    assert client.verify().claims.debug
                else:
                    with pytest.raises(PolicyError, match="debug"):
                        client.verify()


def test_a_signing_key_instead_of_a_measurement(model: Path, tmp_path: Path) -> None:
    keys = []
    for name in ("signer.pem", "other.pem"):
        public = rsa.generate_private_key(3, 3072).public_key()  # as SGX signs
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / name).write_bytes(pem)
        keys.append(pem.decode())
    with running_server(str(model), "--simulated-signing-key-file", str(tmp_path / "signer.pem")) as server:
        with _client_signed_by(server, keys[0]) as client:
            assert client.ready()
        with _client_signed_by(server, keys[1]) as client, pytest.raises(PolicyError):
            client.ready()


# The end.


def test_requests_in_flight_are_finished_and_nothing_new_begins(tmp_path: Path) -> None:
    model = _slow_model(tmp_path / "slow.onnx")
    with running_server(str(model), "--inference-threads", "1") as server, _client(server) as client:
        client.verify()
        with ThreadPoolExecutor(2) as pool:
            answers = [pool.submit(client.predict, {"x": _identity_matrix(SLOW)}) for _ in range(2)]
            _wait_until(lambda: _in_flight(server) == 2)
            server.process.send_signal(signal.SIGTERM)
            _wait_until(lambda: "draining" in {entry["event"] for entry in server.log()})
            with pytest.raises(ConnectionError):
                exchange(server.port, "GET", "/readyz")
            assert not any(answer.done() for answer in answers), "the signal came while they ran"
            for answer in answers:
                assert np.isfinite(answer.result(60)["y"]).all()  # type: ignore[arg-type]
        assert server.process.wait(20) == 0
        with pytest.raises(TransportError):
            client.predict({"x": _identity_matrix(SLOW)}, timeout=2)
    assert [entry["complete"] for entry in server.log() if entry["event"] == "stopped"] == [True]


def test_requests_that_take_too_long_are_cut_off(tmp_path: Path) -> None:
    model = _slow_model(tmp_path / "slow.onnx")
    with (
        running_server(str(model), "--drain-timeout", "500ms") as server,
        _client(server) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        client.verify()
        answer = pool.submit(client.predict, {"x": _identity_matrix(ENDLESS)})
        _wait_until(lambda: _in_flight(server) == 1)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert time.monotonic() - started < 10
        with pytest.raises(TransportError):
            answer.result(20)
    assert [entry["complete"] for entry in server.log() if entry["event"] == "stopped"] == [False]


def test_a_full_queue_is_said_and_clears(tmp_path: Path) -> None:
    model = _slow_model(tmp_path / "slow.onnx")
    with (
        running_server(str(model), "--inference-threads", "1", "--max-queue", "1") as server,
        _client(server) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        client.verify()
        calls = [pool.submit(client.predict, {"x": _identity_matrix(SLOW)}) for _ in range(8)]
        errors = [call.exception(60) for call in calls]
        refused = [error for error in errors if error is not None]
        assert 1 <= len(refused) <= 6
        assert {type(error) for error in refused} == {OverloadedError}
        assert client.predict({"x": _identity_matrix(SLOW)})["y"] is not None


def test_interrupting_ends_it_like_a_signal_to_terminate(model: Path) -> None:
    with running_server(str(model)) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0


# The start that fails: one line that says what to do, and a status.


def test_a_port_in_use(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for option in ("--http-port", "--metrics-port"):
            done = _serve(str(model), option, port, "--log-format", "text")
            assert done.returncode == 2
            assert "no protection: the TEE is simulated" in done.stderr
            error = _only_error(done)
            assert [word for word in ("127.0.0.1", port, option) if word not in error] == []


def test_models_that_cannot_be_served(tmp_path: Path) -> None:
    good = add_model(tmp_path / "good.onnx").read_bytes()
    floats = onnx_models.tensor(TensorProto.FLOAT, ["n"])
    future = onnx_models.identity()
    future.ir_version = 99
    nodes = [helper.make_node("NoSuchOperator", ["x"], ["y"])]
    for name, content, words in (
        ("text", b"this is no model\n", ("ONNX",)),
        ("nothing", b"", ("empty",)),
        ("truncated", good[: len(good) // 2], ("ONNX",)),
        ("opset", onnx_models.identity(opset=99).SerializeToString(), ("opset", "99")),
        ("ir", future.SerializeToString(), ("99",)),
        (
            "operator",
            onnx_models.model({"x": floats}, {"y": floats}, nodes).SerializeToString(),
            ("NoSuchOperator",),
        ),
    ):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        done = _serve(str(path))
        assert (done.returncode, name) == (6, name), done.stderr
        error = _only_error(done)
        assert [word for word in (path.name, *words) if word not in error] == [], error


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ((), 2, ("--model-path", "--model-repository")),
        (("none.onnx",), 6, ("none.onnx",)),
        (("{model}", "--model-repository", "."), 2, ("--model-path", "--model-repository")),
        (("{model}", "--http-port", "70000"), 2, ("--http-port", "65535", "70000")),
        (("{model}", "--key-rollover-interval", "soon"), 2, ("--key-rollover-interval", "24h", "soon")),
        (("{model}", "--auth-file", "none"), 2, ("--auth-file", "none")),
        (("{model}", "--config", "none.toml"), 2, ("none.toml",)),
        (("{model}", "--require-tee"), None, ("TEE",)),
        (("{model}", "--address", "192.0.2.1"), 2, ("192.0.2.1",)),
    ],
)
def test_options_that_are_wrong(
    options: tuple[str, ...], status: int | None, words: tuple[str, ...], model: Path, tmp_path: Path
) -> None:
    if "--require-tee" in options and any(Path(device).exists() for device in _TEE_DEVICES):
        pytest.skip("this machine has a TEE")
    done = _serve(*(option.replace("{model}", str(model)) for option in options), directory=tmp_path)
    assert done.returncode == status if status is not None else done.returncode not in (0, -signal.SIGKILL)
    error = _only_error(done)
    assert [word for word in words if word not in error] == [], error


_TEE_DEVICES = (
    "/dev/sgx_enclave",
    "/dev/tdx_guest",
    "/dev/sev-guest",
    "/dev/nsm",
    "/dev/tpmrm0",
    "/dev/tpm0",
)


# What is no confonnx server.


def test_a_server_of_files(tmp_path: Path) -> None:
    (tmp_path / "attestation").write_text("{}")
    with _file_server(tmp_path) as port, _client_of(port) as client:
        with pytest.raises(NotConfonnxError, match=r"no confonnx server.*check"):
            client.predict({"x": [1.0]})
        with pytest.raises(NotConfonnxError):
            client.verify()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with _client_of(port) as client, pytest.raises(TransportError, match=str(port)):
        client.predict({"x": [1.0]})


def test_somebody_who_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with _client_of(silent.getsockname()[1]) as client, pytest.raises(TransportError, match="time"):
            client.predict({"x": [1.0]}, timeout=0.5)
        assert time.monotonic() - started < 5


@contextmanager
def _file_server(directory: Path) -> Iterator[int]:
    """Python's own server of files, and its port."""
    handler = functools.partial(_SilentFiles, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        try:
            yield listener.server_address[1]
        finally:
            listener.shutdown()
            thread.join(10)


class _SilentFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  the base class's name
        """Says nothing."""


def _slow_model(path: Path) -> Path:
    """A chain of matrix products: quick while it is warmed up, as slow as one likes with larger matrices."""
    square = onnx_models.tensor(TensorProto.FLOAT, ["n", "n"])
    names = ["x", *(f"x{step}" for step in range(1, PRODUCTS)), "y"]
    nodes = [
        helper.make_node("MatMul", [before, before], [after]) for before, after in itertools.pairwise(names)
    ]
    return onnx_models.save(onnx_models.model({"x": square}, {"y": square}, nodes), path)


def _identity_matrix(size: int) -> Array:
    return np.eye(size, dtype=np.float32)


def _in_flight(server: RunningServer) -> float:
    metrics = exchange(server.metrics_port, "GET", "/metrics").body.decode()
    line = next(line for line in metrics.splitlines() if line.startswith("confonnx_in_flight "))
    return float(line.split()[1])


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _serve(*options: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A server that is expected to end on its own."""
    defaults = {"--http-port": "0", "--metrics-port": "0", "--address": "127.0.0.1"}
    given = [word for option, value in defaults.items() if option not in options for word in (option, value)]
    return subprocess.run(
        [sys.executable, "-m", "confonnx.cli.app", "serve", *given, *options],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _only_error(done: subprocess.CompletedProcess[str]) -> str:
    """The one error that a command ended with; log entries may come before it."""
    _, found, error = done.stderr.rpartition("error: ")
    assert found, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return error


def _measure(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "confonnx.cli.app", "measure", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def _client(server: RunningServer, *, path: str = "") -> Client:
    return Client(
        f"{server.url}{path}",
        enclave_hash=server.measurement,
        dangerous_any_model=True,
        allow_simulated=True,
    )


def _client_signed_by(server: RunningServer, key: str) -> Client:
    return Client(server.url, enclave_signing_key=key, dangerous_any_model=True, allow_simulated=True)


def _client_of(port: int) -> Client:
    """A client of something that will not be verified."""
    return Client(
        f"http://127.0.0.1:{port}/", enclave_hash="ab" * 32, dangerous_any_model=True, allow_simulated=True
    )

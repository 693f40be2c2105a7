"""The documented commands and the Python API, as a user types them, against a server in its own process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from confonnx import AsyncClient, Client
from confonnx.errors import (
    AuthenticationError,
    InvalidInputError,
    ModelNotFoundError,
    PolicyError,
    VerificationError,
)
from confonnx.ohttp.session import SESSION_REQUEST_MEDIA_TYPE
from confonnx.server.auth import hash_credential
from tests.support import onnx_models
from tests.support.recording_proxy import recording_proxy
from tests.support.running import RunningServer, running_server

KEY = "a-key-of-the-tests-0123456789"
PASSWORD = "a password: with a colon"
DIGITS = Path(__file__).resolve().parents[2] / "src/confonnx/cli/digits/digits.onnx"


@dataclass(frozen=True, slots=True)
class _Site:
    """A directory in which commands run, and a server of ``model.onnx`` in it that asks for credentials."""

    directory: Path
    server: RunningServer

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``python3`` with ``words``; must succeed."""
        done = self.try_to_run(*words)
        assert done.returncode == 0, done.stderr
        return done

    def try_to_run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``python3`` with ``words``, whatever becomes of it."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ask(self, *options: str) -> tuple[str, ...]:
        """``-m confonnx.main`` with everything about trust and credentials, and ``options``."""
        return (
            *("-m", "confonnx.main", "--url", self.server.url, "--enclave-hash", self.server.measurement),
            *("--enclave-model-hash-file", "model.hash", "--allow-simulated", "--auth-key", KEY, *options),
        )

    def json(self, name: str) -> dict[str, dict[str, object]]:
        """A document in the directory."""
        document: dict[str, dict[str, object]] = json.loads((self.directory / name).read_text("utf-8"))
        return document


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Site]:
    directory = tmp_path_factory.mktemp("site")
    (directory / "model.onnx").write_bytes(DIGITS.read_bytes())
    digest = hashlib.sha256(DIGITS.read_bytes()).hexdigest()
    (directory / "model.hash").write_text(f"{digest}\n")
    credentials = directory / "credentials"
    lines = (hash_credential("tests", KEY, basic=False), hash_credential("api", PASSWORD, basic=True))
    credentials.write_text("\n".join(lines) + "\n")
    with running_server("model.onnx", "--auth-file", str(credentials), directory=directory) as server:
        yield _Site(directory, server)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Several models and versions under a path prefix: ``add`` 1, 2 and 10 add that number; ``pair``."""
    directory = tmp_path_factory.mktemp("models")
    floats = onnx_models.tensor(onnx_models.FLOAT, ["n"])
    for version in (1, 2, 10):
        model = onnx_models.model(
            {"x": floats},
            {"y": floats},
            [helper.make_node("Add", ["x", "w"], ["y"])],
            initializers=[onnx_models.weight("w", [version])],
        )
        onnx_models.save(model, directory / "add" / str(version) / "model.onnx")
    pair = onnx_models.model(
        {"x": floats},
        {"minus": floats, "same": floats},
        [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Identity", ["x"], ["same"])],
    )
    onnx_models.save(pair, directory / "pair.onnx")
    with running_server("--model-repository", str(directory), "--url-prefix", "/mymodel") as server:
        yield server


# The commands.


def test_the_documented_commands_in_their_order(site: _Site) -> None:
    printed = site.run("-m", "confonnx.hash_model", "model.onnx", "--out", "printed.hash").stdout
    assert (
        printed
        == (site.directory / "printed.hash").read_text()
        == (site.directory / "model.hash").read_text()
    )

    site.run("-m", "confonnx.get_model_info", "model.onnx", "--out", "info.json")
    info = json.dumps(site.json("info.json"))
    assert '"image"' in info
    assert '"digit"' in info

    site.run("-m", "confonnx.create_test_inputs", "--model", "model.onnx", "--out", "input.json")
    inputs = site.json("input.json")
    assert inputs["image"]["type"] == "float32"

    site.run(*site.ask("--json-in", "input.json", "--json-out", "output.json"))
    output = site.json("output.json")
    assert output["digit"]["type"] == "int64"
    assert np.asarray(output["digit"]["values"]).shape == (1,)


def test_tensors_in_protobuf_files_and_names_behind_one_option(site: _Site) -> None:
    image = np.arange(192, dtype=np.float32).reshape(3, 8, 8) % 17
    (site.directory / "image.pb").write_bytes(numpy_helper.from_array(image).SerializeToString())
    done = site.run(
        *site.ask("--pb-in", "image.pb", "--pb-in-names", "image", "--pb-out", "out"),
    )
    written = sorted((site.directory / "out").iterdir())
    assert written
    assert all(str(path.relative_to(site.directory)) in done.stderr + done.stdout for path in written)
    tensors = {
        tensor.name or path.stem: numpy_helper.to_array(tensor)
        for path in written
        for tensor in [onnx.TensorProto.FromString(path.read_bytes())]
    }
    with _client(site.server, auth_key=KEY) as client:
        expected = client.predict({"image": image})
    assert set(tensors) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value)


def test_npz_files_verbosity_and_one_output(site: _Site) -> None:
    np.savez(site.directory / "two.npz", image=np.ones((2, 8, 8), np.float32))
    done = site.run(*site.ask("--json-in", "two.npz", "--json-out", "two_out.npz", "--output", "digit", "-v"))
    with np.load(site.directory / "two_out.npz") as arrays:
        assert arrays.files == ["digit"]
        assert arrays["digit"].shape == (2,)
    assert "simulated" in done.stderr + done.stdout
    assert "image" in done.stderr + done.stdout


def test_user_and_password(site: _Site) -> None:
    words = list(site.ask("--json-in", "input.json", "--json-out", "basic.json"))
    words[words.index("--auth-key") : words.index("--auth-key") + 2] = [
        "--auth-user",
        "api",
        "--auth-pass",
        PASSWORD,
    ]
    site.run("-m", "confonnx.create_test_inputs", "--model", "model.onnx", "--out", "input.json")
    site.run(*words)
    assert site.json("basic.json")["digit"]["type"] == "int64"


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"--enclave-hash": "ab" * 32}, 3, "abab"),
        ({"--enclave-model-hash-file": "other.hash"}, 3, "model"),
        ({"--auth-key": "a-wrong-key-of-the-tests"}, 5, "credentials"),
        ({"--json-in": "nothing.json"}, 2, "nothing.json"),
        ({"--json-in": "misfit.json"}, 6, "image"),
        ({"--json-out": "no/such/directory/out.json"}, 2, "no/such/directory/out.json"),
        ({"--url": "http://127.0.0.1:9/"}, 4, "127.0.0.1:9"),
        ({"--url": "https://{server}"}, 4, "{server}"),
    ],
)
def test_what_is_wrong_ends_in_one_line_and_a_status(
    change: dict[str, str], status: int, says: str, site: _Site
) -> None:
    (site.directory / "other.hash").write_text("11" * 32)
    (site.directory / "misfit.json").write_text('{"image": {"type": "float32", "values": [1.0]}}')
    (site.directory / "fit.npz").unlink(missing_ok=True)
    np.savez(site.directory / "fit.npz", image=np.ones((1, 8, 8), np.float32))
    words = list(site.ask("--json-in", "fit.npz", "--json-out", "refused.json"))
    address = f"127.0.0.1:{site.server.port}"
    for option, value in change.items():
        words[words.index(option) + 1] = value.replace("{server}", address)
    done = site.try_to_run(*words)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert done.stderr.startswith("error: ")
    assert says.replace("{server}", address) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (site.directory / "refused.json").exists()


def test_simulated_evidence_is_refused_unless_named(site: _Site) -> None:
    words = list(site.ask("--json-in", "fit.npz", "--json-out", "refused.json"))
    np.savez(site.directory / "fit.npz", image=np.ones((1, 8, 8), np.float32))
    words.remove("--allow-simulated")
    done = site.try_to_run(*words, "--enclave-allow-debug")
    assert done.returncode == 3
    assert "simulated" in done.stderr


@pytest.mark.parametrize(
    ("options", "media_type"),
    [
        ((), SESSION_REQUEST_MEDIA_TYPE),
        (("--sessions",), SESSION_REQUEST_MEDIA_TYPE),
        (("--no-sessions",), "message/ohttp-req"),
    ],
)
def test_sessions_are_the_users_choice(options: tuple[str, ...], media_type: str, site: _Site) -> None:
    np.savez(site.directory / "fit.npz", image=np.ones((1, 8, 8), np.float32))
    words = list(site.ask("--json-in", "fit.npz", *options))
    with recording_proxy(site.server.port) as proxy:
        words[words.index("--url") + 1] = proxy.url
        assert "digit" in json.loads(site.run(*words).stdout)
    assert proxy.requests(b"POST /ohttp ") == 1
    assert f"content-type: {media_type}\r\n".encode() in bytes(proxy.to_server).lower()


@pytest.mark.parametrize(
    ("options", "authorization"),
    [
        (("--relay-key", "for-the-relay"), "bearer for-the-relay"),
        (("--relay-user", "relay-user", "--relay-pass", "relay-pass"), "basic cmvsyxktdxnlcjpyzwxhes1wyxnz"),
    ],
)
def test_a_relay_takes_the_sealed_request(options: tuple[str, ...], authorization: str, site: _Site) -> None:
    np.savez(site.directory / "fit.npz", image=np.ones((1, 8, 8), np.float32))
    words = list(site.ask("--json-in", "fit.npz", "--ingress-key", "for-the-ingress", *options))
    with recording_proxy(site.server.port) as direct, recording_proxy(site.server.port) as relay:
        words[words.index("--url") + 1] = direct.url
        assert "digit" in json.loads(site.run(*words, "--relay", f"{relay.url}ohttp").stdout)
    relayed = bytes(relay.to_server).lower()
    assert (relay.requests(b"POST /ohttp "), relay.requests(b"GET ")) == (1, 0)
    assert b"content-type: message/ohttp-req\r\n" in relayed
    assert f"authorization: {authorization}\r\n".encode() in relayed
    assert b"for-the-ingress" not in relayed
    assert (direct.requests(b"POST "), direct.requests(b"GET /attestation")) == (0, 1)
    assert b"relay" not in bytes(direct.to_server).lower()


def test_outputs_go_to_standard_output_unless_a_file_is_named(site: _Site) -> None:
    np.savez(site.directory / "fit.npz", image=np.ones((1, 8, 8), np.float32))
    document = json.loads(site.run(*site.ask("--json-in", "fit.npz")).stdout)
    assert document["digit"]["type"] == "int64"


def test_inspect_shows_what_a_server_says_and_verify_judges_it(site: _Site) -> None:
    said = json.loads(
        site.run("-m", "confonnx.cli.app", "inspect", "--url", site.server.url, "--json").stdout
    )
    assert said["verified"] is False
    assert site.server.measurement in json.dumps(said)
    saved = ("-m", "confonnx.cli.app", "inspect", "--url", site.server.url, "--save", "bundle.cmw")
    site.run(*saved)
    verify = (
        *("-m", "confonnx.cli.app", "verify"),
        *("--enclave-model-hash-file", "model.hash", "--allow-simulated"),
    )
    for source in (("--url", site.server.url), ("--bundle", "bundle.cmw")):
        good = site.run(*verify, *source, "--enclave-hash", site.server.measurement, "--json")
        assert json.loads(good.stdout)["accepted"] is True
        bad = site.try_to_run(*verify, *source, "--enclave-hash", "ab" * 32, "--json")
        verdict = json.loads(bad.stdout)
        assert (bad.returncode, verdict["accepted"], verdict["code"]) == (3, False, "verification.policy")
        assert "FAIL" in {step["outcome"] for step in verdict["steps"]}


# The Python API.


def test_one_line_of_python(site: _Site) -> None:
    model_hash = (site.directory / "model.hash").read_text()
    image = np.zeros((1, 8, 8), np.float32)
    with Client(
        site.server.url,
        auth={"key": KEY},
        enclave_hash=site.server.measurement,
        enclave_model_hash=model_hash,
        allow_simulated=True,
    ) as client:
        assert client.attestation is None
        assert client.predict({"image": image})["digit"].shape == (1,)  # type: ignore[union-attr]
        assert client.attestation is not None
        assert client.attestation.statement.models[0].digest == model_hash.strip()


def test_one_key_serves_many_requests(site: _Site) -> None:
    with (
        recording_proxy(site.server.port) as proxy,
        _client(site.server, url=proxy.url, auth_key=KEY) as client,
    ):
        for _ in range(20):
            client.predict({"image": np.zeros((1, 8, 8), np.float32)})
    assert proxy.requests(b"POST /ohttp ") == 20
    assert proxy.requests(b"GET /attestation") == 1


def test_nothing_is_sent_to_a_server_that_is_not_proven(site: _Site) -> None:
    with (
        recording_proxy(site.server.port) as proxy,
        Client(
            proxy.url,
            auth_key=KEY,
            enclave_hash="ab" * 32,
            enclave_model_hash=(site.directory / "model.hash").read_text(),
            allow_simulated=True,
        ) as client,
    ):
        with pytest.raises(PolicyError, match=site.server.measurement[:16]):
            client.predict({"image": np.zeros((1, 8, 8), np.float32)})
        with pytest.raises(VerificationError):
            client.models()
    assert proxy.requests(b"POST ") == 0


def test_credentials_are_asked_for_inside_the_seal(site: _Site) -> None:
    image = np.zeros((1, 8, 8), np.float32)
    with _client(site.server) as client, pytest.raises(AuthenticationError, match="auth_key"):
        client.predict({"image": image})
    with _client(site.server, ingress_auth=KEY) as client, pytest.raises(AuthenticationError):
        client.predict({"image": image})  # the outer header opens nothing inside


def test_several_models_and_versions(fleet: RunningServer) -> None:
    with _client(fleet) as client:
        described = {(model.name, model.version) for model in client.models()}
        assert described == {("add", "1"), ("add", "2"), ("add", "10"), ("pair", "1")}
        for version, expected in (("1", 1.0), ("2", 2.0), ("10", 10.0), (None, 10.0)):
            answer = client.predict({"x": [0.0]}, model="add", version=version)["y"]
            assert answer.tolist() == [expected]  # type: ignore[union-attr]
        with pytest.raises(ModelNotFoundError, match="add"):
            client.predict({"x": [0.0]})
        with pytest.raises(ModelNotFoundError, match="3"):
            client.predict({"x": [0.0]}, model="add", version="3")


def test_only_the_outputs_asked_for(fleet: RunningServer) -> None:
    with _client(fleet) as client:
        assert list(client.predict({"x": [2.0]}, model="pair")) == ["minus", "same"]
        assert list(client.predict({"x": [2.0]}, model="pair", outputs=["same"])) == ["same"]
        assert list(client.predict({"x": [2.0]}, model="pair", outputs=["same", "minus"])) == [
            "same",
            "minus",
        ]
        with pytest.raises(InvalidInputError, match="'none'"):
            client.predict({"x": [2.0]}, model="pair", outputs=["none"])


@pytest.mark.parametrize("path", ["", "mymodel", "mymodel/"])
def test_a_path_prefix(path: str, fleet: RunningServer) -> None:
    with _client(fleet, url=f"{fleet.url}{path}") as client:
        assert client.predict({"x": [1.0]}, model="pair")["minus"].tolist() == [-1.0]  # type: ignore[union-attr]


def test_many_tasks_share_one_verification(fleet: RunningServer) -> None:
    async def main(url: str) -> list[float]:
        async with AsyncClient(
            url, enclave_hash=fleet.measurement, dangerous_any_model=True, allow_simulated=True
        ) as client:
            answers = await asyncio.gather(
                *(client.predict({"x": [float(index)]}, model="add", version="2") for index in range(32))
            )
            return [answer["y"].item() for answer in answers]  # type: ignore[union-attr]

    with recording_proxy(fleet.port) as proxy:
        assert asyncio.run(main(proxy.url)) == [index + 2.0 for index in range(32)]
    assert proxy.requests(b"GET /attestation") == 1
    assert proxy.requests(b"POST /ohttp ") == 32


def _client(
    server: RunningServer,
    *,
    url: str | None = None,
    auth_key: str | None = None,
    ingress_auth: str | None = None,
) -> Client:
    return Client(
        server.url if url is None else url,
        auth_key=auth_key,
        ingress_auth=ingress_auth,
        enclave_hash=server.measurement,
        dangerous_any_model=True,
        allow_simulated=True,
    )

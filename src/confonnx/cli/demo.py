"""``confonnx demo``: the main job on one machine, with what must succeed and what must be refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
import typer

from confonnx.cli.measure_simulated import measure_server
from confonnx.cli.observer import NetworkObserver
from confonnx.client import Client
from confonnx.errors import ConfonnxError, EncapsulationError, PolicyError, TeeError
from confonnx.models.digest import model_digest
from confonnx.models.tensor_files import read_npz
from confonnx.oip.datatypes import Array

_SHOWN: Final = 10  # images drawn; all of them are sent
_A_ROW: Final = 5
_SHADES: Final = " .:-=+*#%@"
_INK: Final = 16  # the darkest grey value
_STOP_SECONDS: Final = 20.0


def demo() -> None:
    """Start a server, verify it, send it images, sealed; then show three refusals.

    Exits with 0 only if every answer and every refusal came as it should.
    """
    digits = resources.files("confonnx.cli") / "digits"
    with resources.as_file(digits) as directory:
        model, images, labels = directory / "digits.onnx", *_test_set(directory / "digits_test.npz")
        enclave_hash = measure_server({}).hex()
        model_hash = model_digest(model)
        _heading("A server starts, in a process of its own")
        with _server(model) as port, NetworkObserver(port) as observer:
            url = f"http://127.0.0.1:{observer.port}/"
            _line(f"listening at {url}, in a simulated TEE: everything real but the protection")
            with _client(url, enclave_hash, model_hash) as client:
                _verify(client, enclave_hash, model_hash)
                right = _classify(client, images, labels)
                _show_wire(observer, images)
                refused = (
                    _refuse_wrong_code(url, enclave_hash, model_hash, images),
                    _refuse_wrong_model(url, enclave_hash, model_hash, images),
                    _refuse_tampering(client, observer, images),
                )
    if not (right and all(refused)):
        _heading("FAILED: see above")
        raise typer.Exit(1)
    _heading("All of it held")


def _verify(client: Client, enclave_hash: str, model_hash: str) -> None:
    _heading("The client proves what it talks to, before it sends anything")
    keys = client.verify()
    _line(f"code   {enclave_hash}  as measured here")
    _line(f"model  {model_hash}  as hashed here")
    _line(f"the evidence binds both, and a sealing key valid until {keys.valid_until:%Y-%m-%d %H:%M} UTC")


def _classify(client: Client, images: Array, labels: Array) -> bool:
    _heading("Sealed predictions")
    shown = [np.flatnonzero(labels == digit)[0] for digit in range(_SHOWN)]
    predicted = [_digits(client, images[[index]])[0] for index in shown]
    for start in range(0, _SHOWN, _A_ROW):
        row = slice(start, start + _A_ROW)
        _draw(images[shown[row]], predicted[row])
    accuracy = float(np.mean(_digits(client, images) == labels))
    _line(f"{accuracy:.1%} of {len(labels)} test images read correctly")
    return accuracy > 0.9


def _digits(client: Client, images: Array) -> Array:
    digits = client.predict({"image": images})["digit"]
    assert isinstance(digits, np.ndarray)
    return digits


def _draw(images: Array, predicted: Sequence[int]) -> None:
    for rows in images.swapaxes(0, 1):
        _line("   ".join("".join(_shade(grey) * 2 for grey in row) for row in rows))
    _line("   ".join(f"predicted: {digit}".ljust(16) for digit in predicted))
    _line("")


def _shade(grey: float) -> str:
    return _SHADES[round(float(grey) * (len(_SHADES) - 1) / _INK)]


def _show_wire(observer: NetworkObserver, images: Array) -> None:
    _heading("What the network saw of that")
    head, _, body = observer.last_request().partition(b"\r\n\r\n")
    _line(f"{head.splitlines()[0].decode('ascii')}   {len(body)} bytes for {images.nbytes} bytes of images")
    _line(f"{body[7:39].hex(' ')} …")


def _refuse_wrong_code(url: str, enclave_hash: str, model_hash: str, images: Array) -> bool:
    _heading("Refusals")
    with _client(url, _other(enclave_hash), model_hash) as client:
        return _refusal("another enclave hash expected", PolicyError, client, images)


def _refuse_wrong_model(url: str, enclave_hash: str, model_hash: str, images: Array) -> bool:
    with _client(url, enclave_hash, _other(model_hash)) as client:
        return _refusal("another model hash expected", PolicyError, client, images)


def _refuse_tampering(client: Client, observer: NetworkObserver, images: Array) -> bool:
    observer.tamper_with_next_answer()
    return _refusal("one bit of the answer changed on the way", EncapsulationError, client, images)


def _refusal(what: str, expected: type[ConfonnxError], client: Client, images: Array) -> bool:
    """Whether a prediction was refused as it should; says so."""
    try:
        client.predict({"image": images[:1]})
    except expected as error:
        _line(f"{what}: refused")
        _line("   " + str(error).replace("\n", "\n     "))
        return True
    _line(f"{what}: NOT REFUSED")
    return False


def _other(digest: str) -> str:
    """``digest`` with its first digit changed."""
    return f"{(int(digest[0], 16) + 1) % 16:x}{digest[1:]}"


def _client(url: str, enclave_hash: str, model_hash: str) -> Client:
    return Client(url, enclave_hash=enclave_hash, enclave_model_hash=model_hash, allow_simulated=True)


def _test_set(path: Path) -> tuple[Array, Array]:
    """Images, float32 [n, 8, 8] from 0 to 16, and labels, int64 [n]."""
    arrays = read_npz(path)
    images, labels = arrays["images"], arrays["labels"]
    assert isinstance(images, np.ndarray)
    assert isinstance(labels, np.ndarray)
    return images.astype(np.float32), labels.astype(np.int64)


@contextmanager
def _server(model: Path) -> Iterator[int]:
    """A server process for ``model`` on a free loopback port; gives the port."""
    command = [sys.executable, "-m", "confonnx.cli.app", "serve", str(model), "--address", "127.0.0.1"]
    command += ["--http-port", "0", "--metrics-port", "0", "--log-format", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 — ourselves
        try:
            yield _port(process)
        finally:
            process.terminate()
            process.communicate(timeout=_STOP_SECONDS)


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("event") == "ready":
            return int(entry["port"])
    raise TeeError("the server did not start; it said:\n" + "".join(said))


def _heading(text: str) -> None:
    typer.echo(f"\n{text}\n{'─' * len(text)}")


def _line(text: str) -> None:
    typer.echo(f"  {text}")

"""Options of `confonnx predict` that contradict each other, before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import confonnx

RELAY = ("--relay", "http://127.0.0.1:9/relay")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((*RELAY, "--sessions"), "relay and sessions exclude each other"),
        (("--relay", "127.0.0.1:9"), "relay must start with http:// or https://"),
        (("--relay-pass", "secret-of-mine"), "give --relay too"),
        (("--relay-key", "secret-of-mine"), "give --relay too"),
        (
            (*RELAY, "--relay-pass", "secret-of-mine", "--relay-key", "k"),
            "--relay-pass or --relay-key, not both",
        ),
        ((*RELAY, "--relay-key", "secret-of-mine\n"), "relay_auth must be printable ASCII"),
        (
            ("--ingress-pass", "secret-of-mine", "--ingress-key", "k"),
            "--ingress-pass or --ingress-key, not both",
        ),
    ],
)
def test_contradictions(options: tuple[str, ...], says: str, tmp_path: Path) -> None:
    inputs = tmp_path / "input.json"
    inputs.write_text('{"image": {"type": "float32", "values": [[0.0]]}}')
    trust = ("--enclave-hash", "ab" * 32, "--dangerous-any-model")
    done = confonnx("predict", "--url", "http://127.0.0.1:9/", "--json-in", inputs, *trust, *options)
    assert (done.status, done.out) == (2, "")
    assert says in done.err
    assert "secret-of-mine" not in done.err


def test_a_relay_may_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tmp_path / "input.json"
    inputs.write_text('{"image": {"type": "float32", "values": [[0.0]]}}')
    monkeypatch.setenv("CONFONNX_RELAY", "no-url")
    trust = ("--enclave-hash", "ab" * 32, "--dangerous-any-model")
    done = confonnx("predict", "--url", "http://127.0.0.1:9/", "--json-in", inputs, *trust)
    assert (done.status, done.out) == (2, "")
    assert "relay must start with http" in done.err

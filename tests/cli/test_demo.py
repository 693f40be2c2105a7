"""``confonnx demo``: the main job, and an exit status that says whether all of it held."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest
import typer

from confonnx.cli import demo
from confonnx.cli.measure_simulated import measure_server
from confonnx.client import Client


def test_the_demonstration_holds_and_is_quick() -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "confonnx.cli.app", "demo"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < 30
    assert re.findall(r"predicted: ([0-9])", done.stdout) == list("0123456789")
    accuracy = re.search(r"([0-9.]+)% of ([0-9]+) test images", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) > 90
    assert int(accuracy[2]) > 300
    assert done.stdout.count(": refused") == 3
    assert "NOT REFUSED" not in done.stdout
    assert done.stdout.rstrip().splitlines()[-2].strip() == "All of it held"


def test_a_refusal_that_does_not_come_fails_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = measure_server({}).hex()

    def credulous(url: str, enclave_hash: str, model_hash: str) -> Client:
        return Client(url, enclave_hash=right, dangerous_any_model=True, allow_simulated=True)

    monkeypatch.setattr(demo, "_client", credulous)
    with pytest.raises(typer.Exit) as end:
        demo.demo()
    assert end.value.exit_code == 1
    assert capsys.readouterr().out.count("NOT REFUSED") == 2

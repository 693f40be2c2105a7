"""`confonnx policy`: what a file accepts in words, what in it is dangerous, what changed between two."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import simulated_server as server
from tests.support.commands import confonnx

POLICY = """
version = 1
deployment = ["production"]
[models]
sha256 = ["{model}"]
[[server]]
tee = "sgx"
label = "release 7"
mrenclave = ["{code}"]
allow_debug = false
tcb_statuses = ["UpToDate"]
min_tcb_evaluation_data_number = 17
"""
ONE = POLICY.format(model="aa" * 32, code="11" * 32)


@pytest.fixture
def one(tmp_path: Path) -> Path:
    file = tmp_path / "one.toml"
    file.write_text(ONE)
    return file


def test_show_says_what_is_accepted(one: Path) -> None:
    run = confonnx("policy", "show", one)
    assert run.status == 0
    assert f"model: {'aa' * 32}" in run.out
    assert f"server sgx 'release 7', MRENCLAVE: {'11' * 32}" in run.out
    assert "server sgx 'release 7', debug mode: refused" in run.out


def test_check_of_a_policy_without_danger(one: Path) -> None:
    run = confonnx("policy", "check", one)
    assert (run.status, run.out) == (0, f"{one} is a policy.\n")


def test_check_names_every_danger(tmp_path: Path) -> None:
    file = tmp_path / "loose.toml"
    simulated = server.policy().to_toml().partition("[[server]]")[2]
    tpm = f'tee = "tpm"\nroot = ["{"00" * 32}"]\npcr7 = ["{"07" * 32}"]'
    text = ONE.replace(f'sha256 = ["{"aa" * 32}"]', "dangerous_any = true").replace("= false", "= true")
    file.write_text(f"{text}\n[[server]]\n{tpm}\n[[server]]{simulated}")
    run = confonnx("policy", "check", file)
    assert run.status == 0
    assert run.out.splitlines()[1:] == [
        "DANGER: any model is accepted, so the host chooses which one answers",
        "DANGER: sgx 'release 7': debug mode is accepted, in which the host can read everything",
        "DANGER: tpm: a TPM encrypts no memory, so the host can read everything",
        "DANGER: simulated: simulated evidence is accepted, which anybody can make",
    ]


def test_diff_says_what_changed(one: Path, tmp_path: Path) -> None:
    two = tmp_path / "two.toml"
    two.write_text(POLICY.format(model="bb" * 32, code="11" * 32))
    run = confonnx("policy", "diff", one, two)
    assert (run.status, run.out) == (0, f"model: was {'aa' * 32}, now {'bb' * 32}\n")
    run = confonnx("policy", "diff", one, one)
    assert (run.status, run.out) == (0, "no difference in what they accept\n")


@pytest.mark.parametrize("action", ["show", "check"])
def test_what_is_no_policy(tmp_path: Path, action: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(ONE.replace("mrenclave", "mrenklave"))
    run = confonnx("policy", action, file)
    assert (run.status, run.out) == (2, "")
    assert f"error: {file}: " in run.err
    assert "mrenclave" in run.err
    assert confonnx("policy", action, tmp_path / "missing").status == 2


def test_the_number_of_files(one: Path) -> None:
    for words in (("diff", one), ("show", one, one), ("check", one, one), ("show",), ("erase", one)):
        run = confonnx("policy", *words)
        assert (run.status, run.out) == (2, ""), words

"""What the commands say about themselves: the reference page, and help that a newcomer can act on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from confonnx.cli.app import VERBS
from confonnx.server.settings import Settings
from tests.support import reference

VERB_NAMES = [verb for verbs in VERBS.values() for verb in verbs]


def test_the_reference_page_is_what_the_commands_say() -> None:
    assert reference.PAGE.read_text("utf-8") == reference.page(), (
        "run: python -m tests.support.reference --write"
    )


def test_the_reference_page_has_every_command_and_every_setting() -> None:
    text = reference.PAGE.read_text("utf-8")
    assert [verb for verb in VERB_NAMES if f"## `confonnx {verb}" not in text] == []
    assert [name for name in Settings.model_fields if f"`CONFONNX_{name.upper()}`" not in text] == []
    assert "||" not in text, "no cell is forgotten"


@pytest.mark.parametrize("verb", VERB_NAMES)
def test_help_of_every_verb(verb: str) -> None:
    done = _run("-m", "confonnx.cli.app", verb, "--help")
    assert done.returncode == 0, done.stderr
    assert f"confonnx {verb}" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["main", "hash_model", "get_model_info", "create_test_inputs"])
def test_help_of_the_documented_modules(module: str) -> None:
    done = _run("-m", f"confonnx.{module}", "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage: confonnx" in done.stdout


def test_a_wrong_option_names_itself() -> None:
    done = _run("-m", "confonnx.cli.app", "serve", "--http-prt", "1")
    assert done.returncode == 2
    assert "--http-prt" in done.stderr
    assert "--http-port" in done.stderr, "the nearest option is named"


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, check=False)

"""Runs ``confonnx`` in this process, as the console script does."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO

from confonnx.cli.app import main


@dataclass(frozen=True)
class Run:
    """What a command left: ``status`` is its exit status."""

    status: int
    out: str
    err: str


def confonnx(*words: object) -> Run:
    """Run the command with these words."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            status = end.code
    assert isinstance(status, int)
    return Run(status, out.getvalue(), err.getvalue())

"""What ``import confonnx`` offers, what it costs, and on what it must not depend."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import confonnx
from confonnx import errors

_LAZY = {"AsyncClient", "AttestedKeys", "Client", "Policy"}


def test_all_is_what_is_exported() -> None:
    tree = ast.parse(Path(confonnx.__file__).read_text("utf-8"))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("confonnx")
        for alias in node.names
    }
    assert sorted(imported) == confonnx.__all__
    assert dir(confonnx) == confonnx.__all__
    for name in confonnx.__all__:
        assert getattr(confonnx, name).__name__ == name


def test_every_error_is_exported() -> None:
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    defined = {name for name in classes if getattr(errors, name).__module__ == errors.__name__}
    assert set(confonnx.__all__) == defined | _LAZY


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        _ = confonnx.Klient


def test_import_is_light() -> None:
    script = """
import sys
import confonnx
heavy = {'numpy', 'h11', 'onnx', 'onnxruntime', 'cryptography', 'msgspec', 'asyncio', 'confonnx.client'}
print(sorted(heavy & set(sys.modules)))
from confonnx import *
print(Client.__module__, AsyncClient.__module__)
print(sorted({'onnx', 'onnxruntime', 'pydantic', 'typer', 'httptools', 'uvloop'} & set(sys.modules)))
"""
    assert _python(script) == ["[]", "confonnx.client.sync confonnx.client.aio", "[]"]


def test_the_client_needs_nothing_of_one_operating_system() -> None:
    """The standard library copes without these modules; so must everything on the client's path."""
    script = """
import sys
for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios', 'uvloop', 'httptools', 'onnxruntime', 'pydantic',
             'confonnx.server', 'confonnx.runtime', 'confonnx.keys', 'confonnx.attestation.attest'):
    sys.modules[name] = None
from confonnx import AsyncClient, Client
policy = dict(enclave_hash='ab' * 32, enclave_model_hash='cd' * 32, allow_simulated=True)
for kind in (Client, AsyncClient):
    print(kind('http://localhost:1/', **policy))
"""
    assert _python(script) == [
        "<Client http://localhost:1/ not verified yet>",
        "<AsyncClient http://localhost:1/ not verified yet>",
    ]


def _python(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()

"""One door to trust (style rule 4): who may make attested keys, and who may seal to a server, read from the
source itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[2] / "src" / "confonnx"


@cache
def _trees() -> tuple[tuple[str, ast.Module], ...]:
    return tuple(
        (path.relative_to(_SOURCE).as_posix(), ast.parse(path.read_text("utf-8")))
        for path in sorted(_SOURCE.rglob("*.py"))
    )


def _names(node: ast.AST) -> Iterator[str]:
    """Every name that code can reach something by: plain, as an attribute, imported, or in a string for
    getattr.
    """
    for inner in ast.walk(node):
        match inner:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name
            case ast.ImportFrom(names=aliases) | ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.Constant(value=str(text)) if text.isidentifier():
                yield text


def _files_that_name(name: str) -> set[str]:
    return {file for file, tree in _trees() if name in set(_names(tree))}


def _calls(tree: ast.Module, name: str) -> bool:
    return any(
        isinstance(node, ast.Call)
        and (node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)) == name
        for node in ast.walk(tree)
    )


def test_the_walk_sees_the_source() -> None:
    files = {file for file, _ in _trees()}
    assert {"errors.py", "attestation/verify/appraise.py", "attestation/result.py"} <= files


def test_only_the_appraiser_makes_attested_keys() -> None:
    assert {file for file, tree in _trees() if _calls(tree, "AttestedKeys")} == {
        "attestation/verify/appraise.py"
    }


def test_only_the_appraiser_holds_the_key_of_the_door() -> None:
    assert _files_that_name("APPRAISER") == {"attestation/result.py", "attestation/verify/appraise.py"}


def test_nobody_goes_round_the_constructor_of_attested_keys() -> None:
    bypasses = ("__setstate__", "__new__", "__setattr__")
    result = dict(_trees())["attestation/result.py"]
    assert not [name for name in _names(result) if name in bypasses]
    for file in _files_that_name("AttestedKeys"):
        assert not {"__new__", "__setstate__"} & set(_names(dict(_trees())[file])), file


def test_a_client_seals_through_attested_keys_alone() -> None:
    # ohttp defines the senders; result.py is the one caller.
    for sender in (
        *("encapsulate_request", "SenderSession", "ChunkedRequestSealer"),
        *("setup_sending", "setup_sender"),
    ):
        callers = {file for file, tree in _trees() if _calls(tree, sender) and not file.startswith("ohttp/")}
        assert callers <= {"attestation/result.py"}
        assert sender.startswith("setup_") or callers


def test_no_environment_variable_reaches_a_check() -> None:
    for file, tree in _trees():
        if file.startswith("attestation/") and not file.startswith(
            ("attestation/attest/", "attestation/endorse/")
        ):
            assert not {"environ", "getenv"} & set(_names(tree)), file


def test_no_step_of_the_appraisal_catches_everything() -> None:
    for file, tree in _trees():
        if not file.startswith(("attestation/", "keys/", "ohttp/")):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                caught = set(_names(node.type)) if node.type else {"everything"}
                assert not {"Exception", "BaseException", "everything", "ConfonnxError"} & caught, file

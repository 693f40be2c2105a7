"""Every test that docs/security/known-attacks.md names exists, and every attack names one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/security/known-attacks.md"
_NAME = re.compile(r"`(test_[a-z0-9_]+)`")


def rows() -> list[list[str]]:
    """The cells of every row of every table, without the heads."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[-1] != "Shown by" and not set(row[-1]) <= {"-"}]


@cache
def defined() -> frozenset[str]:
    """The names of all test functions in the tree."""
    names: set[str] = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        if "node_modules" not in file.parts:
            nodes = ast.walk(ast.parse(file.read_text("utf-8")))
            names |= {
                node.name
                for node in nodes
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
            }
    return frozenset(names)


def test_the_tables_are_read() -> None:
    assert len(rows()) > 30


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_each_attack_names_tests_that_exist(row: list[str]) -> None:
    names = _NAME.findall(row[-1])
    assert names, f"no test is named for: {row[0]}"
    assert [name for name in names if name not in defined()] == []

"""The manifest of the shared evidence: real reports and quotes with the verdict that a correct verifier
reaches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.shared import shared_dir, vector


@dataclass(frozen=True, slots=True)
class Vector:
    """One file of the manifest."""

    file: str
    data: bytes
    now: datetime | None
    goes_with: tuple[str, ...]
    expected: dict[str, Any]

    @property
    def verdict(self) -> str:
        """``valid``, ``genuine_but_rejected``, ``genuine_no_collateral`` or ``invalid``."""
        return str(self.expected["verdict"])


def evidence(tee: str) -> list[Vector]:
    """Every piece of evidence of ``tee`` that has a verdict."""
    return [
        _vector(entry)
        for entry in vector("vectors/manifest.json")
        if entry["tee"] == tee and entry["kind"] == "evidence" and "verdict" in entry.get("expected", {})
    ]


def one(file: str) -> Vector:
    """The entry of ``file``."""
    (entry,) = [entry for entry in vector("vectors/manifest.json") if entry["file"] == file]
    return _vector(entry)


def read(file: str) -> bytes:
    """The bytes of ``file``."""
    return path(file).read_bytes()


def path(file: str) -> Path:
    """Where ``file`` is."""
    return shared_dir() / "vectors" / file


def _vector(entry: dict[str, Any]) -> Vector:
    return Vector(
        file=entry["file"],
        data=read(entry["file"]),
        now=datetime.fromisoformat(entry["valid_time"]) if "valid_time" in entry else None,
        goes_with=tuple(entry["goes_with"]),
        expected=entry.get("expected", {}),
    )

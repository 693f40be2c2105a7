"""Where the shared test data lies: the folder ``shared`` beside the checkout, or ``CONFONNX_SHARED``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]


def shared_dir() -> Path:
    """The shared folder. Skips the test where there is none, except in CI, where it must be there."""
    path = Path(os.environ.get("CONFONNX_SHARED", _REPOSITORY.parent / "shared"))
    if not path.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the shared vectors, but {path} does not exist")
        pytest.skip(f"no shared vectors at {path} (set CONFONNX_SHARED)", allow_module_level=True)
    return path


def vector(relative: str) -> Any:
    """The parsed JSON of ``shared/<relative>``."""
    return json.loads((shared_dir() / relative).read_text("utf-8"))

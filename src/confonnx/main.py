"""``python3 -m confonnx.main``: the documented form of ``confonnx predict``."""

from __future__ import annotations

from confonnx.cli.app import run_verb

if __name__ == "__main__":
    run_verb("predict")

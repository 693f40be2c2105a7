"""``python3 -m confonnx.hash_model``: the documented form of ``confonnx hash-model``."""

from __future__ import annotations

from confonnx.cli.app import run_verb

if __name__ == "__main__":
    run_verb("hash-model")

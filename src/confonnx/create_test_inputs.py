"""``python3 -m confonnx.create_test_inputs``: the documented form of ``confonnx create-test-inputs``."""

from __future__ import annotations

from confonnx.cli.app import run_verb

if __name__ == "__main__":
    run_verb("create-test-inputs")

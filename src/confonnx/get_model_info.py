"""``python3 -m confonnx.get_model_info``: the documented form of ``confonnx model-info``."""

from __future__ import annotations

from confonnx.cli.app import run_verb

if __name__ == "__main__":
    run_verb("model-info")

"""A server that batches: each client gets its own answer; a model whose rows mix is not batched."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from confonnx import Client
from tests.support.models import save
from tests.support.running import RunningServer, running_server


def rows_model(path: Path, operator: str, axis: int) -> Path:
    """Rows of four numbers through an ``operator`` along ``axis``."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    return save(
        helper.make_graph([helper.make_node(operator, ["x"], ["y"], axis=axis)], "rows", [x], [y]), path
    )


def ask(server: RunningServer, number: int) -> bool:
    """Twenty requests of one client; whether all answers were its own."""
    with Client(
        server.url, enclave_hash=server.measurement, dangerous_any_model=True, allow_simulated=True
    ) as client:
        for turn in range(20):
            x = np.random.default_rng(100 * number + turn).random((1 + number, 4), np.float32)
            expected = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
            if not np.allclose(np.asarray(client.predict({"x": x})["y"]), expected, rtol=1e-4):
                return False
    return True


def test_clients_at_the_same_time_get_their_own_answers(tmp_path: Path) -> None:
    model = rows_model(tmp_path / "rows.onnx", "Softmax", 1)
    batch = "rows:max_batch_size=8,max_queue_delay_us=2000"
    with running_server("--model-path", str(model), "--batch", batch) as server, ExitStack() as stack:
        callers = stack.enter_context(ThreadPoolExecutor(4))
        assert all(callers.map(ask, [server] * 4, range(4)))


def test_a_model_whose_rows_mix_is_refused_at_the_start(tmp_path: Path) -> None:
    model = rows_model(tmp_path / "rows.onnx", "Softmax", 0)
    command = [sys.executable, "-m", "confonnx.cli.app", "serve", str(model), "--http-port", "0"]
    batch = ("--batch", "rows:max_batch_size=8", "--metrics-port", "0", "--address", "127.0.0.1")
    result = subprocess.run([*command, *batch], capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert "cannot be batched: its output 'y' for one request depends on what else" in result.stderr

"""The server answers an OHTTP client whose HPKE and Binary HTTP others wrote (Node, hpke, bhttp-js)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.models import add_model
from tests.support.running import running_server

_NODE = Path(__file__).parent / "node"
_OLDEST_NODE = (20, 19)  # what @noble/* ask for in the lock file; Debian 12 has 18


@pytest.fixture(scope="module", autouse=True)
def _needs_node() -> None:
    if (lack := _lack()) is not None:
        if os.environ.get("CI"):
            pytest.fail(lack)
        pytest.skip(lack)


def _lack() -> str | None:
    """What is missing for this test, or None."""
    if shutil.which("node") is None or not (_NODE / "node_modules" / "hpke").is_dir():
        return "Node or its packages are missing (make test installs them where it can)"
    found = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    version = tuple(int(part) for part in found.removeprefix("v").split(".")[:2])
    if version < _OLDEST_NODE:
        return f"the client's packages need Node {'.'.join(map(str, _OLDEST_NODE))} or later, found {found}"
    return None


def _ask(url: str, kem: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        ["node", str(_NODE / "client.mjs"), url, hex(kem), path],
        input=json.dumps(body),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("kem", [0x0020, 0x647A])
def test_a_foreign_client_gets_its_answer(kem: int, tmp_path: Path) -> None:
    model = add_model(tmp_path / "add.onnx")
    request = {
        "id": "from-node",
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [2], "data": [1.5, 2.5]},
            {"name": "b", "datatype": "FP32", "shape": [2], "data": [0.25, -2.5]},
        ],
    }
    with running_server(str(model)) as server:
        answer = _ask(server.url, kem, "/v2/models/add/infer", request)
        missing = _ask(server.url, kem, "/v2/models/none/infer", request)

    assert answer["kem"] == kem
    assert answer["status"] == 200
    body = json.loads(answer["body"])
    assert body["id"] == "from-node"
    assert [output["name"] for output in body["outputs"]] == ["sum"]
    np.testing.assert_array_equal(np.array(body["outputs"][0]["data"], np.float32).ravel(), [1.75, 0.0])

    assert missing["status"] == 404
    assert "none" in json.loads(missing["body"])["error"]

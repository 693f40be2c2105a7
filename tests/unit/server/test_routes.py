"""The Open Inference Protocol inside the seal."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from confonnx.errors import ConfigurationError, InferenceError, OverloadedError
from confonnx.models.repository import load_single
from confonnx.ohttp import bhttp
from confonnx.oip import messages
from confonnx.runtime.batching import BatchOptions
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.registry import LoadedModel, Registry
from confonnx.server.metrics import Outcome
from confonnx.server.routes import error_reply
from tests.support.models import add_model
from tests.unit.server.harness import GatedSession, Gateway, error_of, gated_model, real_models, run, values

CANARY = "canary-91c0"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[LoadedModel]:
    return real_models(tmp_path_factory.mktemp("models"))


def document(response: bhttp.Response) -> Any:
    assert response.status == 200
    assert response.field("content-type") == "application/json"
    return json.loads(bytes(response.body))


def test_server_documents(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        for path in ("/v2", "/v2/", "/v2?x=y"):
            metadata = document(await gateway.ask(path))
            assert (metadata["name"], metadata["version"]) == ("confonnx", "0")
            assert tuple(metadata["extensions"]) == messages.EXTENSIONS
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert document(await gateway.ask(path)) == {"live": True, "ready": True}
        assert document(await gateway.ask("/v2/models")) == {"models": ["add", "picky", "text"]}

    run(scenario)


@pytest.mark.parametrize("path", ["/v2/models/add", "/v2/models/add/versions/1", "/v2/models/%61dd"])
def test_model_documents(models: list[LoadedModel], path: str) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        metadata = document(await gateway.ask(path))
        assert (metadata["name"], metadata["versions"]) == ("add", ["1"])
        assert metadata["platform"] == "onnx_onnxv1"
        assert [(item["name"], item["datatype"], item["shape"]) for item in metadata["inputs"]] == [
            ("a", "FP32", [-1]),
            ("b", "FP32", [-1]),
        ]
        assert document(await gateway.ask(f"{path}/ready")) == {"name": "add", "ready": True}

    run(scenario)


@pytest.mark.parametrize(
    ("path", "method", "status", "text"),
    [
        ("/v2/models/none", "GET", 404, "add, picky, text"),
        ("/v2/models/none/infer", "POST", 404, "'none'"),
        ("/v2/models/add/versions/7", "GET", 404, "'7'"),
        ("/v2/models/add/versions/7/infer", "POST", 404, "'7'"),
        ("/v2/models/add/versions/7/ready", "GET", 404, "'7'"),
        ("/v2/models//infer", "POST", 404, "''"),
        ("/", "GET", 404, "no such resource"),
        ("/v1/models/add", "GET", 404, "no such resource"),
        ("/ohttp", "POST", 404, "no such resource"),
        ("/v2/models/add/load", "POST", 404, "no such resource"),
        ("/v2/models/add%2Finfer", "POST", 404, "no model 'add/infer'"),
        ("/v2", "POST", 405, "GET"),
        ("/v2/models/add", "DELETE", 405, "GET"),
        ("/v2/models/add/infer", "GET", 405, "POST"),
    ],
)
def test_refusals(models: list[LoadedModel], path: str, method: str, status: int, text: str) -> None:
    async def scenario() -> None:
        response = await Gateway(models).ask(path, method=method)
        assert response.status == status
        assert text in error_of(response)
        assert (status == 405) == (response.field("allow") is not None)

    run(scenario)


def test_inference_binary_and_json(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        response = await gateway.infer("add", {"a": [1.0, 2.0], "b": [0.5, 0.25]})
        assert response.status == 200
        np.testing.assert_array_equal(values(response)["sum"], np.array([1.5, 2.25], np.float32))
        body = {
            "id": "abc",
            "inputs": [
                {"name": name, "datatype": "FP32", "shape": [2], "data": data}
                for name, data in (("a", [1, 2]), ("b", [0.5, 0.25]))
            ],
            "outputs": [{"name": "sum"}],
        }
        path = "/v2/models/add/versions/1/infer"
        answer = document(await gateway.ask(path, method="POST", body=json.dumps(body).encode()))
        assert answer == {
            "model_name": "add",
            "model_version": "1",
            "id": "abc",
            "outputs": [{"name": "sum", "datatype": "FP32", "shape": [2], "data": [1.5, 2.25]}],
        }

    run(scenario)


def test_strings(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        texts = np.array(["a", "é", ""], dtype=object)
        assert values(await Gateway(models).infer("text", {"x": texts}))["y"].tolist() == ["a", "é", ""]

    run(scenario)


def test_large_requests_and_answers_go_through_the_pool(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models, max_response_bytes=8 << 20)
        big = np.arange(600_000, dtype=np.float32)  # 2.4 MB: opened, parsed, run and sealed off the loop
        response = await gateway.infer("add", {"a": big, "b": big})
        np.testing.assert_array_equal(values(response)["sum"], big + big)
        assert gateway.count("confonnx_queue_duration_seconds_count") == 1

    run(scenario)


def test_long_texts_are_not_parsed_on_the_event_loop(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        inputs = [{"name": name, "datatype": "FP32", "shape": [1], "data": [1]} for name in ("a", "b")]
        text = json.dumps({"inputs": inputs}).encode()
        for spaces, queued in ((0, 0), (70_000, 1)):
            body = text + b" " * spaces
            answer = document(await gateway.ask("/v2/models/add/infer", method="POST", body=body))
            assert answer["outputs"][0]["data"] == [2.0]
            assert gateway.count("confonnx_queue_duration_seconds_count") == queued

    run(scenario)


@pytest.mark.parametrize(
    ("inputs", "status", "texts"),
    [
        ({"a": [1.0]}, 400, ["b"]),
        ({"a": [1.0], "b": [1.0], "c": [1.0]}, 400, ["c"]),
        ({"a": [1.0], "b": np.array([1], np.int64)}, 400, ["'b'", "FP32", "INT64"]),
        ({"a": [1.0], "b": [[1.0]]}, 400, ["'b'", "[n]", "[1, 1]"]),
        ({"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]}, 400, ["input 'a'", "input 'b'", "2 and 3", "'n'"]),
    ],
)
def test_wrong_inputs_name_the_tensor(
    models: list[LoadedModel], inputs: dict[str, Any], status: int, texts: list[str]
) -> None:
    async def scenario() -> None:
        response = await Gateway(models).infer("add", inputs)
        assert response.status == status
        for text in texts:
            assert text in error_of(response)

    run(scenario)


def test_unknown_output_is_named(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        wanted = (messages.RequestedOutput("nothing"),)
        response = await Gateway(models).infer("add", {"a": [1.0], "b": [1.0]}, outputs=wanted)
        assert response.status == 400
        assert "nothing" in error_of(response)

    run(scenario)


def test_the_runtimes_failure_is_a_sealed_500_with_its_text(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        response = await gateway.infer("picky", {"x": [1.0, 2.0]})
        assert response.status == 500
        assert "shape" in error_of(response).lower()
        labels = {"model": "picky", "version": "1", "outcome": "failed"}
        assert gateway.count("confonnx_requests_total", **labels) == 1

    run(scenario)


@pytest.mark.parametrize(
    ("body", "length"),
    [(b"", None), (b"{", None), (b"[]", None), (b"{}", "x"), (b"{}", "-1"), (b"{}", "3"), (b"{}", "9" * 30),
     (b'{"inputs": 5}', None)],
)  # fmt: skip
def test_malformed_messages_are_a_sealed_400(
    models: list[LoadedModel], body: bytes, length: str | None
) -> None:
    async def scenario() -> None:
        fields = () if length is None else (("inference-header-content-length", length),)
        response = await Gateway(models).ask("/v2/models/add/infer", method="POST", body=body, fields=fields)
        assert response.status == 400
        assert error_of(response)

    run(scenario)


def test_raw_binary_request_of_a_model_with_one_input(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        body = np.array([1, 2, 3], np.float32).tobytes()
        response = await Gateway(models).ask(
            "/v2/models/picky/infer",
            method="POST",
            body=body,
            fields=(("inference-header-content-length", "0"),),
        )
        assert values(response)["y"].tolist() == [1.0, 2.0, 3.0]

    run(scenario)


def test_deadline_is_a_sealed_504_and_the_run_is_aborted() -> None:
    async def scenario() -> None:
        session = GatedSession()
        gateway = Gateway([gated_model("slow", session)], timeout=0.1)
        response = await gateway.infer("slow", {"x": [1.0]})
        assert response.status == 504
        await asyncio.sleep(0.05)
        assert session.aborted

    run(scenario)


def test_full_queue_is_a_sealed_503_with_retry_after() -> None:
    async def scenario() -> None:
        session = GatedSession()
        gateway = Gateway([gated_model("slow", session)], max_queue=1)
        first = asyncio.create_task(gateway.infer("slow", {"x": [1.0]}))
        second = asyncio.create_task(gateway.infer("slow", {"x": [2.0]}))
        await asyncio.sleep(0.05)
        assert gateway.count("confonnx_in_flight") == 2
        refused = await gateway.infer("slow", {"x": [3.0]})
        assert refused.status == 503
        assert int(refused.field("retry-after") or 0) >= 1
        session.gate.set()
        assert [values(await task)["y"].tolist() for task in (first, second)] == [[1.0], [2.0]]
        assert gateway.count("confonnx_in_flight") == 0

    run(scenario)


def test_versions_are_listed_and_the_highest_answers() -> None:
    async def scenario() -> None:
        sessions = [GatedSession(), GatedSession()]
        for session in sessions:
            session.gate.set()
        gateway = Gateway(
            [gated_model("m", sessions[0], version="2"), gated_model("m", sessions[1], version="10")]
        )
        assert document(await gateway.ask("/v2/models/m"))["versions"] == ["2", "10"]
        response = await gateway.infer("m", {"x": [1.0]})
        header = bytes(response.body)[: int(response.field("inference-header-content-length") or 0)]
        assert json.loads(header)["model_version"] == "10"

    run(scenario)


def test_error_table() -> None:
    overloaded = error_reply(OverloadedError("full", retry_after=7))
    assert (overloaded.status, overloaded.fields) == (503, (("retry-after", "7"),))
    failed = error_reply(InferenceError(CANARY))
    assert (failed.status, failed.outcome) == (500, Outcome.FAILED)
    assert CANARY not in repr(failed)
    with pytest.raises(ConfigurationError):
        error_reply(ConfigurationError("a defect of ours, not an answer"))


def test_a_batched_model_answers_each_its_own(tmp_path: Path) -> None:
    files = [load_single(add_model(tmp_path / "add.onnx"))]
    (model,) = Registry.load(files, SessionOptions(), {"add": BatchOptions(6, 10_000_000)}).models

    async def scenario() -> None:
        gateway = Gateway([model])
        asked = [
            gateway.infer("add", {"a": np.full(rows, rows, np.float32), "b": np.ones(rows, np.float32)})
            for rows in (1, 2, 3)
        ]
        wrong = gateway.infer("add", {"a": np.ones((1, 1), np.float32), "b": np.ones(1, np.float32)})
        *answers, refused = await asyncio.gather(*asked, wrong)
        for rows, answer in zip((1, 2, 3), answers, strict=True):
            assert answer.status == 200
            assert values(answer)["sum"].tolist() == [rows + 1.0] * rows
        assert refused.status == 400
        # Three in one run, which began when it was full; the fourth was refused before any.
        count = gateway.metrics.registry.get_sample_value("confonnx_inference_duration_seconds_count")
        assert count == 1
        assert gateway.metrics.registry.get_sample_value("confonnx_queue_duration_seconds_count") == 3

    run(scenario)

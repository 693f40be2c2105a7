from __future__ import annotations

import json

import pytest

from confonnx.errors import OipError
from confonnx.oip.datatypes import Datatype, SequenceType, TensorType, ValueSpec
from confonnx.oip.messages import (
    EXTENSIONS,
    ModelMetadata,
    ServerMetadata,
    encode_error,
    encode_health,
    encode_model_list,
    encode_model_ready,
    parse_error,
    parse_health,
    parse_model_list,
    parse_model_metadata,
    parse_server_metadata,
)


def test_server_metadata() -> None:
    metadata = ServerMetadata("confonnx", "0.1.0")
    assert json.loads(metadata.encode()) == {
        "name": "confonnx",
        "version": "0.1.0",
        "extensions": ["binary_tensor_data", "confonnx_datatypes", "confonnx_values", "confonnx_streams"],
    }
    assert metadata.extensions == EXTENSIONS
    assert parse_server_metadata(metadata.encode()) == metadata
    assert parse_server_metadata(b'{"name": "a", "version": "1"}') == ServerMetadata("a", "1", ())


def test_model_metadata() -> None:
    metadata = ModelMetadata(
        name="m",
        inputs=(ValueSpec("x", TensorType(Datatype.FP32, ("N", 4))),),
        outputs=(ValueSpec("y", SequenceType(TensorType(Datatype.INT64))),),
        versions=("1", "2"),
    )
    document = json.loads(metadata.encode())
    assert document["platform"] == "onnx_onnxv1"
    assert document["versions"] == ["1", "2"]
    assert document["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4], "dims": ["N", None]}]
    assert parse_model_metadata(metadata.encode()) == metadata


def test_model_metadata_of_other_servers() -> None:
    body = b'{"name":"m","versions":null,"platform":"p","inputs":[],"outputs":[],"parameters":{}}'
    assert parse_model_metadata(body) == ModelMetadata("m", (), (), (), "p")


@pytest.mark.parametrize("healthy", [True, False])
def test_health_has_both_members(healthy: bool) -> None:
    assert json.loads(encode_health(healthy)) == {"live": healthy, "ready": healthy}
    assert parse_health(encode_health(healthy)) is healthy
    assert parse_health(encode_model_ready("m", ready=healthy)) is healthy


@pytest.mark.parametrize(
    ("body", "healthy"),
    [
        (b'{"live":true}', True),
        (b'{"live":true,"ready":false}', False),
        (b'{"ready":true,"live":false}', True),
    ],
)
def test_ready_is_read_before_live(body: bytes, healthy: bool) -> None:
    assert parse_health(body) is healthy


def test_lists_and_errors() -> None:
    assert encode_model_list(["a", "b"]) == b'{"models":["a","b"]}'
    assert parse_model_list(b'{"models":["a","b"]}') == ("a", "b")
    assert encode_error('no "x"') == b'{"error":"no \\"x\\""}'
    assert parse_error(encode_error('no "x"')) == 'no "x"'


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"error":1}', b'{"ready":"yes"}', b'{"models":{}}', b"Healthy"]
)
def test_malformed_documents(body: bytes) -> None:
    for parse in (parse_server_metadata, parse_model_metadata, parse_health, parse_model_list, parse_error):
        with pytest.raises(OipError):
            parse(body)

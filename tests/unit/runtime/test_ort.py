"""onnxruntime's options and errors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import pytest
from onnx import helper

from confonnx.errors import ConfigurationError, InferenceError, ModelFormatError
from confonnx.models.digest import ModelBytes
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.ort import ORT_ERRORS, VERSION, clean, inference_error, onnxruntime, open_session
from tests.support import onnx_models as models


def load(proto: onnx.ModelProto, options: SessionOptions | None = None) -> onnxruntime.InferenceSession:
    data = proto.SerializeToString()
    content = ModelBytes(data, (), hashlib.sha256(data).hexdigest())
    return open_session(content, options or SessionOptions(), (), source="model 'm'")


def test_only_the_cpu_provider_is_enabled() -> None:
    assert load(models.identity()).get_providers() == ["CPUExecutionProvider"]


def test_the_provider_that_calls_out_can_never_be_named() -> None:
    with pytest.raises(ConfigurationError, match="AzureExecutionProvider sends tensors to a remote service"):
        SessionOptions(providers=("AzureExecutionProvider", "CPUExecutionProvider"))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"providers": ()}, "no execution provider given"),
        ({"intra_op_threads": 0}, "intra_op_threads is 0; expected at least 1"),
        ({"inter_op_threads": -1}, "inter_op_threads is -1"),
    ],
)
def test_bad_options(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        SessionOptions(**changes)  # type: ignore[arg-type]


def test_a_provider_that_is_not_installed() -> None:
    options = SessionOptions(providers=("CUDAExecutionProvider",))
    with pytest.raises(ConfigurationError, match=r"CUDAExecutionProvider is not in the installed .* it has"):
        load(models.identity(), options)


def test_an_opset_from_the_future_names_both_numbers() -> None:
    text = (
        rf"model 'm': the model uses opset 99 of ai\.onnx; onnxruntime {VERSION} supports up to \d+: export"
    )
    with pytest.raises(ModelFormatError, match=text):
        load(models.identity(opset=99))


def test_an_opset_of_another_domain_from_the_future() -> None:
    proto = models.identity()
    proto.opset_import[1].version = 77
    with pytest.raises(ModelFormatError, match=r"uses opset 77 of ai\.onnx\.ml; .* up to 5"):
        load(proto)


def test_an_ir_version_from_the_future() -> None:
    proto = models.identity()
    proto.ir_version = 99
    with pytest.raises(ModelFormatError, match=r"has ONNX IR version 99; .* up to \d+: set"):
        load(proto)


def test_an_unknown_operator_is_named_without_decoration() -> None:
    node = helper.make_node("Nope", ["x"], ["y"])
    proto = models.model({"x": models.tensor(1)}, {"y": models.tensor(1)}, [node])
    with pytest.raises(
        ModelFormatError, match=f"model 'm': onnxruntime {VERSION} does not load.*Nope"
    ) as caught:
        load(proto)
    assert "[ONNXRuntimeError]" not in str(caught.value)


def test_a_graph_that_is_broken_inside() -> None:
    node = helper.make_node("Add", ["x", "nowhere"], ["y"])
    proto = models.model({"x": models.tensor(1)}, {"y": models.tensor(1)}, [node])
    with pytest.raises(ModelFormatError, match="nowhere"):
        load(proto)


def test_external_data_is_never_looked_up_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(12))
    monkeypatch.chdir(tmp_path)
    for location in ("*/_ORT_MEM_ADDR_/*", "/etc/hostname", str(tmp_path / "weights.bin")):
        with pytest.raises(ModelFormatError):
            load(models.with_external_data(location))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Invalid input name: w", "Invalid input name: w"),
        (
            "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/model.cc:256 "
            "onnxruntime::Model::Model(onnx::ModelProto&&, const F<void (int)>&) Unsupported model",
            "Unsupported model",
        ),
        (
            "Non-zero status code returned. Status Message: /onnxruntime_src/onnxruntime/core/x.h:12 "
            "T& ns::f(const A&) const [with T = int] bad shape",
            "Non-zero status code returned. Status Message: bad shape",
        ),
        (
            "Exception: /onnxruntime_src/onnxruntime/x.cc:235 ns::F::F(const A&)::<lambda()> no such locale",
            "Exception: no such locale",
        ),
        ("two\n  lines", "two lines"),
        ("/onnxruntime_src/onnxruntime/a.cc:1 no signature", "no signature"),
        ("x" * 5000, "x" * 2000),
        ("", ""),
    ],
)
def test_messages_are_cleaned(raw: str, expected: str) -> None:
    assert clean(raw) == expected


def test_running_out_of_memory_is_said_plainly() -> None:
    error = inference_error(MemoryError("std::bad_alloc"))
    assert isinstance(error, InferenceError)
    assert "ran out of memory" in str(error)


def test_every_exception_of_onnxruntime_is_ours_to_wrap() -> None:
    state = onnxruntime.capi.onnxruntime_pybind11_state
    for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "EPFail"):
        assert getattr(state, name) in ORT_ERRORS
    assert all(issubclass(kind, Exception) for kind in ORT_ERRORS)

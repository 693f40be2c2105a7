"""A Session takes and gives every kind of value, alone and mixed, and fails with our errors."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from confonnx.errors import ConfigurationError, InferenceError, InvalidInputError, ModelFormatError
from confonnx.models.digest import ModelBytes
from confonnx.models.repository import ModelFile, load_single
from confonnx.oip.datatypes import Datatype, TensorType, ValueSpec
from confonnx.oip.values import Value
from confonnx.runtime.options import ExecutionMode, GraphOptimization, SessionOptions
from confonnx.runtime.session import Abort, Session
from tests.support import onnx_models as models
from tests.support.onnx_backend import same_bits

F, S, B = TensorProto.FLOAT, TensorProto.STRING, TensorProto.BFLOAT16
ONE = np.array([1, 2], np.float32)
TEXT = np.array(["a", "é\0"], dtype=object)
HALF = np.array([0.5, -2], ml_dtypes.bfloat16)


def session(proto: onnx.ModelProto, options: SessionOptions | None = None) -> Session:
    data = proto.SerializeToString()
    content = ModelBytes(data, (), hashlib.sha256(data).hexdigest())
    return Session.from_bytes(content, options or SessionOptions(), source="m")


def check(proto: onnx.ModelProto, inputs: dict[str, Value], expected: dict[str, Value]) -> None:
    outputs = session(proto).run(inputs)
    assert list(outputs) == list(expected)
    for name, value in expected.items():
        assert same_bits(outputs[name], value), (name, outputs[name], value)


def identity(**types: onnx.TypeProto) -> onnx.ModelProto:
    """``<name>_out`` is ``<name>``, for each; no operator runs, so that every type of onnxruntime works."""
    return models.model(types, types, [], opset=25)


PACKED: list[Datatype] = [
    datatype
    for datatype in Datatype
    if datatype.numpy_dtype.type.__module__ == "ml_dtypes" and datatype is not Datatype.FP4_E2M1
]
NUMPY: list[Datatype] = [
    datatype
    for datatype in Datatype
    if datatype.numpy_dtype.type.__module__ == "numpy" and datatype.kind.name != "COMPLEX"
]


@pytest.mark.parametrize("datatype", PACKED + NUMPY)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 1), (0,), (2, 0)])
def test_every_tensor_type_and_shape_passes_unchanged(datatype: Datatype, shape: tuple[int, ...]) -> None:
    type_ = models.tensor(datatype.onnx_type, [None] * len(shape))
    size = int(np.prod(shape))
    if datatype is Datatype.BYTES:
        value = np.array([f"s{index}" for index in range(size)], dtype=object).reshape(shape)
    else:
        value = (np.arange(size) % 2).astype(datatype.numpy_dtype).reshape(shape)
    check(identity(x=type_), {"x": value}, {"x": value})


@pytest.mark.parametrize("datatype", [Datatype.BF16, Datatype.FP8_E4M3FN, Datatype.FP8_E5M2, Datatype.FP16])
def test_every_bit_pattern_survives_nan_payloads_too(datatype: Datatype) -> None:
    bits = datatype.bits or 0
    patterns = np.arange(2**bits, dtype=f"u{bits // 8}").view(datatype.numpy_dtype)
    check(identity(x=models.tensor(datatype.onnx_type)), {"x": patterns}, {"x": patterns})


@pytest.mark.parametrize("datatype", [Datatype.INT4, Datatype.UINT4, Datatype.INT2, Datatype.UINT2])
@pytest.mark.parametrize("size", range(9))
def test_the_spare_bits_of_packed_types_never_matter(datatype: Datatype, size: int) -> None:
    low = -2 if datatype.value.startswith("INT") else 0
    value = (np.arange(size) % 4 + low).astype(datatype.numpy_dtype)
    proto = models.model(
        {"x": models.tensor(F)},
        {"y": models.tensor(datatype.onnx_type)},
        [helper.make_node("Cast", ["x"], ["y"], to=datatype.onnx_type)],
        opset=25,
    )
    check(proto, {"x": value.astype(np.float32)}, {"y": value})


@pytest.mark.parametrize("datatype", [Datatype.COMPLEX64, Datatype.COMPLEX128])
def test_complex_numbers_are_refused_at_load(datatype: Datatype) -> None:
    with pytest.raises(ModelFormatError, match=rf"m: onnxruntime .*{datatype.value.lower()}"):
        session(models.identity(datatype.onnx_type))


FLOATS = models.sequence(models.tensor(F))
SCORES = models.sequence(models.mapping(S, F))
SEQUENCE: Value = [ONE, ONE[:1]]
STRINGS: Value = [TEXT, TEXT[:0]]


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (FLOATS, SEQUENCE),
        (FLOATS, []),
        (models.sequence(models.tensor(S)), STRINGS),
        (models.optional(models.tensor(F)), ONE),
        (models.optional(models.tensor(B)), HALF),
        (models.optional(FLOATS), SEQUENCE),
        (models.mapping(S, F), {"a": 0.5}),
        (models.mapping(7, F), {-1: 2.0, 1: 0.5}),
    ],
)
def test_values_that_are_no_tensors(type_: onnx.TypeProto, value: Value) -> None:
    check(identity(x=type_), {"x": value}, {"x": value})


def mixed(other: onnx.TypeProto) -> onnx.ModelProto:
    """A packed tensor and something else, both in and out."""
    return identity(packed=models.tensor(B), other=other)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (models.tensor(F), ONE),
        (models.tensor(9), np.array([True, False])),
        (models.tensor(S), TEXT),
        (models.tensor(S), TEXT[:0]),
        (models.tensor(S, []), np.array("x", dtype=object)),
        (FLOATS, SEQUENCE),
        (FLOATS, []),
        (models.sequence(models.tensor(S)), STRINGS),
        (models.sequence(models.tensor(S)), []),
        (models.optional(models.tensor(F)), ONE),
        (models.optional(models.tensor(B)), HALF),
        (models.optional(FLOATS), SEQUENCE),
        (models.tensor(TensorProto.INT4), np.array([-8, 7, 1], np.int8).astype(ml_dtypes.int4)),
    ],
)
def test_packed_tensors_mix_with_everything(type_: onnx.TypeProto, value: Value) -> None:
    values: dict[str, Value] = {"packed": HALF, "other": value}
    check(mixed(type_), values, values)


def test_a_packed_input_beside_a_map_works_as_long_as_no_packed_output_is_asked_for() -> None:
    loaded = session(mixed(models.mapping(S, F)))
    values: dict[str, Value] = {"packed": HALF, "other": {"a": 0.5}}
    assert loaded.run(values, ["other"]) == {"other": {"a": 0.5}}
    with pytest.raises(
        InferenceError, match=r"input 'other' is a map and an output .* request other outputs"
    ):
        loaded.run(values)


def test_maps_and_empty_optionals_come_out_beside_packed_tensors() -> None:
    zipped = helper.make_node("ZipMap", ["x"], ["z"], domain="ai.onnx.ml", classlabels_strings=["a", "b"])
    nothing = helper.make_node("Optional", [], ["n"], type=models.tensor(F))
    cast = helper.make_node("Cast", ["x"], ["b"], to=B)
    proto = models.model(
        {"x": models.tensor(F, [None, 2])},
        {"z": SCORES, "n": models.optional(models.tensor(F)), "b": models.tensor(B, [None, 2])},
        [zipped, nothing, cast],
        opset=18,
    )
    x = np.array([[1, 2]], np.float32)
    check(proto, {"x": x}, {"z": [{"a": 1.0, "b": 2.0}], "n": None, "b": x.astype(ml_dtypes.bfloat16)})
    assert session(proto).run({"x": x}, ["n", "z"]) == {"n": None, "z": [{"a": 1.0, "b": 2.0}]}


@pytest.mark.parametrize(
    ("inputs", "outputs", "text"),
    [
        ({"x": SCORES}, {}, r"'x' is a seq\(map\(string,tensor\(float\)\)\), which .* cannot carry"),
        ({"x": models.sequence(models.tensor(B))}, {}, "'x' is a seq"),
        ({}, {"y": models.sequence(models.tensor(B))}, "'y' is a seq"),
        ({"x": models.optional(models.sequence(models.tensor(B)))}, {}, "'x' is a optional"),
    ],
)
def test_types_that_cannot_be_carried_are_refused_at_load(
    inputs: dict[str, onnx.TypeProto], outputs: dict[str, onnx.TypeProto], text: str
) -> None:
    with pytest.raises(ModelFormatError, match=text):
        session(models.model({**inputs, **outputs}, {**inputs, **outputs}, []))


def test_a_scikit_learn_pipeline_with_strings_and_zipmap() -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, labels = ["good day", "bad day", "good food", "bad food"], ["yes", "no", "yes", "no"]
    pipeline = make_pipeline(CountVectorizer(lowercase=False), LogisticRegression()).fit(texts, labels)
    types = [("text", skl2onnx.common.data_types.StringTensorType([None]))]
    loaded = session(skl2onnx.to_onnx(pipeline, initial_types=types, target_opset=17))
    outputs = loaded.run({"text": np.array(["good good", "bad"], dtype=object)})
    label, probabilities = outputs["output_label"], outputs["output_probability"]
    assert isinstance(label, np.ndarray)
    assert isinstance(probabilities, list)
    assert label.tolist() == ["yes", "no"]
    assert all(isinstance(row, dict) and set(row) == {"yes", "no"} for row in probabilities)


def test_a_tensor_input_that_is_optional_may_be_missing_or_none() -> None:
    has = helper.make_node("OptionalHasElement", ["x"], ["y"])
    proto = models.model(
        {"x": models.optional(models.tensor(F))}, {"y": models.tensor(9, [])}, [has], opset=18
    )
    loaded = session(proto)
    assert loaded.inputs[0].optional
    for inputs, expected in (({}, False), ({"x": None}, False), ({"x": ONE}, True)):
        assert same_bits(loaded.run(inputs)["y"], np.array(expected))


def test_an_input_with_a_default_may_be_given_or_left_out() -> None:
    type_ = models.tensor(F, [2])
    proto = models.model(
        {"x": type_, "w": type_},
        {"y": type_},
        [helper.make_node("Add", ["x", "w"], ["y"])],
        initializers=[models.weight("w", [10, 20])],
    )
    loaded = session(proto)
    assert [(spec.name, spec.optional) for spec in loaded.inputs] == [("x", False), ("w", True)]
    assert same_bits(loaded.run({"x": ONE})["y"], np.array([11, 22], np.float32))
    assert same_bits(loaded.run({"x": ONE, "w": ONE})["y"], np.array([2, 4], np.float32))


def test_outputs_in_the_order_asked_for() -> None:
    loaded = session(identity(a=models.tensor(F), b=models.tensor(S), c=models.tensor(B)))
    inputs: dict[str, Value] = {"a": ONE, "b": TEXT, "c": HALF}
    assert list(loaded.run(inputs, ["c", "a"])) == ["c", "a"]
    assert list(loaded.run(inputs, ["b"])) == ["b"]
    assert list(loaded.run(inputs, [])) == ["a", "b", "c"]
    with pytest.raises(InvalidInputError, match="the model has no output 'z'; it has a, b, c"):
        loaded.run(inputs, ["a", "z"])


def test_an_output_whose_type_the_file_leaves_out_is_inferred() -> None:
    proto = models.identity()
    proto.graph.output[0].ClearField("type")
    assert session(proto).outputs == (ValueSpec("y", TensorType(Datatype.FP32, None)),)


@pytest.mark.parametrize("array", [np.arange(6, dtype=np.float32)[::2], np.ones((2, 3), np.float32).T[0]])
def test_arrays_that_are_not_contiguous(array: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    check(identity(x=models.tensor(F), p=models.tensor(B)), {"x": array, "p": HALF}, {"x": array, "p": HALF})
    check(models.identity(), {"x": array}, {"y": np.ascontiguousarray(array)})


def test_read_only_arrays_and_packed_arrays_that_are_not_contiguous() -> None:
    frozen = np.frombuffer(ONE.tobytes(), np.float32)
    packed = np.arange(6).astype(ml_dtypes.bfloat16)[::2]
    check(
        identity(x=models.tensor(F), p=models.tensor(B)),
        {"x": frozen, "p": packed},
        {"x": ONE, "p": packed.copy()},
    )


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "x"),
        ({"x": ONE, "z": ONE}, "z"),
        ({"x": np.ones(3, np.float32)}, "Got: 3 Expected: 2"),
        ({"x": np.ones(2)}, r"Actual: \(tensor\(double\)\)"),
        ({"x": np.ones((2, 2), np.float32)}, "rank"),
    ],
)
def test_wrong_inputs_end_in_one_clean_error(inputs: dict[str, Value], text: str) -> None:
    with pytest.raises(InferenceError, match=text) as caught:
        session(models.identity(F, [2])).run(inputs)
    assert "ONNXRuntimeError" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.ones(2, np.float32), [ONE], {"a": 1.0}, TEXT])
def test_a_packed_input_of_another_type(value: Value) -> None:
    with pytest.raises(InvalidInputError, match="input 'x'"):
        session(identity(x=models.tensor(B))).run({"x": value})


def test_unknown_names_beside_packed_types() -> None:
    with pytest.raises(InvalidInputError, match="the model has no input 'z'; it has x"):
        session(identity(x=models.tensor(B))).run({"x": HALF, "z": HALF})


def test_an_operator_that_fails_says_what_and_nothing_reaches_stderr(
    capfd: pytest.CaptureFixture[str],
) -> None:
    gather = helper.make_node("Gather", ["x", "i"], ["y"], name="lookup")
    proto = models.model(
        {"x": models.tensor(F), "i": models.tensor(7, ["i"])}, {"y": models.tensor(F)}, [gather]
    )
    loaded = session(proto)
    for abort in (None, Abort()):
        with pytest.raises(
            InferenceError, match=r"'lookup' Status Message: .*idx=987654 must be within"
        ) as caught:
            loaded.run({"x": ONE, "i": np.array([987654])}, abort=abort)
        assert "onnxruntime_src" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_one_symbol_of_two_sizes_is_the_inputs_fault_if_the_run_fails() -> None:
    vector = models.tensor(F, ["n"])
    add = helper.make_node("Add", ["x", "z"], ["y"])
    loaded = session(models.model({"x": vector, "z": vector}, {"y": vector}, [add]))
    expected = (
        r"^the model calls axis 0 of input 'x' and axis 0 of input 'z' both 'n', expected one size for them, "
        r"found 2 and 3; the run failed: .*Attempting to broadcast .* 2 by 3"
    )
    with pytest.raises(InvalidInputError, match=expected):
        loaded.run({"x": ONE, "z": np.ones(3, np.float32)})
    # onnxruntime broadcasts a 1, whatever the dimensions are called, and so may a user.
    assert same_bits(loaded.run({"x": ONE, "z": ONE[:1]})["y"], ONE + 1)


def test_strings_that_are_no_utf8_are_an_inference_error() -> None:
    constant = helper.make_node(
        "Constant", [], ["y"], value=TensorProto(data_type=S, dims=[1], string_data=[b"\xff"])
    )
    loaded = session(models.model({}, {"y": models.tensor(S)}, [constant]))
    with pytest.raises(InferenceError):
        loaded.run({})


def endless() -> Session:
    """A loop of ``n`` rounds."""
    types = {"i": models.tensor(7, []), "go": models.tensor(9, []), "v": models.tensor(F, [])}
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [helper.make_value_info(name, type_) for name, type_ in types.items()],
        [helper.make_value_info("again", types["go"]), helper.make_value_info("w", types["v"])],
    )
    loop = helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)
    return session(models.model({"n": types["i"], "x": types["v"]}, {"y": types["v"]}, [loop]))


def test_a_run_can_be_ended_from_another_thread() -> None:
    abort = Abort()
    timer = threading.Timer(0.1, abort)
    started = time.monotonic()
    timer.start()
    with pytest.raises(InferenceError, match="ended before it was done"):
        endless().run({"n": np.array(2**62), "x": np.array(1, np.float32)}, abort=abort)
    timer.join()
    assert time.monotonic() - started < 5


def test_a_run_that_was_ended_before_it_began_and_one_that_never_is() -> None:
    loaded, inputs = endless(), {"n": np.array(3), "x": np.array(1, np.float32)}
    early = Abort()
    early()
    with pytest.raises(InferenceError, match="ended before it was done"):
        loaded.run(inputs, abort=early)
    assert same_bits(loaded.run(inputs, abort=Abort())["y"], np.array(8, np.float32))


def test_many_threads_at_once() -> None:
    loaded = session(identity(x=models.tensor(F), p=models.tensor(B)))
    failures: list[int] = []

    def work(number: int) -> None:
        inputs: dict[str, Value] = {
            "x": np.full(50, number, np.float32),
            "p": np.full(50, number, ml_dtypes.bfloat16),
        }
        for _ in range(50):
            outputs = loaded.run(inputs)
            if not all(same_bits(outputs[name], inputs[name]) for name in inputs):
                failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


OPTIONS = [
    SessionOptions(execution_mode=ExecutionMode.PARALLEL, inter_op_threads=2, intra_op_threads=2),
    *(SessionOptions(graph_optimization=level) for level in GraphOptimization),
    SessionOptions(mem_arena=False),
    SessionOptions(mem_arena_shrinkage=True),
    SessionOptions(spinning=True),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_change_no_result(options: SessionOptions) -> None:
    add = [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Cast", ["y"], ["z"], to=B)]
    proto = models.model({"x": models.tensor(F)}, {"y": models.tensor(F), "z": models.tensor(B)}, add)
    loaded = session(proto, options)
    for abort in (None, Abort()):
        outputs = loaded.run({"x": ONE}, abort=abort)
        assert same_bits(outputs["y"], ONE * 2)
        assert same_bits(outputs["z"], (ONE * 2).astype(ml_dtypes.bfloat16))


def external(tmp_path: Path) -> ModelFile:
    path = models.save(models.with_external_data("data/weights.bin"), tmp_path / "m" / "model.onnx")
    (tmp_path / "m" / "data").mkdir()
    (tmp_path / "m" / "data" / "weights.bin").write_bytes(np.arange(3, dtype=np.float32).tobytes())
    return load_single(path)


def test_external_data_is_loaded_from_memory(tmp_path: Path) -> None:
    model = external(tmp_path)
    loaded = Session.load(model, SessionOptions())
    (tmp_path / "m" / "data" / "weights.bin").unlink()
    assert loaded.digest == model.digest
    assert same_bits(loaded.run({"x": np.zeros(3, np.float32)})["y"], np.arange(3, dtype=np.float32))


@pytest.mark.parametrize("changed", ["model.onnx", "data/weights.bin"])
def test_a_file_that_changed_since_it_was_hashed_is_not_loaded(tmp_path: Path, changed: str) -> None:
    model = external(tmp_path)
    if changed == "model.onnx":
        other = models.with_external_data("data/weights.bin")
        other.producer_name = "another"
        models.save(other, tmp_path / "m" / changed)
    else:
        (tmp_path / "m" / changed).write_bytes(np.ones(3, np.float32).tobytes())
    with pytest.raises(ModelFormatError, match=r"'model' version 1 .* changed .* its digest was"):
        Session.load(model, SessionOptions())


def test_external_data_that_is_too_short_is_refused(tmp_path: Path) -> None:
    model = external(tmp_path)
    (tmp_path / "m" / "data" / "weights.bin").write_bytes(bytes(8))
    with pytest.raises(ModelFormatError, match="does not load this model"):
        Session.load(load_single(model.path), SessionOptions())


LIBRARY = """
#include <stddef.h>
void *RegisterCustomOps(void *options, const void *api) { return NULL; }  /* no operator, no error */
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    source, target = tmp_path / "ops.c", tmp_path / "libops.so"
    source.write_text(LIBRARY)
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", target, source], check=True)
    except FileNotFoundError:
        pytest.skip("no C compiler to make an operator library")
    return target


def test_an_operator_library_loads_from_memory_and_counts_in_the_digest(
    tmp_path: Path, library: Path
) -> None:
    path = models.save(models.identity(), tmp_path / "m.onnx")
    options = SessionOptions(operator_libraries=(library,))
    model = load_single(path, libraries=[library])
    before = set(os.listdir("/proc/self/fd"))
    loaded = Session.load(model, options)
    assert set(os.listdir("/proc/self/fd")) == before
    assert loaded.digest == model.digest != load_single(path).digest
    assert same_bits(loaded.run({"x": ONE})["y"], ONE)
    with pytest.raises(ModelFormatError, match="its digest was"):
        Session.load(model, SessionOptions())


def test_a_library_that_was_not_hashed_with_the_model_is_never_read(tmp_path: Path) -> None:
    data = models.identity().SerializeToString()
    options = SessionOptions(operator_libraries=(tmp_path / "absent.so",))
    with pytest.raises(ConfigurationError, match=r"name the operator libraries \['absent.so'\], but \[\]"):
        Session.from_bytes(ModelBytes(data, (), ""), options, source="m")


@pytest.mark.parametrize("content", [b"text", b""])
def test_what_is_no_operator_library(tmp_path: Path, content: bytes) -> None:
    path = models.save(models.identity(), tmp_path / "m.onnx")
    (tmp_path / "libops.so").write_bytes(content)
    options = SessionOptions(operator_libraries=(tmp_path / "libops.so",))
    model = load_single(path, libraries=options.operator_libraries)
    with pytest.raises(ConfigurationError, match=r"operator library libops.so: .* for onnxruntime 1\."):
        Session.load(model, options)


CANARY = """
import socket, sys
from pathlib import Path
from confonnx.models.repository import load_single
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.session import Session
import numpy as np
loaded = Session.load(load_single(Path(sys.argv[1])), SessionOptions())
loaded.run({"x": np.zeros(2, np.float32)})
"""


def test_loading_and_running_write_nothing_and_import_no_telemetry(tmp_path: Path) -> None:
    path = models.save(models.identity(), tmp_path / "m.onnx")
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", CANARY, str(path)], env=environment, cwd=home, capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    assert list(home.iterdir()) == []


def test_onnxruntime_imported_before_with_telemetry_on_is_refused() -> None:
    program = "import onnxruntime\nimport confonnx.runtime.session"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"onnxruntime was imported before confonnx.runtime" in done.stderr

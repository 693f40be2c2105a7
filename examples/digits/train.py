"""Trains the digit classifier of ``confonnx demo`` from the digits that scikit-learn carries.

    python examples/digits/train.py [DIRECTORY]

writes ``digits.onnx`` and ``digits_test.npz`` into DIRECTORY (by default ``src/confonnx/cli/digits``, from
where the package carries them). Running it again gives the same bytes.

The model takes ``image``: FP32 [N, 8, 8], grey values from 0 (paper) to 16 (ink), and gives ``digit``: INT64
[N] and ``probabilities``: FP32 [N, 10]. The test set holds what training never saw: ``images``, uint8 [360,
8, 8], and ``labels``, uint8 [360].
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

PACKAGE_DATA = Path(__file__).resolve().parents[2] / "src" / "confonnx" / "cli" / "digits"

_INK = 16.0  # the darkest grey value
_TEST_IMAGES = 360


def main() -> None:
    """Trains, writes both files and prints the accuracy over the test set."""
    parser = argparse.ArgumentParser(description="Train the digit classifier of `confonnx demo`.")
    parser.add_argument("directory", type=Path, nargs="?", default=PACKAGE_DATA)
    directory: Path = parser.parse_args().directory
    model, test_set, accuracy = train()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "digits.onnx").write_bytes(model)
    (directory / "digits_test.npz").write_bytes(test_set)
    print(f"{directory}: digits.onnx ({len(model)} bytes) reads {accuracy:.1%} of {_TEST_IMAGES} test images")


def train() -> tuple[bytes, bytes, float]:
    """The model file, the test set file, and the accuracy of the first on the second."""
    digits = load_digits()
    images, test_images, labels, test_labels = train_test_split(
        digits.data, digits.target, test_size=_TEST_IMAGES, random_state=0, stratify=digits.target
    )
    # The optimum of this convex problem, found to the last digits, is the same on every machine; rounding it
    # to a grid that is far coarser than what is left of error gives the same bytes.
    classifier = LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=200)
    with threadpool_limits(limits=1):  # the matrices are so small that threads make it ten times slower
        classifier.fit(images / _INK, labels)
    weights = _on_grid(classifier.coef_ / _INK)
    bias = _on_grid(classifier.intercept_)
    guesses = (test_images @ weights.T + bias).argmax(axis=1)
    return (
        _model(weights, bias),
        _test_set(test_images, test_labels),
        float((guesses == test_labels).mean()),
    )


def _on_grid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return (np.round(values * 2**14) / 2**14).astype(np.float32) + np.float32(0)  # + 0: no negative zeros


def _model(weights: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> bytes:
    """One layer: pixels → scores → probabilities → the most probable digit."""
    graph = helper.make_graph(
        nodes=[
            helper.make_node("Flatten", ["image"], ["pixels"], axis=1),
            helper.make_node("Gemm", ["pixels", "weights", "bias"], ["scores"], transB=1),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["scores"], ["digit"], axis=1, keepdims=0),
        ],
        name="digits",
        inputs=[helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 8, 8])],
        outputs=[
            helper.make_tensor_value_info("digit", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
        ],
        initializer=[numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
        doc_string="Handwritten digits: grey values 0 (paper) to 16 (ink) in, digit and probabilities out.",
    )
    # Opset 17 and IR 8: old enough for every runtime in use.
    model = helper.make_model(
        graph, producer_name="confonnx", ir_version=8, opset_imports=[helper.make_opsetid("", 17)]
    )
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _test_set(images: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> bytes:
    # Uncompressed: what zlib writes differs between its versions.
    file = io.BytesIO()
    np.savez(file, images=images.reshape(-1, 8, 8).astype(np.uint8), labels=labels.astype(np.uint8))
    return file.getvalue()


if __name__ == "__main__":
    main()

"""What a build refuses before it begins; no package but the standard library's is imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from confonnx.errors import ConfigurationError, ModelFormatError, ModelNotFoundError
from confonnx.measure.enclave_conf import parse_enclave_conf
from confonnx.measure.onnx_file import check_onnx, model_bytes
from confonnx.measure.preflight import check_tag, main, read_conf
from tests.support.enclave_confs import conf_text
from tests.support.models import add_model
from tests.support.onnx_models import save, with_external_data

ROOT = Path(__file__).parents[3]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return add_model(tmp_path / "add.onnx")


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    file = tmp_path / "enclave.conf"
    file.write_text(conf_text())
    return file


def test_a_build_that_may_begin(model: Path, conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--conf", str(conf), "--model", str(model), "--image", "model-server"]) == 0
    assert capsys.readouterr() == ("", "")


def test_it_needs_nothing_installed(model: Path, conf: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import sys; sys.path.insert(0, sys.argv.pop(1)); "
         "from confonnx.measure.preflight import main; sys.exit(main())",
         str(ROOT / "src"), "--conf", str(conf), "--model", str(model)],
        capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    ("conf_change", "model_bytes_", "status", "message"),
    [
        ({"NumTCS": "x"}, None, 2, "NumTCS must be a whole number"),
        ({}, b"PK\x03\x04 a zip file", 6, "is not an ONNX model"),
        ({"NumHeapPages": "100"}, None, 2, "NumHeapPages=100 is a heap of 0 MiB"),
        ({"Debug": "1"}, None, 2, "FORCE_DEBUG=1"),
    ],
)
def test_a_build_that_may_not(
    conf_change: dict[str, str],
    model_bytes_: bytes | None,
    status: int,
    message: str,
    model: Path,
    conf: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    conf.write_text(conf_text(**conf_change))
    if model_bytes_ is not None:
        model.write_bytes(model_bytes_)
    assert main(["--conf", str(conf), "--model", str(model), "--image", "model-server"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_debug_may_be_forced(model: Path, conf: Path) -> None:
    conf.write_text(conf_text(Debug="1"))
    arguments = ["--conf", str(conf), "--model", str(model), "--image", "model-server:7"]
    assert main(arguments) == 2
    assert main([*arguments, "--force-debug"]) == 0


@pytest.mark.parametrize(
    ("image", "refused"),
    [
        ("model-server", True),
        ("model-server:latest", True),
        ("debug/model-server:1.0", True),
        ("registry.example:5000/model-server", True),
        ("registry.example:5000/debug:v1", True),
        ("model-server:debug", False),
        ("registry.example:5000/model-server:1.0-Debug", False),
    ],
)
def test_a_debug_enclave_needs_a_tag_that_says_so(image: str, refused: bool) -> None:
    check_tag(parse_enclave_conf(conf_text()), image, force=False)
    debug = parse_enclave_conf(conf_text(Debug="1"))
    if refused:
        with pytest.raises(ConfigurationError, match="Debug=1"):
            check_tag(debug, image, force=False)
    else:
        check_tag(debug, image, force=False)


def test_a_missing_conf(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_conf(tmp_path / "no.conf")


def test_onnx_files_of_every_kind_pass(tmp_path: Path) -> None:
    for file in sorted((ROOT / "src").rglob("*.onnx")):
        check_onnx(file)
    proto = onnx.load(add_model(tmp_path / "m.onnx"))
    proto.producer_name, proto.doc_string, proto.model_version = "p", "d" * 300, 3
    proto.metadata_props.add(key="k", value="v")
    proto.functions.add(name="f", domain="d")
    onnx.save(proto, tmp_path / "m.onnx")
    check_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no ir_version and no graph"),
        (b"\x08\x09", "it has no graph"),
        (b"<html>not found</html>", "wire type"),
        (b"PK\x03\x04", "wire type"),
        (b"\x80\x02}q", "wire type"),  # a pickle
        (b"version https://git-lfs.github.com/spec/v1\n", "wire type"),
        (b"\x08", "ends within a number"),
        (b"\x08" + b"\xff" * 11, "longer than 10 bytes"),
        (b"\x08\x09\x3a\x7f\x00", "126 bytes past the end"),
    ],
)
def test_what_is_no_model(content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(content)
    with pytest.raises(ModelFormatError) as caught:
        check_onnx(file)
    assert f"{file} is not an ONNX model" in str(caught.value)
    assert reason in str(caught.value)


def test_a_truncated_model(model: Path) -> None:
    data = model.read_bytes()
    refused = 0
    for length in range(len(data)):
        model.write_bytes(data[:length])
        try:
            check_onnx(model)
        except ModelFormatError:
            refused += 1
    # What is cut between two fields after the graph looks whole; the server's own loading settles those.
    assert refused >= len(data) - 3


def test_a_missing_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="cannot read model file"):
        check_onnx(tmp_path / "no.onnx")


def test_external_data_counts(tmp_path: Path) -> None:
    save(with_external_data(size=1000), tmp_path / "model.onnx")
    (tmp_path / "weights.bin").write_bytes(bytes(4000))
    alone = (tmp_path / "model.onnx").stat().st_size
    assert model_bytes(tmp_path / "model.onnx") == alone
    assert model_bytes(tmp_path) == alone + 4000

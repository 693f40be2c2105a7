"""D7: the digest of a model is what sha256sum says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from confonnx.errors import ModelFormatError, ModelNotFoundError
from confonnx.models import files
from confonnx.models.digest import model_digest, read_model
from tests.support import onnx_models as models


def shell(command: str, directory: Path) -> str:
    return subprocess.run(
        ["sh", "-c", command], cwd=directory, capture_output=True, text=True, check=True
    ).stdout.split()[0]


@pytest.fixture
def external(tmp_path: Path) -> Path:
    path = models.save(models.with_external_data("weights.bin"), tmp_path / "m" / "model.onnx")
    (path.parent / "weights.bin").write_bytes(np.arange(3, dtype=np.float32).tobytes())
    return path


def test_one_file_has_the_hash_that_sha256sum_prints(tmp_path: Path) -> None:
    path = models.save(models.identity(), tmp_path / "model.onnx")
    expected = shell("sha256sum model.onnx", tmp_path)
    assert model_digest(path) == expected
    assert read_model(path).digest == expected
    assert read_model(path).model == path.read_bytes()


def test_external_data_counts_as_the_documented_shell_line_says(external: Path) -> None:
    expected = shell("sha256sum model.onnx weights.bin | LC_ALL=C sort -k 2 | sha256sum", external.parent)
    read = read_model(external)
    assert model_digest(external) == expected
    assert read.digest == expected
    assert read.external == (("weights.bin", (external.parent / "weights.bin").read_bytes()),)


def test_a_directory_and_the_model_in_it_are_the_same(external: Path) -> None:
    assert model_digest(external.parent) == model_digest(external)


def test_files_beside_the_model_that_it_does_not_use_do_not_count(external: Path) -> None:
    before = model_digest(external)
    (external.parent / "README").write_text("other")
    assert model_digest(external) == before


@pytest.mark.parametrize("changed", ["model.onnx", "weights.bin"])
def test_every_file_of_a_model_counts(external: Path, changed: str) -> None:
    before = model_digest(external)
    if changed == "model.onnx":
        models.save(models.with_external_data("weights.bin", size=2), external)
    else:
        (external.parent / changed).write_bytes(bytes(12))
    assert model_digest(external) != before


def test_external_data_of_attributes_and_subgraphs_is_found(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=models.external_weight("c", 1, "sub/deep.bin"))
    branch = helper.make_graph([constant], "b", [], [helper.make_value_info("c", models.tensor(1, [1]))])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    proto = models.model({"x": models.tensor(9, ())}, {"y": models.tensor(1, [1])}, [node])
    path = models.save(proto, tmp_path / "model.onnx")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.bin").write_bytes(bytes(4))
    assert [name for name, _ in read_model(path).external] == ["sub/deep.bin"]
    expected = shell("sha256sum model.onnx sub/deep.bin | LC_ALL=C sort -k 2 | sha256sum", tmp_path)
    assert model_digest(path) == expected


def test_operator_libraries_count(tmp_path: Path) -> None:
    path = models.save(models.identity(), tmp_path / "model.onnx")
    library = tmp_path / "libops.so"
    library.write_bytes(b"code")
    expected = shell("sha256sum libops.so model.onnx | LC_ALL=C sort -k 2 | sha256sum", tmp_path)
    assert model_digest(path, libraries=[library]) == expected
    assert read_model(path, libraries=[("libops.so", b"code")]).digest == expected


def test_two_libraries_of_one_name_are_refused(tmp_path: Path) -> None:
    path = models.save(models.identity(), tmp_path / "model.onnx")
    with pytest.raises(ModelFormatError, match=r"same path: libops\.so"):
        read_model(path, libraries=[("libops.so", b"1"), ("libops.so", b"2")])


@pytest.mark.parametrize(
    "location",
    ["/etc/hostname", "../outside.bin", "a/../../outside.bin", "", "*/_ORT_MEM_ADDR_/*", "a\\b", "a\nb", "."],
)
def test_external_data_outside_the_model_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "outside.bin").write_bytes(bytes(12))
    path = models.save(models.with_external_data(location), tmp_path / "m" / "model.onnx")
    for read in (model_digest, read_model):
        with pytest.raises(ModelFormatError, match="not a plain path below"):
            read(path)


def test_a_link_out_of_the_model_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(12))
    path = models.save(models.with_external_data(), tmp_path / "m" / "model.onnx")
    (tmp_path / "m" / "weights.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelFormatError, match=r"'weights.bin' is a link out of"):
        model_digest(path)


def test_a_model_cache_of_links_into_one_store_works(external: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("model.onnx", "weights.bin"):
        (cache / name).symlink_to(external.parent / name)
    assert model_digest(cache / "model.onnx") == model_digest(external)


def test_missing_external_data_names_the_file(external: Path) -> None:
    (external.parent / "weights.bin").unlink()
    with pytest.raises(ModelFormatError, match=r"needs its external data file 'weights.bin'"):
        model_digest(external)


def test_a_tensor_without_location_is_refused(tmp_path: Path) -> None:
    proto = models.with_external_data()
    del proto.graph.initializer[0].external_data[:]
    with pytest.raises(ModelFormatError, match="tensor 'w' is external data with 0 locations"):
        model_digest(models.save(proto, tmp_path / "model.onnx"))


@pytest.mark.parametrize(
    ("present", "found"), [((), "found none"), (("a.onnx", "b.onnx"), "found a.onnx, b.onnx")]
)
def test_a_directory_needs_one_model(tmp_path: Path, present: tuple[str, ...], found: str) -> None:
    for name in present:
        models.save(models.identity(), tmp_path / name)
    with pytest.raises(ModelNotFoundError, match=found):
        model_digest(tmp_path)


def test_a_directory_with_one_model_of_any_name(tmp_path: Path) -> None:
    path = models.save(models.identity(), tmp_path / "digits.onnx")
    assert model_digest(tmp_path) == model_digest(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"cannot read model file .*nope.onnx: No such file"):
        model_digest(tmp_path / "nope.onnx")


def test_a_file_larger_than_protobuf_allows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.save(models.identity(), tmp_path / "model.onnx")
    monkeypatch.setattr(files, "MAX_PROTOBUF_BYTES", path.stat().st_size - 1)
    with pytest.raises(ModelFormatError, match=r"larger than the 2 GiB"):
        model_digest(path)

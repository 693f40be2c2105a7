"""Layouts of a model repository, and what is refused in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from confonnx.errors import ModelError, ModelFormatError, ModelNotFoundError
from confonnx.models.digest import model_digest
from confonnx.models.repository import load_single, scan_repository
from tests.support import onnx_models as models


def put(path: Path) -> Path:
    return models.save(models.identity(), path)


def test_all_layouts_together(tmp_path: Path) -> None:
    put(tmp_path / "digits.onnx")
    put(tmp_path / "fraud" / "3" / "model.onnx")
    put(tmp_path / "fraud" / "12" / "model.onnx")
    models.save(models.with_external_data(), tmp_path / "large" / "1" / "model.onnx" / "model.onnx")
    (tmp_path / "large" / "1" / "model.onnx" / "weights.bin").write_bytes(bytes(12))
    models.save(models.with_external_data(), tmp_path / "beside" / "2" / "model.onnx")
    (tmp_path / "beside" / "2" / "weights.bin").write_bytes(bytes(12))
    put(tmp_path / ".hidden" / "1" / "model.onnx")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "fraud" / "notes.txt").write_text("about")
    found = scan_repository(tmp_path)
    assert [(file.name, file.version) for file in found] == [
        ("beside", "2"),
        ("digits", "1"),
        ("fraud", "3"),
        ("fraud", "12"),
        ("large", "1"),
    ]
    assert all(file.digest == model_digest(file.path) for file in found)


def test_a_directory_named_like_a_model_file(tmp_path: Path) -> None:
    put(tmp_path / "digits.onnx" / "model.onnx")
    assert [(file.name, file.version) for file in scan_repository(tmp_path)] == [("digits", "1")]


@pytest.mark.parametrize("name", ["a b", "ä", "-a", "a.", "a" * 129, "%2e", "a\nb"])
def test_names_that_would_not_survive_a_url(tmp_path: Path, name: str) -> None:
    put(tmp_path / name / "1" / "model.onnx")
    with pytest.raises(ModelFormatError, match=r"the name of a model is .*expected 1 to 128 letters"):
        scan_repository(tmp_path)


@pytest.mark.parametrize("version", ["v1", "01", "1.0", "-1", "latest", "1" * 19, "١"])
def test_versions_are_plain_numbers(tmp_path: Path, version: str) -> None:
    put(tmp_path / "m" / version / "model.onnx")
    with pytest.raises(ModelFormatError, match=r"no version directory; expected m/1/model.onnx, found"):
        scan_repository(tmp_path)


def test_a_model_without_version_directory_is_explained(tmp_path: Path) -> None:
    put(tmp_path / "m" / "model.onnx")
    with pytest.raises(ModelFormatError, match=r"expected m/1/model.onnx, found model.onnx"):
        scan_repository(tmp_path)


def test_a_version_without_model_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "network.onnx")
    with pytest.raises(ModelFormatError, match=r"model.onnx does not exist; found network.onnx in"):
        scan_repository(tmp_path)


def test_the_same_model_twice(tmp_path: Path) -> None:
    put(tmp_path / "m.onnx")
    put(tmp_path / "m" / "1" / "model.onnx")
    with pytest.raises(ModelFormatError, match="are both 'm' version 1"):
        scan_repository(tmp_path)


@pytest.mark.parametrize("linked", ["m.onnx", "m"])
def test_links_out_of_the_repository_are_refused(tmp_path: Path, linked: str) -> None:
    put(tmp_path / "outside" / "1" / "model.onnx")
    (tmp_path / "repository").mkdir()
    target = tmp_path / "outside" / ("1/model.onnx" if linked == "m.onnx" else "")
    (tmp_path / "repository" / linked).symlink_to(target)
    with pytest.raises(ModelFormatError, match="is a link out of the repository"):
        scan_repository(tmp_path / "repository")


def test_links_inside_the_repository_are_fine(tmp_path: Path) -> None:
    put(tmp_path / "..data" / "m.onnx")  # how Kubernetes mounts a volume
    (tmp_path / "m.onnx").symlink_to(tmp_path / "..data" / "m.onnx")
    assert [file.name for file in scan_repository(tmp_path)] == ["m"]


def test_an_empty_repository_says_what_it_found(tmp_path: Path) -> None:
    for index in range(12):
        (tmp_path / f"file{index:02}.txt").write_text("")
    with pytest.raises(ModelNotFoundError, match=r"holds no model; .* found file00.txt, .* and 2 more"):
        scan_repository(tmp_path)


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_what_is_no_directory(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "r").write_text("")
    with pytest.raises(ModelNotFoundError, match="is not a directory"):
        scan_repository(tmp_path / "r")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("digits.onnx", "digits"),
        ("my model (2).onnx", "my_model__2_"),
        ("modèle.onnx", "mod_le"),
        ("-.onnx", "model"),
    ],
)
def test_a_single_model_is_named_after_its_file(tmp_path: Path, file: str, name: str) -> None:
    loaded = load_single(put(tmp_path / file))
    assert (loaded.name, loaded.version, loaded.path) == (name, "1", tmp_path / file)
    assert loaded.digest == model_digest(tmp_path / file)


def test_a_single_model_with_a_given_name(tmp_path: Path) -> None:
    path = put(tmp_path / "m.onnx")
    assert load_single(path, "fraud-v2").name == "fraud-v2"
    with pytest.raises(ModelFormatError, match="is 'a/b'"):
        load_single(path, "a/b")


def test_a_single_model_with_a_library_has_another_digest(tmp_path: Path) -> None:
    path = put(tmp_path / "m.onnx")
    library = tmp_path / "ops.so"
    library.write_bytes(b"code")
    assert load_single(path, libraries=[library]).digest != load_single(path).digest
    assert (
        scan_repository(tmp_path, libraries=[library])[0].digest
        == load_single(path, libraries=[library]).digest
    )


def test_a_missing_single_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model file at .*none.onnx"):
        load_single(tmp_path / "none.onnx")

"""The steps inside an image build, run here on a small tree that looks like an image."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from confonnx.errors import ConfigurationError
from confonnx.measure.build_steps import checked_info, enclave_files, main
from confonnx.measure.enclave_conf import parse_enclave_conf
from confonnx.measure.enclave_info import EnclaveInfo, SimulatedInfo, parse_enclave_info
from confonnx.measure.manifest import Paths, render_manifest
from confonnx.measure.sigstruct import parse_sigstruct
from confonnx.measure.trusted_files import TrustedFile, hash_files
from confonnx.models.digest import model_digest
from tests.support.enclave_confs import conf_text
from tests.support.models import add_model
from tests.support.sigstructs import MRENCLAVE, make_sigstruct

TEMPLATE = Path(__file__).parents[3] / "deploy/gramine/confonnx.manifest.template"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Everything that a build has beside Gramine and the packages."""
    (tmp_path / "enclave.conf").write_text(conf_text())
    for name in (
        "gramine/libsysdb.so",
        "gramine/runtime/ld-linux-x86-64.so.2",
        "package/confonnx/__init__.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/server.toml").write_text("")
    (tmp_path / "gramine.toml").write_text(
        f'libos = "{tmp_path}/gramine/libsysdb.so"\nruntime = "{tmp_path}/gramine/runtime"\n'
        "[sgx]\ndebug = false\n"  # gramine-manifest adds its defaults
    )
    add_model(tmp_path / "add.onnx")
    return tmp_path


def manifest_step(image: Path, *, template: Path = TEMPLATE) -> list[str]:
    options = {
        "--template": template,
        "--conf": image / "enclave.conf",
        "--gramine": image / "gramine.toml",
        "--package": image / "package",
        "--config": image / "config",
        "--model": image / "add.onnx",
        "--out": image / "manifest",
    }
    return ["manifest", *(str(word) for pair in options.items() for word in pair)]


def local_template(image: Path) -> Path:
    """The template with this test's directories where an image has fixed ones."""
    text = TEMPLATE.read_text("utf-8")
    for fixed, here in (
        ("/opt/confonnx", "package"),
        ("/app/config", "config"),
        ("file:/models", f"file:{image}"),
    ):
        text = text.replace(fixed, here if here.startswith("file:") else str(image / here))
    # An interpreter that was built from source has its own library beside it.
    extra = f'  {{ path = "/own", uri = "file:{Path(sys.executable).resolve().parents[1]}" }},\n'
    local = image / "template"
    local.write_text(text.replace("fs.mounts = [\n", "fs.mounts = [\n" + extra))
    return local


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an enclave's image is Linux")
def test_a_manifest_of_this_machine_twice(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = manifest_step(image, template=local_template(image))
    assert main(arguments) == 0, capsys.readouterr().err
    first = (image / "manifest").read_bytes()
    assert main(arguments) == 0
    assert (image / "manifest").read_bytes() == first
    files = {entry["uri"] for entry in tomllib.loads(first.decode())["sgx"]["trusted_files"]}
    assert {
        f"file:{image}/{name}"
        for name in ("add.onnx", "config/server.toml", "gramine/libsysdb.so", "package/confonnx/__init__.py")
    } <= files
    assert f"file:{Path(sys.executable).resolve()}" in files


def test_one_changed_byte_changes_the_manifest(image: Path) -> None:
    before = files_of(image)
    (image / "package/confonnx/__init__.py").write_text("changed")
    changed = set(files_of(image)) - set(before)
    assert [file.path for file in changed] == [image / "package/confonnx/__init__.py"]


def files_of(image: Path) -> tuple[TrustedFile, ...]:
    empty = image / "stdlib"
    empty.mkdir(exist_ok=True)
    paths = Paths(
        libos=image / "gramine/libsysdb.so",
        runtime=image / "gramine/runtime",
        python=Path(sys.executable).resolve(),
        stdlib=empty,
        libraries=Path("/lib/x86_64-linux-gnu"),
        model=image / "add.onnx",
    )
    return hash_files(enclave_files(paths, package=image / "package", config=image / "config"))


def test_a_heap_too_small(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image / "enclave.conf").write_text(conf_text(NumHeapPages="1000"))
    assert main(manifest_step(image)) == 2
    assert "NumHeapPages=1000" in capsys.readouterr().err


def sgx_info_step(image: Path) -> list[str]:
    options = {
        "--sig": image / "confonnx.sig",
        "--manifest": image / "manifest",
        "--conf": image / "enclave.conf",
        "--model": image / "add.onnx",
        "--out": image / "enclave_info.txt",
    }
    return ["sgx-info", *(str(word) for pair in options.items() for word in pair)]


def signed_image(image: Path, **sigstruct: object) -> Path:
    conf = parse_enclave_conf((image / "enclave.conf").read_text())
    paths = Paths(
        libos=image / "libos",
        runtime=image / "runtime",
        python=image / "python",
        stdlib=image / "stdlib",
        libraries=image / "libraries",
        model=image / "add.onnx",
    )
    names = ["libos", "runtime/libc.so.6", "python", "stdlib/os.py", "libraries/libz.so.1", "add.onnx"]
    names += ["package/confonnx/__init__.py", "config/server.toml"]
    for name in names:
        (image / name).parent.mkdir(parents=True, exist_ok=True)
        (image / name).touch()
    files = hash_files(image / name for name in names)
    template = local_template(image).read_text()
    lines = [line for line in template.splitlines() if 'path = "/own"' not in line]
    (image / "manifest").write_text(render_manifest("\n".join(lines), conf, paths, files))
    (image / "confonnx.sig").write_bytes(make_sigstruct(security_version=7, **sigstruct))  # type: ignore[arg-type]
    return image


def test_what_was_signed_is_written_down(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(sgx_info_step(signed_image(image))) == 0, capsys.readouterr().err
    info = parse_enclave_info((image / "enclave_info.txt").read_text())
    assert isinstance(info, EnclaveInfo)
    assert (info.mrenclave, info.product_id, info.security_version, info.debug) == (MRENCLAVE, 1, 7, False)
    assert info.model == model_digest(image / "add.onnx")


def test_an_insecure_manifest_is_refused_after_signing_too(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed_image(image)
    manifest = image / "manifest"
    manifest.write_text(
        manifest.read_text().replace("loader.uid", "loader.insecure__use_host_env = true\nloader.uid")
    )
    assert main(sgx_info_step(image)) == 2
    assert "loader.insecure__use_host_env is not among" in capsys.readouterr().err
    assert not (image / "enclave_info.txt").exists()


def test_a_signature_over_other_values(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(sgx_info_step(signed_image(image, debug=True))) == 2
    assert "ATTRIBUTES.DEBUG True, and enclave.conf asks for False" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("ProductID", "ISVPRODID 1, and enclave.conf asks for 9"),
        ("SecurityVersion", "ISVSVN 7, and .* asks for 9"),
    ],
)
def test_each_signed_value_is_compared(key: str, message: str) -> None:
    signed = parse_sigstruct(make_sigstruct(security_version=7))
    checked_info(signed, parse_enclave_conf(conf_text()), "aa" * 32)
    with pytest.raises(ConfigurationError, match=message):
        checked_info(signed, parse_enclave_conf(conf_text(**{key: "9"})), "aa" * 32)
    with pytest.raises(ConfigurationError, match="DEBUG"):
        checked_info(replace(signed, debug=True), parse_enclave_conf(conf_text()), "aa" * 32)


def test_an_image_without_an_enclave(image: Path) -> None:
    out = image / "enclave_info.txt"
    step = [
        "simulated-info",
        "--measurement",
        "5a" * 32,
        "--model",
        str(image / "add.onnx"),
        "--out",
        str(out),
    ]
    assert main(step) == 0
    assert parse_enclave_info(out.read_text()) == SimulatedInfo(
        b"\x5a" * 32, model_digest(image / "add.onnx")
    )


def test_a_model_that_is_none(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image / "add.onnx").write_bytes(b"nonsense")
    step = [
        "simulated-info",
        "--measurement",
        "5a" * 32,
        "--model",
        str(image / "add.onnx"),
        "--out",
        str(image / "o"),
    ]
    assert main(step) == 6
    assert "add.onnx" in capsys.readouterr().err

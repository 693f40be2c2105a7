"""The steps that an image build takes inside its container: ``python3 -m confonnx.measure.build_steps``.

``manifest`` writes the enclave's manifest, ``sgx-info`` checks what was signed and writes
``enclave_info.txt``, ``simulated-info`` writes that file for an image without an enclave. Ends with status
2 (6 for the model) and one line on standard error when something is wrong.
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
import tomllib
from collections.abc import Sequence
from pathlib import Path

from confonnx.errors import ConfigurationError, ConfonnxError, ModelError
from confonnx.measure.enclave_conf import EnclaveConf
from confonnx.measure.enclave_info import EnclaveInfo, SimulatedInfo, encode_enclave_info
from confonnx.measure.heap import check_heap
from confonnx.measure.manifest import Paths, render_manifest
from confonnx.measure.manifest_rules import check_manifest
from confonnx.measure.onnx_file import model_bytes
from confonnx.measure.preflight import read_conf
from confonnx.measure.sigstruct import Sigstruct, parse_sigstruct
from confonnx.measure.trusted_files import code_files, hash_files, is_library, linked_libraries, plain_files
from confonnx.models.digest import model_digest


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the step that ``arguments`` (``sys.argv`` without it) name; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        match options.step:
            case "manifest":
                _manifest(options)
            case "sgx-info":
                _sgx_info(options)
            case _:
                _simulated_info(options)
    except ConfonnxError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  a command
        return 6 if isinstance(error, ModelError) else 2
    return 0


def enclave_files(paths: Paths, *, package: Path, config: Path) -> tuple[Path, ...]:
    """Every file that the enclave may open: interpreter, standard library, packages, libraries, model,
    configuration, Gramine's own."""
    code = [*code_files(paths.stdlib), *code_files(package)]
    binaries = [paths.python, *filter(is_library, code)]
    model = plain_files(paths.model) if paths.model.is_dir() else [paths.model]
    libraries = [
        path for path in linked_libraries(binaries, runtime=paths.runtime) if not path.is_relative_to(package)
    ]
    return (paths.libos, paths.python, *code, *libraries, *model, *plain_files(config))


def checked_info(signed: Sigstruct, conf: EnclaveConf, model: str) -> EnclaveInfo:
    """What was signed. Raises ConfigurationError where it is not what ``conf`` asked for."""
    for name, found, expected in (
        ("ISVPRODID", signed.product_id, conf.product_id),
        ("ISVSVN", signed.security_version, conf.security_version),
        ("ATTRIBUTES.DEBUG", signed.debug, conf.debug),
    ):
        if found != expected:
            raise ConfigurationError(
                f"the signed enclave has {name} {found!r}, and enclave.conf asks for {expected!r}"
            )
    return EnclaveInfo(
        mrenclave=signed.mrenclave,
        mrsigner=signed.mrsigner,
        product_id=signed.product_id,
        security_version=signed.security_version,
        debug=signed.debug,
        model=model,
    )


def _manifest(options: argparse.Namespace) -> None:
    conf = read_conf(options.conf)
    check_heap(conf, model_bytes(options.model))
    gramine = tomllib.loads(options.gramine.read_text("utf-8"))
    paths = Paths(
        libos=Path(gramine["libos"]),
        runtime=Path(gramine["runtime"]),
        python=Path(sys.executable).resolve(),
        stdlib=Path(sysconfig.get_path("stdlib")),
        libraries=Path("/lib/x86_64-linux-gnu"),
        model=options.model,
    )
    files = enclave_files(paths, package=options.package, config=options.config)
    text = render_manifest(options.template.read_text("utf-8"), conf, paths, hash_files(files))
    options.out.write_text(text, "utf-8")


def _sgx_info(options: argparse.Namespace) -> None:
    conf = read_conf(options.conf)
    check_manifest(tomllib.loads(options.manifest.read_text("utf-8")), conf)  # as gramine-sgx-sign left it
    signed = parse_sigstruct(options.sig.read_bytes())
    info = checked_info(signed, conf, model_digest(options.model))
    options.out.write_text(encode_enclave_info(info), "utf-8")


def _simulated_info(options: argparse.Namespace) -> None:
    measurement = bytes.fromhex(options.measurement)
    info = SimulatedInfo(measurement, model_digest(options.model))
    options.out.write_text(encode_enclave_info(info), "utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A step of an image build.")
    steps = parser.add_subparsers(dest="step", required=True)
    manifest = steps.add_parser("manifest", help="write the enclave's manifest")
    manifest.add_argument("--template", type=Path, required=True)
    manifest.add_argument("--gramine", type=Path, required=True, help="TOML with libos and runtime")
    manifest.add_argument("--package", type=Path, required=True, help="directory of the installed packages")
    manifest.add_argument("--config", type=Path, required=True, help="directory of the configuration")
    sgx = steps.add_parser("sgx-info", help="check what was signed and write enclave_info.txt")
    sgx.add_argument("--sig", type=Path, required=True)
    sgx.add_argument("--manifest", type=Path, required=True, help="the signed manifest")
    simulated = steps.add_parser("simulated-info", help="write enclave_info.txt without an enclave")
    simulated.add_argument("--measurement", required=True, help="what `confonnx measure` printed")
    for step in (manifest, sgx):
        step.add_argument("--conf", type=Path, required=True)
    for step in (manifest, sgx, simulated):
        step.add_argument("--model", type=Path, required=True)
        step.add_argument("--out", type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())

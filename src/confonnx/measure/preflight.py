"""What the build scripts ask before they build: ``python3 -m confonnx.measure.preflight``.

Runs on the builder's machine with the standard library alone. Prints nothing when all is well; otherwise one
line that names the thing and the fix, and exit status 2 (a setting) or 6 (the model).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from confonnx.errors import ConfigurationError, ConfonnxError, ModelError
from confonnx.measure.enclave_conf import EnclaveConf, parse_enclave_conf
from confonnx.measure.heap import check_heap
from confonnx.measure.onnx_file import check_onnx, model_bytes
from confonnx.models.files import model_file

_DEBUG_TAG = "debug"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what ``arguments`` (``sys.argv`` without it) name; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        conf = None if options.conf is None else read_conf(options.conf)
        if options.model is not None:
            check_onnx(model_file(options.model))
        if conf is not None and options.model is not None:
            check_heap(conf, model_bytes(options.model))
        if conf is not None and options.image is not None:
            check_tag(conf, options.image, force=options.force_debug)
    except ConfonnxError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  a command
        return 6 if isinstance(error, ModelError) else 2
    return 0


def read_conf(path: Path) -> EnclaveConf:
    """The ``enclave.conf`` at ``path``. Raises ConfigurationError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"enclave.conf: cannot read {path}: {error}") from error
    return parse_enclave_conf(text, source=str(path))


def check_tag(conf: EnclaveConf, image: str, *, force: bool) -> None:
    """Raises ConfigurationError when a debug enclave would carry a name that does not say so."""
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2] or "latest"
    if conf.debug and not force and _DEBUG_TAG not in tag.lower():
        raise ConfigurationError(
            f"enclave.conf says Debug=1, so the host can read the enclave's memory, and {image!r} has the "
            f"tag {tag!r}, which does not say so: set Debug=0, or choose a tag such as {_DEBUG_TAG!r}, or "
            "insist with FORCE_DEBUG=1"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Check the inputs of a server build.")
    parser.add_argument("--conf", type=Path, help="enclave.conf, for an SGX build")
    parser.add_argument("--model", type=Path, help="ONNX file, or directory with external data")
    parser.add_argument("--image", help="name of the image to build, with its tag")
    parser.add_argument("--force-debug", action="store_true", help="allow any tag for a debug enclave")
    return parser


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Stands in for Gramine's tools in an image, so that the SGX build can be walked through without Gramine.

Started as ``gramine-manifest``, ``gramine-sgx-sign`` or ``gramine-sgx``, it takes the arguments that the
build gives, and MRENCLAVE is the SHA-256 of the manifest. What Gramine itself makes of the manifest is tested
by tests/containers/test_gramine.py, where it is installed.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
from pathlib import Path

LIBOS, RUNTIME = "/opt/stand-in/libsysdb.so", "/opt/stand-in/runtime"


def manifest(words: list[str]) -> None:
    check, source, target = words
    text = Path(source).read_text("utf-8")
    text = text.replace("{{ gramine.libos }}", LIBOS).replace("{{ gramine.runtimedir() }}", RUNTIME)
    parsed = tomllib.loads(text)
    assert check == ("--check" if "loader" in parsed else "--no-check")
    Path(target).write_text(text, "utf-8")


def sign(words: list[str]) -> None:
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options.keys() == {"--manifest", "--output", "--key", "--date"}
    sys.path[:0] = ["/opt/confonnx", "/opt/stand-in"]
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from sigstructs import make_sigstruct  # type: ignore[import-not-found]  # tests.support, where it is installed

    content = Path(options["--manifest"]).read_bytes()
    Path(options["--output"]).write_bytes(content)
    sgx = tomllib.loads(content.decode())["sgx"]
    key = load_pem_private_key(Path(options["--key"]).read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    sigstruct = make_sigstruct(
        mrenclave=hashlib.sha256(content).digest(),
        product_id=sgx["isvprodid"],
        security_version=sgx["isvsvn"],
        debug=sgx["debug"],
        key=key,
    )
    Path(options["--manifest"]).with_suffix(".sig").write_bytes(sigstruct)


if __name__ == "__main__":
    match Path(sys.argv[0]).name:
        case "gramine-manifest":
            manifest(sys.argv[1:])
        case "gramine-sgx-sign":
            sign(sys.argv[1:])
        case name:
            print(name, *sys.argv[1:])

"""The manifest of the SGX enclave: ``deploy/gramine/confonnx.manifest.template``, filled in.

A function of the template, ``enclave.conf`` and the listed files alone: the same inputs give the same bytes.
"""

from __future__ import annotations

import json
import string
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from confonnx.errors import ConfigurationError
from confonnx.measure.enclave_conf import EnclaveConf
from confonnx.measure.manifest_rules import check_manifest
from confonnx.measure.trusted_files import TrustedFile


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things are in the image that is measured. All absolute: Gramine's URIs are paths on the host."""

    libos: Path
    """Gramine's library OS, ``libsysdb.so``."""
    runtime: Path
    """The directory of Gramine's own C library."""
    python: Path
    """The interpreter."""
    stdlib: Path
    """The directory of the standard library."""
    libraries: Path
    """The directory of the system's shared libraries."""
    model: Path
    """The model file, or the directory that holds it with its external data."""


def render_manifest(template: str, conf: EnclaveConf, paths: Paths, trusted: Sequence[TrustedFile]) -> str:
    """The manifest. Raises ConfigurationError for a template that cannot be filled in, and for a result that
    breaks a rule of ``manifest_rules``."""
    values = {
        "libos": str(paths.libos),
        "runtime": str(paths.runtime),
        "python": str(paths.python),
        "stdlib": str(paths.stdlib),
        "libraries": str(paths.libraries),
        "model": str(paths.model),
        "stack": f"{conf.stack_bytes >> 10}K",
        "debug": "true" if conf.debug else "false",
        "product_id": str(conf.product_id),
        "security_version": str(conf.security_version),
        "threads": str(conf.threads),
        "enclave_size": f"{conf.enclave_bytes >> 20}M",
    }
    if strange := [
        value for value in values.values() if not value.isprintable() or set(value) & set("\"\\'{}%")
    ]:
        raise ConfigurationError(f"the path {strange[0]!r} cannot be written into a manifest; rename it")
    try:
        filled = string.Template(template).substitute(values)
    except (KeyError, ValueError) as error:
        raise ConfigurationError(
            f"the manifest template has an unknown or malformed placeholder: {error}"
        ) from error
    entries = "".join(
        f"  {{ uri = {json.dumps(f'file:{file.path}')}, sha256 = {json.dumps(file.sha256)} }},\n"
        for file in trusted
    )
    text = f"{filled.rstrip()}\n\nsgx.trusted_files = [\n{entries}]\n"
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"the filled-in manifest template is not TOML: {error}") from error
    check_manifest(parsed, conf)
    return text

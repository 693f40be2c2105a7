"""What a Gramine manifest of ours must be like: a pure function over the parsed manifest.

Keys that are not in ``_ALLOWED`` are refused, so a new or misspelt key, and every ``insecure__`` one, needs a
decision here first. The host chooses nothing: program, arguments, environment and every readable file are
fixed and measured (Gramine, "Manifest syntax"). Holds for our generated manifest and for the one that
``gramine-sgx-sign`` makes of it, which has the defaults spelt out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Final

from confonnx.errors import ConfigurationError
from confonnx.measure.enclave_conf import EnclaveConf

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SIZE: Final = re.compile(r"([1-9][0-9]*)([KMG]?)")
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
#: Variables that would let a library or a module in that nobody measured, or change what Python runs.
_LOADERS: Final = ("LD_PRELOAD", "LD_AUDIT", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONHOME", "PYTHONHASHSEED")
#: Gramine's default type of a mount, left out or said.
_CHROOT: Final[tuple[Mapping[str, str], ...]] = ({}, {"type": "chroot"})
_CPU_FEATURES: Final = ("disabled", "required", "unspecified")


def find_faults(manifest: Mapping[str, object], conf: EnclaveConf) -> tuple[str, ...]:
    """Every way in which ``manifest`` (as ``tomllib`` parsed it) breaks a rule or differs from ``conf``."""
    flat = dict(_flatten(manifest, ""))
    return (*_check_keys(flat, conf), *_check_mounts(flat), *_check_trusted(flat))


def check_manifest(manifest: Mapping[str, object], conf: EnclaveConf) -> None:
    """Raises ConfigurationError listing every fault of ``manifest``."""
    if faults := find_faults(manifest, conf):
        raise ConfigurationError(
            "the manifest is not safe to sign:" + "".join(f"\n  - {it}" for it in faults)
        )


def size_bytes(text: object) -> int:
    """The bytes of a Gramine size such as ``"2M"``; 0 for anything else."""
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    return int(match[1]) * _UNITS[match[2]] if match else 0


def _flatten(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        # "sgx.debug" in quotes is a key of its own, and no place to hide behind sgx.debug.
        key = repr(name) if "." in name else name
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_keys(flat: Mapping[str, object], conf: EnclaveConf) -> Iterator[str]:
    rules = _rules(conf)
    for key in rules.keys() - _OPTIONAL - flat.keys():
        yield f"{key} is missing"
    for key, value in flat.items():
        if key.startswith("loader.env."):
            yield from _check_variable(key.removeprefix("loader.env."), value)
        elif key.startswith("sgx.cpu_features."):
            if value not in _CPU_FEATURES:
                yield f"{key}: expected one of {', '.join(_CPU_FEATURES)}, found {value!r}"
        elif key not in rules:
            yield f"{key} is not among the keys that this project allows"
        elif not rules[key](value):
            yield f"{key}: {value!r} is not allowed here"


_OPTIONAL: Final = frozenset(
    # What gramine-manifest and gramine-sgx-sign write out.
    {"loader.entrypoint.sha256", "sgx.enable_stats", "sgx.use_exinfo", "sgx.edmm_enable"}
)


def _rules(conf: EnclaveConf) -> Mapping[str, Callable[[object], bool]]:
    """Each allowed key with the test that its value must pass."""

    def exactly(expected: object) -> Callable[[object], bool]:
        return lambda value: type(value) is type(expected) and value == expected

    return {
        "loader.entrypoint.uri": _is_file_uri,
        "loader.entrypoint.sha256": lambda value: isinstance(value, str) and bool(_SHA256.fullmatch(value)),
        "libos.entrypoint": lambda value: isinstance(value, str) and PurePosixPath(value).is_absolute(),
        "loader.log_level": exactly("error"),  # other levels write what the program handles
        "loader.argv": _is_argv,
        "loader.uid": _is_unprivileged,
        "loader.gid": _is_unprivileged,
        "fs.mounts": lambda value: isinstance(value, list),
        "sys.enable_sigterm_injection": exactly(True),
        "sys.stack.size": lambda value: size_bytes(value) == conf.stack_bytes,
        "sgx.remote_attestation": exactly("dcap"),
        "sgx.debug": exactly(conf.debug),
        "sgx.isvprodid": exactly(conf.product_id),
        "sgx.isvsvn": exactly(conf.security_version),
        "sgx.max_threads": exactly(conf.threads),
        "sgx.enclave_size": lambda value: size_bytes(value) == conf.enclave_bytes,
        "sgx.edmm_enable": exactly(False),
        "sgx.enable_stats": exactly(False),  # counts what the enclave does, for the host
        "sgx.use_exinfo": exactly(False),
        "sgx.trusted_files": lambda value: isinstance(value, list),
    }


def _is_file_uri(value: object) -> bool:
    return isinstance(value, str) and value.startswith("file:/") and ".." not in value.split("/")


def _is_argv(value: object) -> bool:
    """The server, on hardware or not at all."""
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        return False
    after_tee = value[value.index("--tee") + 1 :][:1] if "--tee" in value else []
    return "serve" in value and "--require-tee" in value and after_tee == ["sgx"]


def _is_unprivileged(value: object) -> bool:
    return type(value) is int and value > 0


def _check_variable(name: str, value: object) -> Iterator[str]:
    # {passthrough = true} flattens to NAME.passthrough. Options of the server belong into server.toml.
    if "." in name or not isinstance(value, str):
        yield f"loader.env.{name}: only fixed texts are allowed, found {value!r}"
    elif name in _LOADERS or name.startswith("CONFONNX_"):
        yield f"loader.env.{name} is not allowed: it changes what runs"


def _check_mounts(flat: Mapping[str, object]) -> Iterator[str]:
    mounts = flat.get("fs.mounts")
    trusted = _trusted_paths(flat)
    for mount in mounts if isinstance(mounts, list) else ():
        match mount:
            case {"type": "tmpfs", "path": str(), **rest} if not rest:
                continue
            case {"path": str(), "uri": str(uri), **rest} if rest in _CHROOT and _is_file_uri(uri):
                root = PurePosixPath(uri.removeprefix("file:"))
                if not any(path.is_relative_to(root) for path in trusted):
                    yield f"fs.mounts: {uri} holds no trusted file; leave it out"
            case _:
                yield f"fs.mounts: {mount!r} is neither a tmpfs nor a directory of trusted files"


def _check_trusted(flat: Mapping[str, object]) -> Iterator[str]:
    listed = flat.get("sgx.trusted_files")
    entries = listed if isinstance(listed, list) else []
    uris = []
    for entry in entries:
        match entry:
            case {"uri": str(uri), "sha256": str(digest), **rest} if (
                not rest and _is_file_uri(uri) and not uri.endswith("/") and _SHA256.fullmatch(digest)
            ):
                uris.append(uri)
                if uri.endswith(".pyc"):
                    yield f"sgx.trusted_files: {uri} is bytecode, which differs from build to build"
            case _:
                yield f"sgx.trusted_files: expected a file's uri and sha256, found {entry!r}"
    if len(set(uris)) != len(uris):
        yield "sgx.trusted_files: a file is listed twice"
    for needed in _needed_files(flat):
        if not any(uri == needed or uri.startswith(f"{needed}/") for uri in uris):
            yield f"sgx.trusted_files: {needed} runs or is read, and is not listed"
    reachable = _mount_roots(flat)
    for path in sorted(_trusted_paths(flat)):
        if f"file:{path}" != flat.get("loader.entrypoint.uri") and not any(
            path.is_relative_to(root) for root in reachable
        ):
            yield f"sgx.trusted_files: {path} is in no mount; leave it out"


def _needed_files(flat: Mapping[str, object]) -> Iterator[str]:
    yield str(flat.get("loader.entrypoint.uri"))
    yield f"file:{flat.get('libos.entrypoint')}"
    argv = flat.get("loader.argv")
    words = argv if isinstance(argv, list) else []
    for option, value in pairwise(words):
        if option in ("--config", "--model-path"):
            yield f"file:{value}"


def _trusted_paths(flat: Mapping[str, object]) -> set[PurePosixPath]:
    listed = flat.get("sgx.trusted_files")
    return {
        PurePosixPath(str(entry.get("uri")).removeprefix("file:"))
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, Mapping)
    }


def _mount_roots(flat: Mapping[str, object]) -> tuple[PurePosixPath, ...]:
    mounts = flat.get("fs.mounts")
    return tuple(
        PurePosixPath(str(mount["uri"]).removeprefix("file:"))
        for mount in (mounts if isinstance(mounts, list) else [])
        if isinstance(mount, Mapping) and "uri" in mount
    )

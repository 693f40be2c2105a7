"""``enclave_info.txt``: what a build made, for people and for ``confonnx verify --enclave-info``.

One ``key=value`` a line. For an SGX enclave::

    tee=sgx
    mrenclave=<64 hex digits>
    mrsigner=<64 hex digits>
    isvprodid=1
    isvsvn=1
    debug=0
    model_sha256=<64 hex digits>

For an image without an enclave (``tee=simulated``) there is ``measurement=<64 hex digits>`` instead of the
five lines in the middle. The file is as trustworthy as the way it came: take it from your own build.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from confonnx.attestation.claims import Tee
from confonnx.attestation.policy import (
    ANY,
    AtLeast,
    Matcher,
    ModelDigests,
    OneOf,
    OneOfNumbers,
    Policy,
    reference_values,
)
from confonnx.errors import ConfigurationError

_SGX_KEYS: Final = ("tee", "mrenclave", "mrsigner", "isvprodid", "isvsvn", "debug", "model_sha256")
_SIMULATED_KEYS: Final = ("tee", "measurement", "model_sha256")
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class EnclaveInfo:
    """A signed SGX enclave. ``mrenclave`` and ``mrsigner`` have 32 bytes, ``model`` 64 hex digits."""

    mrenclave: bytes
    mrsigner: bytes
    product_id: int
    security_version: int
    debug: bool
    model: str


@dataclass(frozen=True, slots=True)
class SimulatedInfo:
    """An image that runs without a TEE. ``measurement`` has 32 bytes, ``model`` 64 hex digits."""

    measurement: bytes
    model: str


def encode_enclave_info(info: EnclaveInfo | SimulatedInfo) -> str:
    """The text of the file."""
    if isinstance(info, EnclaveInfo):
        values = {
            "tee": Tee.SGX.value,
            "mrenclave": info.mrenclave.hex(),
            "mrsigner": info.mrsigner.hex(),
            "isvprodid": str(info.product_id),
            "isvsvn": str(info.security_version),
            "debug": str(int(info.debug)),
            "model_sha256": info.model,
        }
    else:
        values = {
            "tee": Tee.SIMULATED.value,
            "measurement": info.measurement.hex(),
            "model_sha256": info.model,
        }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def parse_enclave_info(text: str) -> EnclaveInfo | SimulatedInfo:
    """What ``encode_enclave_info`` wrote. Raises ConfigurationError naming the line."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        key, equals, value = line.partition("=")
        if not equals or key in values:
            raise ConfigurationError(
                f"enclave_info.txt, line {number}: expected a new key=value, found {line[:80]!r}"
            )
        values[key] = value
    tee = values.get("tee")
    keys = {Tee.SGX.value: _SGX_KEYS, Tee.SIMULATED.value: _SIMULATED_KEYS}.get(tee or "")
    if keys is None:
        raise ConfigurationError(f"enclave_info.txt: expected tee=sgx or tee=simulated, found {tee!r}")
    if set(keys) != set(values):
        raise ConfigurationError(
            f"enclave_info.txt: expected the keys {', '.join(keys)}; found {', '.join(values)}"
        )
    if keys is _SIMULATED_KEYS:
        return SimulatedInfo(bytes.fromhex(_digest(values, "measurement")), _digest(values, "model_sha256"))
    return EnclaveInfo(
        mrenclave=bytes.fromhex(_digest(values, "mrenclave")),
        mrsigner=bytes.fromhex(_digest(values, "mrsigner")),
        product_id=_number(values, "isvprodid", 65535),
        security_version=_number(values, "isvsvn", 65535),
        debug=bool(_number(values, "debug", 1)),
        model=_digest(values, "model_sha256"),
    )


def policy_of(info: EnclaveInfo | SimulatedInfo, *, allow_debug: bool, allow_simulated: bool) -> Policy:
    """The policy that accepts the server of ``info`` and its model, in any deployment.

    Danger is not taken from a file: a debug enclave and a simulated one need to be allowed. Raises
    ConfigurationError.
    """
    values: dict[str, Matcher]
    if isinstance(info, SimulatedInfo):
        if not allow_simulated:
            raise ConfigurationError(
                "enclave_info.txt: tee=simulated, so the host can read every request; say --allow-simulated "
                "if that is what you want"
            )
        tee, values = Tee.SIMULATED, {"measurement": OneOf((info.measurement,))}
    else:
        if info.debug and not allow_debug:
            raise ConfigurationError(
                "enclave_info.txt: debug=1, so the host can read the enclave's memory; say "
                "--enclave-allow-debug if that is what you want"
            )
        tee, values = (
            Tee.SGX,
            {
                "mrenclave": OneOf((info.mrenclave,)),
                "mrsigner": OneOf((info.mrsigner,)),
                "isv_prod_id": OneOfNumbers((info.product_id,)),
                "min_isv_svn": AtLeast(info.security_version),
            },
        )
    return Policy(
        accepted=(reference_values(tee, values, allow_debug=allow_debug),),
        models=ModelDigests((info.model,)),
        deployments=ANY,
    )


def _digest(values: Mapping[str, str], key: str) -> str:
    if not _HEX.fullmatch(values[key]):
        raise ConfigurationError(
            f"enclave_info.txt: {key} must be 64 lower-case hex digits, found {values[key][:80]!r}"
        )
    return values[key]


def _number(values: Mapping[str, str], key: str, highest: int) -> int:
    text = values[key]
    value = int(text) if text.isascii() and text.isdecimal() and len(text) <= 5 else -1
    if not 0 <= value <= highest:
        raise ConfigurationError(
            f"enclave_info.txt: {key} must be a whole number from 0 to {highest}, found {text[:40]!r}"
        )
    return value

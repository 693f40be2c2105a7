"""The Attester of a machine without a TEE: simulated evidence over a measurement of the installed code.

The measurement lets ``enclave_hash`` mean something without hardware: it changes when the installed
confonnx code, the libraries that compute or decrypt, or the measured settings change. It is taken by the
code that it measures, so it shows a mistake, not an attack; see ``verify.simulated``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from confonnx.attestation import canonical_json
from confonnx.attestation.canonical_json import Json
from confonnx.attestation.claims import Tee
from confonnx.attestation.verify.simulated import SIMULATED_EVIDENCE, SimulatedReport, sign

# What touches plain text or keys beside confonnx itself.
MEASURED_DISTRIBUTIONS: Final = ("cryptography", "numpy", "onnxruntime")
_MEASUREMENT_LABEL: Final = "confonnx simulated measurement v1"
_PACKAGE: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class SimulatedAttester:
    """Makes simulated evidence of ``measurement`` (32 bytes, ``measure_installation``). An
    ``attest.detect.Attester``.

    ``signer`` is what ``policy.simulated_signer`` gives for a public key, 32 bytes, or None.
    """

    measurement: bytes
    signer: bytes | None = None
    debug: bool = False
    product_id: int = 0
    security_version: int = 0

    @property
    def tee(self) -> Tee:
        """``Tee.SIMULATED``."""
        return Tee.SIMULATED

    @property
    def evidence_type(self) -> str:
        """The media type of the evidence."""
        return SIMULATED_EVIDENCE

    def collect(self, report_data: bytes) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
        """Evidence that binds ``report_data`` (64 bytes), and no endorsements."""
        report = SimulatedReport(
            measurement=self.measurement,
            signer=self.signer,
            debug=self.debug,
            report_data=report_data,
            product_id=self.product_id,
            security_version=self.security_version,
        )
        return sign(report), ()


def measure_installation(settings: Mapping[str, Json], *, package: Path = _PACKAGE) -> bytes:
    """The 32-byte measurement of the code in ``package`` (the installed confonnx), its libraries, and
    ``settings``.

    SHA-256 over lines of UTF-8 text, each ended by a newline: the label; ``<sha256>  <relative/path>`` for
    every ``.py`` file, sorted by path; ``<distribution> <version>`` for each of ``MEASURED_DISTRIBUTIONS``,
    ``absent`` where not installed; the canonical JSON of ``settings``. Compiled files and everything that
    is not code of the package stay out, so that a first run changes nothing.
    """
    lines = [_MEASUREMENT_LABEL]
    files = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    lines += [f"{hashlib.sha256(files[name].read_bytes()).hexdigest()}  {name}" for name in sorted(files)]
    lines += [f"{name} {_version(name)}" for name in MEASURED_DISTRIBUTIONS]
    lines.append(canonical_json.encode(settings).decode("utf-8"))
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).digest()


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"

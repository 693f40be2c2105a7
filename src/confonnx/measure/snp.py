"""The launch digest of an SEV-SNP guest, before it is launched: what its reports show as MEASUREMENT.

Computed by ``sev-snp-measure`` (extra ``measure``) from the firmware image, what the firmware is told to
boot, and the processors. Kernel, initrd and command line count only in a firmware that has a section for
their hashes (``OVMF.amdsev.fd``); other firmware measures nothing of what it boots, and then the digest says
so little that a policy should not rest on it alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from confonnx.attestation.claims import Tee
from confonnx.attestation.policy import (
    ANY,
    DangerousAnyModel,
    ModelDigests,
    OneOf,
    Policy,
    reference_values,
)
from confonnx.errors import ConfigurationError

MAX_VCPUS: Final = 512


class Vmm(StrEnum):
    """What launches the guest: each lays out the processors' first state (VMSA) in its own way."""

    QEMU = "qemu"
    EC2 = "ec2"
    GCE = "gce"


@dataclass(frozen=True, slots=True)
class Guest:
    """What is launched. ``kernel``, ``initrd`` and ``command_line`` are for direct boot, and only with
    ``kernel``. ``guest_features`` is SEV_FEATURES of the VMSA (AMD 24593, "SEV_STATUS"); 1 is SNP alone."""

    firmware: Path
    vcpus: int
    vcpu_type: str
    vmm: Vmm = Vmm.QEMU
    kernel: Path | None = None
    initrd: Path | None = None
    command_line: str | None = None
    guest_features: int = 0x1

    def __post_init__(self) -> None:
        """Raises ConfigurationError."""
        if not 1 <= self.vcpus <= MAX_VCPUS:
            raise ConfigurationError(f"--vcpus: expected 1 to {MAX_VCPUS}, found {self.vcpus}")
        if not 0 < self.guest_features < 2**64 or not self.guest_features & 1:
            raise ConfigurationError(
                f"--guest-features: expected 64 bits with bit 0 (SNP) set, found {self.guest_features:#x}"
            )
        if self.kernel is None and (self.initrd is not None or self.command_line is not None):
            raise ConfigurationError("--initrd and --append are measured with --kernel; give that too")


def launch_digest(guest: Guest) -> bytes:
    """The 48-byte launch digest of ``guest`` (AMD 56860, SNP_LAUNCH_UPDATE and SNP_LAUNCH_FINISH).

    Raises ConfigurationError when ``sev-snp-measure`` is not installed, a file cannot be read, or the
    firmware cannot be launched as SNP guest.
    """
    try:
        from sevsnpmeasure import guest as measuring  # the extra `measure`
        from sevsnpmeasure.ovmf import OVMF
        from sevsnpmeasure.sev_mode import SevMode
        from sevsnpmeasure.vcpu_types import CPU_SIGS
        from sevsnpmeasure.vmm_types import VMMType
    except ImportError as error:
        raise ConfigurationError(
            "`confonnx measure snp` needs sev-snp-measure: pip install 'confonnx[measure]'"
        ) from error
    if guest.vcpu_type not in CPU_SIGS:
        raise ConfigurationError(
            f"--vcpu-type: expected one of {', '.join(CPU_SIGS)}; found {guest.vcpu_type!r}"
        )
    vmm = {Vmm.QEMU: VMMType.QEMU, Vmm.EC2: VMMType.ec2, Vmm.GCE: VMMType.gce}[guest.vmm]
    try:
        if not OVMF(str(guest.firmware)).metadata_items():
            # Without it nothing tells the hypervisor where to put the CPUID and secrets pages.
            raise ValueError("it has no SEV metadata")
        digest: bytes = measuring.calc_launch_digest(
            SevMode.SEV_SNP,
            guest.vcpus,
            CPU_SIGS[guest.vcpu_type],
            str(guest.firmware),
            _path(guest.kernel),
            _path(guest.initrd),
            guest.command_line,
            guest.guest_features,
            vmm_type=vmm,
        )
    except OSError as error:
        raise ConfigurationError(f"cannot read {error.filename}: {error.strerror}") from error
    except (RuntimeError, ValueError, KeyError, AssertionError, struct.error) as error:
        raise ConfigurationError(
            f"{guest.firmware} is no firmware for this guest: {error}; take an OVMF that was built for "
            "SEV-SNP (OVMF.amdsev.fd where a kernel is booted directly)"
        ) from error
    return digest


def snp_policy(digests: Iterable[bytes], models: ModelDigests | DangerousAnyModel) -> Policy:
    """The policy that accepts guests launched with one of ``digests`` (48 bytes each), and ``models``, in any
    deployment."""
    measurement = OneOf(tuple(dict.fromkeys(digests)))
    return Policy(
        accepted=(reference_values(Tee.SEV_SNP, {"measurement": measurement}),),
        models=models,
        deployments=ANY,
    )


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)

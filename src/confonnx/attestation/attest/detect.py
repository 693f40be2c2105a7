"""Which TEE this process runs in, and who collects its evidence.

There is no fall-back: a TEE that was asked for and is not there is an error, and so is one that is there and
fails. A server that quietly came up simulated would be refused by its clients at best.

What is looked for when nothing is asked for, innermost first:

1. SGX: Gramine's ``/dev/attestation/attestation_type``
2. Nitro: ``/dev/nsm``
3. Azure: Azure's chassis asset tag, and a vTPM with the paravisor's report (NV index 0x01400001)
4. SEV-SNP and TDX: configfs-tsm with a provider, then ``/dev/sev-guest`` and ``/dev/tdx_guest``

A TPM alone is not looked for: most computers have one, and it protects no memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar, assert_never

from confonnx.attestation.attest import azure_cvm, nitro, sev_snp, sgx, tdx, tpm, tsm
from confonnx.attestation.attest.attester import Attester
from confonnx.attestation.attest.azure_cvm import AzureOptions
from confonnx.attestation.attest.devices import Files, Ioctl, KernelFiles, Wait, kernel_ioctl
from confonnx.attestation.attest.simulated import SimulatedAttester
from confonnx.attestation.attest.tpm import TpmOptions
from confonnx.attestation.claims import Tee
from confonnx.errors import TeeError

_SGX: Final = f"{sgx.DIRECTORY}/attestation_type of Gramine"
_AZURE: Final = "the vTPM of an Azure confidential VM"
_SEV_SNP: Final = f"{tsm.DIRECTORY} with the provider {tsm.SEV_GUEST}, and {sev_snp.DEVICE}"
_TDX: Final = f"{tsm.DIRECTORY} with the provider {tsm.TDX_GUEST}"

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where to look: the kernel's interfaces, and which TPM."""

    tpm: TpmOptions
    files: Files = field(default_factory=KernelFiles)
    ioctl: Ioctl = kernel_ioctl
    wait: Wait = time.sleep


def detect(
    *, forced: Tee | None, require_tee: bool, simulated: SimulatedAttester, machine: Machine
) -> Attester:
    """The Attester of ``machine``: of the ``forced`` TEE, else of the one found, else ``simulated``.

    Raises ``TeeError`` when the forced TEE is not there, when one is there and fails, and when none is and
    ``require_tee`` is set.
    """
    found = _find(machine) if forced is None else _force(forced, machine)
    if found is not None:
        return found
    if require_tee:
        raise TeeError(
            f"a TEE is required and none was found; looked for {_SGX}, {nitro.DEVICE}, {_AZURE}, {_SEV_SNP}, "
            f"and {_TDX}; for a test without protection leave the requirement out"
        )
    return simulated


def _find(machine: Machine) -> Attester | None:
    files, ioctl, wait = machine.files, machine.ioctl, machine.wait
    looks: tuple[Callable[[], Attester | None], ...] = (
        partial(sgx.find, files),
        partial(nitro.find, files, ioctl),
        partial(azure_cvm.find, AzureOptions(machine.tpm.connect), files, wait=wait),
        partial(sev_snp.find, files, ioctl, wait=wait),
        partial(tdx.find, files, wait=wait),
    )
    return next((found for look in looks if (found := look()) is not None), None)


def _force(tee: Tee, machine: Machine) -> Attester | None:
    """None for ``SIMULATED`` alone, of which there is nothing to find."""
    files, ioctl, wait = machine.files, machine.ioctl, machine.wait
    match tee:
        case Tee.SGX:
            return _present(tee, sgx.find(files), _SGX)
        case Tee.TDX:
            return _present(tee, tdx.find(files, wait=wait), _TDX)
        case Tee.SEV_SNP:
            return _present(tee, sev_snp.find(files, ioctl, wait=wait), _SEV_SNP)
        case Tee.AZURE_SNP | Tee.AZURE_TDX:
            return azure_cvm.open_attester(tee, AzureOptions(machine.tpm.connect), files, wait=wait)
        case Tee.NITRO:
            return _present(tee, nitro.find(files, ioctl), nitro.DEVICE)
        case Tee.TPM:
            return tpm.open_attester(machine.tpm, files, wait=wait)
        case Tee.SIMULATED:
            return None
        case _:
            assert_never(tee)


def _present(tee: Tee, found: _Found | None, looked_for: str) -> _Found:
    if found is None:
        raise TeeError(
            f"the TEE {tee} was asked for and is not here; looked for {looked_for}; nothing else "
            "is used in its place"
        )
    return found

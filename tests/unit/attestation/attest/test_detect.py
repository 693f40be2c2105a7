"""Which Attester a server gets, and that nothing is put in the place of a TEE that is missing or fails."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace

import pytest

from confonnx.attestation.attest.azure_cvm import ASSET_TAG, ASSET_TAG_FILE
from confonnx.attestation.attest.detect import Machine, detect
from confonnx.attestation.attest.simulated import SimulatedAttester
from confonnx.attestation.attest.tpm import TpmOptions
from confonnx.attestation.attest.tpm_transport import parse_address
from confonnx.attestation.claims import Tee
from confonnx.errors import TeeError
from tests.support.fake_kernel import FakeFiles, FakeGramine, no_wait
from tests.support.fake_tsm import FakeTsm

SIMULATED = SimulatedAttester(bytes(32))
NO_TPM = TpmOptions(parse_address("/dev/there-is-no-such-tpm"))
DCAP = {"/dev/attestation/attestation_type": b"dcap"}
EVERYTHING: dict[str, bytes | int] = {
    **DCAP,
    "/dev/nsm": b"",
    "/dev/sev-guest": b"",
}


def no_ioctl(device: str, request: int, argument: bytearray) -> None:
    raise AssertionError("detecting needs no ioctl")


def machine(files: FakeFiles) -> Machine:
    return Machine(NO_TPM, files, no_ioctl, no_wait)


def tsm(provider: str | None, contents: dict[str, bytes | int] | None = None) -> FakeTsm:
    return FakeTsm(bytes, provider, contents=contents)


def tee_of(files: FakeFiles, forced: Tee | None = None, *, require_tee: bool = False) -> Tee:
    return detect(forced=forced, require_tee=require_tee, simulated=SIMULATED, machine=machine(files)).tee


@pytest.mark.parametrize("forced", [None, Tee.SIMULATED])
def test_without_a_tee_evidence_is_simulated(forced: Tee | None) -> None:
    nothing = machine(FakeFiles())
    assert detect(forced=forced, require_tee=False, simulated=SIMULATED, machine=nothing) is SIMULATED


@pytest.mark.parametrize("forced", [None, Tee.SIMULATED])
def test_a_required_tee_is_not_replaced_by_a_simulated_one(forced: Tee | None) -> None:
    places = r"/dev/attestation.*/dev/nsm.*Azure.*/sys/kernel/config/tsm/report.*/dev/sev-guest.*tdx_guest"
    with pytest.raises(TeeError, match=f"a TEE is required and none was found; looked for {places}"):
        tee_of(FakeFiles(), forced, require_tee=True)


@pytest.mark.parametrize("require_tee", [False, True])
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (FakeFiles(EVERYTHING), Tee.SGX),
        (FakeFiles({"/dev/nsm": b"", "/dev/sev-guest": b""}), Tee.NITRO),
        (tsm("sev_guest"), Tee.SEV_SNP),
        (tsm("tdx_guest"), Tee.TDX),
        (tsm("tdx_guest", {"/dev/tdx_guest": b""}), Tee.TDX),
        (FakeFiles({"/dev/sev-guest": b""}), Tee.SEV_SNP),
    ],
)
def test_what_is_there_is_used(files: FakeFiles, expected: Tee, require_tee: bool) -> None:
    assert tee_of(files, require_tee=require_tee) is expected


@pytest.mark.parametrize(
    ("forced", "files"),
    [
        (Tee.SGX, FakeGramine(bytes)),
        (Tee.NITRO, FakeFiles(EVERYTHING)),
        (Tee.SEV_SNP, FakeFiles(EVERYTHING)),
        (Tee.TDX, tsm("tdx_guest", EVERYTHING)),
        (Tee.SIMULATED, FakeFiles(EVERYTHING)),
    ],
)
def test_what_is_asked_for_is_used(forced: Tee, files: FakeFiles) -> None:
    assert tee_of(files, forced) is forced


@pytest.mark.parametrize("require_tee", [False, True])
@pytest.mark.parametrize(
    ("forced", "place"),
    [
        (Tee.SGX, "/dev/attestation/attestation_type"),
        (Tee.NITRO, "/dev/nsm"),
        (Tee.SEV_SNP, "/sys/kernel/config/tsm/report.*/dev/sev-guest"),
        (Tee.TDX, "/sys/kernel/config/tsm/report"),
        (Tee.TPM, "/dev/there-is-no-such-tpm.*ENOENT"),
        (Tee.AZURE_SNP, "/dev/there-is-no-such-tpm.*ENOENT"),
        (Tee.AZURE_TDX, "/dev/there-is-no-such-tpm.*ENOENT"),
    ],
)
def test_a_forced_tee_is_not_replaced(forced: Tee, place: str, require_tee: bool) -> None:
    """Not by another one either: the machine has AMD's, or Intel's where AMD's is asked for."""
    files = tsm("tdx_guest" if forced is Tee.SEV_SNP else "sev_guest")
    with pytest.raises(TeeError, match=place):
        tee_of(files, forced, require_tee=require_tee)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (FakeFiles({"/dev/attestation/attestation_type": b"none"}), "this enclave cannot attest"),
        (FakeFiles({"/dev/attestation/attestation_type": errno.EIO}), "EIO"),
        (FakeFiles({ASSET_TAG_FILE: ASSET_TAG}), "/dev/there-is-no-such-tpm.*ENOENT"),
        (FakeFiles({"/dev/tdx_guest": b""}), "/dev/tdx_guest is there"),
    ],
)
def test_a_tee_that_fails_is_not_replaced(files: FakeFiles, text: str) -> None:
    with pytest.raises(TeeError, match=text):
        tee_of(files)


def test_a_closed_configfs_is_not_replaced() -> None:
    files = tsm("sev_guest")
    files.fail("mkdir", errno.EACCES)
    with pytest.raises(TeeError, match="EACCES"):
        tee_of(files)


def test_a_tpm_alone_is_not_looked_for() -> None:
    """Most computers have one, and it protects no memory."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        tpm = TpmOptions(parse_address(f"swtpm:host=127.0.0.1,port={listener.getsockname()[1]}"))
        found = detect(
            forced=None,
            require_tee=False,
            simulated=SIMULATED,
            machine=replace(machine(FakeFiles({"/dev/tpmrm0": b""})), tpm=tpm),
        )
        assert found is SIMULATED
        with pytest.raises(TimeoutError):
            listener.accept()

"""SEV-SNP launch digests: against the firmware ABI's own formula, and every input that cannot be measured."""

from __future__ import annotations

import hashlib
import os
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS
from sevsnpmeasure.vmsa import VMSA

from confonnx.attestation.claims import Tee
from confonnx.attestation.policy import ModelDigests, OneOf, Policy
from confonnx.errors import ConfigurationError
from confonnx.measure.snp import Guest, Vmm, launch_digest, snp_policy
from tests.support.snp_firmware import RESET_EIP, SECTIONS, firmware

KERNEL_HASHES = (0x804000, 0x1000, 0x10)


def expected(
    image: bytes, vcpus: int, sections: tuple[tuple[int, int, int], ...], hashes: bytes = b""
) -> bytes:
    """AMD 56860 §8.17.2: each page extends the digest by its PAGE_INFO (table 67)."""
    digest = bytes(48)

    def extend(kind: int, address: int, contents: bytes) -> None:
        nonlocal digest
        info = digest + contents + (0x70).to_bytes(2, "little") + bytes([kind, 0, 0, 0, 0, 0])
        digest = hashlib.sha384(info + address.to_bytes(8, "little")).digest()

    pages = {address: image[address : address + 4096] for address in range(0, len(image), 4096)}
    for offset, page in pages.items():
        extend(1, 2**32 - len(image) + offset, hashlib.sha384(page).digest())  # PAGE_TYPE_NORMAL
    for address, size, section in sections:
        for page_address in range(address, address + size, 4096):
            if section == KERNEL_HASHES[2] and hashes:
                extend(1, page_address, hashlib.sha384(hashes).digest())
            else:  # PAGE_TYPE_ZERO, _SECRETS and _CPUID: the contents count as zero
                extend({1: 3, 2: 5, 3: 6, 0x10: 3}[section], page_address, bytes(48))
    for page in VMSA(SevMode.SEV_SNP, RESET_EIP, CPU_SIGS["EPYC-Milan"], 1).pages(vcpus):
        extend(2, 0xFFFFFFFFF000, hashlib.sha384(page).digest())
    return digest


@pytest.fixture
def ovmf(tmp_path: Path) -> Path:
    file = tmp_path / "OVMF.fd"
    file.write_bytes(firmware())
    return file


@pytest.fixture
def guest(ovmf: Path) -> Guest:
    return Guest(firmware=ovmf, vcpus=2, vcpu_type="EPYC-Milan")


@pytest.mark.parametrize("vcpus", [1, 2, 5])
def test_the_digest_is_the_firmware_abis(guest: Guest, vcpus: int) -> None:
    assert launch_digest(replace(guest, vcpus=vcpus)) == expected(firmware(), vcpus, SECTIONS)


def test_kernel_initrd_and_command_line_count(guest: Guest, tmp_path: Path) -> None:
    image = firmware((*SECTIONS, KERNEL_HASHES))
    guest.firmware.write_bytes(image)
    kernel, initrd = tmp_path / "vmlinuz", tmp_path / "initrd"
    kernel.write_bytes(b"kernel")
    initrd.write_bytes(b"initrd")
    booted = replace(guest, kernel=kernel, initrd=initrd, command_line="root=/dev/sda")

    def hashed(guid: str, content: bytes) -> bytes:
        return uuid.UUID(guid).bytes_le + (50).to_bytes(2, "little") + hashlib.sha256(content).digest()

    # QEMU, target/i386/sev.c: SevHashTable, the command line with its final zero.
    table = (
        uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le
        + (168).to_bytes(2, "little")
        + hashed("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", b"root=/dev/sda\0")
        + hashed("44baf731-3a2f-4bd7-9af1-41e29169781d", b"initrd")
        + hashed("4de79437-abd2-427f-b835-d5b172d2045b", b"kernel")
    )
    page = table.ljust(4096, b"\0")
    digest = launch_digest(booted)
    assert digest == expected(image, 2, (*SECTIONS, KERNEL_HASHES), page)
    others = [
        launch_digest(guest),
        launch_digest(replace(booted, command_line="root=/dev/sdb")),
        launch_digest(replace(booted, initrd=None)),
    ]
    kernel.write_bytes(b"Kernel")
    others.append(launch_digest(booted))
    assert len({digest, *others}) == 5


def test_processors_features_and_hypervisor_count(guest: Guest) -> None:
    guests = [guest, *(replace(guest, vmm=vmm) for vmm in (Vmm.EC2, Vmm.GCE))]
    guests += [
        replace(guest, vcpu_type="EPYC-Genoa"),
        replace(guest, guest_features=0x21),
        replace(guest, vcpus=3),
    ]
    assert len({launch_digest(one) for one in guests}) == len(guests)


def test_debians_firmware_is_measured_where_it_is_installed() -> None:
    file = Path("/usr/share/ovmf/OVMF.fd")
    if not file.is_file() and "CI" not in os.environ:
        pytest.skip("the Debian package ovmf is not installed")
    digests = {launch_digest(Guest(firmware=file, vcpus=count, vcpu_type="EPYC-Milan")) for count in (1, 2)}
    assert len(digests) == 2
    without = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
    with pytest.raises(ConfigurationError, match="it has no SEV metadata"):
        launch_digest(Guest(firmware=without, vcpus=1, vcpu_type="EPYC-Milan"))


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"\0" * 4096, firmware(())[:-1], firmware(((0, 4096, 99),))],
)
def test_what_is_no_firmware(content: bytes, guest: Guest) -> None:
    guest.firmware.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is no firmware for this guest"):
        launch_digest(guest)


def test_a_kernel_that_the_firmware_would_not_measure(guest: Guest) -> None:
    with pytest.raises(ConfigurationError, match=r"SNP_KERNEL_HASHES.*OVMF.amdsev.fd"):
        launch_digest(replace(guest, kernel=guest.firmware))


def test_files_that_are_missing(guest: Guest, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*gone.fd: No such file"):
        launch_digest(replace(guest, firmware=tmp_path / "gone.fd"))
    with pytest.raises(ConfigurationError, match=r"cannot read .*gone: No such file"):
        launch_digest(replace(guest, kernel=tmp_path / "gone"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vcpus": 0}, "--vcpus: expected 1 to 512, found 0"),
        ({"vcpus": 513}, "--vcpus"),
        ({"guest_features": 0}, "--guest-features"),
        ({"guest_features": 0x20}, "bit 0"),
        ({"guest_features": 2**64 + 1}, "64 bits"),
        ({"initrd": Path("x")}, "with --kernel"),
        ({"command_line": ""}, "with --kernel"),
    ],
)
def test_a_guest_that_cannot_be(change: dict[str, object], message: str, guest: Guest) -> None:
    with pytest.raises(ConfigurationError, match=message):
        replace(guest, **change)  # type: ignore[arg-type]


def test_an_unknown_processor(guest: Guest) -> None:
    with pytest.raises(ConfigurationError, match=r"expected one of EPYC, .*found 'i486'"):
        launch_digest(replace(guest, vcpu_type="i486"))


def test_without_the_extra(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sevsnpmeasure", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'confonnx\[measure\]'"):
        launch_digest(guest)


def test_the_policy_names_every_size_once(guest: Guest) -> None:
    one, two = launch_digest(guest), launch_digest(replace(guest, vcpus=4))
    policy = snp_policy([one, two, one], ModelDigests(("aa" * 32,)))
    (server,) = policy.accepted
    assert (server.tee, dict(server.values)) == (Tee.SEV_SNP, {"measurement": OneOf((one, two))})
    assert Policy.from_toml(policy.to_toml()) == policy

"""Measurements that stand for a set of registers must not be equal for different sets."""

from __future__ import annotations

import hashlib

from confonnx.attestation.claims import Pcr, azure_measurement, pcr_measurement, tdx_measurement

A = Pcr("sha256", 4, b"\4" * 32)
B = Pcr("sha256", 11, b"\5" * 32)


def test_pcr_measurement_by_hand() -> None:
    lines = f"sha256:4:{'04' * 32}\nsha256:11:{'05' * 32}\n"
    assert pcr_measurement([B, A]) == pcr_measurement([A, B]) == hashlib.sha256(lines.encode()).digest()


def test_fewer_registers_are_another_measurement() -> None:
    assert len({pcr_measurement(pcrs) for pcrs in ([], [A], [B], [A, B])}) == 4


def test_bank_and_index_count() -> None:
    assert pcr_measurement([A]) != pcr_measurement([Pcr("sha256", 5, A.value)])
    assert pcr_measurement([A]) != pcr_measurement([Pcr("sha384", 4, A.value)])


def test_registers_that_anyone_can_reset_do_not_count() -> None:
    assert pcr_measurement(
        [A, Pcr("sha256", 16, bytes(32)), Pcr("sha256", 23, b"\1" * 32)]
    ) == pcr_measurement([A])


def test_azure_measurement_has_the_launch_digest() -> None:
    assert azure_measurement(b"\1" * 48, [A]) != azure_measurement(b"\2" * 48, [A])
    assert azure_measurement(b"\1" * 48, [A]) != pcr_measurement([A])


def test_tdx_measurement_has_every_register() -> None:
    zero = bytes(48)
    base = tdx_measurement(zero, (zero, zero, zero, zero))
    one = b"\1" * 48
    others = [tdx_measurement(one, (zero, zero, zero, zero))]
    for index in range(4):
        rtmrs = [zero] * 4
        rtmrs[index] = one
        others.append(tdx_measurement(zero, (rtmrs[0], rtmrs[1], rtmrs[2], rtmrs[3])))
    assert len({base, *others}) == 6

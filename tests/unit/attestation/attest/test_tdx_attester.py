"""TDX through configfs: quotes, the firmware's log, and what is no quote."""

from __future__ import annotations

import errno

import pytest

from confonnx.attestation.attest import tdx
from confonnx.attestation.attest.attester import Attester
from confonnx.attestation.claims import EVENT_LOG, TDX_QUOTE, Tee
from confonnx.errors import TeeError
from tests.support.authorities import boot
from tests.support.authorities.intel import REPORT_DATA, TDX4, td_body
from tests.support.fake_kernel import FakeFiles, no_wait
from tests.support.fake_tsm import FakeTsm

SHA384 = 0x0C
LOG = boot.header((SHA384,)) + boot.event(2, 1, b"kernel", (SHA384,))
RTMR1 = boot.extended(b"kernel", bank="sha384")
CCEL = "/sys/firmware/acpi/tables/data/CCEL"


def quote(report_data: bytes) -> bytes:
    return TDX4.but(body=td_body(report_data=report_data, rtmr1=RTMR1)).encode()


def attester(files: FakeTsm) -> Attester:
    found = tdx.find(files, wait=no_wait)
    assert found is not None
    return found


def test_a_quote_and_the_log_that_leads_to_it() -> None:
    made = attester(FakeTsm(quote, "tdx_guest", contents={CCEL: LOG}))
    assert (made.tee, made.evidence_type) == (Tee.TDX, TDX_QUOTE)
    evidence, endorsements = made.collect(REPORT_DATA)
    assert REPORT_DATA in evidence
    assert endorsements == ((EVENT_LOG, LOG),)


@pytest.mark.parametrize(
    "log", [errno.EACCES, errno.ENOENT, b"", b"no log", LOG + boot.event(4, 1, b"another", (SHA384,))]
)
def test_a_log_that_no_verifier_would_take_stays_behind(log: bytes | int) -> None:
    made = attester(FakeTsm(quote, "tdx_guest", contents={CCEL: log}))
    assert made.collect(REPORT_DATA)[1] == ()


@pytest.mark.parametrize("beginning", ["d83dd284", "d2844ba3", "d86284", "8443a101"])
def test_a_cwt_is_no_quote(beginning: str) -> None:
    cwt = bytes.fromhex(beginning) + bytes(9000)
    with pytest.raises(TeeError, match=r"CWT \(attestation by DICE\)"):
        attester(FakeTsm(lambda _: cwt, "tdx_guest")).collect(REPORT_DATA)


def test_something_else_is_left_to_the_check_of_what_it_binds() -> None:
    made = attester(FakeTsm(lambda _: b"\x09\x00else", "tdx_guest", contents={CCEL: LOG}))
    assert made.collect(REPORT_DATA) == (b"\x09\x00else", ())


def test_other_machines_have_none() -> None:
    assert tdx.find(FakeFiles(), wait=no_wait) is None
    assert tdx.find(FakeTsm(quote, "sev_guest"), wait=no_wait) is None


@pytest.mark.parametrize(
    "files",
    [FakeFiles({"/dev/tdx_guest": b""}), FakeTsm(quote, None, contents={"/dev/tdx_guest": b""})],
    ids=["no configfs", "no provider"],
)
def test_the_device_alone_gives_no_quote(files: FakeFiles) -> None:
    with pytest.raises(TeeError, match=r"/dev/tdx_guest is there.*TDREPORT.*6\.7"):
        tdx.find(files, wait=no_wait)

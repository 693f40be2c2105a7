"""A TPM's Attester against swtpm: quotes that verify, keys and certificates that do not fit."""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.attest import tpm
from confonnx.attestation.attest.tpm import AK_HANDLE, TpmAttester, TpmOptions
from confonnx.attestation.attest.tpm_commands import Tpm
from confonnx.attestation.attest.tpm_quoting import EVENT_LOG_FILE
from confonnx.attestation.attest.tpm_transport import Transport, parse_address
from confonnx.attestation.claims import TPM_EVIDENCE, Tee, TpmClaims
from confonnx.attestation.verify import tpm as verifier
from confonnx.attestation.verify.x509 import parse_endorsements
from confonnx.errors import TeeError
from tests.support.authorities import boot
from tests.support.authorities.pki import NOW, ec_key
from tests.support.fake_kernel import FakeFiles, no_wait
from tests.support.swtpm import SoftwareTpm, running_swtpm
from tests.support.tpm_keys import certify, put_nv, root

REPORT_DATA = bytes(range(64))
NO_FILES = FakeFiles()


@pytest.fixture
def software(tmp_path: Path) -> Iterator[SoftwareTpm]:
    directory = tmp_path / "swtpm"
    directory.mkdir()
    with running_swtpm(directory) as running:
        yield running


def options(software: SoftwareTpm, *, make_key: bool = True) -> TpmOptions:
    """The options of a server whose key was certified."""
    connect = parse_address(software.address)
    with connect() as transport:
        device = Tpm(transport, wait=time.sleep)
        if make_key:
            device.make_attestation_key(AK_HANDLE)
        key = device.read_public(AK_HANDLE)
    assert key is not None
    return TpmOptions(connect, AK_HANDLE, tuple(x509.load_pem_x509_certificates(certify(key.public_key))))


def open_attester(made: TpmOptions, files: FakeFiles = NO_FILES) -> TpmAttester:
    return tpm.open_attester(made, files, wait=time.sleep)


def verify(attester: TpmAttester, report_data: bytes = REPORT_DATA) -> TpmClaims:
    evidence, endorsements = attester.collect(report_data)
    claims = verifier.verify(
        evidence, parse_endorsements(endorsements, step="tpm"), now=NOW, roots=frozenset({root()})
    )
    assert claims.report_data == report_data
    assert isinstance(claims.details, TpmClaims)
    return claims.details


def test_a_quote_that_verifies(software: SoftwareTpm) -> None:
    software.tool("tpm2_pcrextend", f"14:sha256={'7e' * 32}")
    attester = open_attester(options(software))
    assert (attester.tee, attester.evidence_type) == (Tee.TPM, TPM_EVIDENCE)
    details = verify(attester)
    values = {(pcr.bank, pcr.index): pcr.value for pcr in details.pcrs}
    assert sorted(values) == [("sha256", index) for index in (*range(10), *range(11, 16))]
    assert values["sha256", 14] == hashlib.sha256(bytes(32) + b"\x7e" * 32).digest()


def test_the_key_is_made_at_the_first_start_and_wants_a_certificate(software: SoftwareTpm) -> None:
    first = TpmOptions(parse_address(software.address))
    with pytest.raises(TeeError, match=r"no certificate is for the attestation key at 0x8100c0f0.*0 were"):
        open_attester(first)
    assert "0x8100C0F0" in software.tool("tpm2_getcap", "handles-persistent").decode()
    verify(open_attester(options(software, make_key=False)))  # the same key is there at the second start


def test_a_certificate_of_another_key_is_noticed(software: SoftwareTpm) -> None:
    options(software)
    other = tuple(x509.load_pem_x509_certificates(certify(ec_key("another").public_key())))
    with pytest.raises(TeeError, match=r"no certificate is for.*2 were"):
        open_attester(TpmOptions(parse_address(software.address), AK_HANDLE, other))


def test_a_certificate_that_the_cloud_left_in_the_tpm(software: SoftwareTpm, tmp_path: Path) -> None:
    own, ca = options(software).certificates
    put_nv(software, tpm.AK_CERTIFICATE_INDEX, own.public_bytes(Encoding.DER) + bytes(100), tmp_path)
    verify(open_attester(TpmOptions(parse_address(software.address), AK_HANDLE, (ca,))))


def test_something_else_where_the_certificate_should_be(software: SoftwareTpm, tmp_path: Path) -> None:
    made = options(software)
    put_nv(software, tpm.AK_CERTIFICATE_INDEX, b"no certificate", tmp_path)
    with pytest.raises(TeeError, match="0x1c101d0 of the TPM holds no certificate"):
        open_attester(made)


def test_a_key_that_signs_anything_is_refused(software: SoftwareTpm, tmp_path: Path) -> None:
    """An unrestricted key would sign a quote that its owner made up."""
    attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign"
    software.tool(
        *("tpm2_createprimary", "-C", "o", "-G", "ecc256:ecdsa-sha256:null", "-a", attributes, "-c", "k.ctx"),
        directory=tmp_path,
    )
    software.tool("tpm2_evictcontrol", "-C", "o", "-c", "k.ctx", hex(AK_HANDLE), directory=tmp_path)
    software.tool("tpm2_flushcontext", "-t")
    with pytest.raises(TeeError, match=r"0x8100c0f0 is no attestation key.*restricted"):
        open_attester(TpmOptions(parse_address(software.address)))


def test_threads_take_turns(software: SoftwareTpm) -> None:
    """``/dev/tpm0``, without a resource manager, is for one at a time."""
    made, is_open = options(software), threading.Lock()

    @contextmanager
    def connect() -> Iterator[Transport]:
        assert is_open.acquire(blocking=False), "opened twice at the same time"
        with made.connect() as transport:
            yield transport
        is_open.release()

    attester = open_attester(replace(made, connect=connect))
    with ThreadPoolExecutor(4) as pool:
        details = list(pool.map(lambda number: verify(attester, bytes([number]) * 64), range(16)))
    assert len({detail.attestation_key for detail in details}) == 1


LOG = boot.header() + boot.event(4, 1, b"kernel")


def test_an_event_log_that_leads_to_the_pcrs_comes_along(software: SoftwareTpm) -> None:
    software.tool("tpm2_pcrextend", f"4:sha256={hashlib.sha256(b'kernel').hexdigest()}")
    attester = open_attester(options(software), FakeFiles({EVENT_LOG_FILE: LOG}))
    assert [(event.register, event.data) for event in verify(attester).events] == [(4, b"kernel")]
    software.tool("tpm2_pcrextend", f"4:sha256={'00' * 32}")  # an extension that the firmware did not see
    assert verify(attester).events == ()


LONG_LOG = boot.header() + boot.event(4, 1, bytes(600_000))


@pytest.mark.parametrize("log", [errno.EACCES, errno.ENOENT, b"no log", LONG_LOG])
def test_a_log_that_is_of_no_use_stays_behind(software: SoftwareTpm, log: bytes | int) -> None:
    software.tool("tpm2_pcrextend", f"4:sha256={hashlib.sha256(bytes(600_000)).hexdigest()}")
    attester = open_attester(options(software), FakeFiles({EVENT_LOG_FILE: log}))
    assert verify(attester).events == ()


class Meddler:
    """Between us and the TPM: extends a PCR before each of the first ``extensions`` quotes."""

    QUOTE = b"\0\0\1\x58"

    def __init__(self, inner: Transport, extensions: int) -> None:
        self.inner = inner
        self.left = extensions

    def transmit(self, command: bytes) -> bytes:
        if command[6:10] == self.QUOTE and self.left:
            self.left -= 1
            extend = bytes.fromhex(
                "8002 00000041 00000182 0000000c 00000009 40000009 0000 00 0000 00000001 000b"
            )
            assert self.inner.transmit(extend + bytes(32))[6:10] == bytes(4)
        return self.inner.transmit(command)


def meddled(made: TpmOptions, extensions: int) -> TpmOptions:
    @contextmanager
    def connect() -> Iterator[Transport]:
        with made.connect() as transport:
            yield Meddler(transport, extensions)

    return TpmOptions(connect, made.ak_handle, made.certificates)


def test_an_extension_between_reading_and_quoting(software: SoftwareTpm) -> None:
    made = options(software)
    values = {pcr.index: pcr.value for pcr in verify(open_attester(meddled(made, 2))).pcrs}
    assert any(values[12])
    with pytest.raises(TeeError, match="PCRs changed during each of 5"):
        open_attester(meddled(made, 99)).collect(REPORT_DATA)


class Replacing:
    """Between us and the TPM: gives ``response`` in the place of that to a quote."""

    def __init__(self, inner: Transport, response: bytes) -> None:
        self.inner = inner
        self.response = response

    def transmit(self, command: bytes) -> bytes:
        return self.response if command[6:10] == Meddler.QUOTE else self.inner.transmit(command)


def test_a_quote_that_no_verifier_takes(software: SoftwareTpm) -> None:
    made = options(software)
    body = b"\0\0\0\7" + b"\0\3abc" + b"\0\x14"
    response = b"\x80\x02" + (10 + len(body)).to_bytes(4, "big") + bytes(4) + body

    @contextmanager
    def connect() -> Iterator[Transport]:
        with made.connect() as transport:
            yield Replacing(transport, response)

    attester = open_attester(TpmOptions(connect, made.ak_handle, made.certificates))
    with pytest.raises(TeeError, match="TPM2_Quote gave what no verifier takes"):
        attester.collect(REPORT_DATA)


def test_a_tpm_that_forgets(software: SoftwareTpm) -> None:
    """Its key was made and kept, says the TPM, and is not there."""

    class Forgetful:
        def __init__(self, inner: Transport) -> None:
            self.inner = inner

        def transmit(self, command: bytes) -> bytes:
            is_read_public = command[6:10] == b"\0\0\1\x73"
            return bytes.fromhex("8001 0000000a 0000018b") if is_read_public else self.inner.transmit(command)

    @contextmanager
    def connect() -> Iterator[Transport]:
        with parse_address(software.address)() as transport:
            yield Forgetful(transport)

    with pytest.raises(TeeError, match="did not keep the attestation key"):
        tpm.open_attester(TpmOptions(connect), NO_FILES, wait=no_wait)

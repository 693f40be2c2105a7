"""Whatever a file or a vendor holds, there is a description, endorsements or the documented error."""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from confonnx.attestation.endorse import amd_kds, intel_pcs
from confonnx.attestation.endorse.endorser import drive
from confonnx.attestation.endorse.exchange import Answer, Request
from confonnx.attestation.endorse.options import TcbUpdate
from confonnx.cli.recognise import Kind, as_endorsement, recognise
from confonnx.cli.vendor_fields import describe
from confonnx.errors import ConfigurationError, EndorsementError, EvidenceFormatError, VerificationError
from tests.support import simulated_server as server
from tests.support.authorities import amd, aws, intel, tcg
from tests.support.authorities.pki import crl, pem
from tests.support.fake_vendors import Page, pcs_pages

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

KINDS = [kind for kind in Kind if kind is not Kind.BUNDLE]
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def samples() -> list[bytes]:
    """Good ones, to be damaged."""
    return [
        intel.SGX.encode(),
        intel.TDX5.encode(),
        amd.report(),
        aws.Document().encode(),
        tcg.Quote().encode(),
        server.bundle().evidence,
        intel.SGX_COLLATERAL.encode(),
        pem(amd.ARK.build()),
        intel.der(crl(amd.ARK)),
    ]


@cache
def pcs() -> dict[str, Page]:
    """Intel's good answers; made once, since signatures differ from time to time."""
    return pcs_pages(intel.SGX_COLLATERAL.encode(), tee="sgx", fmspc=intel.FMSPC.hex())


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Any bytes, or a good sample that was cut, changed or lengthened."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from(samples())))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@FEW
@given(st.sampled_from(KINDS), damaged())
def test_any_bytes_are_described_or_refused(kind: Kind, data: bytes) -> None:
    try:
        described = describe(kind, data)
    except VerificationError:
        return
    assert json.loads(json.dumps(described)) == described


@FEW
@given(damaged())
def test_any_bytes_are_recognised_or_refused(data: bytes) -> None:
    try:
        kind = recognise(data, "file")
    except (ConfigurationError, EvidenceFormatError):
        return
    assert kind in Kind


@FEW
@given(damaged())
def test_any_bytes_are_an_endorsement_or_refused(data: bytes) -> None:
    try:
        media_type, content = as_endorsement(data, "file")
    except (ConfigurationError, EvidenceFormatError):
        return
    assert "/" in media_type
    assert content


@FEW
@given(st.data())
def test_any_answer_of_amd_gives_endorsements_or_the_documented_error(data: st.DataObject) -> None:
    def get(request: Request) -> Answer:
        answer = Answer(data.draw(damaged()))
        assert request.read_expiry(answer).tzinfo is not None
        return answer

    with pytest.raises(EndorsementError):
        drive(amd_kds.gather(amd.report(), (), base_url="https://kds.test"), get)


@FEW
@given(st.data())
def test_any_answer_of_intel_gives_collateral_or_the_documented_error(data: st.DataObject) -> None:
    def get(request: Request) -> Answer:
        page = pcs()[request.url.removeprefix("https://pcs.test")]
        fields = {name.lower(): value for name, value in page.fields.items()}
        body = bytearray(page.body)
        if data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(body) - 1))
            body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        answer = Answer(bytes(body), tuple((name, fields[name]) for name in request.fields))
        request.read_expiry(answer)
        return answer

    gathering = intel_pcs.gather(intel.SGX.encode(), base_url="https://pcs.test", update=TcbUpdate.STANDARD)
    try:
        ((_, collateral),) = drive(gathering, get)
    except EndorsementError:
        return
    assert len(json.loads(collateral)) == 9

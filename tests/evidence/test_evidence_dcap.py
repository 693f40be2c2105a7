"""Real SGX and TDX quotes with every collateral that was published for them, at the time of that
collateral."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from confonnx.attestation.claims import Claims, SgxClaims, TcbStatus, TdxClaims
from confonnx.attestation.formats import dcap_collateral, dcap_quote, event_log
from confonnx.attestation.formats.dcap_quote import SgxBody, TdBody
from confonnx.attestation.verify import sgx, tdx
from confonnx.attestation.verify.dcap import DcapEndorsements
from confonnx.errors import CheckError, EndorsementError, EvidenceError, EvidenceFormatError
from tests.evidence.manifest import Vector, evidence, one, read

QUOTES = [*evidence("sgx"), *evidence("tdx"), one("az-tdx-vtpm/trustee-td-quote.bin")]

# dcap-qvl's reason, as the manifest has it, and the check that must say the same.
REASONS = {
    "No matching TCB level found": "dcap.tcb-level",
    "Invalid MR service TD": "tdx.migration",
    "SEPT_VE_DISABLE is not enabled": "tdx.attributes",
    "missing field `sgxtcbcomponents`": "dcap.collateral",
}
# Its padding is not of zeros (39 bytes of something else), which is said first.
NOT_PADDING = "tdx/tdx-v4-spr-e4-google.bin"


@dataclass(frozen=True)
class Triple:
    """A quote, a set of collateral, a time, and what must come out."""

    quote: Vector
    collateral: str
    now: datetime
    window: tuple[datetime, datetime]
    outcome: dict[str, object]

    def __str__(self) -> str:
        return f"{self.quote.file}+{self.collateral}"


def triples() -> list[Triple]:
    return [
        Triple(
            v,
            each["collateral"],
            datetime.fromisoformat(each["valid_time"]),
            (datetime.fromisoformat(each["window"][0]), datetime.fromisoformat(each["window"][1])),
            each["dcap_qvl_0_7_0"],
        )
        for v in QUOTES
        for each in v.expected.get("verifications", [])
    ]


ACCEPTED = [t for t in triples() if "status" in t.outcome]
REFUSED = [t for t in triples() if "error" in t.outcome]
DEBUG = [t for t in REFUSED if "Debug mode is enabled" in str(t.outcome["error"])]


def endorsements(t: Triple) -> DcapEndorsements:
    return DcapEndorsements(dcap_collateral.parse(read(t.collateral)))


def verify(t: Triple, now: datetime | None = None) -> Claims:
    verifier = tdx.verify if t.quote.expected["tee_type"] == "tdx" else sgx.verify
    return verifier(t.quote.data, endorsements(t), now=now or t.now)


def test_the_manifest_has_triples() -> None:
    assert len(ACCEPTED) >= 15
    assert len(DEBUG) == 3


@pytest.mark.parametrize("t", ACCEPTED, ids=str)
def test_accepted(t: Triple) -> None:
    claims = verify(t)
    assert claims.tcb_status == t.outcome["status"]
    assert set(claims.advisories) == set(t.outcome["advisory_ids"])  # type: ignore[call-overload]
    assert claims.debug is False
    check_fields(claims, t.quote)


@pytest.mark.parametrize("t", DEBUG, ids=str)
def test_debug_is_genuine_and_says_so(t: Triple) -> None:
    claims = verify(t)
    assert claims.debug is True
    assert claims.tcb_status is not TcbStatus.NOT_APPLICABLE
    check_fields(claims, t.quote)


@pytest.mark.parametrize("t", [t for t in REFUSED if t not in DEBUG], ids=str)
def test_refused(t: Triple) -> None:
    with pytest.raises((EvidenceError, EndorsementError, EvidenceFormatError)) as caught:
        verify(t)
    if t.quote.file == NOT_PADDING:
        assert isinstance(caught.value, EvidenceFormatError)
        return
    (expected,) = [check for reason, check in REASONS.items() if reason in str(t.outcome["error"])]
    assert isinstance(caught.value, CheckError)
    assert caught.value.check == expected


def test_the_quote_without_its_odd_padding_lets_the_host_inject_exceptions() -> None:
    (t,) = [t for t in REFUSED if t.quote.file == NOT_PADDING]
    with pytest.raises(EvidenceError) as caught:
        tdx.verify(t.quote.data[:-39], endorsements(t), now=t.now)
    assert caught.value.check == "tdx.attributes"


@pytest.mark.parametrize("t", ACCEPTED, ids=str)
def test_outside_the_window(t: Triple) -> None:
    for moment in (t.window[0] - timedelta(days=1), t.window[1] + timedelta(days=1)):
        with pytest.raises(EndorsementError) as caught:
            verify(t, moment)
        assert caught.value.check in {"dcap.tcb-info", "dcap.qe-identity", "dcap.crl", "dcap.validity"}
        assert moment.isoformat() in str(caught.value)


def test_a_broken_pck_chain() -> None:
    v = one("sgx/sgx-v3-bad-pck-chain-oe.bin")
    assert v.verdict == "invalid"
    with pytest.raises(EndorsementError) as caught:
        sgx.verify(
            v.data,
            DcapEndorsements(dcap_collateral.parse(read("sgx/collateral-asm-00906e-sgx-2505.json"))),
            now=datetime(2025, 6, 1, tzinfo=UTC),
        )
    assert caught.value.check == "dcap.chain"


@pytest.mark.parametrize("v", QUOTES, ids=lambda v: v.file)
def test_layout(v: Vector) -> None:
    data = v.data[:-39] if v.file == NOT_PADDING else v.data
    quote = dcap_quote.parse(data)
    expected = v.expected
    if isinstance(quote.body, SgxBody):
        assert quote.body.mrenclave.hex() == expected["mrenclave"]
        assert quote.body.report_data.hex() == expected["report_data"]
    else:
        assert isinstance(quote.body, TdBody)
        assert quote.body.mrtd.hex() == expected["mrtd"]
        assert quote.version == expected["quote_version"]


def check_fields(claims: Claims, v: Vector) -> None:
    expected, details = v.expected, claims.details
    assert claims.report_data.hex() == expected["report_data"]
    if isinstance(details, SgxClaims):
        assert claims.measurement.hex() == details.mrenclave.hex() == expected["mrenclave"]
        assert claims.signer is not None
        assert claims.signer.hex() == details.mrsigner.hex() == expected["mrsigner"]
        assert claims.product_id == details.isv_prod_id == expected["isvprodid"]
        assert claims.security_version == details.isv_svn == expected["isvsvn"]
        assert details.cpu_svn.hex() == expected["cpu_svn"]
        assert details.misc_select.to_bytes(4, "little").hex() == expected["miscselect"]
        attributes = details.attributes.to_bytes(8, "little") + details.xfrm.to_bytes(8, "little")
        assert attributes.hex() == expected["attributes"]
        assert details.config_id.hex() == expected["config_id"]
        assert details.config_svn == expected["config_svn"]
        assert details.isv_family_id.hex() == expected["isv_family_id"]
        assert details.isv_ext_prod_id.hex() == expected["isv_ext_prod_id"]
    else:
        assert isinstance(details, TdxClaims)
        check_td_fields(details, expected)
    assert details.platform.fmspc.hex() == expected["fmspc"]
    assert details.platform.pce_svn == expected["pce_svn"]


def check_td_fields(details: TdxClaims, expected: dict[str, str]) -> None:
    names = {
        "mrtd": details.mrtd,
        "mrseam": details.mr_seam,
        "mrsignerseam": details.mr_signer_seam,
        "mrconfigid": details.mr_config_id,
        "mrowner": details.mr_owner,
        "mrownerconfig": details.mr_owner_config,
        "tee_tcb_svn": details.tee_tcb_svn,
        "rtmr0": details.rtmrs[0],
        "rtmr1": details.rtmrs[1],
        "rtmr2": details.rtmrs[2],
        "rtmr3": details.rtmrs[3],
        "td_attributes": details.td_attributes.to_bytes(8, "little"),
        "seam_attributes": details.seam_attributes.to_bytes(8, "little"),
        "xfam": details.xfam.to_bytes(8, "little"),
        "tee_tcb_svn2": details.tee_tcb_svn_2,
        "mrservicetd": details.mr_service_td,
    }
    for name, value in names.items():
        assert (value.hex() if value is not None else None) == expected.get(name), name


def with_log(file: str, log: event_log.EventLog) -> Claims:
    t = next(t for t in ACCEPTED + DEBUG if t.quote.file == file)
    collateral = dcap_collateral.parse(read(t.collateral))
    return tdx.verify(t.quote.data, DcapEndorsements(collateral, log), now=t.now)


def test_a_ccel_that_replays() -> None:
    claims = with_log(
        "tdx/tdx-v4-gce-cos113.bin", event_log.parse_ccel(read("tdx/tdx-v4-cos113-ccel-data.bin"))
    )
    assert isinstance(claims.details, TdxClaims)
    replay = one("tdx/tdx-v4-gce-cos113.bin").expected["eventlog_replay"]
    assert all(replay[f"rtmr{index}"] for index in range(4))
    assert {event.register for event in claims.details.events} == {0, 1, 2}
    assert len(claims.details.events) == replay["events"]


def test_a_json_log_that_replays() -> None:
    text: str = json.loads(read("tdx/tdx-v4-dstack-getquote.json"))["event_log"]
    claims = with_log("tdx/tdx-v4-dstack.bin", event_log.parse_json(text.encode()))
    assert isinstance(claims.details, TdxClaims)
    assert {event.register for event in claims.details.events} == {0, 1, 2, 3}


def test_a_log_that_does_not_replay() -> None:
    log = event_log.parse_ccel(read("tdx/tdx-v4-debug-ccel.bin"))
    with pytest.raises(EvidenceError, match="RTMR0") as caught:
        with_log("tdx/tdx-v4-debug-trustee.bin", log)
    assert caught.value.check == "tdx.event-log"

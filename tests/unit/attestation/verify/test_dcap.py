"""SGX and TDX: one change of good evidence at a time, and the step that must refuse it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from confonnx.attestation.claims import (
    DCAP_COLLATERAL,
    EVENT_LOG,
    JSON_EVENT_LOG,
    Claims,
    SgxClaims,
    TcbStatus,
    TdxClaims,
    Tee,
    tdx_measurement,
)
from confonnx.attestation.formats import dcap_collateral, event_log
from confonnx.attestation.verify import dcap, sgx, tdx
from confonnx.errors import CheckError, EndorsementError, EvidenceFormatError
from tests.support.authorities import boot, intel
from tests.support.authorities.intel import (
    MRENCLAVE,
    MRSIGNER,
    MRTD,
    PCK_CA,
    PCK_SERIAL,
    REPORT_DATA,
    ROOT,
    SGX,
    SGX_COLLATERAL,
    TCB_SIGNER,
    TDX4,
    TDX5,
    TDX_COLLATERAL,
    Collateral,
    Cpu,
    Quote,
    der,
    isv_level,
    sgx_body,
    tcb_level,
    td_body,
)
from tests.support.authorities.pki import DAY, NOW, crl, ec_key, pem
from tests.support.traced_checks import traced

EVIL = ec_key("evil")


def run(quote: Quote, collateral: Collateral, *, log: Any = None) -> Claims:
    endorsements = dcap.DcapEndorsements(dcap_collateral.parse(collateral.encode()), log)
    verify, table = (tdx.verify, tdx.CHECKS) if quote.tee_type else (sgx.verify, sgx.CHECKS)
    with traced(table, outside={"dcap.collateral"}) as checks:
        return verify(quote.encode(), endorsements, now=NOW, roots=intel.roots(), checks=checks)


def check(quote: Quote, collateral: Collateral) -> str:
    with pytest.raises(CheckError) as caught:
        run(quote, collateral)
    return caught.value.check


def test_good_sgx() -> None:
    claims = run(SGX, SGX_COLLATERAL)
    assert claims.tee is Tee.SGX
    assert claims.measurement == MRENCLAVE
    assert claims.signer == MRSIGNER
    assert claims.report_data == REPORT_DATA
    assert (claims.product_id, claims.security_version) == (3, 4)
    assert claims.debug is False
    assert claims.tcb_status is TcbStatus.UP_TO_DATE
    assert claims.advisories == ()
    assert claims.valid_until == NOW + DAY  # the root CRL's, which is the first to expire
    assert isinstance(claims.details, SgxClaims)
    assert claims.details.platform.fmspc == intel.FMSPC
    assert claims.details.platform.tcb_evaluation_data_number == 17  # the lower of the two documents'


@pytest.mark.parametrize("quote", [TDX4, TDX5], ids=["v4", "v5"])
def test_good_tdx(quote: Quote) -> None:
    claims = run(quote, TDX_COLLATERAL)
    assert claims.tee is Tee.TDX
    assert claims.measurement == tdx_measurement(MRTD, (bytes(48),) * 4)
    assert claims.signer is None
    assert claims.debug is False
    assert claims.tcb_status is TcbStatus.UP_TO_DATE
    assert isinstance(claims.details, TdxClaims)
    assert (claims.details.tee_tcb_svn_2 is not None) is (quote.version == 5)


def test_zero_padding_is_no_part_of_the_quote() -> None:
    assert run(TDX4.but(padding=bytes(3000)), TDX_COLLATERAL).tee is Tee.TDX


def test_a_debug_enclave_is_genuine_and_says_so() -> None:
    claims = run(SGX.but(body=sgx_body(attributes=bytes((7,)) + bytes(7))), SGX_COLLATERAL)
    assert claims.debug is True


@pytest.mark.parametrize("bit", range(8))
def test_any_bit_of_the_tud_group_is_debug(bit: int) -> None:
    attributes = (1 << 28 | 1 << bit).to_bytes(8, "little")
    assert run(TDX4.but(body=td_body(td_attributes=attributes)), TDX_COLLATERAL).debug is True


REFUSED_QUOTES: dict[str, tuple[Quote, str]] = {
    "a look-alike root": (
        SGX.but(
            root=ROOT.but(key=EVIL),
            ca=PCK_CA.but(issuer=ROOT.but(key=EVIL)),
        ),
        "dcap.root",
    ),
    "two certificates": (
        SGX.but(chain=pem(Cpu().pck(ROOT).build(), ROOT.build())),
        "dcap.chain",
    ),
    "four certificates": (
        SGX.but(chain=pem(Cpu().pck().build(), PCK_CA.build(), ROOT.build(), ROOT.build())),
        "dcap.chain",
    ),
    "no certificates": (SGX.but(chain=b"\0"), "dcap.endorsements"),
    "a PCK certificate that its CA did not sign": (
        SGX.but(pck=Cpu().pck().but(signing_key=EVIL)),
        "dcap.chain",
    ),
    "a PCK CA that is none": (SGX.but(ca=PCK_CA.but(ca=False)), "dcap.chain"),
    "a PCK certificate of no CPU": (SGX.but(pck=Cpu().pck().but(extensions=())), "dcap.chain"),
    "an expired PCK certificate": (SGX.but(pck=Cpu().pck().but(not_after=NOW - DAY)), "dcap.validity"),
    "an expired PCK CA": (SGX.but(ca=PCK_CA.but(not_after=NOW - DAY)), "dcap.validity"),
    "a CPU of another model": (SGX.but(pck=Cpu(fmspc=bytes(6)).pck()), "dcap.tcb-info"),
    "a QE report that the PCK key did not sign": (SGX.but(qe_signing_key=EVIL), "dcap.qe-signature"),
    "a PCK key on another curve": (
        SGX.but(pck=Cpu().pck().but(key=ec_key("pck", "P-384")), qe_signing_key=ec_key("pck")),
        "dcap.qe-signature",
    ),
    "a QE of another signer": (SGX.but(qe_changes={"mrsigner": bytes(32)}), "dcap.qe"),
    "another enclave of the QE's signer": (SGX.but(qe_changes={"isv_prod_id": b"\2\0"}), "dcap.qe"),
    "a debug QE": (SGX.but(qe_changes={"attributes": b"\x13" + bytes(7)}), "dcap.qe"),
    "a QE with another MISCSELECT": (SGX.but(qe_changes={"misc_select": b"\1\0\0\0"}), "dcap.qe"),
    "a QE that is too old": (SGX.but(qe_changes={"isv_svn": b"\5\0"}), "dcap.tcb-level"),
    "an attestation key that the QE does not know": (
        SGX.but(bound_key=intel.raw_point(EVIL)),
        "dcap.qe-binding",
    ),
    "other authentication data": (SGX.but(qe_changes={"report_data": bytes(64)}), "dcap.qe-binding"),
    "another attestation key": (SGX.but(signing_key=EVIL), "dcap.signature"),
    "an attestation key off the curve": (SGX.but(attestation_key=b"\1" * 64), "dcap.signature"),
    "a CPU that is too old": (SGX.but(pck=Cpu(components=(2,) * 16).pck()), "dcap.tcb-level"),
    "one component that is too old": (SGX.but(pck=Cpu(components=(5,) * 15 + (2,)).pck()), "dcap.tcb-level"),
    "a PCE that is too old": (SGX.but(pck=Cpu(pce_svn=12).pck()), "dcap.tcb-level"),
    "a domain of an unknown TDX module": (
        TDX4.but(body=td_body(tee_tcb_svn=bytes((6, 9, 3)) + bytes(13))),
        "tdx.module",
    ),
    "a TDX module that is too old": (
        TDX4.but(body=td_body(tee_tcb_svn=bytes((3, 1, 3)) + bytes(13))),
        "dcap.tcb-level",
    ),
    "a TDX module that Intel did not sign": (
        TDX4.but(body=td_body(mr_signer_seam=b"\1" * 48)),
        "tdx.module",
    ),
    "a TDX module of version 0 that Intel did not sign": (
        TDX4.but(body=td_body(mr_signer_seam=b"\1" * 48, tee_tcb_svn=bytes(16))),
        "tdx.module",
    ),
    "a debug TDX module": (TDX4.but(body=td_body(seam_attributes=b"\1" + bytes(7))), "tdx.module"),
    "unknown attributes": (TDX4.but(body=td_body(td_attributes=b"\0\1\0\x10" + bytes(4))), "tdx.attributes"),
    "exceptions that the host injects": (TDX4.but(body=td_body(td_attributes=bytes(8))), "tdx.attributes"),
    "a migratable domain": (TDX4.but(body=td_body(td_attributes=b"\0\0\0\x30" + bytes(4))), "tdx.migration"),
    "a service TD": (TDX5.but(body=td_body(td15=True, mr_service_td=b"\1" * 48)), "tdx.migration"),
}


@pytest.mark.parametrize("case", REFUSED_QUOTES)
def test_refused_quotes(case: str) -> None:
    quote, expected = REFUSED_QUOTES[case]
    assert check(quote, TDX_COLLATERAL if quote.tee_type else SGX_COLLATERAL) == expected


def change(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.update({key: value})


LATE = (NOW + DAY).isoformat()
EARLY = (NOW - DAY).isoformat()
REFUSED_COLLATERAL: dict[str, tuple[Collateral, str]] = {
    "of TDX": (SGX_COLLATERAL.with_tcb_info(change("id", "TDX")), "dcap.tcb-info"),
    "of another version": (SGX_COLLATERAL.with_tcb_info(change("version", 4)), "dcap.tcb-info"),
    "of another CPU": (SGX_COLLATERAL.with_tcb_info(change("fmspc", "000000000000")), "dcap.tcb-info"),
    "of another PCE": (SGX_COLLATERAL.with_tcb_info(change("pceId", "0001")), "dcap.tcb-info"),
    "TCB Info of tomorrow": (SGX_COLLATERAL.with_tcb_info(change("issueDate", LATE)), "dcap.tcb-info"),
    "TCB Info of yesterday": (SGX_COLLATERAL.with_tcb_info(change("nextUpdate", EARLY)), "dcap.tcb-info"),
    "QE Identity of TDX": (SGX_COLLATERAL.with_qe_identity(change("id", "TD_QE")), "dcap.qe-identity"),
    "QE Identity of another version": (
        SGX_COLLATERAL.with_qe_identity(change("version", 3)),
        "dcap.qe-identity",
    ),
    "QE Identity of tomorrow": (
        SGX_COLLATERAL.with_qe_identity(change("issueDate", LATE)),
        "dcap.qe-identity",
    ),
    "QE Identity of yesterday": (
        SGX_COLLATERAL.with_qe_identity(change("nextUpdate", EARLY)),
        "dcap.qe-identity",
    ),
    "TCB Info that somebody else signed": (SGX_COLLATERAL.but(tcb_info_key=EVIL), "dcap.tcb-signer"),
    "QE Identity that somebody else signed": (SGX_COLLATERAL.but(qe_identity_key=EVIL), "dcap.tcb-signer"),
    "a signer of another root": (
        SGX_COLLATERAL.but(signer=TCB_SIGNER.but(issuer=ROOT.but(key=EVIL)), root=ROOT.but(key=EVIL)),
        "dcap.tcb-signer",
    ),
    "a signer that the root did not sign": (
        SGX_COLLATERAL.but(signer=TCB_SIGNER.but(signing_key=EVIL)),
        "dcap.chain",
    ),
    "an expired signer": (SGX_COLLATERAL.but(signer=TCB_SIGNER.but(not_after=NOW - DAY)), "dcap.validity"),
    "a revoked signer": (
        SGX_COLLATERAL.but(root_crl=der(crl(ROOT, revoked=[TCB_SIGNER.serial]))),
        "dcap.revoked",
    ),
    "a revoked PCK CA": (
        SGX_COLLATERAL.but(root_crl=der(crl(ROOT, revoked=[PCK_CA.serial]))),
        "dcap.revoked",
    ),
    "a revoked CPU": (SGX_COLLATERAL.but(pck_crl=der(crl(PCK_CA, revoked=[PCK_SERIAL]))), "dcap.revoked"),
    "an expired root CRL": (
        SGX_COLLATERAL.but(root_crl=der(crl(ROOT, last_update=NOW - 3 * DAY, next_update=NOW - DAY))),
        "dcap.crl",
    ),
    "an expired PCK CRL": (
        SGX_COLLATERAL.but(pck_crl=der(crl(PCK_CA, last_update=NOW - 3 * DAY, next_update=NOW - DAY))),
        "dcap.crl",
    ),
    "a forged PCK CRL": (SGX_COLLATERAL.but(pck_crl=der(crl(PCK_CA, key=EVIL))), "dcap.crl"),
    "the root's CRL twice": (SGX_COLLATERAL.but(pck_crl=der(crl(ROOT))), "dcap.crl"),
    "a CRL that is none": (SGX_COLLATERAL.but(root_crl=b"0"), "dcap.endorsements"),
    "another QE": (SGX_COLLATERAL.with_qe_identity(change("mrsigner", "00" * 32)), "dcap.qe"),
    "a mask that is not hexadecimal": (
        SGX_COLLATERAL.with_qe_identity(change("miscselectMask", "no")),
        "dcap.qe",
    ),
    "a mask that is too short": (SGX_COLLATERAL.with_qe_identity(change("miscselectMask", "FF")), "dcap.qe"),
    "a TCB level with 15 components": (
        SGX_COLLATERAL.with_tcb_info(lambda i: i["tcbLevels"][0]["tcb"]["sgxtcbcomponents"].pop()),
        "dcap.second-opinion",
    ),
    "no TCB level": (SGX_COLLATERAL.with_tcb_info(change("tcbLevels", [])), "dcap.tcb-level"),
}


@pytest.mark.parametrize("case", REFUSED_COLLATERAL)
def test_refused_collateral(case: str) -> None:
    collateral, expected = REFUSED_COLLATERAL[case]
    assert check(SGX, collateral) == expected


def test_tdx_collateral_without_modules() -> None:
    assert check(TDX4, TDX_COLLATERAL.with_tcb_info(change("tdxModuleIdentities", []))) == "tdx.module"
    old = TDX4.but(body=td_body(tee_tcb_svn=bytes(16)))
    assert check(old, TDX_COLLATERAL.with_tcb_info(lambda i: i.pop("tdxModule"))) == "tdx.module"


@pytest.mark.parametrize(
    ("levels", "qe_svn", "status", "advisories"),
    [
        (["UpToDate"], 8, "UpToDate", ()),
        (["SWHardeningNeeded"], 8, "SWHardeningNeeded", ()),
        (["ConfigurationNeeded"], 8, "ConfigurationNeeded", ()),
        (["ConfigurationAndSWHardeningNeeded"], 8, "ConfigurationAndSWHardeningNeeded", ()),
        (["UpToDate"], 7, "OutOfDate", ("INTEL-SA-00002",)),
        (["SWHardeningNeeded"], 7, "OutOfDate", ("INTEL-SA-00002",)),
        (["ConfigurationNeeded"], 7, "OutOfDateConfigurationNeeded", ("INTEL-SA-00002",)),
        (["OutOfDate"], 7, "OutOfDate", ("INTEL-SA-00002",)),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_statuses(
    levels: list[str], qe_svn: int, status: str, advisories: tuple[str, ...], debug: bool
) -> None:
    """``debug`` leaves dcap-qvl out, so both implementations are seen to say the same."""
    body = sgx_body(attributes=bytes((7 if debug else 5,)) + bytes(7))
    claims = run(
        SGX.but(body=body, qe_changes={"isv_svn": qe_svn.to_bytes(2, "little")}),
        SGX_COLLATERAL.with_tcb_info(change("tcbLevels", [tcb_level(levels[0], 5)])),
    )
    assert claims.tcb_status == status
    assert claims.advisories == advisories


def test_out_of_date_cpu() -> None:
    claims = run(SGX.but(pck=Cpu(components=(4,) * 16).pck()), SGX_COLLATERAL)
    assert claims.tcb_status is TcbStatus.OUT_OF_DATE
    assert claims.advisories == ("INTEL-SA-00001",)


def test_out_of_date_tdx_module() -> None:
    claims = run(TDX4.but(body=td_body(tee_tcb_svn=bytes((4, 1, 3)) + bytes(13))), TDX_COLLATERAL)
    assert claims.tcb_status is TcbStatus.OUT_OF_DATE


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("where", ["platform", "qe"])
def test_revoked_is_refused(where: str, debug: bool) -> None:
    if where == "platform":
        collateral = SGX_COLLATERAL.with_tcb_info(change("tcbLevels", [tcb_level("Revoked", 5)]))
    else:
        collateral = SGX_COLLATERAL.with_qe_identity(change("tcbLevels", [isv_level("Revoked", 8)]))
    body = sgx_body(attributes=bytes((7 if debug else 5,)) + bytes(7))
    assert check(SGX.but(body=body), collateral) == "dcap.tcb-revoked"


# What TCB Info can say of a platform that is not revoked; a relaunch is only ever computed.
STATUSES = (
    TcbStatus.UP_TO_DATE,
    TcbStatus.SW_HARDENING_NEEDED,
    TcbStatus.CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
    TcbStatus.OUT_OF_DATE,
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
)


@pytest.mark.parametrize("module_svn", [6, 5], ids=["new module", "old module"])
@pytest.mark.parametrize("qe_svn", [8, 7], ids=["new QE", "old QE"])
@pytest.mark.parametrize("platform", STATUSES)
def test_both_implementations_combine_statuses_alike(
    platform: TcbStatus, qe_svn: int, module_svn: int
) -> None:
    """Were they to differ, the quote would be refused; the debug quote leaves dcap-qvl out."""
    collateral = TDX_COLLATERAL.with_tcb_info(change("tcbLevels", [tcb_level(platform, 5)]))
    svn = bytes((module_svn, 1, 3)) + bytes(13)
    qe = {"isv_svn": qe_svn.to_bytes(2, "little")}
    debug = td_body(tee_tcb_svn=svn, td_attributes=(1 << 28 | 1).to_bytes(8, "little"))
    ours = run(TDX4.but(body=debug, qe_changes=qe), collateral).tcb_status
    for quote in (
        TDX4.but(body=td_body(tee_tcb_svn=svn), qe_changes=qe),
        TDX5.but(body=td_body(td15=True, tee_tcb_svn=svn, tee_tcb_svn_2=svn), qe_changes=qe),
    ):
        assert run(quote, collateral).tcb_status is ours


def test_relaunch_advised_is_dcap_qvls_word() -> None:
    """The platform was launched with an old module, and runs a current one."""
    body = td_body(td15=True, tee_tcb_svn=bytes((4, 1, 3)) + bytes(13))
    claims = run(TDX5.but(body=body), TDX_COLLATERAL)
    assert claims.tcb_status is TcbStatus.TD_RELAUNCH_ADVISED


def test_the_second_opinion_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Report:
        status = "SWHardeningNeeded"
        advisory_ids = ("INTEL-SA-00003",)

    monkeypatch.setattr("dcap_qvl.verify_with_root_ca", lambda *_: Report())
    assert check(SGX, SGX_COLLATERAL) == "dcap.second-opinion"
    monkeypatch.setattr(Report, "status", "UpToDate")
    assert run(SGX, SGX_COLLATERAL).advisories == ("INTEL-SA-00003",)
    monkeypatch.setattr(Report, "status", "Unheard")
    assert check(SGX, SGX_COLLATERAL) == "dcap.second-opinion"


def test_of_the_other_kind() -> None:
    endorsements = dcap.DcapEndorsements(dcap_collateral.parse(SGX_COLLATERAL.encode()))
    with pytest.raises(CheckError) as caught:
        sgx.verify(TDX4.encode(), endorsements, now=NOW, roots=intel.roots())
    assert caught.value.check == "sgx.tee"
    with pytest.raises(CheckError) as caught:
        tdx.verify(SGX.encode(), endorsements, now=NOW, roots=intel.roots())
    assert caught.value.check == "tdx.tee"


def test_our_roots_are_not_intels() -> None:
    endorsements = dcap.DcapEndorsements(dcap_collateral.parse(SGX_COLLATERAL.encode()))
    with pytest.raises(EndorsementError) as caught:
        sgx.verify(SGX.encode(), endorsements, now=NOW)
    assert caught.value.check == "dcap.root"


def test_endorsements_of_a_bundle() -> None:
    collateral = SGX_COLLATERAL.encode()
    parsed = dcap.parse_endorsements([(DCAP_COLLATERAL, collateral), (JSON_EVENT_LOG, b"[]")])
    assert parsed.collateral.tcb_info.fmspc == intel.FMSPC.hex().upper()
    assert parsed.event_log is not None
    for items in (
        [],
        [(DCAP_COLLATERAL, collateral)] * 2,
        [(DCAP_COLLATERAL, collateral), (JSON_EVENT_LOG, b"[]"), (JSON_EVENT_LOG, b"[]")],
        [(DCAP_COLLATERAL, collateral), ("text/plain", b"")],
        [(DCAP_COLLATERAL, b"{}")],
        [(DCAP_COLLATERAL, b"\xff")],
        [(DCAP_COLLATERAL, b" " * 2**21)],
        [(DCAP_COLLATERAL, b'{"x":' * 100_000)],
    ):
        with pytest.raises(EndorsementError) as caught:
            dcap.parse_endorsements(items)
        assert caught.value.check == "dcap.collateral"
    with pytest.raises(EvidenceFormatError):
        dcap.parse_endorsements([(EVENT_LOG, b"")])


SHA384 = 0x0C


def test_an_event_log_must_replay() -> None:
    log = event_log.parse_ccel(boot.header((SHA384,)) + boot.event(3, 1, b"kernel", (SHA384,)))
    quote = TDX4.but(body=td_body(rtmr2=boot.extended(b"kernel", bank="sha384")))
    claims = run(quote, TDX_COLLATERAL, log=log)
    assert isinstance(claims.details, TdxClaims)
    assert [(e.register, e.data) for e in claims.details.events] == [(2, b"kernel")]
    with pytest.raises(CheckError, match="RTMR2") as caught:
        run(TDX4, TDX_COLLATERAL, log=log)
    assert caught.value.check == "tdx.event-log"

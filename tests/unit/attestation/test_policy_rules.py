"""Matchers, rules and reference values: what they accept, and that none of them accepts by being empty."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from confonnx.attestation.claims import (
    AzureClaims,
    Claims,
    Details,
    Pcr,
    SevSnpClaims,
    SnpTcb,
    TcbStatus,
    TdxClaims,
    Tee,
)
from confonnx.attestation.policy import (
    ANY,
    AllOf,
    AnyOf,
    AtLeast,
    AtLeastEach,
    DangerousAnyModel,
    DcapTcb,
    DebugRule,
    Kind,
    Masked,
    Matcher,
    OneOf,
    OneOfNumbers,
    OneOfTexts,
    Policy,
    ReferenceValues,
    fields_of,
    has_dcap_tcb,
    reference_values,
)
from confonnx.attestation.policy.matchers import Value
from confonnx.errors import ConfigurationError
from tests.support.hardware_claims import NITRO, PCRS, SGX, SNP, TCB_DATE, TDX, TPM, claims

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("matcher", "accepted", "refused"),
    [
        (ANY, [b"", b"x", 0, 5], []),
        (OneOf((b"ab", b"cd")), [b"ab", b"cd"], [b"", b"a", b"abc", b"AB", 0]),
        (OneOfNumbers((0, 3)), [0, 3], [1, b"\x03"]),
        (OneOfTexts(("a", "b")), ["a", "b"], ["", "A", "ab", b"a", 0]),
        (AtLeast(3), [3, 4, 2**70], [2, 0, b"\xff"]),
        (
            AtLeastEach(b"\x02\x03"),
            [b"\x02\x03", b"\xff\x03"],
            [b"\x01\xff", b"\xff\x02", b"\x05", b"\x05\x05\x05", 9],
        ),
        (Masked(mask=0b110, value=0b010), [0b010, 0b011, 0b1010], [0, 0b110, 0b100, b"\x02"]),
    ],
)
def test_matchers(matcher: Matcher, accepted: list[Value], refused: list[Value]) -> None:
    assert [value for value in accepted if not matcher.accepts(value)] == []
    assert [value for value in refused if matcher.accepts(value)] == []
    assert str(matcher)


@pytest.mark.parametrize(
    "make",
    [
        lambda: OneOf(()),
        lambda: OneOf((b"a", b"bc")),
        lambda: OneOf((b"a",) * 1025),
        lambda: OneOfNumbers(()),
        lambda: OneOfNumbers((-1,)),
        lambda: OneOfTexts(()),
        lambda: OneOfTexts(("a", "")),
        lambda: AtLeast(-1),
        lambda: AtLeastEach(b""),
        lambda: Masked(mask=0, value=0),
        lambda: Masked(mask=1, value=2),
        lambda: Masked(mask=1, value=-1),
        lambda: AllOf(()),
        lambda: AnyOf(()),
    ],
)
def test_nothing_is_empty_or_meaningless(make: object) -> None:
    with pytest.raises(ConfigurationError):
        make()  # type: ignore[operator]


def test_zero_digests_are_said_in_words() -> None:
    assert str(OneOf((bytes(48), b"\x01" * 48))) == f"48 zero bytes or {'01' * 48}"


def test_all_of_collects_and_any_of_needs_one() -> None:
    refuses, accepts = DebugRule(allowed=False), DebugRule(allowed=True)
    debug = claims(Tee.SGX, debug=True)
    assert AllOf((accepts, accepts)).check(debug, now=NOW) == ()
    assert len(AllOf((refuses, accepts, refuses)).check(debug, now=NOW)) == 2
    assert AnyOf((refuses, accepts)).check(debug, now=NOW) == ()
    assert len(AnyOf((refuses, refuses)).check(debug, now=NOW)) == 1  # the same reason is given once


# What identifies the code of each TEE in these tests.
_STATED: dict[Tee, dict[str, Matcher]] = {
    Tee.SGX: {
        "mrenclave": OneOf((SGX.mrenclave,)),
        "mrsigner": OneOf((SGX.mrsigner,)),
        "isv_prod_id": OneOfNumbers((3,)),
        "min_isv_svn": AtLeast(5),
        "isv_family_id": OneOf((bytes(16),)),
        "isv_ext_prod_id": OneOf((bytes(16),)),
    },
    Tee.TDX: {
        "measurement": OneOf((b"t" * 48,)),
        "mrtd": OneOf((TDX.mrtd,)),
        **{f"rtmr{index}": OneOf((TDX.rtmrs[index],)) for index in range(4)},
        "mr_seam": OneOf((TDX.mr_seam,)),
        "min_tee_tcb_svn": AtLeastEach(TDX.tee_tcb_svn),
    },
    Tee.SEV_SNP: {
        "measurement": OneOf((SNP.measurement,)),
        "id_key_digest": OneOf((SNP.id_key_digest,)),
        "author_key_digest": OneOf((SNP.author_key_digest,)),
        "min_guest_svn": AtLeast(4),
        "family_id": OneOf((bytes(16),)),
        "image_id": OneOf((bytes(16),)),
        "platform_info": Masked(mask=2, value=2),
        "chip_id": OneOf((SNP.chip_id, b"y" * 64)),
        "signing_key": OneOfTexts(("VCEK",)),
        "min_boot_loader": AtLeast(3),
        "min_tee": AtLeast(0),
        "min_snp": AtLeast(20),
        "min_microcode": AtLeast(219),
    },
    Tee.AZURE_SNP: {
        "measurement": OneOf((b"p" * 32,)),
        "pcr4": OneOf((PCRS[4].value,)),
        "launch_measurement": OneOf((SNP.measurement,)),
        "id_key_digest": OneOf((SNP.id_key_digest,)),
    },
    Tee.AZURE_TDX: {"pcr7": OneOf((PCRS[7].value,)), "launch_measurement": OneOf((TDX.mrtd,))},
    Tee.NITRO: {f"pcr{pcr.index}": OneOf((pcr.value,)) for pcr in NITRO.pcrs},
    Tee.TPM: {"pcr0": OneOf((PCRS[0].value,)), "root": OneOf((TPM.root,))},
    Tee.SIMULATED: {"measurement": OneOf((b"c" * 32,)), "signer": OneOf((b"s" * 32,))},
}


def _each(tee: Tee, good: Any, changes: dict[str, dict[str, Any]]) -> list[tuple[Tee, str, Claims]]:
    return [(tee, code, claims(tee, replace(good, **change))) for code, change in changes.items()]


def _azure(tee: Tee, hardware: SevSnpClaims | TdxClaims) -> Claims:
    return claims(tee, AzureClaims(hardware, PCRS, (), None, None, bytes(64), 1))


_EXCHANGED: list[tuple[Tee, str, Claims]] = [
    *_each(
        Tee.SGX,
        SGX,
        {
            "policy.code.mrenclave": {"mrenclave": b"x" * 32},
            "policy.code.mrsigner": {"mrsigner": b"x" * 32},
            "policy.platform.isv-prod-id": {"isv_prod_id": 4},
            "policy.platform.isv-svn": {"isv_svn": 4},
            "policy.platform.attributes": {"attributes": 0x15},
            "policy.platform.xfrm": {"xfrm": 0x1},
            "policy.platform.misc-select": {"misc_select": 2},
            "policy.platform.config-id": {"config_id": b"x" * 64},
            "policy.platform.isv-family-id": {"isv_family_id": b"x" * 16},
            "policy.platform.isv-ext-prod-id": {"isv_ext_prod_id": b"x" * 16},
        },
    ),
    (Tee.TDX, "policy.code.measurement", claims(Tee.TDX, measurement=b"x" * 48)),
    *_each(
        Tee.TDX,
        TDX,
        {
            "policy.code.mrtd": {"mrtd": b"x" * 48},
            "policy.code.rtmr0": {"rtmrs": (b"x" * 48, *TDX.rtmrs[1:])},
            "policy.code.rtmr3": {"rtmrs": (*TDX.rtmrs[:3], b"x" * 48)},
            "policy.platform.td-attributes": {"td_attributes": 0},
            "policy.platform.xfam": {"xfam": 0},
            "policy.platform.mr-config-id": {"mr_config_id": b"x" * 48},
            "policy.platform.mr-owner": {"mr_owner": b"x" * 48},
            "policy.platform.mr-owner-config": {"mr_owner_config": b"x" * 48},
            "policy.platform.mr-seam": {"mr_seam": b"x" * 48},
            "policy.platform.mr-signer-seam": {"mr_signer_seam": b"x" * 48},
            "policy.platform.tee-tcb-svn": {"tee_tcb_svn": bytes(16)},
        },
    ),
    *_each(
        Tee.SEV_SNP,
        SNP,
        {
            "policy.code.measurement": {"measurement": b"x" * 48},
            "policy.code.id-key-digest": {"id_key_digest": bytes(48)},
            "policy.code.author-key-digest": {"author_key_digest": b"x" * 48},
            "policy.platform.guest-svn": {"guest_svn": 3},
            "policy.platform.family-id": {"family_id": b"x" * 16},
            "policy.platform.image-id": {"image_id": b"x" * 16},
            "policy.platform.host-data": {"host_data": b"x" * 32},
            "policy.platform.vmpl": {"vmpl": 1},
            "policy.platform.policy": {"policy": 0x70000},
            "policy.platform.platform-info": {"platform_info": 1},
            "policy.platform.chip-id": {"chip_id": b"x" * 64},
            "policy.platform.signing-key": {"signing_key": "VLEK"},
            "policy.platform.boot-loader": {"reported_tcb": SnpTcb(2, 0, 20, 219)},
            "policy.platform.snp": {"reported_tcb": SnpTcb(3, 0, 19, 219)},
            "policy.platform.microcode": {"reported_tcb": SnpTcb(3, 0, 20, 218)},
        },
    ),
    (Tee.AZURE_SNP, "policy.code.measurement", claims(Tee.AZURE_SNP, measurement=b"x" * 32)),
    (
        Tee.AZURE_SNP,
        "policy.code.launch-measurement",
        _azure(Tee.AZURE_SNP, replace(SNP, measurement=b"x" * 48)),
    ),
    (Tee.AZURE_TDX, "policy.code.launch-measurement", _azure(Tee.AZURE_TDX, replace(TDX, mrtd=b"x" * 48))),
    (Tee.NITRO, "policy.code.pcr8", claims(Tee.NITRO, replace(NITRO, pcrs=NITRO.pcrs[:-1]))),
    (
        Tee.NITRO,
        "policy.platform.pcr2",
        claims(Tee.NITRO, replace(NITRO, pcrs=NITRO.pcrs[:2] + NITRO.pcrs[3:])),
    ),
    (Tee.TPM, "policy.platform.root", claims(Tee.TPM, replace(TPM, root=b"x" * 32))),
    (Tee.TPM, "policy.code.pcr0", claims(Tee.TPM, replace(TPM, pcrs=(Pcr("sha1", 0, PCRS[0].value),)))),
    (Tee.SIMULATED, "policy.code.signer", claims(Tee.SIMULATED, signer=None)),
]


@pytest.mark.parametrize("tee", Tee)
def test_matching_claims_are_accepted(tee: Tee) -> None:
    assert reference_values(tee, _STATED[tee]).check(claims(tee), now=NOW) == ()


@pytest.mark.parametrize("index", range(len(_EXCHANGED)), ids=lambda index: "-".join(_EXCHANGED[index][:2]))
def test_one_exchanged_field_is_noticed_by_its_check(index: int) -> None:
    tee, code, changed = _EXCHANGED[index]
    failures = reference_values(tee, _STATED[tee]).check(changed, now=NOW)
    assert [failure.code for failure in failures] == [code]
    assert "expected" in failures[0].text
    assert "found" in failures[0].text


@pytest.mark.parametrize("tee", Tee)
def test_debug_mode_is_refused_for_every_tee(tee: Tee) -> None:
    refused = reference_values(tee, _STATED[tee]).check(claims(tee, debug=True), now=NOW)
    assert [failure.code for failure in refused] == ["policy.debug"]
    assert reference_values(tee, _STATED[tee], allow_debug=True).check(claims(tee, debug=True), now=NOW) == ()


def test_claims_of_another_tee_are_refused() -> None:
    failures = reference_values(Tee.SGX, _STATED[Tee.SGX]).check(claims(Tee.SIMULATED), now=NOW)
    assert [failure.code for failure in failures] == ["policy.tee"]


@pytest.mark.parametrize("tee", Tee)
def test_every_field_reads_from_its_own_claims_and_from_no_others(tee: Tee) -> None:
    turin = replace(SNP, reported_tcb=SnpTcb(3, 0, 20, 219, fmc=1), csp_id="CN=cloud")
    turin_details: dict[Tee, Details] = {
        Tee.SEV_SNP: turin,
        Tee.AZURE_SNP: _azure(Tee.AZURE_SNP, turin).details,
    }
    full = turin_details.get(tee)
    own = claims(tee, full)
    other = claims(
        Tee.SIMULATED if tee is not Tee.SIMULATED else Tee.SGX,
        signer=None,
        product_id=None,
        security_version=None,
    )
    for field in fields_of(tee):
        found = field.read(own)
        pcr = field.key.removeprefix("pcr")
        if not (pcr.isdigit() and int(pcr) > 8):
            of_bytes = field.kind in (Kind.DIGESTS, Kind.MINIMUM_EACH)
            assert isinstance(found, bytes if of_bytes else str if field.kind is Kind.TEXTS else int)
        if isinstance(found, bytes):
            assert len(found) == field.size
        if field.key != "measurement":
            assert field.read(other) is None


def test_the_cloud_of_a_vlek_is_refused_where_it_is_another_or_missing() -> None:
    values = _STATED[Tee.SEV_SNP] | {"signing_key": ANY, "csp_id": OneOfTexts(("CN=cloud",))}
    server = reference_values(Tee.SEV_SNP, values)
    for csp_id, codes in (
        ("CN=cloud", []),
        ("CN=other", ["policy.platform.csp-id"]),
        (None, ["policy.platform.csp-id"]),
    ):
        found = replace(SNP, signing_key="VLEK", csp_id=csp_id)
        failures = server.check(claims(Tee.SEV_SNP, found), now=NOW)
        assert [failure.code for failure in failures] == codes


def test_registers_that_aws_has_not_assigned_can_be_stated() -> None:
    server = reference_values(Tee.NITRO, {"pcr0": OneOf((NITRO.pcrs[0].value,)), "pcr5": OneOf((bytes(48),))})
    pcrs = tuple(pcr for pcr in NITRO.pcrs if pcr.index != 5)
    for value, codes in ((bytes(48), []), (b"x" * 48, ["policy.platform.pcr5"])):
        found = replace(NITRO, pcrs=(*pcrs, Pcr("sha384", 5, value)))
        assert [failure.code for failure in server.check(claims(Tee.NITRO, found), now=NOW)] == codes


@pytest.mark.parametrize(
    ("tee", "good", "change"),
    [
        (Tee.SEV_SNP, SNP, {"vmpl": 1}),
        (Tee.SEV_SNP, SNP, {"host_data": b"h" * 32}),
        (Tee.SGX, SGX, {"attributes": 0x15}),
        (Tee.SGX, SGX, {"config_id": b"c" * 64}),
        (Tee.TDX, TDX, {"mr_owner": b"o" * 48}),
        (Tee.TDX, TDX, {"xfam": 1}),
    ],
)
def test_a_default_that_refuses_says_which_line_accepts(tee: Tee, good: Any, change: dict[str, Any]) -> None:
    changed = claims(tee, replace(good, **change))
    (whole, matcher), *_ = _STATED[tee].items()
    accepted = (reference_values(tee, {whole: matcher}),)
    policy = Policy(accepted=accepted, models=DangerousAnyModel(), deployments=ANY)
    (failure,) = policy.check_claims(changed, now=NOW)
    line = failure.text.split("state ")[1].split(" in [[server]]")[0]
    assert line.startswith(f"{next(iter(change))} = ")
    text = policy.to_toml().replace("[[server]]\n", f"[[server]]\n{line}\n")
    assert Policy.from_toml(text).check_claims(changed, now=NOW) == ()


def test_a_minimum_for_a_component_that_is_not_there_refuses() -> None:
    values = _STATED[Tee.SEV_SNP] | {"min_fmc": AtLeast(1)}
    failures = reference_values(Tee.SEV_SNP, values).check(claims(Tee.SEV_SNP), now=NOW)
    assert [(failure.code, failure.text) for failure in failures] == [
        ("policy.platform.fmc", "TCB FMC: expected 1 or more, found none")
    ]


_RTMRS: dict[str, Matcher] = {f"rtmr{index}": OneOf((b"r" * 48,)) for index in range(4)}


@pytest.mark.parametrize(
    ("tee", "values", "reason"),
    [
        (Tee.SGX, {}, "nothing says which code may run; state at least one of mrenclave, mrsigner"),
        (
            Tee.SGX,
            {"mrenclave": ANY, "mrsigner": ANY, "isv_prod_id": ANY, "min_isv_svn": ANY},
            "nothing says",
        ),
        (Tee.SGX, {"mrsigner": OneOf((b"s" * 32,))}, r"isv_prod_id \(ISVPRODID\) is not stated"),
        (
            Tee.SGX,
            {"mrsigner": OneOf((b"s" * 32,)), "isv_prod_id": ANY},
            "min_isv_svn .* is not stated",
        ),
        (Tee.TDX, {"mrtd": OneOf((b"s" * 48,))}, "nothing says which code"),
        (Tee.TDX, {"mrtd": OneOf((b"s" * 48,)), "rtmr1": OneOf((b"s" * 48,))}, "rtmr0 .* is not stated"),
        (Tee.TDX, _RTMRS, "mrtd .* must be restricted"),
        (Tee.TDX, {"mrtd": ANY, **_RTMRS}, "mrtd .* must be restricted"),
        (Tee.TDX, {"mrtd": OneOf((bytes(48),)), **_RTMRS}, "mrtd .* must be restricted"),
        (Tee.AZURE_SNP, {"pcr4": OneOf((b"p" * 32,))}, "launch_measurement .* must be restricted"),
        (Tee.AZURE_SNP, {"launch_measurement": OneOf((b"p" * 48,))}, "nothing says which code"),
        (Tee.AZURE_TDX, {"pcr4": OneOf((b"p" * 32,)), "launch_measurement": ANY}, "must be restricted"),
        (Tee.TDX, {"rtmr3": OneOf((bytes(48),))}, "nothing says which code"),
        (
            Tee.SEV_SNP,
            {"id_key_digest": OneOf((bytes(48),)), "author_key_digest": ANY},
            "nothing says which code",
        ),
        (
            Tee.SEV_SNP,
            {"id_key_digest": OneOf((b"k" * 48, bytes(48))), "author_key_digest": ANY},
            "nothing says",
        ),
        (Tee.SEV_SNP, {"id_key_digest": OneOf((b"k" * 48,)), "author_key_digest": ANY}, "min_guest_svn"),
        (Tee.TPM, {"pcr0": OneOf((b"p" * 32,))}, "root .* must be restricted"),
        (Tee.TPM, {"pcr0": OneOf((b"p" * 32,)), "root": ANY}, "root .* must be restricted"),
        (Tee.SGX, {"mrenclav": OneOf((b"e" * 32,))}, "unknown key 'mrenclav'; did you mean mrenclave"),
        (Tee.SGX, {"zzz": ANY}, "unknown key 'zzz'; known are mrenclave, mrsigner"),
        (Tee.SGX, {"mrenclave": OneOf((b"e" * 48,))}, "takes a list of hex strings of 32 bytes"),
        (Tee.SGX, {"mrenclave": AtLeast(3)}, "takes a list of hex strings of 32 bytes, found 3 or more"),
        (Tee.SGX, {"mrenclave": OneOf((b"e" * 32,)), "min_isv_svn": OneOfNumbers((3,))}, "takes an integer"),
        (
            Tee.SGX,
            {"mrenclave": OneOf((b"e" * 32,)), "attributes": AtLeast(3)},
            "takes a table of mask and value",
        ),
        (Tee.SGX, {"mrenclave": OneOf((b"e" * 32,)), "isv_prod_id": AtLeast(3)}, "takes a list of integers"),
        (
            Tee.TDX,
            {"measurement": OneOf((b"e" * 48,)), "min_tee_tcb_svn": AtLeastEach(b"1")},
            "a hex string of 16",
        ),
    ],
)
def test_reference_values_that_would_accept_too_much_or_nothing(
    tee: Tee, values: dict[str, Matcher], reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        reference_values(tee, values)


def test_reference_values_name_each_field_once_and_intels_tcb_only_for_intel() -> None:
    mrenclave = ("mrenclave", OneOf((b"e" * 32,)))
    with pytest.raises(ConfigurationError, match="stated twice"):
        ReferenceValues(Tee.SGX, (mrenclave, mrenclave), tcb=DcapTcb())
    with pytest.raises(ConfigurationError, match="TCB statuses are missing"):
        ReferenceValues(Tee.SGX, (mrenclave,))
    with pytest.raises(ConfigurationError, match="this TEE has none"):
        ReferenceValues(Tee.NITRO, (("pcr0", OneOf((b"e" * 48,))),), tcb=DcapTcb())
    assert {tee for tee in Tee if has_dcap_tcb(tee)} == {Tee.SGX, Tee.TDX, Tee.AZURE_TDX}


@pytest.mark.parametrize("tee", [Tee.SGX, Tee.TDX, Tee.AZURE_TDX])
@pytest.mark.parametrize("status", [status for status in TcbStatus if status not in DcapTcb().statuses])
def test_a_tcb_status_that_is_not_named_is_refused(tee: Tee, status: TcbStatus) -> None:
    (failure,) = reference_values(tee, _STATED[tee]).check(claims(tee, tcb_status=status), now=NOW)
    assert failure.code == "policy.tcb.status"
    assert f"expected UpToDate or SWHardeningNeeded, found {status}" in failure.text


def test_a_grace_period_ends() -> None:
    tcb = DcapTcb(grace_statuses=(TcbStatus.OUT_OF_DATE,), grace=timedelta(days=30))
    old = claims(Tee.SGX, tcb_status=TcbStatus.OUT_OF_DATE)
    end = TCB_DATE + timedelta(days=30)
    assert tcb.check(old, now=end) == ()
    (failure,) = tcb.check(old, now=end + timedelta(seconds=1))
    assert failure.text.endswith("found OutOfDate, whose grace period ended 2026-05-31")
    (other,) = tcb.check(claims(Tee.SGX, tcb_status=TcbStatus.CONFIGURATION_NEEDED), now=end)
    assert other.code == "policy.tcb.status"


def test_refused_advisories_and_old_collateral() -> None:
    tcb = DcapTcb(refused_advisories=("INTEL-SA-2", "INTEL-SA-1"), min_tcb_evaluation_data_number=21)
    failures = tcb.check(claims(Tee.TDX, advisories=("INTEL-SA-1", "INTEL-SA-3")), now=NOW)
    assert [failure.code for failure in failures] == ["policy.tcb.advisories", "policy.tcb.evaluation"]
    assert "INTEL-SA-1," in failures[0].text
    assert "expected 21 or more, found 20" in failures[1].text
    assert DcapTcb(min_tcb_evaluation_data_number=20).check(claims(Tee.TDX), now=NOW) == ()


def test_claims_without_collateral_have_no_status_to_accept() -> None:
    (failure,) = DcapTcb().check(claims(Tee.NITRO), now=NOW)
    assert failure.code == "policy.tcb.status"


@pytest.mark.parametrize(
    "wrong",
    [
        {"statuses": ()},
        {"statuses": (TcbStatus.REVOKED,)},
        {"statuses": (TcbStatus.NOT_APPLICABLE,)},
        {"grace_statuses": (TcbStatus.REVOKED,), "grace": timedelta(days=1)},
        {"grace_statuses": (TcbStatus.OUT_OF_DATE,)},
        {"grace": timedelta(days=1)},
    ],
)
def test_tcb_rules_that_mean_nothing_or_accept_revoked_platforms(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        DcapTcb(**wrong)  # type: ignore[arg-type]

"""Claims of every TEE, as a verifier would make them, for tests of the policy alone."""

from __future__ import annotations

from datetime import UTC, datetime

from confonnx.attestation.claims import (
    AzureClaims,
    Claims,
    DcapPlatform,
    Details,
    NitroClaims,
    Pcr,
    SevSnpClaims,
    SgxClaims,
    SimulatedClaims,
    SnpTcb,
    TcbStatus,
    TdxClaims,
    Tee,
    TpmClaims,
)

TCB_DATE = datetime(2026, 5, 1, tzinfo=UTC)

PLATFORM = DcapPlatform(
    fmspc=bytes(6),
    tcb_date=TCB_DATE,
    tcb_evaluation_data_number=20,
    collateral_issued_at=datetime(2026, 11, 1, tzinfo=UTC),
    pce_svn=13,
    cpu_svn=bytes(16),
    qe_status=TcbStatus.UP_TO_DATE,
    platform_status=TcbStatus.UP_TO_DATE,
)
SGX = SgxClaims(
    mrenclave=b"e" * 32,
    mrsigner=b"s" * 32,
    isv_prod_id=3,
    isv_svn=5,
    attributes=0x5,
    xfrm=0xE7,
    misc_select=1,
    cpu_svn=bytes(16),
    config_id=bytes(64),
    config_svn=0,
    isv_family_id=bytes(16),
    isv_ext_prod_id=bytes(16),
    platform=PLATFORM,
)
TDX = TdxClaims(
    mrtd=b"m" * 48,
    rtmrs=(b"0" * 48, b"1" * 48, b"2" * 48, bytes(48)),
    td_attributes=1 << 28,
    xfam=0xE7,
    mr_config_id=bytes(48),
    mr_owner=bytes(48),
    mr_owner_config=bytes(48),
    mr_seam=b"a" * 48,
    mr_signer_seam=bytes(48),
    seam_attributes=0,
    tee_tcb_svn=bytes([5, 1, 2] + [0] * 13),
    tee_tcb_svn_2=None,
    mr_service_td=None,
    events=(),
    platform=PLATFORM,
)
_TCB = SnpTcb(boot_loader=3, tee=0, snp=20, microcode=219)
SNP = SevSnpClaims(
    version=3,
    product="Milan",
    measurement=b"m" * 48,
    host_data=bytes(32),
    id_key_digest=b"i" * 48,
    author_key_digest=bytes(48),
    family_id=bytes(16),
    image_id=bytes(16),
    guest_svn=4,
    vmpl=0,
    policy=0x30000,
    platform_info=3,
    current_tcb=_TCB,
    reported_tcb=_TCB,
    committed_tcb=_TCB,
    launch_tcb=_TCB,
    report_id=bytes(32),
    chip_id=bytes(64),
    signing_key="VCEK",
    csp_id=None,
)
PCRS = tuple(Pcr("sha256", index, bytes([index + 1]) * 32) for index in range(9))
NITRO = NitroClaims(
    module_id="i-1",
    issued_at=datetime(2026, 11, 24, tzinfo=UTC),
    pcrs=tuple(Pcr("sha384", index, bytes([index + 1]) * 48) for index in range(9)),
    user_data=None,
    nonce=None,
    public_key=None,
)
TPM = TpmClaims(
    pcrs=PCRS,
    events=(),
    firmware_version=1,
    reset_count=1,
    restart_count=0,
    attestation_key=bytes(32),
    root=b"r" * 32,
    subject="CN=AK",
)


def _azure(hardware: SevSnpClaims | TdxClaims) -> AzureClaims:
    return AzureClaims(hardware, PCRS, (), None, True, bytes(64), 1)


_DETAILS: dict[Tee, tuple[Details, bytes]] = {
    Tee.SGX: (SGX, SGX.mrenclave),
    Tee.TDX: (TDX, b"t" * 48),
    Tee.SEV_SNP: (SNP, SNP.measurement),
    Tee.AZURE_SNP: (_azure(SNP), b"p" * 32),
    Tee.AZURE_TDX: (_azure(TDX), b"p" * 32),
    Tee.NITRO: (NITRO, NITRO.pcrs[0].value),
    Tee.TPM: (TPM, b"p" * 32),
    Tee.SIMULATED: (SimulatedClaims(), b"c" * 32),
}


def claims(tee: Tee, details: Details | None = None, **changes: object) -> Claims:
    """Claims of ``tee`` that a policy for them accepts, with any field exchanged."""
    good, measurement = _DETAILS[tee]
    dcap = tee in (Tee.SGX, Tee.TDX, Tee.AZURE_TDX)
    fields: dict[str, object] = {
        "tee": tee,
        "measurement": measurement,
        "signer": b"s" * 32 if tee is Tee.SIMULATED else None,
        "debug": False,
        "report_data": bytes(64),
        "security_version": 5,
        "product_id": 3,
        "tcb_status": TcbStatus.UP_TO_DATE if dcap else TcbStatus.NOT_APPLICABLE,
        "advisories": (),
        "valid_until": None,
        "details": details or good,
    }
    return Claims(**(fields | changes))  # type: ignore[arg-type]

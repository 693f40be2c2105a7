"""What a policy can say of each TEE: one table a TEE, which checking, the TOML form and the words all follow.

A field's ``role`` decides what an author may leave out. Code that runs is identified by a field in role
``WHOLE`` (everything measured) or by fields in role ``PART``. Where the ``WHOLE`` field accepts any value,
every ``PART`` and ``CONTEXT`` field must be stated, ``"any"`` included, so that nothing is unchecked by
being forgotten; at least one ``PART`` or ``CHOICE`` field must be restricted, and so must every ``BASE``
field: registers say only what the firmware below them measured into them, and other firmware could claim any.
A field in role ``GUARD`` has a default that is safe and is checked when not stated; where it has none, it
must be restricted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, assert_never

from confonnx.attestation.claims import (
    RESETTABLE_PCRS,
    AzureClaims,
    Claims,
    NitroClaims,
    Pcr,
    SevSnpClaims,
    SgxClaims,
    SnpTcb,
    TdxClaims,
    Tee,
    TpmClaims,
)
from confonnx.attestation.policy.matchers import ANY, AtLeast, Masked, Matcher, OneOf, OneOfNumbers, Value


class Role(Enum):
    """Why a field is in a policy; see the module."""

    WHOLE = auto()
    PART = auto()
    CHOICE = auto()  # a PART that may be left out: a PCR among many
    BASE = auto()  # what keeps the registers that PART and CHOICE fields read
    CONTEXT = auto()
    GUARD = auto()


class Kind(Enum):
    """Which matcher a field takes, beside ANY, and so how TOML spells it."""

    DIGESTS = auto()  # OneOf: a list of hex strings
    NUMBERS = auto()  # OneOfNumbers: a list of integers
    TEXTS = auto()  # OneOfTexts: a list of strings
    MINIMUM = auto()  # AtLeast: an integer
    MINIMUM_EACH = auto()  # AtLeastEach: a hex string
    BITS = auto()  # Masked: {mask = "0x…", value = "0x…"}

    @property
    def expected(self) -> str:
        """What the field takes, in words."""
        match self:
            case Kind.DIGESTS:
                return "a list of hex strings"
            case Kind.NUMBERS:
                return "a list of integers"
            case Kind.TEXTS:
                return "a list of strings"
            case Kind.MINIMUM:
                return "an integer"
            case Kind.MINIMUM_EACH:
                return "a hex string"
            case Kind.BITS:
                return "a table of mask and value"
            case _:
                assert_never(self)


@dataclass(frozen=True, slots=True)
class Field:
    """One checkable field.

    ``key`` is its name in TOML, ``name`` the vendor manual's, ``size`` the length in bytes of a digest (0
    for numbers), ``read`` its value in verified claims (None where the evidence has no such field),
    ``default`` what is checked when the policy does not state it (None: see the roles).
    """

    key: str
    name: str
    kind: Kind
    read: Callable[[Claims], Value | None]
    size: int = 0
    role: Role = Role.GUARD
    default: Matcher | None = None

    @property
    def check_id(self) -> str:
        """The stable identifier of the check."""
        step = "platform" if self.role in (Role.GUARD, Role.CONTEXT) else "code"
        return f"policy.{step}.{self.key.removeprefix('min_').replace('_', '-')}"


def fields_of(tee: Tee) -> tuple[Field, ...]:
    """The fields that a policy for ``tee`` can state, the one that identifies all code first."""
    match tee:
        case Tee.SGX:
            return _SGX
        case Tee.TDX:
            return _TDX
        case Tee.SEV_SNP:
            return _SEV_SNP
        case Tee.AZURE_SNP:
            return (*_AZURE_CODE, *_AZURE_SNP)
        case Tee.AZURE_TDX:
            return (*_AZURE_CODE, *_AZURE_TDX)
        case Tee.NITRO:
            return _NITRO
        case Tee.TPM:
            return _TPM
        case Tee.SIMULATED:
            return _SIMULATED
        case _:
            assert_never(tee)


def has_dcap_tcb(tee: Tee) -> bool:
    """Intel's collateral gives the platform a TCB status."""
    return tee in (Tee.SGX, Tee.TDX, Tee.AZURE_TDX)


def _sgx(read: Callable[[SgxClaims], Value]) -> Callable[[Claims], Value | None]:
    return lambda claims: read(claims.details) if isinstance(claims.details, SgxClaims) else None


def _tdx(read: Callable[[TdxClaims], Value]) -> Callable[[Claims], Value | None]:
    def of(claims: Claims) -> Value | None:
        details = claims.details.hardware if isinstance(claims.details, AzureClaims) else claims.details
        return read(details) if isinstance(details, TdxClaims) else None

    return of


def _snp(read: Callable[[SevSnpClaims], Value | None]) -> Callable[[Claims], Value | None]:
    def of(claims: Claims) -> Value | None:
        details = claims.details.hardware if isinstance(claims.details, AzureClaims) else claims.details
        return read(details) if isinstance(details, SevSnpClaims) else None

    return of


def _tcb(read: Callable[[SnpTcb], int | None]) -> Callable[[Claims], Value | None]:
    # REPORTED_TCB is the one that the VCEK was derived for, hence the one that the signature proves (AMD
    # 56860 §2.2).
    return _snp(lambda snp: read(snp.reported_tcb))


def _pcr(bank: str, index: int) -> Callable[[Claims], bytes | None]:
    def of(claims: Claims) -> bytes | None:
        pcrs: tuple[Pcr, ...] = ()
        if isinstance(claims.details, AzureClaims | NitroClaims | TpmClaims):
            pcrs = claims.details.pcrs
        return next((pcr.value for pcr in pcrs if (pcr.bank, pcr.index) == (bank, index)), None)

    return of


def _digest(
    key: str,
    name: str,
    size: int,
    read: Callable[[Claims], Value | None],
    role: Role = Role.GUARD,
    default: Matcher | None = None,
) -> Field:
    return Field(key, name, Kind.DIGESTS, read, size, role, default)


def _zero(size: int) -> OneOf:
    return OneOf((bytes(size),))


_BIT = [1 << index for index in range(64)]

# Intel SDM vol. 3D, ATTRIBUTES: bit 0 INIT, 4 PROVISION_KEY, 5 EINITTOKEN_KEY. DEBUG (bit 1) has its own
# rule. XFRM: x87 and SSE.
_SGX_ATTRIBUTES = Masked(mask=_BIT[0] | _BIT[4] | _BIT[5], value=_BIT[0])
_X87_AND_SSE = Masked(mask=0x3, value=0x3)

_SGX: Final = (
    _digest("mrenclave", "MRENCLAVE", 32, _sgx(lambda sgx: sgx.mrenclave), Role.WHOLE),
    _digest("mrsigner", "MRSIGNER", 32, _sgx(lambda sgx: sgx.mrsigner), Role.PART),
    Field("isv_prod_id", "ISVPRODID", Kind.NUMBERS, _sgx(lambda sgx: sgx.isv_prod_id), role=Role.CONTEXT),
    Field("min_isv_svn", "ISVSVN", Kind.MINIMUM, _sgx(lambda sgx: sgx.isv_svn), role=Role.CONTEXT),
    Field(
        "attributes", "ATTRIBUTES.FLAGS", Kind.BITS, _sgx(lambda sgx: sgx.attributes), default=_SGX_ATTRIBUTES
    ),
    Field("xfrm", "ATTRIBUTES.XFRM", Kind.BITS, _sgx(lambda sgx: sgx.xfrm), default=_X87_AND_SSE),
    # Bit 0, EXINFO, only adds fault addresses to the enclave's own frame; further bits are undefined.
    Field(
        "misc_select",
        "MISCSELECT",
        Kind.BITS,
        _sgx(lambda sgx: sgx.misc_select),
        default=Masked(mask=0xFFFFFFFE, value=0),
    ),
    _digest("config_id", "CONFIGID", 64, _sgx(lambda sgx: sgx.config_id), default=_zero(64)),
    Field("min_config_svn", "CONFIGSVN", Kind.MINIMUM, _sgx(lambda sgx: sgx.config_svn), default=AtLeast(0)),
    _digest("isv_family_id", "ISVFAMILYID", 16, _sgx(lambda sgx: sgx.isv_family_id), default=ANY),
    _digest("isv_ext_prod_id", "ISVEXTPRODID", 16, _sgx(lambda sgx: sgx.isv_ext_prod_id), default=ANY),
)

# Intel TDX module ABI, TD attributes: bit 28 SEPT_VE_DISABLE (the host must not inject #VE), bit 29
# MIGRATABLE. DEBUG (bit 0) has its own rule. MRCONFIGID, MROWNER and MROWNERCONFIG are the host's choice at
# launch; MRSIGNERSEAM of Intel's module is zero.
_TD_ATTRIBUTES = Masked(mask=_BIT[28] | _BIT[29], value=_BIT[28])

_TDX_GUARDS = (
    Field(
        "td_attributes",
        "TDATTRIBUTES",
        Kind.BITS,
        _tdx(lambda tdx: tdx.td_attributes),
        default=_TD_ATTRIBUTES,
    ),
    Field("xfam", "XFAM", Kind.BITS, _tdx(lambda tdx: tdx.xfam), default=_X87_AND_SSE),
    _digest("mr_config_id", "MRCONFIGID", 48, _tdx(lambda tdx: tdx.mr_config_id), default=_zero(48)),
    _digest("mr_owner", "MROWNER", 48, _tdx(lambda tdx: tdx.mr_owner), default=_zero(48)),
    _digest("mr_owner_config", "MROWNERCONFIG", 48, _tdx(lambda tdx: tdx.mr_owner_config), default=_zero(48)),
    _digest("mr_seam", "MRSEAM", 48, _tdx(lambda tdx: tdx.mr_seam), default=ANY),
    _digest("mr_signer_seam", "MRSIGNERSEAM", 48, _tdx(lambda tdx: tdx.mr_signer_seam), default=_zero(48)),
    Field(
        "min_tee_tcb_svn",
        "TEE_TCB_SVN",
        Kind.MINIMUM_EACH,
        _tdx(lambda tdx: tdx.tee_tcb_svn),
        16,
        default=ANY,
    ),
)


def _rtmr(index: int) -> Field:
    return _digest(f"rtmr{index}", f"RTMR{index}", 48, _tdx(lambda tdx: tdx.rtmrs[index]), Role.PART)


_TDX: Final = (
    _digest("measurement", "MRTD and RTMR0-3 together", 48, lambda claims: claims.measurement, Role.WHOLE),
    _digest("mrtd", "MRTD", 48, _tdx(lambda tdx: tdx.mrtd), Role.BASE),
    *(_rtmr(index) for index in range(4)),
    *_TDX_GUARDS,
)

# AMD 56860, GUEST_POLICY: bit 17 must be one, bit 18 MIGRATE_MA (a migration agent could read the guest).
# DEBUG (bit 19) has its own rule. HOST_DATA is the host's choice at launch.
_SNP_POLICY = Masked(mask=_BIT[17] | _BIT[18], value=_BIT[17])

_SNP_GUARDS = (
    Field("vmpl", "VMPL", Kind.NUMBERS, _snp(lambda snp: snp.vmpl), default=OneOfNumbers((0,))),
    Field("policy", "POLICY", Kind.BITS, _snp(lambda snp: snp.policy), default=_SNP_POLICY),
    Field("platform_info", "PLATFORM_INFO", Kind.BITS, _snp(lambda snp: snp.platform_info), default=ANY),
    # Whose machines: a VCEK is of a chip (CHIP_ID; on Turin 8 bytes and zeros), a VLEK of a cloud (CSP_ID).
    _digest("chip_id", "CHIP_ID", 64, _snp(lambda snp: snp.chip_id), default=ANY),
    Field("signing_key", "SIGNING_KEY", Kind.TEXTS, _snp(lambda snp: snp.signing_key), default=ANY),
    Field("csp_id", "CSP_ID of the VLEK", Kind.TEXTS, _snp(lambda snp: snp.csp_id), default=ANY),
    Field(
        "min_boot_loader",
        "TCB BOOT_LOADER",
        Kind.MINIMUM,
        _tcb(lambda tcb: tcb.boot_loader),
        default=AtLeast(0),
    ),
    Field("min_tee", "TCB TEE", Kind.MINIMUM, _tcb(lambda tcb: tcb.tee), default=AtLeast(0)),
    Field("min_snp", "TCB SNP", Kind.MINIMUM, _tcb(lambda tcb: tcb.snp), default=AtLeast(0)),
    Field(
        "min_microcode", "TCB MICROCODE", Kind.MINIMUM, _tcb(lambda tcb: tcb.microcode), default=AtLeast(0)
    ),
    # Before Turin there is no FMC: stating a minimum refuses those processors, and not stating one accepts
    # them.
    Field("min_fmc", "TCB FMC", Kind.MINIMUM, _tcb(lambda tcb: tcb.fmc), default=ANY),
)
_SEV_SNP: Final = (
    _digest("measurement", "MEASUREMENT", 48, _snp(lambda snp: snp.measurement), Role.WHOLE),
    _digest("id_key_digest", "ID_KEY_DIGEST", 48, _snp(lambda snp: snp.id_key_digest), Role.PART),
    _digest("author_key_digest", "AUTHOR_KEY_DIGEST", 48, _snp(lambda snp: snp.author_key_digest), Role.PART),
    Field("min_guest_svn", "GUEST_SVN", Kind.MINIMUM, _snp(lambda snp: snp.guest_svn), role=Role.CONTEXT),
    _digest("family_id", "FAMILY_ID", 16, _snp(lambda snp: snp.family_id), default=ANY),
    _digest("image_id", "IMAGE_ID", 16, _snp(lambda snp: snp.image_id), default=ANY),
    _digest("host_data", "HOST_DATA", 32, _snp(lambda snp: snp.host_data), default=_zero(32)),
    *_SNP_GUARDS,
)


def _pcr_field(index: int) -> Field:
    return _digest(f"pcr{index}", f"PCR{index} (SHA-256)", 32, _pcr("sha256", index), Role.CHOICE)


_PCRS = tuple(_pcr_field(index) for index in range(24) if index not in RESETTABLE_PCRS)


def _all_pcrs(name: str) -> Field:
    return _digest("measurement", name, 32, lambda claims: claims.measurement, Role.WHOLE)


# The launch digest of an Azure VM is its paravisor's, which keeps the PCRs. Azure chooses HOST_DATA and the
# ID block itself.
_AZURE_CODE = (_all_pcrs("launch digest and PCRs together"), *_PCRS)
_AZURE_SNP = (
    _digest("launch_measurement", "MEASUREMENT", 48, _snp(lambda snp: snp.measurement), Role.BASE),
    _digest("id_key_digest", "ID_KEY_DIGEST", 48, _snp(lambda snp: snp.id_key_digest), default=ANY),
    _digest("host_data", "HOST_DATA", 32, _snp(lambda snp: snp.host_data), default=ANY),
    *_SNP_GUARDS,
)
_AZURE_TDX = (
    _digest("launch_measurement", "MRTD", 48, _tdx(lambda tdx: tdx.mrtd), Role.BASE),
    *_TDX_GUARDS,
)


def _nitro_pcr(index: int, what: str, role: Role, default: Matcher | None = None) -> Field:
    return _digest(f"pcr{index}", f"PCR{index}, {what}", 48, _pcr("sha384", index), role, default)


_NITRO: Final = (
    _nitro_pcr(0, "the image", Role.WHOLE),
    _nitro_pcr(8, "the signing certificate", Role.PART),
    _nitro_pcr(1, "kernel and bootstrap", Role.GUARD, ANY),
    _nitro_pcr(2, "application", Role.GUARD, ANY),
    _nitro_pcr(3, "role of the parent instance", Role.GUARD, ANY),
    _nitro_pcr(4, "parent instance", Role.GUARD, ANY),
    *(_nitro_pcr(index, "which AWS has not assigned", Role.GUARD, ANY) for index in (5, 6, 7)),
)


def _tpm_root(claims: Claims) -> bytes | None:
    return claims.details.root if isinstance(claims.details, TpmClaims) else None


_TPM: Final = (
    _all_pcrs("PCRs together"),
    *_PCRS,
    _digest("root", "root of the AK certificate", 32, _tpm_root, Role.GUARD),
)

_SIMULATED: Final = (
    _digest(
        "measurement", "measurement of the installed code", 32, lambda claims: claims.measurement, Role.WHOLE
    ),
    _digest("signer", "signer", 32, lambda claims: claims.signer, Role.PART),
    Field("product_id", "product", Kind.NUMBERS, lambda claims: claims.product_id, role=Role.CONTEXT),
    Field(
        "min_security_version",
        "security version",
        Kind.MINIMUM,
        lambda claims: claims.security_version,
        role=Role.CONTEXT,
    ),
)

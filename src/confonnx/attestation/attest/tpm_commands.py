"""The eight TPM 2.0 commands that attesting takes, over any transport (TCG TPM 2.0 Library, parts 2 and 3).

A client of its own, because the alternative, tpm2-pytss, comes as source alone: it would bring a C compiler
into every build and the whole TPM2 software stack, in C, into the TEE, for eight commands that need no
session but an empty password.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from confonnx.attestation.attest.devices import PAUSES, Wait
from confonnx.attestation.attest.tpm_transport import Transport
from confonnx.attestation.formats.event_log import BANKS
from confonnx.attestation.formats.reader import Reader
from confonnx.errors import EvidenceFormatError, TeeError

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

# Part 2, §6.5.2, TPM_CC.
_EVICT_CONTROL: Final = 0x120
_CREATE_PRIMARY: Final = 0x131
_NV_READ: Final = 0x14E
_QUOTE: Final = 0x158
_FLUSH_CONTEXT: Final = 0x165
_NV_READ_PUBLIC: Final = 0x169
_READ_PUBLIC: Final = 0x173
_PCR_READ: Final = 0x17E

_NO_SESSIONS, _SESSIONS = b"\x80\x01", b"\x80\x02"  # TPM_ST
_OWNER: Final = 0x40000001  # TPM_RH_OWNER
# An authorisation area with the empty password (part 1, §19.4): TPM_RS_PW, no nonce, no attributes, no HMAC.
_EMPTY_PASSWORD: Final = bytes.fromhex("00000009 40000009 0000 00 0000")

# Part 2, §6.6.3, TPM_RC; bits above 12 are set by resource managers.
_RC_MASK: Final = 0xFFF
_RC_HANDLE: Final = 0x18B  # TPM_RC_HANDLE for the first handle: nothing is there
_RC_INITIALIZE: Final = 0x100
_RC_AGAIN: Final = frozenset({0x908, 0x90A, 0x922})  # YIELDED, TESTING, RETRY
_RC_AUTH: Final = frozenset({0x98E, 0x9A2})  # AUTH_FAIL and BAD_AUTH, of the first session

_RSA, _ECC, _NULL, _SHA256, _ECDSA = 0x0001, 0x0023, 0x0010, 0x000B, 0x0018  # TPM_ALG_ID
_P256, _P384 = 0x0003, 0x0004  # TPM_ECC_CURVE
_DEFAULT_EXPONENT: Final = 65537  # what exponent 0 stands for (part 2, §12.2.3.5)

# Part 2, §8.3, TPMA_OBJECT.
FIXED_TPM: Final = 1 << 1
DECRYPT: Final = 1 << 17
RESTRICTED: Final = 1 << 16
SIGN: Final = 1 << 18
_AK_ATTRIBUTES: Final = (
    FIXED_TPM
    | 1 << 4  # fixedParent
    | 1 << 5  # sensitiveDataOrigin
    | 1 << 6  # userWithAuth
    | 1 << 10  # noDA
    | RESTRICTED
    | SIGN
)
_NV_CHUNK: Final = 512  # the least that TPM_PT_NV_BUFFER_MAX is on any TPM of the PC Client profile
_PCRS_AT_ONCE: Final = 8  # TPML_DIGEST holds no more


@dataclass(frozen=True, slots=True)
class TpmKey:
    """The public part of a key: its ``attributes`` are TPMA_OBJECT."""

    attributes: int
    public_key: PublicKey


class Tpm:
    """An open TPM, for one thread and for as long as its transport is open. Methods raise ``TeeError``."""

    def __init__(self, transport: Transport, *, wait: Wait) -> None:
        """``wait`` is called between attempts when the TPM says to try again."""
        self._transport = transport
        self._wait = wait

    def read_public(self, handle: int) -> TpmKey | None:
        """TPM2_ReadPublic of the key at ``handle``; None if there is none."""
        with _response("TPM2_ReadPublic"):
            code, r = self._exchange("TPM2_ReadPublic", _READ_PUBLIC, handle.to_bytes(4, "big"))
            if code == _RC_HANDLE:
                return None
            _check("TPM2_ReadPublic", code)
            return _parse_public(r.sized(2, "outPublic"))

    def read_nv(self, index: int) -> bytes | None:
        """All of NV index ``index``, read as the owner; None if there is none."""
        size = self._nv_size(index)
        if size is None:
            return None
        content = b""
        while len(content) < size:
            chunk = min(_NV_CHUNK, size - len(content))
            parameters = chunk.to_bytes(2, "big") + len(content).to_bytes(2, "big")
            handles = _OWNER.to_bytes(4, "big") + index.to_bytes(4, "big")
            with _response("TPM2_NV_Read"):
                r = self._authorized("TPM2_NV_Read", _NV_READ, handles, parameters)
                piece = r.sized(2, "data")
            if len(piece) != chunk:
                raise TeeError(f"TPM2_NV_Read of {index:#x}: {len(piece)} bytes, expected {chunk}")
            content += piece
        return content

    def read_pcrs(self, bank: str, indices: Sequence[int]) -> dict[int, bytes]:
        """TPM2_PCR_Read, as often as it takes. A register that is not in ``bank`` is an error."""
        values: dict[int, bytes] = {}
        for start in range(0, len(indices), _PCRS_AT_ONCE):
            wanted = sorted(indices[start : start + _PCRS_AT_ONCE])
            with _response("TPM2_PCR_Read"):
                code, r = self._exchange("TPM2_PCR_Read", _PCR_READ, _selection(bank, wanted))
                _check("TPM2_PCR_Read", code)
                r.take(4, "pcrUpdateCounter")
                selected = r.take(len(_selection(bank, wanted)), "pcrSelectionOut")
                digests = [r.sized(2, "digest") for _ in range(r.u32("number of digests"))]
            if selected != _selection(bank, wanted) or len(digests) != len(wanted):
                raise TeeError(
                    f"the TPM does not have PCRs {wanted} of the {bank} bank; enable it in the firmware"
                )
            values |= zip(wanted, digests, strict=True)
        return values

    def quote(
        self, handle: int, qualifying_data: bytes, *, bank: str, indices: Sequence[int]
    ) -> tuple[bytes, bytes]:
        """TPM2_Quote by the key at ``handle`` with its own scheme: TPMS_ATTEST and TPMT_SIGNATURE."""
        parameters = _sized(qualifying_data) + _NULL.to_bytes(2, "big") + _selection(bank, indices)
        with _response("TPM2_Quote"):
            r = self._authorized("TPM2_Quote", _QUOTE, handle.to_bytes(4, "big"), parameters)
            message = r.sized(2, "quoted")
            return message, r.take(r.remaining, "signature")

    def make_attestation_key(self, handle: int) -> None:
        """Make a restricted ECDSA P-256 key of the owner's seed and keep it at the persistent ``handle``."""
        name = "TPM2_CreatePrimary"
        parameters = _sized(_sized(b"") + _sized(b"")) + _sized(_AK_TEMPLATE) + _sized(b"") + bytes(4)
        with _response(name):
            code, r = self._exchange(
                name, _CREATE_PRIMARY, _OWNER.to_bytes(4, "big"), parameters, password=True
            )
            _check(name, code)
            transient = r.take(4, "objectHandle")
        try:
            with _response("TPM2_EvictControl"):
                self._authorized(
                    "TPM2_EvictControl",
                    _EVICT_CONTROL,
                    _OWNER.to_bytes(4, "big") + transient,
                    handle.to_bytes(4, "big"),
                )
        finally:
            code, _ = self._exchange("TPM2_FlushContext", _FLUSH_CONTEXT, transient)
        _check("TPM2_FlushContext", code)

    def _nv_size(self, index: int) -> int | None:
        name = "TPM2_NV_ReadPublic"
        with _response(name):
            code, r = self._exchange(name, _NV_READ_PUBLIC, index.to_bytes(4, "big"))
            if code == _RC_HANDLE:
                return None
            _check(name, code)
            p = Reader(r.sized(2, "nvPublic"), "nvPublic", "big")
            p.take(10, "nvIndex, nameAlg and attributes")
            p.sized(2, "authPolicy")
            return p.u16("dataSize")

    def _authorized(self, name: str, command: int, handles: bytes, parameters: bytes) -> Reader:
        """A command with the empty password, whose response has no handles: its parameters."""
        code, r = self._exchange(name, command, handles, parameters, password=True)
        _check(name, code)
        return Reader(r.sized(4, "parameters"), name, "big")

    def _exchange(
        self, name: str, command: int, handles: bytes, parameters: bytes = b"", *, password: bool = False
    ) -> tuple[int, Reader]:
        """Response code and what follows it. Tries again when the TPM asks for that."""
        body = handles + (_EMPTY_PASSWORD if password else b"") + parameters
        tag = _SESSIONS if password else _NO_SESSIONS
        message = tag + (10 + len(body)).to_bytes(4, "big") + command.to_bytes(4, "big") + body
        for pause in PAUSES:
            response = self._transport.transmit(message)
            r = Reader(response, name, "big")
            r.take(2, "tag")
            size, code = r.u32("size"), r.u32("code") & _RC_MASK
            if size != len(response):
                raise TeeError(f"{name}: the TPM's response has {len(response)} bytes and says {size}")
            if code not in _RC_AGAIN:
                return code, r
            self._wait(pause)
        raise TeeError(f"{name}: the TPM said {len(PAUSES)} times to try again (code {code:#x})")


def _bank_algorithm(bank: str) -> int:
    """TPM_ALG_ID of a bank such as ``sha256``."""
    return next(number for number, name in BANKS.items() if name == bank)


def _check(name: str, code: int) -> None:
    if code == 0:
        return
    advice = ""
    if code == _RC_INITIALIZE:
        advice = "; it was not started: is swtpm missing --flags startup-clear?"
    elif code in _RC_AUTH:
        advice = "; it wants a password: this server uses the owner hierarchy and keys with an empty one"
    raise TeeError(f"{name}: the TPM answered with code {code:#x}{advice}")


@contextmanager
def _response(name: str) -> Iterator[None]:
    """A response that cannot be read is a failure of the device."""
    try:
        yield
    except EvidenceFormatError as error:
        raise TeeError(f"{name}: the TPM's response cannot be read: {error}") from error


def _parse_public(data: bytes) -> TpmKey:
    """TPMT_PUBLIC (part 2, §12.2.4) of a signing key."""
    r = Reader(data, "TPMT_PUBLIC", "big")
    kind = r.expect(r.u16("type"), frozenset({_RSA, _ECC}), "type")
    r.take(2, "nameAlg")
    attributes = r.u32("objectAttributes")
    r.sized(2, "authPolicy")
    if r.u16("symmetric") != _NULL:
        r.take(4, "symmetric key size and mode")
    if r.u16("scheme") != _NULL:
        r.take(2, "hash of the scheme")
    return TpmKey(attributes, _parse_rsa(r) if kind == _RSA else _parse_ecc(r))


def _parse_rsa(r: Reader) -> rsa.RSAPublicKey:
    r.take(2, "keyBits")
    exponent = r.u32("exponent") or _DEFAULT_EXPONENT
    modulus = int.from_bytes(r.sized(2, "modulus"), "big")
    r.end()
    with _numbers():
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _parse_ecc(r: Reader) -> ec.EllipticCurvePublicKey:
    curve = r.expect(r.u16("curveID"), frozenset({_P256, _P384}), "curveID")
    if r.u16("kdf") != _NULL:
        r.take(2, "hash of the kdf")
    x, y = (int.from_bytes(r.sized(2, name), "big") for name in ("x", "y"))
    r.end()
    with _numbers():
        return ec.EllipticCurvePublicNumbers(
            x, y, ec.SECP256R1() if curve == _P256 else ec.SECP384R1()
        ).public_key()


@contextmanager
def _numbers() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise EvidenceFormatError(f"TPMT_PUBLIC: not a public key: {error}") from error


def _selection(bank: str, indices: Sequence[int]) -> bytes:
    """TPML_PCR_SELECTION of one bank (part 2, §10.6.2)."""
    bits = sum(1 << index for index in indices)
    return (
        (1).to_bytes(4, "big")
        + _bank_algorithm(bank).to_bytes(2, "big")
        + b"\x03"
        + bits.to_bytes(3, "little")
    )


def _sized(data: bytes) -> bytes:
    """A TPM2B."""
    return len(data).to_bytes(2, "big") + data


def _u16(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in numbers)


# TPMT_PUBLIC: ECC, nameAlg SHA-256, attributes, no policy; no symmetric, ECDSA with SHA-256, P-256, no kdf;
# no contribution to the unique field, so that the same seed gives the same key.
_AK_TEMPLATE: Final = (
    _u16(_ECC, _SHA256)
    + _AK_ATTRIBUTES.to_bytes(4, "big")
    + _sized(b"")
    + _u16(_NULL, _ECDSA, _SHA256, _P256, _NULL)
    + _sized(b"")
    + _sized(b"")
)

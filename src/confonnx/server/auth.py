"""Who may use the server: API keys and passwords, checked inside the TEE against hashes.

Credentials arrive inside the seal, so neither host nor ingress sees them; the server holds hashes only. The
file has one credential a line (empty lines and lines that begin with ``#`` are skipped)::

    key:<label>:sha256:<64 hex>
    basic:<user>:scrypt:<n>,<r>,<p>:<salt, hex>:<hash, hex>

An API key is random and long, so a plain hash hides it. A password is neither: it gets scrypt, whose cost is
paid once per password, because a keyed hash of what was right is remembered in memory.

Guessing is damped, not stopped: scrypt runs one at a time in the whole server, so wrong passwords are tried
at some twenty a second whatever the attacker's bandwidth, and those who were right before are not slowed by
it. A lock-out per user would let anybody lock anybody out.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confonnx.errors import AuthenticationError, ConfigurationError, OverloadedError

MIN_KEY_LENGTH = 16
"""Characters of an API key: with fewer, its hash could be searched."""

_KEY = re.compile(r"[!-~](?:[ -~]*[!-~])?")  # what a field value carries unchanged (RFC 9110 §5.5)
_LABEL = re.compile(r"[A-Za-z0-9._@+-]{1,64}")
_USER = re.compile(r"[^:\x00-\x1f\x7f]{1,256}")  # RFC 7617 §2: no colon, no control characters
_HEX_HASH = re.compile(r"[0-9a-f]{64}")
_HEX_SALT = re.compile(r"(?:[0-9a-f]{2}){8,64}")
_SCRYPT_COST = (2**14, 8, 1)  # RFC 7914 §2; 16 MiB and some 40 ms
_MAX_SCRYPT_MEMORY = 256 << 20
_MAX_WAITING = 16  # passwords that wait for scrypt; more are told to come back
_MAX_REMEMBERED = 4096
_REFUSED = "the credentials are missing or wrong"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The SHA-256 of one API key. ``label`` names it for whoever edits the file."""

    label: str
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Password:
    """The scrypt hash of one user's password; ``cost`` is n, r, p."""

    user: str
    cost: tuple[int, int, int]
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def matches(self, password: bytes) -> bool:
        """Whether this is the password. Takes as long as the cost says."""
        return hmac.compare_digest(_scrypt(password, self.salt, self.cost), self.digest)


Credential = ApiKey | Password


def load_credentials(*, auth_key: str | None, auth_file: Path | None) -> tuple[Credential, ...]:
    """The credentials of a server's options; none at all means that anybody may ask.

    Raises ConfigurationError, also for a file without a credential: that was not meant to open the server to
    all.
    """
    credentials: list[Credential] = []
    if auth_key is not None:
        if not auth_key:
            raise ConfigurationError(
                "--auth-key is empty; give a key, or leave the option out to serve everybody"
            )
        credentials.append(ApiKey("--auth-key", _key_digest(auth_key)))
    if auth_file is not None:
        try:
            text = auth_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigurationError(f"--auth-file {auth_file} cannot be read: {reason}") from error
        credentials += parse_credentials(text, source=str(auth_file))
    return tuple(credentials)


def parse_credentials(text: str, *, source: str) -> tuple[Credential, ...]:
    """The credentials in ``text``. Raises ConfigurationError that names ``source`` and line, never the
    content.
    """
    credentials = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            credentials.append(_parse_line(line.strip(), f"{source}, line {number}"))
    if not credentials:
        raise ConfigurationError(
            f"{source} holds no credential; `confonnx hash-credential` makes lines for it"
        )
    names = [(type(credential), _name(credential)) for credential in credentials]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"{source} has two entries of one name; give each user and key its own")
    return tuple(credentials)


def hash_credential(name: str, secret: str, *, basic: bool) -> str:
    """The line of the file for API key ``secret`` labelled ``name``, or (``basic``) for a user and password.

    Raises ConfigurationError for a name that the file cannot hold, an API key that is too short, an empty
    password.
    """
    if basic:
        if not _USER.fullmatch(name) or not secret:
            raise ConfigurationError(
                "a user name is 1 to 256 characters without a colon, and a password is not empty"
            )
        salt = secrets.token_bytes(16)
        digest = _scrypt(secret.encode(), salt, _SCRYPT_COST)
        return f"basic:{name}:scrypt:{','.join(map(str, _SCRYPT_COST))}:{salt.hex()}:{digest.hex()}"
    if not _LABEL.fullmatch(name):
        raise ConfigurationError("the label of an API key is 1 to 64 letters, digits and . _ @ + -")
    if len(secret) < MIN_KEY_LENGTH:
        raise ConfigurationError(
            f"an API key has at least {MIN_KEY_LENGTH} random characters, this one has {len(secret)}; "
            "`openssl rand -hex 24` makes one"
        )
    return f"key:{name}:sha256:{_key_digest(secret).hex()}"


class Authenticator:
    """Checks the inner ``authorization`` field. Mutable: it remembers which passwords were right."""

    def __init__(self, credentials: Sequence[Credential]) -> None:
        """With no credential, everybody passes."""
        self._keys = [credential for credential in credentials if isinstance(credential, ApiKey)]
        self._passwords = {item.user: item for item in credentials if isinstance(item, Password)}
        # What unknown users are checked against, so that they take as long as known ones.
        nobody = secrets.token_bytes(32)
        self._nobody = Password("", _SCRYPT_COST, nobody[:16], nobody)
        self._memory_key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._one_at_a_time = asyncio.Semaphore(1)
        self._waiting = 0
        self.schemes = (*(("basic",) if self._passwords else ()), *(("bearer",) if self._keys else ()))
        """What is accepted, as the statement spells it; empty when all may ask."""

    @property
    def challenge(self) -> str:
        """The value of ``www-authenticate`` (RFC 9110 §11.6.1)."""
        challenges = {"basic": 'Basic realm="confonnx", charset="UTF-8"', "bearer": 'Bearer realm="confonnx"'}
        return ", ".join(challenges[scheme] for scheme in self.schemes)

    async def check(self, authorization: str | None) -> None:
        """Return if the credentials are right or none are needed.

        Raises AuthenticationError, and OverloadedError while too many passwords are being checked.
        """
        if not self._keys and not self._passwords:
            return
        scheme, _, value = (authorization or "").partition(" ")
        if scheme.lower() == "bearer":
            self._check_key(value.strip())
        elif scheme.lower() == "basic":
            await self._check_password(value.strip())
        else:
            raise AuthenticationError(_REFUSED)

    def _check_key(self, key: str) -> None:
        digest = hashlib.sha256(key.encode("latin-1", "replace")).digest()
        found = False
        for known in self._keys:  # all of them, so that time tells nothing about which one it is
            found |= hmac.compare_digest(known.digest, digest)
        if not found:
            raise AuthenticationError(_REFUSED)

    async def _check_password(self, value: str) -> None:
        pair = _decode_basic(value)
        memory = hmac.digest(self._memory_key, pair, "sha256")
        if memory in self._remembered:
            self._remembered.move_to_end(memory)
            return
        user, _, password = pair.partition(b":")
        entry = self._passwords.get(user.decode("utf-8", "replace"), self._nobody)
        if not await self._run_scrypt(entry, password):
            raise AuthenticationError(_REFUSED)
        self._remembered[memory] = None
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    async def _run_scrypt(self, entry: Password, password: bytes) -> bool:
        if self._waiting >= _MAX_WAITING:
            raise OverloadedError("too many passwords are being checked", retry_after=1)
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                return await asyncio.to_thread(entry.matches, password)
        finally:
            self._waiting -= 1


def _parse_line(line: str, where: str) -> Credential:
    match line.split(":"):
        case ["key", label, "sha256", digest] if _LABEL.fullmatch(label) and _HEX_HASH.fullmatch(digest):
            return ApiKey(label, bytes.fromhex(digest))
        case ["basic", user, "scrypt", cost, salt, digest] if (
            _USER.fullmatch(user) and _HEX_SALT.fullmatch(salt) and _HEX_HASH.fullmatch(digest)
        ):
            return Password(user, _parse_cost(cost, where), bytes.fromhex(salt), bytes.fromhex(digest))
    raise ConfigurationError(
        f"{where}: expected key:LABEL:sha256:HASH or basic:USER:scrypt:N,R,P:SALT:HASH (hashes in 64 "
        "lower-case hex digits); `confonnx hash-credential` makes such lines"
    )


def _parse_cost(text: str, where: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([0-9]{1,8}),([0-9]{1,3}),([0-9]{1,3})", text)
    n, r, p = (int(number) for number in match.groups()) if match else (0, 0, 0)
    weak = n < _SCRYPT_COST[0] or n & (n - 1) or r < _SCRYPT_COST[1] or not 1 <= p <= 16
    if weak or 128 * n * r > _MAX_SCRYPT_MEMORY:
        raise ConfigurationError(
            f"{where}: scrypt needs n a power of two from {_SCRYPT_COST[0]}, r from {_SCRYPT_COST[1]}, "
            f"p from 1 to 16, and 128·n·r at most {_MAX_SCRYPT_MEMORY >> 20} MiB"
        )
    return n, r, p


def _key_digest(key: str) -> bytes:
    if not _KEY.fullmatch(key):
        raise ConfigurationError("an API key is printable ASCII, without blanks at its ends")
    return hashlib.sha256(key.encode("ascii")).digest()


def _decode_basic(value: str) -> bytes:
    """``user:password`` (RFC 7617 §2)."""
    try:
        pair = base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise AuthenticationError(_REFUSED) from None
    if b":" not in pair:
        raise AuthenticationError(_REFUSED)
    return pair


def _scrypt(password: bytes, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    n, r, p = cost
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=2 * 128 * n * r, dklen=32)


def _name(credential: Credential) -> str:
    return credential.label if isinstance(credential, ApiKey) else credential.user

"""What a user tells a client, parsed once into a frozen value. No I/O: a CA file stays a path."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import TypeAlias
from urllib.parse import urlsplit

from confonnx.attestation.endorse.options import EndorsementOptions
from confonnx.attestation.policy import Policy
from confonnx.errors import ConfigurationError

DEFAULT_TIMEOUT = 60.0  # seconds, for one call from its first byte to its last
DEFAULT_MAX_RESPONSE_BYTES = 1 << 30

IngressAuth: TypeAlias = tuple[str, str] | str


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """Where the server is. ``prefix`` is the path before every path of ours: empty, or ``/mymodel``."""

    scheme: str
    authority: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.prefix}/"

    def join(self, path: str) -> str:
        """The absolute URL of ``path``, which starts with a slash."""
        return f"{self.scheme}://{self.authority}{self.prefix}{path}"


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a server; what may hold a secret is kept out of ``repr``."""

    url: BaseUrl
    ingress_authorization: str | None = field(default=None, repr=False)
    """The outer ``Authorization`` value."""
    ca_file: str | PathLike[str] | None = None
    proxy: str | None = field(default=None, repr=False)
    skip_tls_verification: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigurationError for options that contradict each other."""
        if self.skip_tls_verification and self.ca_file is not None:
            raise ConfigurationError("ca_file has no effect with dangerous_skip_tls_verification: give one")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Everything that a client was told. ``timeout`` is in seconds; None waits for ever."""

    connection: Connection
    policy: Policy
    endorsements: EndorsementOptions = field(default_factory=EndorsementOptions)
    timeout: float | None = DEFAULT_TIMEOUT
    max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES
    pad: bool = True
    sealed_authorization: str | None = field(default=None, repr=False)
    """The ``Authorization`` value inside the seal."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError for numbers out of range."""
        if self.timeout is not None:
            check_timeout(self.timeout)
        if self.max_response_bytes <= 0:
            raise ConfigurationError(f"max_response_bytes must be above 0, found {self.max_response_bytes}")


def check_timeout(timeout: float) -> float:
    """``timeout`` in seconds. Raises ConfigurationError unless it is a positive number."""
    if not timeout > 0:
        raise ConfigurationError(f"timeout must be a positive number of seconds, found {timeout!r}")
    return timeout


_AUTHORITY = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_PREFIX = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*")  # RFC 3986 §3.3


def parse_url(url: str) -> BaseUrl:
    """The base URL: ``http`` or ``https``, host, port and path prefix if given; a last slash is ignored.

    ``http`` is no weakness for what is sealed; it shows the host's name and `ingress_auth` to the network.
    Raises ConfigurationError, which does not repeat a password found in the URL.
    """
    if " " in url or not url.isprintable():  # urlsplit would drop some of them silently
        raise ConfigurationError(f"url must hold no white space and no control characters, found {url!r}")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(f"url is not valid: {error}") from None
    if "@" in parts.netloc:
        raise ConfigurationError(
            "url holds credentials before the @: give them as ingress_auth=(user, password) if they are for "
            "an ingress, or as auth_user and auth_pass if they are for the server"
        )
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(f"url must start with http:// or https://, found {url!r}")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ConfigurationError(f"url must have no query and no fragment, found {url!r}")
    authority = _AUTHORITY.fullmatch(parts.netloc)
    if authority is None or int(authority["port"] or 1) not in range(1, 65536):
        raise ConfigurationError(
            f"url must name a host (ASCII) and maybe a port from 1 to 65535, found {url!r}"
        )
    prefix = parts.path.rstrip("/")
    if not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/")):
        raise ConfigurationError(f"url has a path that is no plain prefix such as /mymodel, found {url!r}")
    return BaseUrl(parts.scheme, parts.netloc, prefix)


def sealed_authorization(
    *, auth_key: str | None, auth_user: str | None, auth_pass: str | None, auth: Mapping[str, str] | None
) -> str | None:
    """The ``Authorization`` value for the server inside the enclave; None where there are no credentials.

    ``auth`` is the older form of the three others: a mapping with ``key``, or with ``user`` and ``pass``.
    Raises ConfigurationError for a mixture, and for half a pair.
    """
    if auth is not None:
        if not (auth_key is auth_user is auth_pass is None):
            raise ConfigurationError("give auth= (the older form) or auth_key/auth_user/auth_pass, not both")
        if unknown := sorted(set(auth) - {"key", "user", "pass"}):
            raise ConfigurationError(
                f"auth= takes 'key', or 'user' and 'pass'; found {', '.join(map(repr, unknown))}"
            )
        auth_key, auth_user, auth_pass = auth.get("key"), auth.get("user"), auth.get("pass")
    if auth_key is not None and not (auth_user is auth_pass is None):
        raise ConfigurationError("give auth_key, or auth_user and auth_pass, not both")
    if auth_key is not None:
        return _bearer(auth_key, "auth_key")
    if auth_user is not None and auth_pass is None:
        raise ConfigurationError("auth_user was given without auth_pass")
    return None if auth_pass is None else _basic(auth_user or "", auth_pass, "auth_user and auth_pass")


def ingress_authorization(ingress_auth: IngressAuth | None) -> str | None:
    """The outer ``Authorization`` value: Basic from a pair, Bearer from a string. Raises
    ConfigurationError."""
    if ingress_auth is None:
        return None
    if isinstance(ingress_auth, str):
        return _bearer(ingress_auth, "ingress_auth")
    if len(ingress_auth) != 2:
        raise ConfigurationError("ingress_auth must be (user, password) or a bearer token")
    return _basic(*ingress_auth, "ingress_auth")


def _bearer(token: str, option: str) -> str:
    # RFC 6750 §2.1 allows fewer characters; keys in use have others, and only these would break the header
    # line.
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(f"{option} must be printable ASCII without spaces, and not empty")
    return f"Bearer {token}"


def _basic(user: str, password: str, option: str) -> str:
    if ":" in user:
        raise ConfigurationError(f"{option}: a user name must not hold a colon (RFC 7617 §2)")
    if not (user + password).isprintable():
        raise ConfigurationError(f"{option} must hold no control characters (RFC 7617 §2)")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")

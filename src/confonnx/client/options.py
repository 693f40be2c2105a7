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
    relay: str | None = None
    """URL of an Oblivious HTTP relay (RFC 9458 §2.1), which takes sealed requests to the server."""
    relay_authorization: str | None = field(default=None, repr=False)
    """The outer ``Authorization`` value for the relay."""
    skip_tls_verification: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigurationError for options that contradict each other."""
        if self.skip_tls_verification and self.ca_file is not None:
            raise ConfigurationError("ca_file has no effect with dangerous_skip_tls_verification: give one")
        if self.relay_authorization is not None and self.relay is None:
            raise ConfigurationError("relay_auth is for a relay: give relay= too, or leave it out")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Everything that a client was told. ``timeout`` is in seconds; None waits for ever."""

    connection: Connection
    policy: Policy
    endorsements: EndorsementOptions = field(default_factory=EndorsementOptions)
    timeout: float | None = DEFAULT_TIMEOUT
    max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES
    pad: bool = True
    sessions: bool = True
    """Whether many requests share one encapsulation (docs/spec/sessions.md)."""
    sealed_authorization: str | None = field(default=None, repr=False)
    """The ``Authorization`` value inside the seal."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError for numbers out of range."""
        if self.timeout is not None:
            check_timeout(self.timeout)
        if self.max_response_bytes <= 0:
            raise ConfigurationError(f"max_response_bytes must be above 0, found {self.max_response_bytes}")
        if self.sessions and self.connection.relay is not None:
            raise ConfigurationError(
                "relay and sessions exclude each other: a relay keeps requests apart, and a session would "
                "link them. Leave one out"
            )


def check_timeout(timeout: float) -> float:
    """``timeout`` in seconds. Raises ConfigurationError unless it is a positive number."""
    if not timeout > 0:
        raise ConfigurationError(f"timeout must be a positive number of seconds, found {timeout!r}")
    return timeout


_AUTHORITY = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_PREFIX = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*")  # RFC 3986 §3.3
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")  # RFC 3986 §3.4


def parse_url(url: str, *, option: str = "url") -> BaseUrl:
    """The base URL: ``http`` or ``https``, host, port and path prefix if given; a last slash is ignored.

    ``http`` is no weakness for what is sealed; it shows the host's name and `ingress_auth` to the network.
    Raises ConfigurationError, which names ``option`` and does not repeat a password found in the URL.
    """
    if " " in url or not url.isprintable():  # urlsplit would drop some of them silently
        raise ConfigurationError(
            f"{option} must hold no white space and no control characters, found {url!r}"
        )
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(f"{option} is not valid: {error}") from None
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"{option} holds credentials before the @: give them as ingress_auth=(user, password) if they "
            "are for an ingress, as relay_auth for a relay, or as auth_user and auth_pass for the server"
        )
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(f"{option} must start with http:// or https://, found {url!r}")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ConfigurationError(f"{option} must have no query and no fragment, found {url!r}")
    authority = _AUTHORITY.fullmatch(parts.netloc)
    if authority is None or int(authority["port"] or 1) not in range(1, 65536):
        raise ConfigurationError(
            f"{option} must name a host (ASCII) and maybe a port from 1 to 65535, found {url!r}"
        )
    prefix = parts.path.rstrip("/")
    if not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/")):
        raise ConfigurationError(
            f"{option} has a path that is no plain prefix such as /mymodel, found {url!r}"
        )
    return BaseUrl(parts.scheme, parts.netloc, prefix)


def parse_relay(relay: str) -> str:
    """The URL of a relay, as it is: what a relay is asked for is its own affair (RFC 9458 §6.1), so a path
    may end with a slash and a query may follow. Raises ConfigurationError.
    """
    base, _, query = relay.partition("?")
    parse_url(base, option="relay")
    if not _QUERY.fullmatch(query):
        raise ConfigurationError(f"relay has a query that no URL can have, found {relay!r}")
    return relay


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


def ingress_authorization(auth: IngressAuth | None, *, option: str = "ingress_auth") -> str | None:
    """The outer ``Authorization`` value: Basic from a pair, Bearer from a string. Raises
    ConfigurationError."""
    if auth is None:
        return None
    if isinstance(auth, str):
        return _bearer(auth, option)
    if len(auth) != 2:
        raise ConfigurationError(f"{option} must be (user, password) or a bearer token")
    return _basic(*auth, option)


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

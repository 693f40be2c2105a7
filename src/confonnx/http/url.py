"""URLs and what they name: origins, and proxies. Pure."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from confonnx.errors import ConfigurationError

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host (lower case, IPv6 without brackets) and port (RFC 9110 §4.3.1)."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """As in ``Host``: without the port that the scheme has anyway."""
        return self._host if self.port == _PORTS[self.scheme] else self.with_port

    @property
    def with_port(self) -> str:
        """As in ``CONNECT`` (RFC 9110 §9.3.6)."""
        return f"{self._host}:{self.port}"

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True, slots=True)
class Url:
    """An ``http`` or ``https`` URL. ``target`` is its path and query, as in a request line."""

    origin: Origin
    target: str

    def __str__(self) -> str:
        return f"{self.origin.scheme}://{self.origin.authority}{self.target}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy, reached in the clear. ``authorization`` is the value of ``Proxy-Authorization``."""

    origin: Origin
    authorization: str | None = field(default=None, repr=False)


def parse_url(url: str) -> Url:
    """Raises ValueError for what is no URL with a host, and for user information, which would be ignored."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("expected http:// or https:// and a host, without user information")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(Origin(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]), target)


def parse_proxy(url: str) -> Proxy:
    """The proxy at ``http://host:port``, maybe with ``user:password@`` before the host. Raises
    ConfigurationError, which does not repeat the URL, since it may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS["http"]
    except ValueError as error:
        raise ConfigurationError(f"ca_file or proxy cannot be used: proxy is no URL: {error}") from None
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigurationError(
            f"ca_file or proxy cannot be used: expected proxy=http://host:port, found {parts.scheme}://"
        )
    if parts.username is None:
        return Proxy(Origin("http", parts.hostname, port))
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(
        Origin("http", parts.hostname, port), f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
    )

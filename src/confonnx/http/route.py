"""How origins are reached: the proxy on the way, and how TLS is verified. Nothing is connected."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike

import truststore

from confonnx.errors import ConfigurationError
from confonnx.http.fields import Fields
from confonnx.http.url import Origin, Proxy, Url


@dataclass(frozen=True, slots=True)
class Route:
    """How origins are reached: with ``tls`` where their scheme is ``https``, and through ``proxy`` if
    given."""

    tls: ssl.SSLContext
    proxy: Proxy | None = None

    def through(self, url: Url) -> str:
        """The target in a request for ``url`` (RFC 9112 §3.2): absolute if a proxy is to read it."""
        return str(url) if self.reads_requests(url.origin) else url.target

    def fields(self, origin: Origin) -> Fields:
        """The fields that such a request needs."""
        found = (("host", origin.authority),)
        if self.reads_requests(origin) and self.proxy is not None and self.proxy.authorization is not None:
            return (*found, ("proxy-authorization", self.proxy.authorization))
        return found

    def reads_requests(self, origin: Origin) -> bool:
        """Whether a proxy reads the requests to ``origin``. Those under TLS it passes on as they are."""
        return self.proxy is not None and origin.scheme == "http"


def system_tls(ca_file: str | PathLike[str] | None = None) -> ssl.SSLContext:
    """Verifies against the authorities that the operating system trusts, and those of a PEM file. Raises
    ConfigurationError.
    """
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is not None:
        with _configuration_errors():
            context.load_verify_locations(cafile=ca_file)
    return _http(context)


def private_tls(ca_file: str | PathLike[str]) -> ssl.SSLContext:
    """Verifies against the authorities of a PEM file alone. Raises ConfigurationError."""
    with _configuration_errors():
        return _http(ssl.create_default_context(cafile=ca_file))


def dangerous_unverified_tls() -> ssl.SSLContext:
    """Accepts any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _http(context)


def _http(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextmanager
def _configuration_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigurationError(f"ca_file or proxy cannot be used: {error}") from error

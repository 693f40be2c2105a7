"""URLs, origins, proxies, and what a request on the way to them says."""

from __future__ import annotations

import base64
import ssl

import pytest

from confonnx.errors import ConfigurationError
from confonnx.http.route import Route
from confonnx.http.url import Origin, parse_proxy, parse_url

TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.mark.parametrize(
    ("url", "origin", "target", "authority"),
    [
        ("http://Example.org", Origin("http", "example.org", 80), "/", "example.org"),
        ("https://a:443/b?c=d", Origin("https", "a", 443), "/b?c=d", "a"),
        ("https://a:80/b/", Origin("https", "a", 80), "/b/", "a:80"),
        ("http://[::1]:8080/", Origin("http", "::1", 8080), "/", "[::1]:8080"),
        ("http://[::1]?x", Origin("http", "::1", 80), "/?x", "[::1]"),
    ],
)
def test_urls(url: str, origin: Origin, target: str, authority: str) -> None:
    found = parse_url(url)
    assert (found.origin, found.target, found.origin.authority) == (origin, target, authority)
    assert parse_url(str(found)) == found


@pytest.mark.parametrize("url", ["ftp://a", "http://", "a", "http://user@a", "http://a:b", "http://a:65536"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected|[Pp]ort"):
        parse_url(url)


def test_proxies() -> None:
    assert parse_proxy("http://a") == parse_proxy("http://a:80/")
    proxy = parse_proxy("http://us%3Aer:p%40ss@a:3128")
    assert proxy.origin == Origin("http", "a", 3128)
    assert proxy.authorization == "Basic " + base64.b64encode(b"us:er:p@ss").decode()
    assert "Basic" not in repr(proxy)


@pytest.mark.parametrize(
    "url", ["https://user:hunter2@a", "socks5://user:hunter2@a", "http://user:hunter2@a:b"]
)
def test_a_proxy_that_cannot_be_used_does_not_show_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="proxy") as caught:
        parse_proxy(url)
    assert "hunter2" not in str(caught.value)


def test_what_a_proxy_reads_has_its_credentials_and_the_whole_url() -> None:
    route = Route(TLS, parse_proxy("http://user:pass@proxy"))
    plain, encrypted = parse_url("http://a:81/b?c"), parse_url("https://a/b")
    assert route.through(plain) == "http://a:81/b?c"
    assert [name for name, _ in route.fields(plain.origin)] == ["host", "proxy-authorization"]
    assert route.through(encrypted) == "/b"
    assert route.fields(encrypted.origin) == (("host", "a"),)


def test_without_a_proxy() -> None:
    url = parse_url("http://a:81/b")
    assert Route(TLS).through(url) == "/b"
    assert Route(TLS).fields(url.origin) == (("host", "a:81"),)

"""What a user may tell a client, and what every mistake is answered with."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping

import pytest

from confonnx.attestation.policy import Policy
from confonnx.client.options import (
    ClientOptions,
    Connection,
    ingress_authorization,
    parse_url,
    sealed_authorization,
)
from confonnx.errors import ConfigurationError

POLICY = Policy.simple(enclave_hash="ab" * 32, enclave_model_hash="cd" * 32, allow_simulated=True)


@pytest.mark.parametrize(
    ("url", "joined"),
    [
        ("http://1.2.3.4/mymodel", "http://1.2.3.4/mymodel/ohttp"),
        ("http://1.2.3.4/mymodel/", "http://1.2.3.4/mymodel/ohttp"),
        ("https://example.org", "https://example.org/ohttp"),
        ("HTTPS://example.org:8443//", "https://example.org:8443/ohttp"),
        ("http://localhost:8888/a/b-c_d~/%20", "http://localhost:8888/a/b-c_d~/%20/ohttp"),
        ("http://[::1]:8888/", "http://[::1]:8888/ohttp"),
        ("http://my_service:80", "http://my_service:80/ohttp"),
    ],
)
def test_urls_with_and_without_prefix_and_slash(url: str, joined: str) -> None:
    base = parse_url(url)
    assert base.join("/ohttp") == joined
    assert parse_url(str(base)) == base


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "must start with http"),
        ("localhost:8888", "must start with http"),
        ("ftp://example.org", "must start with http"),
        ("http://", "must name a host"),
        ("http:///path", "must name a host"),
        ("http://example.org:0", "must name a host"),
        ("http://example.org:65536", "must name a host"),
        ("http://example.org:x", "must name a host"),
        ("http://bücher.example", "must name a host"),
        ("http://[::1", "not valid"),
        ("http://example.org/?", "no query"),
        ("http://example.org/#top", "no query"),
        ("http://example.org/a?b=c", "no query"),
        ("http://example.org/a/../b", "no plain prefix"),
        ("http://example.org/./b", "no plain prefix"),
        ("http://example.org/a//b", "no plain prefix"),
        ("http://example.org/a b", "no white space"),
        ("http://example.org/a%2", "no plain prefix"),
        (" http://example.org/", "no white space"),
        ("http://example.org/a\nb", "no white space"),
    ],
)
def test_bad_urls(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        parse_url(url)


def test_credentials_in_the_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="ingress_auth") as caught:
        parse_url("http://user:hunter2@example.org/")
    assert "hunter2" not in str(caught.value)


def sealed(
    key: str | None = None,
    user: str | None = None,
    password: str | None = None,
    auth: Mapping[str, str] | None = None,
) -> str | None:
    return sealed_authorization(auth_key=key, auth_user=user, auth_pass=password, auth=auth)


def test_sealed_credentials() -> None:
    assert sealed() is None
    assert sealed(key="k.1/=+") == "Bearer k.1/=+"
    assert sealed(user="ü", password="p:w") == "Basic " + base64.b64encode("ü:p:w".encode()).decode()
    assert sealed(password="pw") == "Basic " + base64.b64encode(b":pw").decode()


def test_the_older_form_of_credentials() -> None:
    assert sealed(auth={"key": "k"}) == sealed(key="k")
    assert sealed(auth={"user": "u", "pass": "p"}) == sealed(user="u", password="p")
    assert sealed(auth={}) is None


@pytest.mark.parametrize(
    ("key", "user", "password", "auth"),
    [
        ("k", "u", "p", None),
        ("k", None, "p", None),
        ("k", "u", None, None),
        (None, "u", None, None),
        ("", None, None, None),
        ("a b", None, None, None),
        ("a\nb", None, None, None),
        ("ä", None, None, None),
        (None, "a:b", "p", None),
        (None, "u", "p\r\nx", None),
        ("k", None, None, {"key": "k"}),
        (None, None, None, {"token": "k"}),
        (None, None, None, {"key": "k", "user": "u", "pass": "p"}),
        (None, None, None, {"user": "u"}),
    ],
)
def test_bad_credentials(
    key: str | None, user: str | None, password: str | None, auth: Mapping[str, str] | None
) -> None:
    with pytest.raises(ConfigurationError):
        sealed(key, user, password, auth)


def test_ingress_credentials() -> None:
    assert ingress_authorization(None) is None
    assert ingress_authorization("token") == "Bearer token"
    assert ingress_authorization(("u", "p")) == "Basic " + base64.b64encode(b"u:p").decode()
    with pytest.raises(ConfigurationError, match="ingress_auth"):
        ingress_authorization("two words")
    with pytest.raises(ConfigurationError, match="ingress_auth"):
        ingress_authorization(("a", "b", "c"))  # type: ignore[arg-type]


CONNECTION = Connection(parse_url("http://a"))


@pytest.mark.parametrize("timeout", [0, -1, math.nan])
def test_bad_timeouts(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        ClientOptions(CONNECTION, POLICY, timeout=timeout)


def test_bad_limits_and_contradictions() -> None:
    with pytest.raises(ConfigurationError, match="max_response_bytes"):
        ClientOptions(CONNECTION, POLICY, max_response_bytes=0)
    with pytest.raises(ConfigurationError, match="ca_file"):
        Connection(parse_url("https://a"), ca_file="ca.pem", skip_tls_verification=True)


def test_secrets_are_not_in_repr() -> None:
    options = ClientOptions(
        Connection(
            parse_url("http://a"), ingress_authorization="Bearer hunter3", proxy="http://u:hunter4@proxy"
        ),
        POLICY,
        sealed_authorization="Bearer hunter2",
    )
    assert "hunter" not in repr(options)

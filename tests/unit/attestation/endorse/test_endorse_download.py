"""Getting documents from a service that is slow, busy, wrong or hostile."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import pytest

from confonnx.attestation.endorse.download import Downloader
from confonnx.attestation.endorse.exchange import Answer, Request
from confonnx.errors import (
    ConfigurationError,
    ConfonnxError,
    EndorsementError,
    OverloadedError,
    TooLargeError,
    TransportError,
)
from tests.support.canned_http import canned
from tests.support.fake_vendors import Page, fake_vendors
from tests.support.loopback_tls import server_tls, write_ca_file

LIMIT = 1000


def request(url: str, *fields: str) -> Request:
    return Request(
        url, "the document", LIMIT, lambda _: datetime(2030, 1, 1, tzinfo=UTC), renewed=True, fields=fields
    )


def get(
    page: Page, *, timeout: float | None = 10.0, waits: list[float] | None = None
) -> tuple[Answer, list[str]]:
    downloader = Downloader(wait=(waits if waits is not None else []).append)
    deadline = None if timeout is None else monotonic() + timeout
    with fake_vendors({"/doc?a=1": page}) as vendors:
        try:
            answer = downloader.get(request(f"{vendors.url}/doc?a=1", "x-chain"), deadline=deadline)
        finally:
            downloader.close()
        return answer, vendors.asked


@pytest.mark.parametrize("timeout", [10.0, None])
def test_a_document_with_the_fields_that_are_wanted(timeout: float | None) -> None:
    answer, asked = get(Page(b"body", fields={"X-Chain": "abc", "X-Other": "d"}), timeout=timeout)
    assert answer == Answer(b"body", (("x-chain", "abc"),))
    assert asked == ["/doc?a=1"]


def test_a_field_that_is_missing() -> None:
    answer, _ = get(Page(b"body"))
    with pytest.raises(EndorsementError, match="no x-chain field"):
        answer.field("x-chain")


@pytest.mark.parametrize(
    ("page", "error", "text"),
    [
        (Page(status=404), EndorsementError, r"\[endorse.missing\]"),
        (Page(status=400), EndorsementError, r"\[endorse.missing\]"),
        (Page(status=410), EndorsementError, r"\[endorse.missing\]"),
        (Page(status=500), TransportError, "status 500"),
        (Page(status=401), TransportError, "status 401"),
        (Page(status=302, fields={"location": "/doc?a=1"}), TransportError, "status 302"),
        (Page(b"x" * (LIMIT + 1)), TooLargeError, "at most 1000 bytes"),
        (Page(b"x", length=5), TransportError, "cannot get"),  # it breaks off
        (Page(b"x", fields={"content-encoding": "gzip"}), EndorsementError, "compressed"),
    ],
)
def test_answers_that_are_no_use(page: Page, error: type[ConfonnxError], text: str) -> None:
    with pytest.raises(error, match=text):
        get(page)


def test_the_largest_document() -> None:
    assert len(get(Page(b"x" * LIMIT))[0].body) == LIMIT


def test_a_busy_service_is_asked_once_more() -> None:
    waits: list[float] = []
    answer, asked = get(Page(b"body", fields={"retry-after": "3"}, busy=1), waits=waits)
    assert (answer.body, waits, len(asked)) == (b"body", [3], 2)


def test_a_service_that_stays_busy() -> None:
    waits: list[float] = []
    with pytest.raises(OverloadedError, match="try again in 3 s") as caught:
        get(Page(fields={"retry-after": "3"}, busy=9), waits=waits)
    assert (caught.value.retry_after, waits) == (3, [3])


@pytest.mark.parametrize(
    ("retry_after", "timeout", "expected"),
    [("31", None, 31), ("3", 2.0, 3), ("Wed, 21 Oct 2026 07:28:00 GMT", 5.0, 10), ("999999", None, 10)],
)
def test_a_long_wait_is_the_callers(retry_after: str, timeout: float | None, expected: int) -> None:
    waits: list[float] = []
    page = Page(fields={"retry-after": retry_after}, busy=9)
    with pytest.raises(OverloadedError) as caught:
        get(page, timeout=timeout, waits=waits)
    assert caught.value.retry_after == expected
    assert waits == ([10] if expected == 10 and timeout is None else [])


def test_a_service_out_of_order_is_busy() -> None:
    with pytest.raises(OverloadedError, match="status 503"):
        get(Page(status=503), timeout=5.0)


def test_a_slow_service_is_given_up() -> None:
    with pytest.raises(TransportError, match="did not answer in time"):
        get(Page(b"body", delay=0.5), timeout=0.1)


def test_a_service_that_trickles_is_given_up() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n"
    with canned(head, *[b"x"] * 20, pause=0.05) as server:
        downloader = Downloader()
        started = monotonic()
        with pytest.raises(TransportError, match="did not answer in time"):
            downloader.get(request(server.url), deadline=started + 0.3)
        assert monotonic() - started < 0.9
        downloader.close()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nx-filler: "])
def test_a_service_that_trickles_its_head_is_given_up(head: bytes) -> None:
    with canned(head, *[b"x"] * 20, pause=0.05) as server:
        downloader = Downloader()
        started = monotonic()
        with pytest.raises(TransportError, match="did not answer in time"):
            downloader.get(request(server.url), deadline=started + 0.3)
        assert monotonic() - started < 0.9
        downloader.close()


def test_no_time_left() -> None:
    downloader = Downloader()
    with pytest.raises(TransportError, match="did not answer in time"):
        downloader.get(request("http://127.0.0.1:1/"), deadline=monotonic() - 1)
    downloader.close()


def test_nobody_there() -> None:
    downloader = Downloader()
    with pytest.raises(TransportError, match="cannot get"):
        downloader.get(request("http://127.0.0.1:1/"), deadline=None)
    downloader.close()


def test_the_environment_is_not_read_and_no_credentials_go_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    downloader = Downloader()
    with fake_vendors({"/doc": Page(b"body")}) as vendors:
        assert downloader.get(request(f"{vendors.url}/doc"), deadline=None).body == b"body"
    downloader.close()
    (heard,) = vendors.heard
    assert set(heard) == {"host", "accept", "accept-encoding", "connection", "user-agent"}
    assert heard["accept-encoding"] == "identity"


def test_a_ca_file_that_cannot_be_used(tmp_path: Path) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("no certificate")
    for path in (wrong, tmp_path / "missing.pem"):
        with pytest.raises(ConfigurationError, match="ca_file or proxy"):
            Downloader(ca_file=path)


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    return write_ca_file(tmp_path)


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    return server_tls(tmp_path)


def test_a_pccs_with_an_authority_of_its_own(ca_file: Path, tls: ssl.SSLContext) -> None:
    with fake_vendors({"/doc": Page(b"body")}, tls=tls) as vendors:
        downloader = Downloader(ca_file=ca_file)
        assert downloader.get(request(f"{vendors.url}/doc"), deadline=monotonic() + 10).body == b"body"
        downloader.close()
        stranger = Downloader()
        with pytest.raises(TransportError, match="certificate"):
            stranger.get(request(f"{vendors.url}/doc"), deadline=None)
        stranger.close()


def test_a_slow_service_is_given_up_over_tls_too(ca_file: Path, tls: ssl.SSLContext) -> None:
    with fake_vendors({"/doc": Page(b"body", delay=0.6)}, tls=tls) as vendors:
        downloader = Downloader(ca_file=ca_file)
        started = monotonic()
        with pytest.raises(TransportError, match="did not answer in time"):
            downloader.get(request(f"{vendors.url}/doc"), deadline=started + 0.3)
        assert monotonic() - started < 0.55
        downloader.close()


def test_a_body_that_ends_with_its_connection_is_not_taken_for_whole() -> None:
    with canned(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 20, pause=0.05) as server:
        downloader = Downloader()
        with pytest.raises(TransportError, match="did not answer in time"):
            downloader.get(request(server.url), deadline=monotonic() + 0.3)
        downloader.close()

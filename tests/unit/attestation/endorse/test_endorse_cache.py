"""The cache on disk: whole entries or none, nobody else's directory, and damage is a miss."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from confonnx.attestation.endorse.cache import Cache, Cached
from confonnx.attestation.endorse.exchange import Answer, Request
from confonnx.errors import ConfigurationError

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
ANSWER = Answer(bytes(range(256)), (("tcb-info-issuer-chain", "%2Dabc"),))


def request(url: str = "https://vendor.test/a?b=1") -> Request:
    return Request(url, "the document", 1000, lambda _: LATER, renewed=False)


def filled(directory: Path) -> tuple[Cache, Path]:
    """A cache with one entry, and its file."""
    cache = Cache(directory)
    cache.put(request(), ANSWER, now=NOW, valid_until=LATER)
    (file,) = directory.iterdir()
    return cache, file


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache, _ = filled(tmp_path / "cache")
    assert cache.get(request()) == Cached(ANSWER, NOW, LATER)
    assert Cache(tmp_path / "cache").get(request()) == Cached(ANSWER, NOW, LATER)
    assert cache.get(request("https://vendor.test/a?b=2")) is None


def test_an_entry_replaces_the_one_before(tmp_path: Path) -> None:
    cache, file = filled(tmp_path / "cache")
    cache.put(request(), Answer(b"new"), now=LATER, valid_until=LATER)
    assert cache.get(request()) == Cached(Answer(b"new"), LATER, LATER)
    assert list(file.parent.iterdir()) == [file]  # and no temporary file stays


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_files_are_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        _, file = filled(tmp_path / "cache")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_can_write_to(tmp_path: Path, mode: int) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        Cache(tmp_path / "cache")


def test_a_directory_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345, raising=False)
    monkeypatch.setattr(os, "name", "posix")
    with pytest.raises(ConfigurationError, match="belongs to"):
        Cache(tmp_path)


def test_every_cut_and_every_changed_byte_is_a_miss(tmp_path: Path) -> None:
    cache, file = filled(tmp_path / "cache")
    whole = file.read_bytes()
    for end in range(0, len(whole), 7):
        file.write_bytes(whole[:end])
        assert cache.get(request()) is None, end
    for at in range(0, len(whole), 5):
        file.write_bytes(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
        assert cache.get(request()) is None, at
    file.write_bytes(whole)
    assert cache.get(request()) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"url": "https://vendor.test/other"},
        {"valid_until": "2027-01-01T00:00:00"},  # of no time zone
        {"fetched_at": "2026-01-01T00:00:00"},
        {"body": "!"},
        {"fields": None},
    ],
)
def test_an_entry_of_another_kind_is_a_miss(tmp_path: Path, change: dict[str, object]) -> None:
    cache, file = filled(tmp_path / "cache")
    entry = json.dumps(json.loads(file.read_bytes())["entry"] | change)
    digest = hashlib.sha256(entry.encode()).hexdigest()
    file.write_text(f'{{"digest":"{digest}","entry":{entry}}}')
    assert cache.get(request()) is None


def test_a_directory_in_place_of_the_entry_is_a_miss(tmp_path: Path) -> None:
    cache, file = filled(tmp_path / "cache")
    file.unlink()
    file.mkdir()
    assert cache.get(request()) is None
    with pytest.raises(ConfigurationError, match="cannot write to the cache directory"):
        cache.put(request(), ANSWER, now=NOW, valid_until=LATER)
    assert list(file.parent.iterdir()) == [file]


def test_an_endless_entry_is_a_miss(tmp_path: Path) -> None:
    cache, file = filled(tmp_path / "cache")
    with file.open("ab") as stream:
        stream.write(b" " * (8 * 1024 * 1024))
    assert cache.get(request()) is None


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Cache(tmp_path / "file" / "cache")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Cache(tmp_path / "file")

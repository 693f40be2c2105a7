"""What was fetched, on disk: a directory of its own with one file for each document.

::

    <SHA-256 of the document's URL>.json
    {"digest": "<SHA-256 of entry>", "entry": {"version": 1, "url": …, "fetched_at": …, "valid_until": …,
                                               "fields": […], "body": "<base64>"}}

The URL says what a document is about: the chip and its TCB, or the CPU family and whose CRL. Files are
written whole or not at all, and read for no more than they are worth: whatever is damaged, of another version
or of another URL is a miss. The cache vouches for nothing; what comes out of it is verified like what comes
from a server. It must be nobody else's, though: who can write to it can keep an older CRL there until it
expires.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Final, TypeAlias

import msgspec

from confonnx.attestation.endorse.exchange import Answer, Request
from confonnx.errors import ConfigurationError

_VERSION: Final = 1
_MAX_ENTRY_BYTES: Final = 8 * 1024 * 1024


_Instant: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class _Entry(msgspec.Struct, frozen=True):
    version: int
    url: str
    fetched_at: _Instant
    valid_until: _Instant
    fields: tuple[tuple[str, str], ...]
    body: bytes


class _File(msgspec.Struct, frozen=True):
    digest: str
    entry: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Cached:
    """A document from the cache. ``valid_until`` is what the document says of itself."""

    answer: Answer
    fetched_at: datetime
    valid_until: datetime


def default_directory() -> Path:
    """Where a user's cache is. Raises ConfigurationError for a user without a home."""
    try:
        return Path.home() / ".cache" / "confonnx" / "endorsements"
    except RuntimeError as error:
        raise ConfigurationError(f"give a cache directory for endorsements: {error}") from error


class Cache:
    """A directory of documents. Several processes may use it at the same time."""

    def __init__(self, directory: str | PathLike[str]) -> None:
        """Makes the directory, for this user alone, unless it is there.

        Raises ConfigurationError when it cannot be made, or when others can write to it.
        """
        self._directory = Path(directory)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self._directory.stat()
        except OSError as error:
            raise ConfigurationError(
                f"cache directory {self._directory} cannot be used: {error.strerror or error}"
            ) from error
        if os.name == "posix" and (
            found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_uid != os.getuid()
        ):
            raise ConfigurationError(
                f"cache directory {self._directory} belongs to, or can be written by, others, who could keep "
                "old revocation lists in it; use one of your own, with chmod 700"
            )

    def get(self, request: Request) -> Cached | None:
        """The document, valid or not; None where there is none that can be read."""
        try:
            with self._path(request).open("rb") as stream:
                data = stream.read(_MAX_ENTRY_BYTES + 1)
            if len(data) > _MAX_ENTRY_BYTES:
                return None
            file = msgspec.json.decode(data, type=_File)
            if hashlib.sha256(file.entry).hexdigest() != file.digest:
                return None
            entry = msgspec.json.decode(file.entry, type=_Entry)
        except (OSError, ValueError):  # ValueError: msgspec's errors
            return None
        if (entry.version, entry.url) != (_VERSION, request.url):
            return None
        return Cached(Answer(entry.body, entry.fields), entry.fetched_at, entry.valid_until)

    def put(self, request: Request, answer: Answer, *, now: datetime, valid_until: datetime) -> None:
        """Keep a document. Raises ConfigurationError when it cannot be written."""
        entry = msgspec.json.encode(
            _Entry(_VERSION, request.url, now, valid_until, answer.fields, answer.body)
        )
        data = msgspec.json.encode(_File(hashlib.sha256(entry).hexdigest(), msgspec.Raw(entry)))
        path = self._path(request)
        temporary = path.with_suffix(f".{token_hex(8)}")
        try:
            try:
                # O_EXCL: never through a link that somebody left there.
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                    stream.write(data)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write to the cache directory {self._directory}: {error.strerror or error}"
            ) from error

    def _path(self, request: Request) -> Path:
        return self._directory / f"{hashlib.sha256(request.url.encode()).hexdigest()}.json"

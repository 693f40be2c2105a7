"""What is asked of a vendor's service and what it answers: values, no I/O.

``amd_kds`` and ``intel_pcs`` are generators. They yield a :class:`Request` and are sent the :class:`Answer`;
an :class:`~confonnx.errors.EndorsementError` (the service has no such document) is thrown into them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from confonnx.errors import EndorsementError

#: Pairs of media type and bytes, as in a bundle.
Endorsements: TypeAlias = tuple[tuple[str, bytes], ...]

#: Check identifiers of what can go wrong before there is anything to verify.
MISSING: Final = "endorse.missing"  # the service has no such document
UNUSABLE: Final = "endorse.unusable"  # the evidence does not say what to ask for
MALFORMED: Final = "endorse.malformed"  # what came is not that document


@dataclass(frozen=True, slots=True)
class Answer:
    """A document, and those of the answer's fields that the request wanted, lower case, each once."""

    body: bytes
    fields: tuple[tuple[str, str], ...] = ()

    def field(self, name: str) -> str:
        """The value of the field. Raises :class:`EndorsementError` (``endorse.malformed``)."""
        for key, value in self.fields:
            if key == name:
                return value
        raise EndorsementError(
            MALFORMED, f"the answer has no {name} field; is this address the right service?"
        )


@dataclass(frozen=True, slots=True)
class Request:
    """One document to get from ``url``, which is also what the document is known by.

    ``what`` names it in errors. ``fields`` are the answer's fields to keep, lower case. ``read_expiry``
    parses an answer and says until when it is valid; it raises :class:`EndorsementError` for what is no such
    document. ``renewed`` documents are published anew before they expire (CRLs, TCB Info), so a cache asks
    for them again in time.
    """

    url: str
    what: str
    max_bytes: int
    read_expiry: Callable[[Answer], datetime]
    renewed: bool
    fields: tuple[str, ...] = ()


Gathering: TypeAlias = Generator[Request, Answer, Endorsements]

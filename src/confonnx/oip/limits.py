"""Bounds on what a message may hold, checked before anything is allocated for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from confonnx.errors import ConfigurationError, OipError


@dataclass(frozen=True, slots=True)
class OipLimits:
    """Every bound of the parser. The size of a body as a whole is the transport's to bound.

    Attributes:
        max_header_bytes: JSON header, or the whole body where it has no binary part. Parsed JSON numbers take
            up to 16 times their bytes for a moment, so large tensors belong in the binary part.
        max_tensors: entries in a message, those inside sequences, maps and optionals counted too.
        max_depth: nesting of a value; a tensor is 1, ``seq(map(string,tensor(float)))`` is 3.
        max_elements: elements of one tensor. Dimensions of size 0 count as 1, so that the others stay
            bounded.
        max_rank: dimensions of one tensor; numpy's own bound is 64.
        max_name_length: characters of a name or an id.
    """

    max_header_bytes: int = 32 * 1024 * 1024
    max_tensors: int = 65_536
    max_depth: int = 8
    max_elements: int = 2**31
    max_rank: int = 32
    max_name_length: int = 1024

    def __post_init__(self) -> None:
        """Raises ConfigurationError for a bound below 1 or a rank that numpy does not have."""
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ConfigurationError(f"{field.name} must be at least 1, got {getattr(self, field.name)}")
        if self.max_rank > 64:
            raise ConfigurationError(f"max_rank must be at most 64, got {self.max_rank}")

    def count_elements(self, shape: Sequence[int], where: str) -> int:
        """The number of elements of a tensor of that shape; ``where`` names it in the errors.

        Raises:
            OipError: a negative dimension, or more dimensions or elements than allowed.
        """
        if len(shape) > self.max_rank:
            raise OipError(f"{where}: {len(shape)} dimensions, at most {self.max_rank} are allowed")
        bounded = count = 1
        for size in shape:
            if size < 0:
                raise OipError(f"{where}: shape has a negative dimension; a message needs the actual sizes")
            bounded *= size or 1
            count *= size
            if bounded > self.max_elements:
                raise OipError(
                    f"{where}: shape has more than the {self.max_elements} elements that are allowed"
                )
        return count

    def check_name(self, name: str, what: str) -> str:
        """``name`` itself.

        Raises:
            OipError: it is too long.
        """
        if len(name) > self.max_name_length:
            raise OipError(f"{what} has {len(name)} characters, at most {self.max_name_length} are allowed")
        return name

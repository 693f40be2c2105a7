"""What a policy accepts for one field of evidence: a closed set of small values that match, describe and
compare.

There is no matcher that accepts everything by being empty, and no ``None``: whoever accepts any value
writes ``ANY``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from confonnx.errors import ConfigurationError

MAX_ACCEPTED: Final = 1024  # values for one field

Value: TypeAlias = bytes | int | str
"""What a field of evidence may be."""


@dataclass(frozen=True, slots=True)
class AnyValue:
    """Accepts every value, and says so in words. Use ``ANY``."""

    def accepts(self, found: Value) -> bool:
        return True

    def __str__(self) -> str:
        return "any value"


ANY: Final = AnyValue()


@dataclass(frozen=True, slots=True)
class OneOf:
    """Accepts the listed byte strings, of equal length, one or more; several of them are what a rolling
    upgrade needs.
    """

    values: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.values) <= MAX_ACCEPTED or len({len(value) for value in self.values}) != 1:
            raise ConfigurationError(
                f"expected 1 to {MAX_ACCEPTED} values of one length, found {len(self.values)} of lengths "
                f"{sorted({len(value) for value in self.values})}"
            )

    def accepts(self, found: Value) -> bool:
        return found in self.values

    def __str__(self) -> str:
        return " or ".join(_hex(value) for value in self.values)


@dataclass(frozen=True, slots=True)
class OneOfNumbers:
    """Accepts the listed integers, one or more."""

    values: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.values) <= MAX_ACCEPTED or min(self.values) < 0:
            raise ConfigurationError(
                f"expected 1 to {MAX_ACCEPTED} integers, none negative, found {self.values}"
            )

    def accepts(self, found: Value) -> bool:
        return found in self.values

    def __str__(self) -> str:
        return " or ".join(map(str, self.values))


@dataclass(frozen=True, slots=True)
class OneOfTexts:
    """Accepts the listed texts, one or more, none of them empty."""

    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.values) <= MAX_ACCEPTED or not all(self.values):
            raise ConfigurationError(f"expected 1 to {MAX_ACCEPTED} texts, none empty, found {self.values}")

    def accepts(self, found: Value) -> bool:
        return found in self.values

    def __str__(self) -> str:
        return " or ".join(map(repr, self.values))


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Accepts integers from ``minimum`` on."""

    minimum: int

    def __post_init__(self) -> None:
        if self.minimum < 0:
            raise ConfigurationError(f"expected a minimum of 0 or more, found {self.minimum}")

    def accepts(self, found: Value) -> bool:
        return isinstance(found, int) and found >= self.minimum

    def __str__(self) -> str:
        return f"{self.minimum} or more"


@dataclass(frozen=True, slots=True)
class AtLeastEach:
    """Accepts byte strings of the same length of which each byte is at least that of ``minimum`` (component
    SVNs).
    """

    minimum: bytes

    def __post_init__(self) -> None:
        if not self.minimum:
            raise ConfigurationError("expected one minimum for each component, found none")

    def accepts(self, found: Value) -> bool:
        return (
            isinstance(found, bytes)
            and len(found) == len(self.minimum)
            and all(have >= want for have, want in zip(found, self.minimum, strict=True))
        )

    def __str__(self) -> str:
        return f"each byte at least that of {self.minimum.hex()}"


@dataclass(frozen=True, slots=True)
class Masked:
    """Accepts integers with ``found & mask == value``: the bits of ``mask`` are checked, the others are
    free.
    """

    mask: int
    value: int

    def __post_init__(self) -> None:
        if self.mask <= 0:
            raise ConfigurationError(
                f"the mask {self.mask:#x} checks no bit; write any when every value is accepted"
            )
        if self.value < 0 or self.value & ~self.mask:
            raise ConfigurationError(f"the value {self.value:#x} has bits outside its mask {self.mask:#x}")

    def accepts(self, found: Value) -> bool:
        return isinstance(found, int) and found & self.mask == self.value

    def __str__(self) -> str:
        return f"bits {self.mask:#x} equal to {self.value:#x}"


Matcher: TypeAlias = AnyValue | OneOf | OneOfNumbers | OneOfTexts | AtLeast | AtLeastEach | Masked


def _hex(value: bytes) -> str:
    return f"{len(value)} zero bytes" if value and not any(value) else value.hex()

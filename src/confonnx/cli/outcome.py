"""How a command ends: one exit status per kind of outcome, and errors as one readable line."""

from __future__ import annotations

import sys
from typing import Final

from confonnx import errors

#: Exit statuses, the most specific class first. 0 is success, 2 is also what a wrong option gives.
EXIT_STATUSES: Final[tuple[tuple[type[errors.ConfonnxError], int], ...]] = (
    (errors.ConfigurationError, 2),
    (errors.VerificationError, 3),
    (errors.NotConfonnxError, 4),
    (errors.TransportError, 4),
    (errors.DeadlineExceededError, 4),
    (errors.AuthenticationError, 5),
    (errors.ModelError, 6),
    (errors.InvalidInputError, 6),
    (errors.ConfonnxError, 1),
)


def exit_status(error: errors.ConfonnxError) -> int:
    """The exit status for ``error``, by :data:`EXIT_STATUSES`."""
    return next(status for kind, status in EXIT_STATUSES if isinstance(error, kind))


def report(error: errors.ConfonnxError) -> int:
    """Say what went wrong on standard error; returns the exit status."""
    print(f"error: {error}", file=sys.stderr)  # noqa: T201 — this is a command
    return exit_status(error)

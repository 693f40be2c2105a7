"""An ``enclave.conf`` that is right, and variations of it."""

from __future__ import annotations

GOOD = {
    "Debug": "0",
    "NumTCS": "32",
    "NumHeapPages": "507904",
    "NumStackPages": "512",
    "ProductID": "1",
    "SecurityVersion": "7",
}


def conf_text(**changes: str | None) -> str:
    """The text with ``changes``; None leaves a key out."""
    values = GOOD | changes
    return "".join(f"{key}={value}\n" for key, value in values.items() if value is not None)

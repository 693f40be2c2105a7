"""A firmware image that is small, and laid out like OVMF for SEV-SNP."""

from __future__ import annotations

import uuid

RESET_EIP = 0x80B004
SECTIONS = ((0x800000, 0x2000, 1), (0x802000, 0x1000, 2), (0x803000, 0x1000, 3))  # memory, secrets, CPUID


def firmware(sections: tuple[tuple[int, int, int], ...] = SECTIONS) -> bytes:
    """Two pages that end like OVMF: SEV metadata, and the table of GUIDs that leads to it."""

    def entry(guid: str, data: bytes) -> bytes:
        return data + (len(data) + 18).to_bytes(2, "little") + uuid.UUID(guid).bytes_le

    metadata = b"ASEV" + b"".join(
        number.to_bytes(4, "little") for number in (16 + 12 * len(sections), 1, len(sections))
    )
    for section in sections:
        metadata += b"".join(number.to_bytes(4, "little") for number in section)
    start = 4096
    table = (
        entry(
            "7255371f-3a3b-4b04-927b-1da6efa8d454",
            (0x804000).to_bytes(4, "little") + (0x400).to_bytes(4, "little"),
        )
        + entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", RESET_EIP.to_bytes(4, "little"))
        + entry("dc886566-984a-4798-a75e-5585a7bf67cc", (8192 - start).to_bytes(4, "little"))
    )
    footer = (len(table) + 18).to_bytes(2, "little") + uuid.UUID(
        "96b582de-1fb2-45f7-baea-a366c55a082d"
    ).bytes_le
    image = b"\xf4" * start + metadata
    return image.ljust(8192 - 32 - 18 - len(table), b"\0") + table + footer + bytes(32)

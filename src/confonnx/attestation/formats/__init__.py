"""Layouts of evidence and collateral, as the vendors' manuals give them, and nothing else: bytes in, frozen
values out.

Each module parses one structure through the bounds-checked
:class:`~confonnx.attestation.formats.reader.Reader` (or a typed JSON or CBOR decoder) and raises
``EvidenceFormatError`` for anything that is not exactly that structure: unknown versions, reserved bits,
lengths that do not fit, bytes left over. No module here knows a key: a parsed value says what was claimed,
and :mod:`confonnx.attestation.verify` finds out whether it is true.
"""

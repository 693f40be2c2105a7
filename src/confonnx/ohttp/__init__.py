"""Oblivious HTTP (RFC 9458) and what it stands on: HPKE (RFC 9180), Binary HTTP (RFC 9292), padding.

Bytes go in, bytes come out. Nothing here does I/O or reads a clock, and randomness is an argument with a
secure default, so that published test vectors replay exactly. ``hkdf``, ``aead`` and ``kem`` wrap primitives
of the ``cryptography`` package; ``hpke`` adds the key schedule; ``key_config`` and ``encapsulation`` are RFC
9458, ``chunked`` is its form for streams, and ``session`` is ours for many requests to one context; ``bhttp``
is the message inside the seal and ``padding`` hides its exact size. Whatever cannot be opened raises
:class:`confonnx.errors.EncapsulationError` with one text for every reason.
"""

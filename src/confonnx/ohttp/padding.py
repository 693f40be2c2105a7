"""How far a plaintext is padded so that its sealed size tells little about its exact size."""

from __future__ import annotations


def padme(length: int) -> int:
    """The Padmé bucket of ``length`` bytes: the smallest permitted size that is not below it.

    Permitted sizes are floating-point numbers whose mantissa has no more bits than their exponent needs, so a
    size of n bytes leaks O(log log n) bits and grows by less than 12 % (Nikitin et al., "Reducing Metadata
    Leakage from Encrypted Files and Communication with PURBs", PoPETs 2019, §4.3). Raises ``ValueError``
    below zero.
    """
    if length < 2:
        if length < 0:
            raise ValueError(f"a length is not negative, but this one is {length}")
        return length
    exponent = length.bit_length() - 1
    dropped_bits = exponent - exponent.bit_length()  # the mantissa has as many bits as the exponent
    return -(-length >> dropped_bits) << dropped_bits

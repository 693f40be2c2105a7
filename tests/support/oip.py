"""Bit-for-bit comparison of values, and samples of every datatype."""

from __future__ import annotations

import numpy as np

from confonnx.oip.datatypes import Array, Datatype, Kind


def same(a: object, b: object) -> bool:
    """Whether two values are equal in type, shape and every bit: a NaN is itself, -0.0 is not 0.0."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype.kind == "O":
            return same(a.reshape(-1).tolist(), b.reshape(-1).tolist())
        return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    return type(a) is type(b) and a == b


def sample(datatype: Datatype, shape: tuple[int, ...] = (3,)) -> Array:
    """Small numbers that every datatype of the kind holds exactly."""
    count = int(np.prod(shape))
    if datatype.kind is Kind.STRING:
        array = np.empty(count, object)
        array[:] = [f"é{index}" for index in range(count)]
        return array.reshape(shape)
    pattern = np.resize([1, 0, 1] if datatype.bits == 2 or datatype.kind is Kind.BOOL else [1, 2, 4], count)
    return pattern.astype(np.float32).astype(datatype.numpy_dtype).reshape(shape)

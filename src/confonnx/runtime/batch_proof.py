"""Whether a model may answer several requests in one run: whether each row of its answer follows from the
same row of its question alone.

The types tell whether requests can be put together at all. Whether rows stay apart they cannot tell: a
softmax over the first axis, or a batch normalisation that was left in training mode, mixes them. So the model
is tried: two different test inputs in one run must give what they give in runs of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from confonnx.errors import ConfigurationError, InferenceError, InvalidInputError
from confonnx.models.test_inputs import create_test_inputs, varying_dims
from confonnx.oip.datatypes import Array, Kind, TensorType, ValueSpec
from confonnx.oip.values import Value
from confonnx.runtime.session import Session

_ROWS = (2, 3)  # of the requests that are put together
_SIZES = (8, 1)  # of all other dimensions that vary; not every model takes any
_SEEDS = (1, 2, 3)
# Matrix kernels sum in another order for another number of rows.
_RELATIVE = 1e-3
_ABSOLUTE = 1e-5


def prove_batching(session: Session, *, source: str) -> None:
    """Raises ConfigurationError, which says why, for a model whose requests must not be put together."""
    symbol = _symbol(session, source)
    for size in _SIZES:
        try:
            for seed in _SEEDS:
                _try(session, symbol, size, seed, source)
        except (InferenceError, InvalidInputError):
            continue
        return
    raise ConfigurationError(
        f"{source} cannot be batched: it does not run on test inputs of {_ROWS[0]} and {_ROWS[1]} rows, so "
        "nobody knows whether it keeps them apart"
    )


def _symbol(session: Session, source: str) -> str:
    """The name of the first dimension, which all inputs and outputs share."""
    symbols = {spec.name: _first_dimension(spec) for spec in (*session.inputs, *session.outputs)}
    for name, symbol in symbols.items():
        if not isinstance(symbol, str):
            raise ConfigurationError(
                f"{source} cannot be batched: {name!r} is no tensor whose first dimension has a symbolic name"
            )
    for spec in (*session.inputs, *session.outputs):
        assert isinstance(spec.type, TensorType)
        if symbols[spec.name] in (spec.type.shape or ())[1:]:
            raise ConfigurationError(
                f"{source} cannot be batched: {spec.name!r} has the dimension {symbols[spec.name]!r} twice"
            )
    if len(set(symbols.values())) != 1:
        listed = ", ".join(f"{name}: {symbol}" for name, symbol in symbols.items())
        raise ConfigurationError(
            f"{source} cannot be batched: the first dimensions have different names ({listed})"
        )
    return str(next(iter(symbols.values())))


def _first_dimension(spec: ValueSpec) -> int | str | None:
    match spec.type:
        case TensorType(_, (first, *_)):
            return first
    return None


def _try(session: Session, symbol: str, size: int, seed: int, source: str) -> None:
    """Raises ConfigurationError where rows of one request change the answer to another."""
    requests = [
        _inputs(session, {symbol: rows}, size, seed * len(_ROWS) + place) for place, rows in enumerate(_ROWS)
    ]
    alone = [session.run(request) for request in requests]
    together = session.run(
        {name: np.concatenate([_array(request[name]) for request in requests]) for name in requests[0]}
    )
    for spec in session.outputs:
        if not _same(_array(together[spec.name]), [_array(answer[spec.name]) for answer in alone], spec):
            raise ConfigurationError(
                f"{source} cannot be batched: its output {spec.name!r} for one request depends on what else "
                "is in the same run"
            )


def _inputs(session: Session, rows: Mapping[str, int], size: int, seed: int) -> dict[str, Value]:
    others = {name: size for spec in session.inputs if not spec.optional for name in varying_dims(spec)}
    symbolic = {name: others[name] for name in others if ":" not in name}
    return create_test_inputs(session.schema, dims={**symbolic, **rows}, seed=seed)


def _array(value: Value) -> Array:
    assert isinstance(value, np.ndarray)  # by its type, which was checked
    return value


def _same(found: Array, parts: Sequence[Array], spec: ValueSpec) -> bool:
    if len({part.shape[1:] for part in (found, *parts)}) != 1:
        return False
    expected = np.concatenate(parts)
    if [len(part) for part in parts] != list(_ROWS) or found.shape != expected.shape:
        return False
    assert isinstance(spec.type, TensorType)
    if spec.type.datatype.kind is Kind.FLOAT:
        wide = found.astype(np.float64), expected.astype(np.float64)
        return np.allclose(*wide, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
    return np.array_equal(found, expected)

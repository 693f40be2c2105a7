"""How much heap an enclave needs for a model, so that a build says so before a start fails.

The figures were measured with the server on Linux, onnxruntime 1.32, models of 4, 100 and 400 MB of MatMul
weights: 128 MiB idle, and at load a peak of 4 bytes for each byte of the model (the file is read whole before
it is hashed, parsed, and its weights are repacked for the processor). The allowance is doubled and doubled
again for Gramine's own tables and for requests. Models with large activations need more than this estimate.
Standard library only.
"""

from __future__ import annotations

from typing import Final

from confonnx.errors import ConfigurationError
from confonnx.measure.enclave_conf import PAGE_BYTES, EnclaveConf

SERVER_BYTES: Final = 512 << 20
MODEL_FACTOR: Final = 4
_MIB: Final = 1 << 20


def needed_heap(model_bytes: int) -> int:
    """The least heap, in bytes, with which a model of ``model_bytes`` (all its files) can be served."""
    return SERVER_BYTES + MODEL_FACTOR * model_bytes


def check_heap(conf: EnclaveConf, model_bytes: int) -> None:
    """Raises ConfigurationError when the heap of ``conf`` is too small for a model of ``model_bytes``."""
    needed = needed_heap(model_bytes)
    if conf.heap_bytes < needed:
        pages = -(-needed // PAGE_BYTES)
        raise ConfigurationError(
            f"enclave.conf: NumHeapPages={conf.heap_pages} is a heap of {conf.heap_bytes // _MIB} MiB, and a "
            f"model of {_mebibytes(model_bytes)} MiB is estimated to need {_mebibytes(needed)} MiB: set "
            f"NumHeapPages={pages} or more"
        )


def _mebibytes(size: int) -> int:
    return -(-size // _MIB)

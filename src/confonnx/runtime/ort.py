"""The door to onnxruntime: imported with telemetry off, silent on stderr, its errors made ours.

The wheel of onnxruntime 1.32 looks up a Microsoft host and writes a device id under the home directory unless
``ORT_DISABLE_TELEMETRY=1`` is in the environment before it is imported (D14). Its own log lines quote values
of tensors ("indices element out of data bounds, idx=…"), so every logger is set to fatal errors only.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from confonnx.errors import ConfigurationError, InferenceError, ModelFormatError
from confonnx.models.digest import ModelBytes
from confonnx.runtime.options import ExecutionMode, GraphOptimization, SessionOptions

if "onnxruntime" in sys.modules and os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
    raise ConfigurationError(
        "onnxruntime was imported before confonnx.runtime, with its telemetry on; "
        "import confonnx.runtime first, or set ORT_DISABLE_TELEMETRY=1 before python starts"
    )
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as onnxruntime  # by this door only: the environment is set above
from onnxruntime.capi import onnxruntime_pybind11_state as _state

_FATAL = 4  # ORT_LOGGING_LEVEL_FATAL
onnxruntime.set_default_logger_severity(_FATAL)

VERSION: str = onnxruntime.__version__

# onnxruntime has an exception class for each status code, without a common base; pybind adds Python's own. A
# library error of any kind must end in one sealed error, so the list is complete rather than selective.
ORT_ERRORS: tuple[type[Exception], ...] = (
    *(value for value in vars(_state).values() if isinstance(value, type) and issubclass(value, Exception)),
    RuntimeError,
    ValueError,
    TypeError,
    MemoryError,
    OverflowError,
    IndexError,
)

_MODES = {
    ExecutionMode.SEQUENTIAL: onnxruntime.ExecutionMode.ORT_SEQUENTIAL,
    ExecutionMode.PARALLEL: onnxruntime.ExecutionMode.ORT_PARALLEL,
}
_LEVELS = {
    GraphOptimization.DISABLED: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    GraphOptimization.BASIC: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    GraphOptimization.EXTENDED: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    GraphOptimization.LAYOUT: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_LAYOUT,
    GraphOptimization.ALL: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def open_session(
    model: ModelBytes, options: SessionOptions, libraries: Sequence[tuple[str, bytes]], *, source: str
) -> onnxruntime.InferenceSession:
    """A session over the bytes of ``model``; ``libraries`` are the operator libraries as ``(name, content)``.

    Raises ModelFormatError for a model that onnxruntime does not take, ConfigurationError for the options.
    """
    available = onnxruntime.get_available_providers()
    if missing := [provider for provider in options.providers if provider not in available]:
        raise ConfigurationError(
            f"execution provider {missing[0]} is not in the installed onnxruntime {VERSION}; it has "
            f"{', '.join(available)}"
        )
    settings = _settings(options)
    with _registered(settings, libraries):
        try:
            if model.external:
                names, contents = zip(*model.external, strict=True)
                settings.add_external_initializers_from_files_in_memory(
                    list(names), list(contents), [len(content) for content in contents]
                )
            session = onnxruntime.InferenceSession(
                model.model, settings, providers=list(options.providers), enable_fallback=0
            )
        except ORT_ERRORS as error:
            raise ModelFormatError(f"{source}: {_load_problem(str(error))}") from error
    # The Python object would keep the serialised model for a fallback that is off: twice the memory for
    # nothing.
    session._model_bytes = None
    return session


def inference_error(error: Exception) -> InferenceError:
    """``error``, which onnxruntime raised in a run, as ours. Its text may quote the caller's own data."""
    if isinstance(error, MemoryError):
        return InferenceError("the runtime ran out of memory; send a smaller batch")
    return InferenceError(clean(str(error)))


def clean(text: str) -> str:
    """onnxruntime's message without status prefix, source file and C++ signature, on one line."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)
    while found := re.search(r"/\S*onnxruntime/\S+:\d+ ", text):
        text = text[: found.start()] + _after_signature(text[found.end() :])
    return " ".join(text.split())[:_LONGEST_MESSAGE]


_LONGEST_MESSAGE = 2000  # characters; some messages list every kernel


def _after_signature(text: str) -> str:
    """``text`` without the C++ function signature that it begins with."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == ")" and depth == 0:
            rest = text[position + 1 :]
            return re.sub(r"^(::<lambda\(.*?\)>)?( const)?( \[with [^]]*\])? ", "", rest)
    return text


def _settings(options: SessionOptions) -> onnxruntime.SessionOptions:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _FATAL
    settings.intra_op_num_threads = options.intra_op_threads
    settings.inter_op_num_threads = options.inter_op_threads
    settings.execution_mode = _MODES[options.execution_mode]
    settings.graph_optimization_level = _LEVELS[options.graph_optimization]
    settings.enable_cpu_mem_arena = options.mem_arena
    spinning = "1" if options.spinning else "0"
    settings.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    settings.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    # The bytes were parsed as ONNX for their schema; never let them be read as another format.
    settings.add_session_config_entry("session.load_model_format", "ONNX")
    return settings


@contextmanager
def _registered(
    settings: onnxruntime.SessionOptions, libraries: Sequence[tuple[str, bytes]]
) -> Iterator[None]:
    """Registers operator libraries from memory files, so that the code that runs is the code that was
    hashed.
    """
    descriptors: list[int] = []
    try:
        for name, content in libraries:
            descriptors.append(_memory_file(name, content))
            try:
                settings.register_custom_ops_library(f"/proc/self/fd/{descriptors[-1]}")
            except ORT_ERRORS as error:
                raise ConfigurationError(
                    f"operator library {name}: {clean(str(error))}; expected a shared library "
                    f"for onnxruntime {VERSION} on this machine"
                ) from error
        yield
    finally:
        for descriptor in descriptors:
            with suppress(OSError):
                os.close(descriptor)


def _memory_file(name: str, content: bytes) -> int:
    if not sys.platform.startswith("linux"):
        raise ConfigurationError(f"operator library {name}: operator libraries need Linux")
    descriptor = os.memfd_create(name)
    with open(descriptor, "wb", closefd=False) as stream:
        stream.write(content)
    return descriptor


_OPSET = re.compile(r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)")
_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")


def _load_problem(text: str) -> str:
    text = clean(text)
    if found := _OPSET.search(text):
        version, domain, highest = found.groups()
        return (
            f"the model uses opset {version} of {domain}; onnxruntime {VERSION} supports up to {highest}: "
            f"export the model again with opset {highest}, or lower it with onnx.version_converter"
        )
    if found := _IR.search(text):
        version, highest = found.groups()
        return (
            f"the model has ONNX IR version {version}; onnxruntime {VERSION} supports up to {highest}: set "
            f"model.ir_version = {highest} and save it again"
        )
    return f"onnxruntime {VERSION} does not load this model: {text}"

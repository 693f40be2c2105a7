"""One loaded model.

The bytes that are hashed are the bytes that are loaded: a model is read once, from then on it is in memory,
external data and operator libraries included. Loading writes nothing to disk and reaches out to nobody
(``ort``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from confonnx.errors import ConfigurationError, InferenceError, InvalidInputError, ModelFormatError
from confonnx.models.digest import ModelBytes, read_model
from confonnx.models.files import read_file
from confonnx.models.repository import ModelFile
from confonnx.models.schema import ModelSchema, operators, parse_model, schema_of
from confonnx.oip.datatypes import ValueSpec, ValueType, format_onnx_type, parse_onnx_type
from confonnx.oip.values import Value, size_conflict
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.ort import ORT_ERRORS, inference_error, onnxruntime, open_session
from confonnx.runtime.transfer import feed, is_carried, is_packed, lift, lower


class Session:
    """A model in onnxruntime. ``run`` may be called from several threads at once.

    ``schema`` is what the model takes and gives, ``digest`` the D7 digest of the loaded bytes, ``operators``
    every ``(domain, operator)`` in its graphs.
    """

    @classmethod
    def load(cls, model: ModelFile, options: SessionOptions) -> Session:
        """Reads and loads ``model``.

        Raises ModelNotFoundError, ModelFormatError (also when the files are no longer those that
        ``model.digest`` names) and ConfigurationError.
        """
        source = f"model {model.name!r} version {model.version} ({model.path})"
        libraries = [(library.name, read_file(library)) for library in options.operator_libraries]
        content = read_model(model.path, libraries=libraries)
        if content.digest != model.digest:
            raise ModelFormatError(
                f"{source} changed while the server started: its digest was {model.digest}, "
                f"now it is {content.digest}"
            )
        return cls(content, options, libraries, source=source)

    @classmethod
    def from_bytes(
        cls,
        content: ModelBytes,
        options: SessionOptions,
        *,
        source: str,
        libraries: Sequence[tuple[str, bytes]] = (),
    ) -> Session:
        """Loads a model that is in memory already; ``source`` names it in errors.

        ``libraries`` are the operator libraries that ``options`` names, as ``(file name, content)``: the
        caller read them when it made ``content.digest``, and they are not read a second time. Raises
        ModelFormatError and ConfigurationError.
        """
        named = [library.name for library in options.operator_libraries]
        if named != [name for name, _ in libraries]:
            raise ConfigurationError(
                f"{source}: the options name the operator libraries {named}, but "
                f"{[name for name, _ in libraries]} were read"
            )
        return cls(content, options, libraries, source=source)

    def __init__(
        self,
        content: ModelBytes,
        options: SessionOptions,
        libraries: Sequence[tuple[str, bytes]],
        *,
        source: str,
    ) -> None:
        """Use :meth:`load` or :meth:`from_bytes`."""
        proto = parse_model(content.model, source=source)
        self._session = open_session(content, options, libraries, source=source)
        self.digest = content.digest
        self.schema = _schema(proto, self._session, source)
        self.operators = operators(proto)
        self._input_types = {spec.name: spec.type for spec in self.schema.inputs}
        self._output_types = {spec.name: spec.type for spec in self.schema.outputs}
        self._names = list(self._output_types)
        self._packed_inputs = {name for name, type_ in self._input_types.items() if is_packed(type_)}
        self._packed_outputs = {name for name, type_ in self._output_types.items() if is_packed(type_)}
        self._run_config = (
            (("memory.enable_memory_arena_shrinkage", "cpu:0"),) if options.mem_arena_shrinkage else ()
        )

    @property
    def inputs(self) -> tuple[ValueSpec, ...]:
        """What the model takes."""
        return self.schema.inputs

    @property
    def outputs(self) -> tuple[ValueSpec, ...]:
        """What the model gives."""
        return self.schema.outputs

    def run(
        self,
        inputs: Mapping[str, Value],
        outputs: Sequence[str] | None = None,
        *,
        abort: Abort | None = None,
    ) -> dict[str, Value]:
        """The named ``outputs`` (all, if None or empty) for ``inputs``, in the order asked for.

        ``inputs`` are exactly typed, as ``oip.values.check_inputs`` makes them. ``abort`` may end the run
        from another thread. Raises InferenceError with onnxruntime's text, and InvalidInputError for the
        name of an output that the model does not have, or where a run fails on inputs that give one of the
        model's symbols two sizes.
        """
        names = self._names
        if outputs:
            names = list(outputs)
            self._check_outputs(names)
        settings = self._run_options(abort)
        try:
            if self._packed_outputs and not self._packed_outputs.isdisjoint(names):
                return self._run_with_ort_values(inputs, names, settings)
            fed = self._feed(inputs) if self._packed_inputs else inputs
            return dict(zip(names, self._session.run(names, fed, settings), strict=True))
        except ORT_ERRORS as error:
            if abort is not None and abort.requested:
                raise InferenceError("the run was ended before it was done") from None
            raise _failure(error, inputs, self.schema.inputs) from error

    def _feed(self, inputs: Mapping[str, Value]) -> Mapping[str, object]:
        if self._packed_inputs.isdisjoint(inputs):
            return inputs
        return {name: feed(value, self._type_of_input(name), name) for name, value in inputs.items()}

    def _run_with_ort_values(
        self, inputs: Mapping[str, Value], names: list[str], settings: onnxruntime.RunOptions | None
    ) -> dict[str, Value]:
        lifted = {
            name: lift(value, self._type_of_input(name), name)
            for name, value in inputs.items()
            if value is not None
        }
        results = self._session.run_with_ort_values(names, lifted, settings)
        return {
            name: lower(result, self._output_types[name], name)
            for name, result in zip(names, results, strict=True)
        }

    def _type_of_input(self, name: str) -> ValueType:
        if name not in self._input_types:
            raise InvalidInputError(f"the model has no input {name!r}; it has {', '.join(self._input_types)}")
        return self._input_types[name]

    def _check_outputs(self, names: Sequence[str]) -> None:
        if unknown := [name for name in names if name not in self._output_types]:
            raise InvalidInputError(
                f"the model has no output {unknown[0]!r}; it has {', '.join(self._output_types)}"
            )

    def _run_options(self, abort: Abort | None) -> onnxruntime.RunOptions | None:
        if abort is None and not self._run_config:
            return None
        settings = abort.options if abort is not None else onnxruntime.RunOptions()
        for key, value in self._run_config:
            settings.add_run_config_entry(key, value)
        return settings


def _failure(
    error: Exception, inputs: Mapping[str, Value], specs: Sequence[ValueSpec]
) -> InferenceError | InvalidInputError:
    """What a failed run is for the caller: their inputs' fault where these contradict each other."""
    failure = inference_error(error)
    conflict = size_conflict(inputs, specs)
    return failure if conflict is None else InvalidInputError(f"{conflict}; the run failed: {failure}")


class Abort:
    """Ends one run from another thread: calling it makes onnxruntime stop before the next operator.

    Mutable; for a single run. ``requested`` tells whether it was called.
    """

    def __init__(self) -> None:
        """Nothing is aborted yet."""
        self.options = onnxruntime.RunOptions()
        self.options.log_severity_level = 4  # as the session's: a run's own options override them
        self.requested = False

    def __call__(self) -> None:
        """Ends the run now, or as soon as it begins."""
        self.requested = True
        self.options.terminate = True


def _schema(proto: onnx.ModelProto, session: onnxruntime.InferenceSession, source: str) -> ModelSchema:
    """The schema of the file, where it leaves out the type of an output completed by what onnxruntime
    inferred.
    """
    inferred = {argument.name: argument.type for argument in session.get_outputs()}

    def fallback(name: str) -> ValueType | None:
        return parse_onnx_type(inferred[name]) if name in inferred else None

    schema = schema_of(proto, source=source, fallback=fallback)
    for spec, into in [
        *((spec, True) for spec in schema.inputs),
        *((spec, False) for spec in schema.outputs),
    ]:
        if not is_carried(spec.type, into=into):
            raise ModelFormatError(
                f"{source}: {spec.name!r} is a {format_onnx_type(spec.type)}, which onnxruntime's Python "
                "interface cannot carry; use a tensor, or an element type that numpy has"
            )
    return schema

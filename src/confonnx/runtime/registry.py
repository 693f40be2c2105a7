"""All models of a server, loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from confonnx.attestation.statement import ModelDescription
from confonnx.errors import ConfigurationError, ModelNotFoundError
from confonnx.models.repository import ModelFile
from confonnx.oip.values import Value
from confonnx.runtime.batch_proof import prove_batching
from confonnx.runtime.batching import BatchOptions
from confonnx.runtime.inline import InlineBound, measure_inline
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.session import Session

_NO_BATCHING: Mapping[str, BatchOptions] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to run, and what the server attests of it."""

    description: ModelDescription
    session: Session
    inline_bound: InlineBound | None
    """Up to which size of inputs a run is so short that it needs no thread; None: always use the pool."""
    batching: BatchOptions | None = None
    """How requests are put together; None: each runs alone."""

    @property
    def inline(self) -> bool:
        """Whether any run may be inline."""
        return self.inline_bound is not None

    def runs_inline(self, inputs: Mapping[str, Value]) -> bool:
        """Whether a run on ``inputs`` may block the event loop, because it is over within about a
        millisecond. Never where requests are batched: it would not wait for others.
        """
        return self.batching is None and self.inline_bound is not None and self.inline_bound.allows(inputs)


class Registry:
    """The models by name and version. Never changes: the attested statement lists exactly these."""

    def __init__(self, models: Sequence[LoadedModel]) -> None:
        """Raises ConfigurationError when there is none, or two have the same name and version."""
        if not models:
            raise ConfigurationError("no model to serve; give --model-path or --model-repository")
        self._versions: dict[str, dict[str, LoadedModel]] = {}
        for model in sorted(models, key=_order):
            versions = self._versions.setdefault(model.description.name, {})
            if model.description.version in versions:
                raise ConfigurationError(
                    f"two models are {model.description.name!r} version {model.description.version}; "
                    "rename one"
                )
            versions[model.description.version] = model
        self.models = tuple(model for versions in self._versions.values() for model in versions.values())

    @classmethod
    def load(
        cls,
        files: Sequence[ModelFile],
        options: SessionOptions,
        batching: Mapping[str, BatchOptions] = _NO_BATCHING,
    ) -> Registry:
        """Loads and warms up every model; ``batching`` is by name, for all versions of a model.

        Raises ModelFormatError, ModelNotFoundError and ConfigurationError: a server starts with all its
        models or not at all.
        """
        if unknown := sorted(batching.keys() - {file.name for file in files}):
            names = ", ".join(dict.fromkeys(file.name for file in files))
            raise ConfigurationError(f"--batch names the model {unknown[0]!r}; this server has {names}")
        return cls([_load(file, options, batching.get(file.name)) for file in files])

    def find(self, name: str, version: str | None = None) -> LoadedModel:
        """The model of that name and version, or its highest version. Raises ModelNotFoundError."""
        versions = self._versions.get(name)
        if versions is None:
            raise ModelNotFoundError(f"no model {name!r}; this server has {', '.join(self._versions)}")
        if version is None:
            return list(versions.values())[-1]
        if version not in versions:
            raise ModelNotFoundError(
                f"model {name!r} has no version {version!r}; this server has {', '.join(versions)}"
            )
        return versions[version]


def _load(file: ModelFile, options: SessionOptions, batching: BatchOptions | None = None) -> LoadedModel:
    session = Session.load(file, options)
    if batching is not None:
        prove_batching(session, source=f"model {file.name!r} version {file.version}")
    description = ModelDescription(file.name, file.version, session.digest, session.inputs, session.outputs)
    return LoadedModel(description, session, measure_inline(session), batching)


def _order(model: LoadedModel) -> tuple[str, int, str]:
    """By name, then by number; a version that is no number comes first, so that it is never the default."""
    version = model.description.version
    number = int(version) if re.fullmatch(r"[0-9]{1,18}", version) else -1
    return model.description.name, number, version

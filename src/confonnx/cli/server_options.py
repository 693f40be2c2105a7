"""Commands that take the server's options: those of ``server.settings.Settings``, never listed twice."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from confonnx.errors import ConfigurationError
from confonnx.server.settings import Settings, cli_options, load_settings

_MODEL = inspect.Parameter(
    "model",
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    default=None,
    annotation=Annotated[
        Path | None, typer.Argument(help="Model file; the same as --model-path.", show_default=False)
    ],
)


def server_command(run: Callable[[Settings, tuple[str, ...]], None]) -> Callable[..., None]:
    """A typer command that takes a model and every option of the server, and calls ``run`` with the settings
    and the warnings about them."""

    def command(model: Path | None, config: str | None, **options: object) -> None:
        run(*_settings(model, config, options))

    command.__name__ = run.__name__
    command.__doc__ = run.__doc__
    # typer reads the signature, not the code: this is where the options come from.
    command.__signature__ = inspect.Signature([_MODEL, *cli_options()])  # type: ignore[attr-defined]
    command.__annotations__ = {}
    return command


def _settings(
    model: Path | None, config: str | None, options: dict[str, object]
) -> tuple[Settings, tuple[str, ...]]:
    if model is not None:
        if options.get("model_path") is not None:
            raise ConfigurationError("the model is given twice: as an argument and as --model-path")
        options["model_path"] = str(model)
    return load_settings(options, config=None if config is None else Path(config))

"""Commands that take the server's options: those of ``server.settings.Settings``, never listed twice."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, get_args

import typer
from pydantic.fields import FieldInfo

from confonnx.errors import ConfigurationError
from confonnx.server.quantities import ByteSize, show_duration, show_size
from confonnx.server.settings import Settings, marks
from confonnx.server.settings_sources import load_settings

_SIZE = get_args(ByteSize)[1]  # how a setting shows that it counts bytes
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


def cli_options() -> list[inspect.Parameter]:
    """Keyword-only parameters of a typer command, one for each field and ``config``; all default to ``None``.

    Values other than flags stay text: :func:`load_settings` parses all three sources alike.
    """
    config = _parameter(
        "config", Path | None, "--config", "A TOML file with these options as keys.", "Operation", None
    )
    return [*(_field_parameter(name, info) for name, info in Settings.model_fields.items()), config]


def _field_parameter(name: str, info: FieldInfo) -> inspect.Parameter:
    flag = f"--{name.replace('_', '-')}"
    is_flag = info.annotation is bool
    declared = f"{flag}/--no-{flag[2:]}" if is_flag else flag
    annotation = bool | None if is_flag else str | None
    panel = str(marks(info)["panel"])
    return _parameter(name, annotation, declared, info.description or "", panel, _shown_default(info))


def _parameter(
    name: str, annotation: object, flag: str, text: str, panel: str, default: str | None
) -> inspect.Parameter:
    option = typer.Option(flag, help=text, rich_help_panel=panel, show_default=default or False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option]
    )


def _shown_default(info: FieldInfo) -> str | None:
    value = info.default
    if isinstance(value, timedelta):
        return show_duration(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return show_size(value) if _SIZE in info.metadata and value % (1 << 10) == 0 else str(value)
    return str(value) if isinstance(value, str) and value else None

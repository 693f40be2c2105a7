"""``confonnx create-test-inputs``: random inputs that fit a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from confonnx.errors import ConfigurationError
from confonnx.models.documents import write_json
from confonnx.models.schema import read_schema
from confonnx.models.tensor_files import write_npz
from confonnx.models.test_inputs import create_test_inputs as create


def create_test_inputs(
    model: Annotated[Path, typer.Option(help="Model file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File for the inputs: .json or .npz.", show_default=False)],
    dim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZE",
            help="Size of a dimension that the model leaves open, by its name (batch=8) or by input and "
            "position (image:0=8); 1 without this. Repeatable.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Make the same values each time.", min=0)] = None,
) -> None:
    """Write random inputs that fit a model, for `confonnx predict --json-in`."""
    values = create(read_schema(model), dims=_sizes(dim or []), seed=seed)
    if out.suffix == ".npz":
        write_npz(out, values)
    else:
        write_json(out, values)
    typer.echo(f"Inputs written to {out}: {', '.join(values)}")


def _sizes(options: list[str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for option in options:
        name, _, size = option.rpartition("=")
        if not name or not size.isascii() or not size.isdigit():
            raise ConfigurationError(f"--dim takes NAME=SIZE, such as batch=8; found {option!r}")
        sizes[name] = int(size)
    return sizes

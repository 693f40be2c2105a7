"""``confonnx model-info``: the inputs and outputs of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from confonnx.models.documents import model_info as describe
from confonnx.models.files import write_file
from confonnx.models.schema import read_schema


def model_info(
    model: Annotated[Path, typer.Argument(help="Model file.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="File for the description, beside standard output.")
    ] = None,
) -> None:
    """Print the inputs and outputs of a model as JSON: names, types and shapes."""
    text = json.dumps(describe(read_schema(model)), indent=2, ensure_ascii=False)
    if out is not None:
        write_file(out, f"{text}\n".encode())
    typer.echo(text)

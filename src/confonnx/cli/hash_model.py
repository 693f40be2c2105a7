"""``confonnx hash-model``: what a client must expect to hold the answers of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from confonnx.models.digest import model_digest
from confonnx.models.files import write_file


def hash_model(
    model: Annotated[
        Path,
        typer.Argument(
            help="Model file, or a directory that holds one with external data.", show_default=False
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="File for the hash, beside standard output.")] = None,
    library: Annotated[
        list[Path] | None,
        typer.Option(
            help="Custom operator library that the server loads with the model; part of the hash. Repeatable."
        ),
    ] = None,
) -> None:
    """Print the hash of a model: the SHA-256 of its file, as `sha256sum` prints it.

    A model with external data has the SHA-256 of the list of its files' hashes. Give it to clients as
    --enclave-model-hash.
    """
    digest = model_digest(model, libraries=library or ())
    if out is not None:
        write_file(out, f"{digest}\n".encode("ascii"))
    typer.echo(digest)

"""The command line: verbs, and what happens when one fails."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer

from confonnx.cli.create_test_inputs import create_test_inputs
from confonnx.cli.demo import demo
from confonnx.cli.hash_credential import hash_credential
from confonnx.cli.hash_model import hash_model
from confonnx.cli.inspect import inspect
from confonnx.cli.measure import measure
from confonnx.cli.model_info import model_info
from confonnx.cli.outcome import report
from confonnx.cli.predict import predict, spread_values
from confonnx.cli.serve import serve
from confonnx.cli.verify import verify
from confonnx.errors import ConfonnxError

app = typer.Typer(
    name="confonnx",
    help="Confidential ONNX inference: sealed requests to attested servers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with local variables would print decrypted data
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"confonnx {metadata.version('confonnx')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Confidential ONNX inference: sealed requests to attested servers."""


for _panel, _verbs in {
    "Server": (serve, measure, hash_credential),
    "Client": (predict, verify, inspect),
    "Models": (hash_model, model_info, create_test_inputs),
    "Try it": (demo,),
}.items():
    for _verb in _verbs:
        app.command(rich_help_panel=_panel)(_verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (``sys.argv`` without ``arguments``) and exit with its status."""
    words = spread_values(list(sys.argv[1:] if arguments is None else arguments))
    try:
        app(words, prog_name="confonnx")
    except ConfonnxError as error:
        sys.exit(report(error))


def run_verb(verb: str) -> None:
    """What ``python3 -m confonnx.…`` does: the verb of the same purpose, with the rest of ``sys.argv``."""
    main([verb, *sys.argv[1:]])


if __name__ == "__main__":
    main()

"""The command line: verbs, and what happens when one fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Annotated, Final

import typer

from confonnx.cli.outcome import report
from confonnx.cli.predict import spread_values
from confonnx.errors import ConfigurationError, ConfonnxError

#: The verbs, by the heading that ``--help`` shows them under. Each is the function of its name in the module
#: of its name, imported when it is used: a client has no server installed, nor time to wait for one to load.
VERBS: Final = {
    "Server": ("serve", "measure", "hash-credential"),
    "Client": ("predict", "verify", "inspect", "policy"),
    "Models": ("hash-model", "model-info", "create-test-inputs"),
    "Try it": ("demo",),
}
_NEED_SERVER: Final = frozenset({*VERBS["Server"], *VERBS["Try it"]})
_SERVER_MODULES: Final = ("httptools", "onnxruntime", "prometheus_client", "pydantic_settings", "structlog")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (``sys.argv`` without ``arguments``) and exit with its status."""
    words = spread_values(list(sys.argv[1:] if arguments is None else arguments))
    try:
        build(words[0] if words else None)(words, prog_name="confonnx")
    except ConfonnxError as error:
        sys.exit(report(error))


def build(wanted: str | None = None) -> typer.Typer:
    """The command with the one verb ``wanted``, or with all verbs if it is none of them (``--help``).

    Raises :class:`ConfigurationError` when ``wanted`` needs the server, and that is not installed.
    """
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # a traceback with local variables would print decrypted data
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    missing = [module for module in _SERVER_MODULES if find_spec(module) is None]
    known = any(wanted in verbs for verbs in VERBS.values())
    for panel, verbs in VERBS.items():
        for verb in verbs:
            if known and verb != wanted:
                continue
            if missing and verb in _NEED_SERVER:
                if known:
                    raise ConfigurationError(
                        f"`confonnx {verb}` needs the server, which is not installed: pip install "
                        f"'confonnx[server]' (missing: {', '.join(missing)})"
                    )
                continue
            app.command(verb, rich_help_panel=panel)(_function(verb))
    return app


def _function(verb: str) -> Callable[..., None]:
    name = verb.replace("-", "_")
    function: Callable[..., None] = getattr(import_module(f"confonnx.cli.{name}"), name)
    return function


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"confonnx {metadata.version('confonnx')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Confidential ONNX inference: sealed requests to attested servers."""


def run_verb(verb: str) -> None:
    """What ``python3 -m confonnx.…`` does: the verb of the same purpose, with the rest of ``sys.argv``."""
    main([verb, *sys.argv[1:]])


if __name__ == "__main__":
    main()

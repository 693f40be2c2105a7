"""The command line: verbs, and what happens when one fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from typing import Annotated, Final

import typer

from confonnx.cli.installed import need_server, server_is_installed
from confonnx.cli.outcome import report
from confonnx.cli.predict import spread_values
from confonnx.errors import ConfonnxError

#: The verbs, by the heading that ``--help`` shows them under. Each is the function, or group of functions, of
#: its name in the module of its name, imported when it is used: a client has no server installed, nor time to
#: wait for one to load.
VERBS: Final = {
    "Server": ("serve", "measure", "hash-credential"),
    "Client": ("predict", "verify", "inspect", "policy"),
    "Models": ("hash-model", "model-info", "create-test-inputs"),
    "Try it": ("demo",),
}
_MEASURE: Final = "measure"
_NEED_SERVER: Final = frozenset({"serve", "hash-credential", "demo"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (``sys.argv`` without ``arguments``) and exit with its status."""
    words = spread_values(list(sys.argv[1:] if arguments is None else arguments))
    try:
        if words[:1] == [_MEASURE]:
            words = [_MEASURE, *_spell_out_measure(words[1:])]
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
    installed = server_is_installed()
    known = any(wanted in verbs for verbs in VERBS.values())
    for panel, verbs in VERBS.items():
        for verb in verbs:
            if known and verb != wanted:
                continue
            if verb in _NEED_SERVER and not installed:
                if known:
                    need_server(verb)
                continue
            command = _command(verb)
            if isinstance(command, typer.Typer):
                app.add_typer(command, name=verb, rich_help_panel=panel)
            else:
                app.command(verb, rich_help_panel=panel)(command)
    return app


def _command(verb: str) -> Callable[..., None] | typer.Typer:
    name = verb.replace("-", "_")
    command: Callable[..., None] | typer.Typer = getattr(import_module(f"confonnx.cli.{name}"), name)
    return command


def _spell_out_measure(words: Sequence[str]) -> list[str]:
    from confonnx.cli.measure import SIMULATED, spell_out  # loads the server's options, if there is a server

    full = spell_out(words)
    if full[0] == SIMULATED:
        need_server(_MEASURE)
    return full


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

"""``confonnx hash-credential``: a line for the server's file of credentials."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from confonnx.server.auth import hash_credential as credential_line

_KEY_BYTES = 32


def hash_credential(
    name: Annotated[str, typer.Argument(help="User name, or a label for the API key.", show_default=False)],
    basic: Annotated[
        bool, typer.Option("--basic", help="A user's password, which is asked for, instead of an API key.")
    ] = False,
) -> None:
    """Print a line for the server's --auth-file. It holds a hash, not the secret.

    For an API key, a new one is made and shown once, on standard error: it is what the client gives as
    --auth-key. With --basic, the password is asked for: the client gives it as --auth-pass.
    """
    if basic:
        secret = typer.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True, err=True)
    else:
        secret = secrets.token_urlsafe(_KEY_BYTES)
        typer.echo(f"API key for {name}, shown only now: {secret}", err=True)
    typer.echo(credential_line(name, secret, basic=basic))

"""``confonnx serve``: run a server until it is told to stop."""

from __future__ import annotations

import typer

from confonnx.cli.server_options import server_command
from confonnx.server import lifecycle
from confonnx.server.settings import Settings


@server_command
def serve(settings: Settings, warnings: tuple[str, ...]) -> None:
    """Serve a model: make a key inside, prove what holds it, answer sealed requests.

    Every option is also an environment variable (--http-port: CONFONNX_HTTP_PORT) and a key of the TOML file
    given as --config (http_port). Ends on SIGTERM or Ctrl-C, when the requests in flight are answered.
    """
    status = lifecycle.serve(settings, warnings=warnings)
    if status:
        raise typer.Exit(status)

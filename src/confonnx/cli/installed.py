"""Is the server installed beside the client? Its extra is optional (``pip install 'confonnx[server]'``)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from confonnx.errors import ConfigurationError

_SERVER_MODULES: Final = ("httptools", "onnxruntime", "prometheus_client", "pydantic_settings", "structlog")


def missing_modules() -> tuple[str, ...]:
    """What the server would import and cannot."""
    return tuple(module for module in _SERVER_MODULES if find_spec(module) is None)


def server_is_installed() -> bool:
    """Whether the commands of the server can run."""
    return not missing_modules()


def need_server(verb: str) -> None:
    """Raises ConfigurationError, in the name of ``verb``, when the server is not installed."""
    if missing := missing_modules():
        raise ConfigurationError(
            f"`confonnx {verb}` needs the server, which is not installed: pip install "
            f"'confonnx[server]' (missing: {', '.join(missing)})"
        )

"""The ``confonnx`` command: one module per verb, tied together in :mod:`confonnx.cli.app`."""

"""Unencrypted model servers, each in an environment of its own, to compare with (``make bench-peers``).

``requirements/*.lock`` pin the environments. ``*_server.py`` run there, so they import nothing of confonnx;
each serves one model as its makers' documentation has it, with one inference thread, without access logs, in
the form of message that was fastest for it.
"""

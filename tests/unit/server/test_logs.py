"""The log holds its closed set of events and nothing else."""

from __future__ import annotations

import io
import json
import types
from dataclasses import fields, is_dataclass
from typing import get_args, get_type_hints

import pytest

from confonnx.server import logs
from confonnx.server.logs import Event, KeyRollover, Log, LogFormat, LogLevel, RequestAnswered, Stopped

ALLOWED = {str, int, float, bool, types.NoneType}
ANSWERED = RequestAnswered(request_id="r", route="root", status=200, milliseconds=3)


def test_fields_have_plain_types_and_no_room_for_bytes_or_exceptions() -> None:
    kinds = get_args(Event)
    assert len(kinds) >= 10
    for kind in kinds:
        assert isinstance(kind.level, LogLevel)
        assert is_dataclass(kind)
        hints = get_type_hints(kind, vars(logs))
        for item in fields(kind):
            hint = hints[item.name]
            parts = get_args(hint) or (hint,)
            assert set(parts) - {...} <= ALLOWED, (kind, item.name)


def test_events_have_names_of_their_own() -> None:
    names = [kind.event for kind in get_args(Event)]
    assert len(set(names)) == len(names)


def test_json_line() -> None:
    stream = io.StringIO()
    Log(form=LogFormat.JSON, level=LogLevel.INFO, stream=stream).emit(KeyRollover(epoch=3))
    entry = json.loads(stream.getvalue())
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"event": "key rollover", "level": "info", "epoch": 3}


def test_text_line_has_no_colours_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    Log(form=LogFormat.TEXT, level=LogLevel.INFO, stream=stream).emit(Stopped(complete=True))
    assert "stopped" in stream.getvalue()
    assert "complete=True" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "lines"),
    [(LogLevel.DEBUG, 2), (LogLevel.INFO, 1), (LogLevel.WARNING, 0), (LogLevel.ERROR, 0)],
)
def test_level(level: LogLevel, lines: int) -> None:
    stream = io.StringIO()
    log = Log(form=LogFormat.JSON, level=level, stream=stream)
    log.emit(ANSWERED)
    log.emit(KeyRollover(epoch=1))
    assert len(stream.getvalue().splitlines()) == lines


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    Log(form=LogFormat.JSON, level=LogLevel.DEBUG).emit(ANSWERED)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["route"] == "root"

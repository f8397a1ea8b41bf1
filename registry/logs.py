"""Log lines on standard error, as text or JSON, in which one record cannot look like two.

The lines of requests are not records: registry.access_log writes them, in the same formats.

Clients control much of the text of a record. Every part of a record is truncated, so that a client
cannot control how fast the log grows.
"""

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any

from registry.log_writer import WRITER


@dataclass
class _State:
    """Log output state of this process."""

    format: str = "text"
    writes_access: bool = True
    owns_streams: bool = False


_state = _State()

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""ID of the request that the current task handles; empty outside requests."""

_HANDLER = "moorage"
_OURS = ("registry", "storage", "moorage")
_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.asgi")
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {
    *("message", "asctime", "taskName", "request_id"),
    "color_message",  # a copy of uvicorn's message with escape sequences
}
# C0, DEL and C1 controls; line separators and bidirectional marks; surrogates, which no stream can
# encode.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST_FIELD = 256
"""Maximum characters of an argument or extra field of a record."""

LONGEST_MESSAGE = 4096
"""Maximum characters of a message, and of one line of a traceback."""

MOST_LINES = 500
"""Maximum lines of a traceback."""

_BARE = re.compile(r"[^\s\"=\\]+")


class _Handler(logging.Handler):
    """Handler for standard error that replaces a record it cannot format with an error record."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001 - a record must not end the caller
            text = self.format(
                logging.makeLogRecord(
                    {
                        "name": "registry.logs",
                        "levelno": logging.ERROR,
                        "levelname": "ERROR",
                        "msg": "cannot format a log record of %s: %r: %r",
                        "args": (record.name, record.msg, error),
                        "request_id": "",
                    }
                )
            )
        WRITER.write(text)


def configure(format: str, level: str, access: bool) -> None:  # noqa: A002 - the setting's name
    """Write all log records to standard error in `format`, which is text or json.

    Can be called again to change the format. `level` (debug, info, warning, error) is the minimum
    level. At debug, libraries stay at info, because their debug lines contain headers and SQL
    statements. `access` enables access lines.
    """
    _state.format = format
    handler = _Handler()
    handler.set_name(_HANDLER)
    handler.addFilter(_stamp)
    handler.setFormatter(_Formatter(_json if format == "json" else _text))
    root = logging.getLogger()
    for former in [each for each in root.handlers if each.get_name() == _HANDLER]:
        root.removeHandler(former)
    root.addHandler(handler)
    least = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(least, logging.INFO))
    for name in _OURS:
        logging.getLogger(name).setLevel(least)
    for name in _UVICORN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
    # At info, httpx logs text that comes from other servers.
    for name in ("alembic", "httpx"):
        logging.getLogger(name).setLevel(max(least, logging.WARNING))
    _state.writes_access = access and least <= logging.INFO
    logging.getLogger("moorage.access").disabled = not access


def take_over() -> None:
    """Log warnings and uncaught exceptions, which Python would print otherwise."""
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(
        args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
    )
    sys.unraisablehook = lambda args: _log_uncaught(
        args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
    )
    _state.owns_streams = True


def writes_access() -> bool:
    """Return whether a line is written for each request."""
    return _state.writes_access


def is_json() -> bool:
    """Return whether the format is json."""
    return _state.format == "json"


def is_json_only() -> bool:
    """Return whether every line that this process writes must be JSON."""
    return _state.owns_streams and _state.format == "json"


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    logging.getLogger("moorage").critical("uncaught exception", exc_info=(kind, error, trace))
    WRITER.flush()


def _stamp(record: logging.LogRecord) -> bool:
    if not hasattr(record, "request_id"):
        record.request_id = request_id.get()
    return True


def cut(text: str, longest: int = LONGEST_FIELD) -> str:
    """Truncate `text` to at most `longest` characters, and mark the cut with an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _cut_value(value: Any) -> Any:
    return cut(value) if isinstance(value, str) else value


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    extras = record.__dict__.items()
    return {name: _cut_value(value) for name, value in extras if name not in _STANDARD}


def _message(record: logging.LogRecord) -> str:
    message = str(record.msg)
    if isinstance(record.args, tuple) and record.args:
        message = message % tuple(map(_cut_value, record.args))
    elif record.args:
        message = record.getMessage()
    return cut(message, LONGEST_MESSAGE)


def _lines(text: str) -> list[str]:
    """Split a traceback into lines, truncated because exception messages may hold client input."""
    lines = [cut(line, LONGEST_MESSAGE) for line in text.split("\n")]
    if len(lines) <= MOST_LINES:
        return lines
    half = MOST_LINES // 2
    return [*lines[:half], f"… {len(lines) - 2 * half} lines …", *lines[-half:]]


@lru_cache(maxsize=4)
def _format_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@lru_cache(maxsize=4)  # many access lines have the same time
def _format_millisecond(milliseconds: int) -> str:
    second, rest = divmod(milliseconds, 1000)
    return f"{_format_second(second)}.{rest:03d}Z"


def timestamp(seconds: float) -> str:
    """Format a time since the epoch in UTC, with milliseconds."""
    return _format_millisecond(round(seconds * 1000))


def _escape(text: str) -> str:
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def pair(name: str, value: object) -> str:
    """Format `name=value`, with quotes if the value could be read as more than one."""
    text = "-" if value is None else str(value)
    return f"{_escape(name)}={_escape(text) if _BARE.fullmatch(text) else json.dumps(text)}"


class _Formatter(logging.Formatter):
    """Formatter that calls one function."""

    def __init__(self, render: Callable[[logging.LogRecord], str]) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        return self._render(record)


_TRACEBACKS = logging.Formatter()


def _text(record: logging.LogRecord) -> str:
    """Format a record as text.

    The first line is `2026-11-23T19:12:00.123Z INFO  registry.api request_id=… message name=value`.
    The lines of a traceback follow, each after a bar.
    """
    parts = [timestamp(record.created), f"{record.levelname:<5}", record.name]
    if identity := getattr(record, "request_id", ""):
        parts.append(pair("request_id", identity))
    parts.append(_escape(_message(record)))
    parts.extend(pair(name, value) for name, value in _extras(record).items())
    lines = [" ".join(parts)]
    if record.exc_info:
        lines.extend(_lines(_TRACEBACKS.formatException(record.exc_info)))
    if record.stack_info:
        lines.extend(_lines(record.stack_info))
    return "\n  | ".join([lines[0], *map(_escape, lines[1:])])


def _json(record: logging.LogRecord) -> str:
    """Format a record as one JSON object.

    Its keys are ts, level, logger, message, request_id, exception, stack and the extra fields.
    """
    line: dict[str, Any] = {
        "ts": timestamp(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": _message(record),
    }
    if identity := getattr(record, "request_id", ""):
        line["request_id"] = identity
    if record.exc_info:
        line["exception"] = "\n".join(_lines(_TRACEBACKS.formatException(record.exc_info)))
    if record.stack_info:
        line["stack"] = "\n".join(_lines(record.stack_info))
    return json.dumps(
        line | {name: value for name, value in _extras(record).items() if name not in line},
        default=str,
    )

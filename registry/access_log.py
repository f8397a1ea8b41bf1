"""The access log: one line for each request, in the format of registry.logs.

A line is formatted when it is written, in batches, so that a request costs little.
"""

import json
from functools import lru_cache
from typing import NamedTuple

from registry import logs
from registry.log_writer import WRITER

_CACHED = 1024
"""The number of requests and clients whose part of a line is remembered."""


class LoggedRequest(NamedTuple):
    """The request of a line."""

    method: str
    path: str
    """The path as sent."""


class LoggedCaller(NamedTuple):
    """The caller of a line."""

    client: str
    """The address of the client; `-` if unknown."""
    user_agent: str
    principal: str
    """The name of the signed-in principal; `-` without one."""


class AccessLine(NamedTuple):
    """One answered request."""

    at: float
    """The time of the answer, in seconds since the epoch."""
    request_id: str
    """A valid ID of registry.http.request_log, which needs no escaping."""
    request: LoggedRequest
    caller: LoggedCaller
    status: int
    seconds: float
    """The time from the head of the request to the end of the response, in seconds."""
    bytes_in: int
    bytes_out: int

    def format(self) -> str:
        """Return the line as text or JSON, as configured."""
        return _write_json(self) if logs.is_json() else _write_text(self)


def limit_request(method: str, path: str) -> LoggedRequest:
    """Return the request of a line, with truncated values."""
    return LoggedRequest(logs.cut(method), logs.cut(path))


def limit_caller(client: str, user_agent: str, principal: str) -> LoggedCaller:
    """Return the caller of a line, with truncated values."""
    return LoggedCaller(logs.cut(client), logs.cut(user_agent), logs.cut(principal))


def is_enabled() -> bool:
    """Return whether lines are written."""
    return logs.writes_access()


def write(line: AccessLine) -> None:
    """Write a line within 100 ms. Never waits for the reader of the log."""
    WRITER.write_access(line)


def _write_text(line: AccessLine) -> str:
    at, request_id, request, caller, status, seconds, bytes_in, bytes_out = line
    return (
        f"{logs.timestamp(at)} INFO  moorage.access request_id={request_id} request"
        f" {_pairs(request)} status={status} duration_ms={seconds * 1000:.1f}"
        f" bytes_in={bytes_in} bytes_out={bytes_out} {_pairs(caller)}"
    )


def _write_json(line: AccessLine) -> str:
    at, request_id, request, caller, status, seconds, bytes_in, bytes_out = line
    return (
        f'{{"ts": "{logs.timestamp(at)}", "level": "info", "logger": "moorage.access",'
        f' "message": "request", "request_id": "{request_id}", {_members(request)},'
        f' "status": {status}, "duration_ms": {seconds * 1000:.1f},'
        f' "bytes_in": {bytes_in}, "bytes_out": {bytes_out}, {_members(caller)}}}'
    )


@lru_cache(maxsize=_CACHED)
def _pairs(fields: LoggedRequest | LoggedCaller) -> str:
    return " ".join(logs.pair(name, value) for name, value in fields._asdict().items())


@lru_cache(maxsize=_CACHED)
def _members(fields: LoggedRequest | LoggedCaller) -> str:
    return json.dumps(fields._asdict())[1:-1]
